"""Time and memory of reading and preparing a CT volume, as ratios to ``nibabel``'s ``get_fdata``.

Run ``python bench/volumes.py [slices]``. A 512 x 512 x 600 int16 volume and its label are generated as ``.nii.gz``, in
LiTS's order of axes and in KiTS's. Each row is measured in a process of its own, one after another, in rounds, so that
a busy spell of the machine meets all rows; the least counts. Reading (all slices as float32) may take at most 0.3 of
the time of `get_fdata` on the same file.
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

from dmseg.data.adapters.kits import KitsAdapter
from dmseg.data.adapters.lits import LitsAdapter
from dmseg.data.adapters.volume import VolumeAdapter
from dmseg.data.prepared import prepare
from dmseg.data.volumes import open_volume
from dmseg.phantom.folder import write_nifti

SIZE = 512
ROUNDS = 5
WINDOW = (-200.0, 300.0)


def generate(folder: Path, n_slices: int, axis: int) -> tuple[Path, Path]:
    """Writes a volume with noise everywhere, as CT has it, and a label with tumour in a tenth of the slices."""
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
    for path, array in zip(paths, (image, label), strict=True):
        write_nifti(path, array if axis == 2 else np.moveaxis(array, 2, 0), np.eye(4))
    return paths


def get_fdata(path: Path) -> None:
    """The plain way."""
    nibabel.load(path).get_fdata()


def read(path: Path, axis: int) -> None:
    """All slices, one after another, as floating-point numbers."""
    volume = open_volume(path)
    for values in volume.slices(axis, range(volume.shape[axis])):
        values.astype(np.float32)  # get_fdata converts, too


def prepare_cases(paths: tuple[Path, Path], axis: int, slices: str, cases: int = 1) -> None:
    """Image and label to a prepared store, two cases at a time."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "raw"
        for number in range(cases):
            names = (f"volume-{number}.nii.gz", f"segmentation-{number}.nii.gz")
            if axis == 0:
                names = (f"case_{number:05d}/imaging.nii.gz", f"case_{number:05d}/segmentation.nii.gz")
            for path, name in zip(paths, names, strict=True):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).symlink_to(path)
        kind: type[VolumeAdapter] = LitsAdapter if axis == 2 else KitsAdapter
        adapter = kind(root, slices=slices, window=WINDOW)
        prepare(adapter, adapter.tasks["tumour"], Path(scratch) / "store", SIZE, {}, workers=2)


def measure(work: Callable[..., None], *arguments: object) -> tuple[float, float]:
    """Seconds and peak memory in MiB of some work in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_timed, (work, *arguments))


def _timed(work: Callable[..., None], *arguments: object) -> tuple[float, float]:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start, _peak()


def _peak() -> float:
    """Peak memory of this process in MiB (what getrusage says includes the parent's, until it was replaced)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main() -> None:
    n_slices = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    print(f"512 x 512 x {n_slices} int16, .nii.gz; ratio to get_fdata of the same file; peak memory of the process")
    for axis, name in ((2, "LiTS, slices along the last axis"), (0, "KiTS, slices along the first axis")):
        with tempfile.TemporaryDirectory() as scratch:
            paths = generate(Path(scratch), n_slices, axis)
            work: dict[str, tuple[Any, ...]] = {
                "get_fdata": (get_fdata, paths[0]),
                "read every slice": (read, paths[0], axis),
                "prepare, slices with tumour": (prepare_cases, paths, axis, "target"),
                "prepare, all slices": (prepare_cases, paths, axis, "all"),
                "prepare two cases at once, all slices": (prepare_cases, paths, axis, "all", 2),
            }
            rounds = [{what: measure(*row) for what, row in work.items()} for _ in range(ROUNDS)]
        plain = min(one["get_fdata"][0] for one in rounds)
        print(f"\n{name}")
        for what in work:
            seconds, peak = min(one[what][0] for one in rounds), max(one[what][1] for one in rounds)
            print(f"  {what:40} {seconds:7.2f} s  x{seconds / plain:5.2f}  {peak:6.0f} MiB")


if __name__ == "__main__":
    main()
