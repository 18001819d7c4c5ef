"""Time and memory of reading and preparing a CT volume, as ratios to ``nibabel``'s ``get_fdata`` of the same file.

Run ``python bench/volumes.py [slices]``. A 512 x 512 x 200 int16 volume and its label are generated as ``.nii.gz``, in
LiTS's order of axes and in KiTS's. Each row is measured in a process of its own, in rounds, so that other load on the
machine affects all rows; the minimum counts. Reading gives all slices as float32, and may take at most 0.15 of the time
of `get_fdata`, which gives float64.
"""

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from isal import igzip
from rows import Row, report

from dmseg.data.adapters.kits import KitsAdapter
from dmseg.data.adapters.lits import LitsAdapter
from dmseg.data.adapters.volume import VolumeAdapter
from dmseg.data.prepared import prepare
from dmseg.data.volumes import open_volume
from dmseg.phantom.folder import write_nifti

SIZE = 512
SLICES = 200
ROUNDS = 3
GOAL = 0.15
WINDOW = (-200.0, 300.0)


def generate(folder: Path, n_slices: int, axis: int) -> tuple[Path, Path]:
    """Writes a volume with noise everywhere, as in CT, and a label with tumour in a tenth of the slices."""
    rng = np.random.default_rng(0)
    row = np.arange(SIZE)
    body = (row[:, None] - 256) ** 2 / 230**2 + (row[None, :] - 256) ** 2 / 180**2 < 1
    image = np.empty((SIZE, SIZE, n_slices), np.int16)
    for index in range(n_slices):
        noise = rng.normal(0, 12, (SIZE, SIZE))
        image[:, :, index] = np.where(body, 50 + 40 * np.sin(row / 37 + index / 50), -1000) + noise
    label = np.zeros((SIZE, SIZE, n_slices), np.uint8)
    label[150:300, 150:300, n_slices // 4 : -n_slices // 4] = 1
    label[200:240, 200:240, n_slices // 2 : n_slices // 2 + n_slices // 10] = 2
    paths = folder / "image.nii.gz", folder / "label.nii.gz"
    arrays: tuple[npt.NDArray[np.integer], ...] = image, label
    for path, array in zip(paths, arrays, strict=True):
        write_nifti(path, array if axis == 2 else np.moveaxis(array, 2, 0), np.eye(4))
    return paths


def get_fdata(path: Path) -> None:
    """Reads with nibabel, as a float64 array."""
    nibabel.load(path).get_fdata()


def read(path: Path, axis: int) -> None:
    """All slices, one after another, as floating-point numbers."""
    volume = open_volume(path)
    for values in volume.slices(axis, range(volume.shape[axis])):
        values.astype(np.float32)  # get_fdata converts, too


def decompress(path: Path) -> None:
    """Only what no reader can do without."""
    with igzip.open(path) as file:
        while file.read(2**20):
            pass


def prepare_cases(paths: tuple[Path, Path], axis: int, slices: str) -> None:
    """Image and label to a prepared store."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "raw"
        names = ("volume-0.nii.gz", "segmentation-0.nii.gz")
        if axis == 0:
            names = ("case_00000/imaging.nii.gz", "case_00000/segmentation.nii.gz")
        for path, name in zip(paths, names, strict=True):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to(path)
        kind: type[VolumeAdapter] = LitsAdapter if axis == 2 else KitsAdapter
        adapter = kind(root, slices=slices, window=WINDOW)
        prepare(adapter, adapter.tasks["tumour"], Path(scratch) / "store", SIZE, {}, workers=1)


def measured(work: Callable[..., None], *arguments: object) -> tuple[float, float]:
    """Seconds and peak memory in MiB of some work in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (work, *arguments))


def _measured(work: Callable[..., None], *arguments: object) -> tuple[float, float]:
    """The peak is the kernel's for this process (what getrusage says includes the parent's, until it was replaced)."""
    start = time.perf_counter()
    work(*arguments)
    seconds = time.perf_counter() - start
    lines = Path("/proc/self/status").read_text().splitlines()
    return seconds, next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def measure(folder: Path, n_slices: int, axis: int) -> None:
    """Prints the rows of a volume whose slices lie along an axis."""
    paths = generate(folder, n_slices, axis)
    shape = f"512 x 512 x {n_slices}" if axis == 2 else f"{n_slices} x 512 x 512"
    work: dict[str, tuple[Any, ...]] = {
        "plain": (get_fdata, paths[0]),
        "decompress only": (decompress, paths[0]),
        "read every slice": (read, paths[0], axis),
        "prepare, slices with tumour": (prepare_cases, paths, axis, "target"),
        "prepare, all slices": (prepare_cases, paths, axis, "all"),
    }
    rounds = [{what: measured(*call) for what, call in work.items()} for _ in range(ROUNDS)]
    seconds = {what: min(one[what][0] for one in rounds) for what in work}
    peaks = {what: max(one[what][1] for one in rounds) for what in work}
    for what in list(work)[1:]:
        goal = GOAL if what.startswith("read") else None
        report(Row(f"volumes: {shape}, {what}", seconds[what] / seconds["plain"], goal, "`get_fdata`"))
    share = peaks["read every slice"] / peaks["plain"]
    report(Row(f"volumes: {shape}, peak memory of reading", share, None, "`get_fdata`"))


def main() -> None:
    n_slices = int(sys.argv[1]) if len(sys.argv) > 1 else SLICES
    for axis in (2, 0):
        with tempfile.TemporaryDirectory() as scratch:
            measure(Path(scratch), n_slices, axis)


if __name__ == "__main__":
    main()
