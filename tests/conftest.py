"""Small trees in the data sets' own layouts, and the place of the real data."""

import dataclasses
import json
import logging
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
from fuzz.report import pytest_terminal_summary  # noqa: F401
from PIL import Image

from dmseg.cli import output

REPO = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def quiet_ends_with_its_test():
    """A command run within a test sets the log's level and `quiet` for the process; both are undone after the test."""
    root, quiet = logging.getLogger(), output.is_quiet()
    level = root.level
    yield
    root.setLevel(level)
    output.set_quiet(quiet)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with the real data for tests; skips where it is absent."""
    named = os.environ.get("DMSEG_TEST_DATA")
    folder = Path(named) if named else REPO.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real test data are absent ({folder}); set DMSEG_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def golden(real_data):
    """Cases and arrays of the reference implementation's inputs and outputs; skips where they are absent."""
    folder = real_data.parent / "golden"
    if not folder.is_dir():
        pytest.skip("the reference values are absent (folder golden beside the test data)")
    cases = json.loads((folder / "reference_values.json").read_text())
    return cases, np.load(folder / "reference_values.npz")


def disc(size, centre, radius):
    rows, columns = np.mgrid[:size, :size]
    return ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2).astype(np.uint8)


def save_nifti(path, array, dtype=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(array, dtype=dtype) if dtype else np.asarray(array)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4), dtype=array.dtype), path)


def save_png(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, dtype=np.uint8)).save(path)


ODDITIES = ("pipe", "link", "zero", "nowhere", "folder", "deep", "sparse", "empty")


