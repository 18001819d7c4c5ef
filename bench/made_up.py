"""Stores of made-up runs: everything that a real run stores, in the same form, but without training."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import numpy as np

from dmseg.files.regular import checksum
from dmseg.metrics.counting import count_stored
from dmseg.metrics.stored_counts import StoredCounts
from dmseg.runs.counts_file import write_counts
from dmseg.runs.pack_file import write_pack
from dmseg.runs.plan import PlannedRun
from dmseg.runs.seal import DONE, write_json
from dmseg.training.pictures import ROLES, Picture

EDGE, RATERS = 32, 3


def store_made_up(runs: Iterable[PlannedRun]) -> None:
    """Stores runs with made-up scores; counts and pictures are the same for all runs of the same cases.

    Args:
        runs: each once; none of them is stored yet.
    """
    shared: dict[tuple[str, ...], dict[str, bytes]] = {}
    for number, run in enumerate(runs):
        cases = run.split.validation
        if cases not in shared:
            shared[cases] = _shared_files(run.results, cases)
        folder = run.results / "runs" / run.run_id
        folder.mkdir(parents=True)
        _write_own_files(folder, run, np.random.default_rng(number))
        known = {path.name: checksum(path) for path in folder.iterdir()}
        for name, content in shared[cases].items():
            (folder / name).write_bytes(content)
            known[name] = _sha256(content)
        write_json(folder / DONE, known)


@cache
def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_own_files(folder: Path, run: PlannedRun, rng: np.random.Generator) -> None:
    """Configuration, manifest, scores and history."""
    write_json(folder / "config.json", {"identity": run.identity, "settings": dataclasses.asdict(run.settings)})
    evaluation = {"id": run.evaluation_id, "settings": run.evaluation}
    write_json(folder / "evaluation.json", evaluation)
    manifest = {
        "run_id": run.run_id, "experiment_id": run.experiment_id, "title": run.title, "phantom": True,
        "split": dataclasses.asdict(run.split), "seconds": 60.0, "machine": {}, "sessions": [],
    }  # fmt: skip
    write_json(folder / "manifest.json", json.loads(json.dumps(manifest)))
    scores = ("dice", "bdice", "ece", "ged", "precision", "recall")
    lines = [",".join(("case", *scores, "n_slices", "n_raters"))]
    for case in run.split.validation:
        lines.append(",".join((case, *map(repr, rng.random(len(scores)).tolist()), "1", str(RATERS))))
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")
    epochs = ("epoch,step,lr,loss", *(f"{epoch},{10 * epoch},0.01,{1 / epoch}" for epoch in range(1, 151)))
    (folder / "history.csv").write_text("\n".join(epochs) + "\n")


def _shared_files(scratch: Path, cases: tuple[str, ...]) -> dict[str, bytes]:
    """Counts, pictures and a stand-in for the weights."""
    scratch.mkdir(parents=True, exist_ok=True)
    counts: Mapping[str, StoredCounts] = {case: _counts(number % 10) for number, case in enumerate(cases)}
    rng, path = np.random.default_rng(0), scratch / "made-up"
    layer = rng.integers(0, 256, (EDGE, EDGE), np.uint8)
    masks = rng.integers(0, 2, (RATERS, EDGE, EDGE), np.uint8)
    pictures = [Picture(case, (ROLES[0],), 0.5, 0, 1, layer, masks, layer, layer) for case in cases[:4]]
    found = {"weights.safetensors": rng.bytes(1000)}
    write_counts(path, counts)
    found["counts.npz"] = path.read_bytes()
    write_pack(path, pictures)
    found["pack.npz"] = path.read_bytes()
    path.unlink()
    return found


@cache
def _counts(seed: int) -> StoredCounts:
    rng = np.random.default_rng(seed)
    raters = rng.random((RATERS, 1, EDGE, EDGE)) < 0.4
    p = rng.random((1, EDGE, EDGE), dtype=np.float32)
    return count_stored(p, raters, raters.mean(axis=0).astype(np.float32))
