"""Clean input: small data sets in all layouts, their prepared stores, trained runs and an export."""

import shutil

import numpy as np
from conftest import write_lidc
from fuzz.harness import Template, arrays, run
from raw_trees import ensure_qubiq, write_decathlon, write_kits, write_lits


def write_lidc_raw(box):
    write_lidc(box / "raw", 6, np.random.default_rng(1), size=32, slices=(2,))


def places(box):
    return [f"paths.{name}={box / name}" for name in ("prepared", "results")]


def prepare_words(data):
    more = ["task=kidney-1"] if data == "qubiq" else []
    return lambda box: ["prepare", f"data={data}", f"data.root={box / 'raw'}", "data.size=32", *more, *places(box)]


def study(box):
    """Overrides of trainings of a second."""
    return [
        *("data=lidc", f"data.root={box / 'raw'}", "data.size=32", "model=unet_tiny", "train.epochs=1", "threads=1"),
        *("train.batch_size=4", "folds.count=2", "checkpoint.minutes=null", *places(box)),
    ]  # fmt: skip


def must(box, words):
    ran = run(box, words)
    assert ran.status == 0, ran.err


def write_trained(box):
    write_lidc_raw(box)
    for more in (["fold=0"], ["fold=1"], ["fold=0", "evaluate.empty=one"]):
        must(box, ["train", *study(box), "evaluate.save_predictions=true", *more])


def write_export(box):
    write_lidc_raw(box)
    must(box, ["reproduce", "table=2", *study(box)])
    must(box, ["export-results", "tables=2", f"to={box / 'raw' / 'export'}", *study(box)])
    must(box, ["table", "table=2", f"from={box / 'raw' / 'export'}"])
    shutil.move(box / "raw/export/tables/table2.csv", box / "clean.csv")
    shutil.rmtree(box / "raw/export/tables")
    for name in ("prepared", "results", "raw/LIDC-IDRI-slices"):
        shutil.rmtree(box / name)
    (box / "results").mkdir()


def prepared_only(box):
    write_lidc_raw(box)
    must(box, prepare_words("lidc")(box))


def write_done(box):
    """Data and a finished run: what is tried costs no training unless it is legal and new."""
    write_lidc_raw(box)
    must(box, ["train", *study(box)])


def table(box):
    return (box / "raw/export/tables/table2.csv").read_bytes()


def imported(box):
    files = sorted((box / "results/runs").rglob("*"))
    return [(path.name, path.read_bytes()) for path in files if path.name in ("cases.csv", "config.json")]


def scores(box):
    """Scores of all runs, by run and evaluation."""
    files = sorted((box / "results/runs").rglob("cases.csv"))
    return [(str(path.relative_to(box)), path.read_bytes()) for path in files]


QUBIQ, LITS, KITS, DECATHLON, LIDC = (
    Template(name, write, prepare_words(name), arrays)
    for name, write in (
        ("qubiq", lambda box: ensure_qubiq(box / "raw", size=16)),
        *((name, lambda box, write=write: write(box / "raw")) for name, write in
          (("lits", write_lits), ("kits", write_kits), ("decathlon", write_decathlon))),
        ("lidc", write_lidc_raw),
    )
)  # fmt: skip
NIFTI = (QUBIQ, LITS, KITS, DECATHLON)
PREPARED = Template("prepared", prepared_only, prepare_words("lidc"), arrays)
RUNS = Template("runs", write_trained, lambda box: ["runs", "verify", f"paths.results={box / 'results'}"], scores)
TABLE = Template("table", write_export, lambda box: ["table", "table=2", f"from={box / 'raw/export'}"], table)
IMPORT = Template(
    "import",
    write_export,
    lambda box: ["import-results", f"from={box / 'raw/export'}", f"paths.results={box / 'results'}"],
    imported,
)
TRAIN = Template("train", write_done, lambda box: ["train", *study(box)], scores)