def put_oddity(path, kind, content):
    """Puts something in place of a file that must not be read, or not for long."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "deep":
        path.write_bytes(b"[" * 200_000)
    elif kind == "sparse":
        path.touch()
        os.truncate(path, 1 << 40)
    elif kind == "empty":
        path.touch()
    else:
        copy = path.parent.parent / f"{path.name}.copy"
        copy.write_bytes(content)
        path.symlink_to({"link": copy, "zero": Path("/dev/zero"), "nowhere": copy.with_name("nowhere")}[kind])


def flips(content, seed, count=64):
    """Copies of some bytes, each with one bit changed: in the first 16 bytes, and anywhere."""
    rng = np.random.default_rng(seed)
    for position in {*range(min(16, len(content))), *rng.integers(0, len(content), count).tolist()}:
        changed = bytearray(content)
        changed[position] ^= 1 << int(rng.integers(8))
        yield bytes(changed)


def ensure_qubiq_case(folder, cohort, raters, tasks, rng, size=40, trailing=False):
    """One case as distributed: image.nii.gz and taskTT_segSS.nii.gz."""
    channels = 4 if cohort == "brain-tumor" else 1
    centre = rng.integers(size // 3, 2 * size // 3, 2)
    base = disc(size, centre, size // 5)
    image = rng.normal(0, 10, (size, size, channels)) + 100 * base[..., None]
    if cohort == "kidney":
        image = image - 1000
    image = image if channels > 1 else image[..., 0]
    save_nifti(folder / "image.nii.gz", image[..., None] if trailing else image, np.float32)
    for task in range(1, tasks + 1):
        for rater in range(1, raters + 1):
            mask = disc(size, centre + rng.integers(-2, 3, 2), size // 5 + rng.integers(-2, 3))
            path = folder / f"task{task:02d}_seg{rater:02d}.nii.gz"
            save_nifti(path, mask[..., None] if trailing else mask, np.uint8)


def ensure_qubiq_tree(root):
    """Writes a small QUBIQ: 12 cases each, Training and Validation, all four data sets."""
    rng = np.random.default_rng(0)
    for cohort, raters, tasks in (("prostate", 6, 2), ("brain-growth", 7, 1), ("brain-tumor", 3, 3), ("kidney", 3, 1)):
        for number in range(1, 13):
            part = "Training" if number <= 9 else "Validation"
            folder = root / cohort / part / f"case{number:02d}"
            ensure_qubiq_case(folder, cohort, raters, tasks, rng, trailing=cohort == "prostate")
    for task in (1, 2):
        (root / "prostate" / "Training" / "case09" / f"task{task:02d}_seg03.nii.gz").unlink()
    return root


@pytest.fixture
def qubiq_tree(tmp_path):
    """A small QUBIQ (`ensure_qubiq_tree`) that the test may change."""
    return ensure_qubiq_tree(tmp_path / "qubiq")


@pytest.fixture(scope="session")
def shared_qubiq(tmp_path_factory):
    """Overrides that read a small QUBIQ that no test changes, and prepare it once."""
    place = tmp_path_factory.mktemp("shared")
    root = ensure_qubiq_tree(place / "qubiq")
    return [f"data.root='{root}'", "data.size=32", f"paths.prepared='{place / 'prepared'}'"]


def write_lidc(root, patients, rng, size=32, slices=(1,)):
    """Patients in the per-nodule PNG layout; `slices` gives the number of slices of each nodule."""
    for number in range(1, patients + 1):
        for nodule, count in enumerate(slices):
            folder = root / "LIDC-IDRI-slices" / f"LIDC-IDRI-{number:04d}" / f"nodule-{nodule}"
            for index in range(count):
                centre = rng.integers(size // 3, 2 * size // 3, 2)
                radius = size // 5
                image = 60 + rng.normal(0, 8, (size, size)) + 120 * disc(size, centre, radius)
                save_png(folder / "images" / f"slice-{index}.png", np.clip(image, 0, 255))
                for rater in range(4):
                    mask = disc(size, centre + rng.integers(-1, 2, 2), radius + rng.integers(-1, 2))
                    save_png(folder / f"mask-{rater}" / f"slice-{index}.png", 255 * mask)
    return root


def store_run(run, rows, seconds=1.0, counts=None):
    """Stores made-up scores, and counts by case if given, as if a planned run had been trained."""
    import dataclasses

    import pandas as pd

    from dmseg.runs.seal import write_json
    from dmseg.runs.store import RunStore
    from dmseg.runs.written import write_scores

    def fill(folder):
        write_scores(folder, pd.DataFrame(rows), run.evaluation_id, run.evaluation, counts)
        write_json(folder / "config.json", {"identity": run.identity, "settings": dataclasses.asdict(run.settings)})
        split = {"train": list(run.split.train), "validation": list(run.split.validation)}
        ids = {"run_id": run.run_id, "experiment_id": run.experiment_id}
        write_json(
            folder / "manifest.json",
            {**ids, "title": run.title, "phantom": False, "split": split, "seconds": seconds},
        )

    RunStore(run.results).write(run.run_id, fill)


@pytest.fixture
def lidc_tree(tmp_path):
    """Twelve patients with one slice each."""
    return write_lidc(tmp_path / "lidc", 12, np.random.default_rng(1))


@pytest.fixture
def small_run(tmp_path, lidc_tree):
    """Overrides of a run that takes a second: the LIDC tree, a tiny network, two epochs."""
    return [
        "data=lidc",
        f"data.root='{lidc_tree}'",
        "data.size=32",
        "model=unet_tiny",
        "train.epochs=2",
        "train.batch_size=4",
        "threads=1",
        f"paths.prepared='{tmp_path / 'prepared'}'",
        f"paths.results='{tmp_path / 'results'}'",
    ]


@pytest.fixture
def plan(tmp_path, shared_qubiq):
    """Table 2 of two tasks that share twelve patients, and one of twelve others."""
    from dmseg.tables.planning import TablePlanner
    from dmseg.tables.spec import read_spec

    overrides = [*shared_qubiq, "model=unet_tiny", f"paths.results='{tmp_path / 'results'}'"]
    full = TablePlanner(["data=qubiq", *overrides], [read_spec("2")]).plan()[0]
    kept = ("prostate-1", "prostate-2", "kidney-1")
    return dataclasses.replace(full, rows=tuple(row for row in full.rows if row.task.name in kept))
