"""Phantoms of LiTS, KiTS and a Decathlon task in the original layouts, including quirks of the real files."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg.activity import track
from dmseg.phantom.cases import stream
from dmseg.phantom.folder import check_scale, check_whole, is_made, write_folder, write_nifti
from dmseg.phantom.solids import Scan, hippocampus_scan, kidney_scan, liver_scan

REVISION = 1
"""Incremented when a change of the generator produces different files for the same settings."""
WIDTH = 256
DEPTH = 48
SMALLEST_WIDTH, SMALLEST_DEPTH = 32, 16
LARGEST_WIDTH = 1024
BATCH_1 = 28 / 131
"""Fraction of LiTS's cases in the first batch."""
HIPPOCAMPUS = (34, 50, 36)
"""Typical extents (z, y, x) of the Decathlon's hippocampus volumes."""


def ensure_lits(root: Path, *, seed: int = 0, scale: float = 1.0, cases: int = 25, write: bool = True) -> bool:
    """Writes a phantom of LiTS unless `root` already contains it with these settings.

    Files: ``Training Batch 1/{volume,segmentation}-N.nii`` and ``Training Batch 2/...-N.nii.gz``, arrays (x, y, z) of
    int16 and uint8, with in-plane directions that differ between cases. Every tenth case has no tumour.

    Args:
        root: folder to create; it must not contain anything but an earlier phantom.
        seed: seed of all random numbers, not negative.
        scale: factor on the native size, `WIDTH` pixels and `DEPTH` slices.
        cases: number of cases.
        write: False to only check the settings and the folder.

    Returns:
        Whether anything was written, or would be.

    Raises:
        UserError: if a setting is out of range, or `root` contains something other than a phantom.
    """
    return _ensure(root, "lits", partial(_write_lits, seed, cases), seed, cases, scale, write)


def ensure_kits(root: Path, *, seed: int = 0, scale: float = 1.0, cases: int = 25, write: bool = True) -> bool:
    """Writes a phantom of KiTS19; see `ensure_lits`.

    Files: ``case_NNNNN/{imaging,segmentation}.nii.gz``, arrays (z, y, x) of float64, and of uint8 or uint16. One case
    is wider than the others, like case 160 of the real data.
    """
    return _ensure(root, "kits", partial(_write_kits, seed), seed, cases, scale, write)


def ensure_decathlon(root: Path, *, seed: int = 0, cases: int = 25, write: bool = True) -> bool:
    """Writes a phantom of the Decathlon's hippocampus task in its native size; see `ensure_lits`.

    Files: ``dataset.json``, ``imagesTr`` and ``labelsTr``, float32 or uint8, with widely differing intensities.
    """
    return _ensure(root, "decathlon", partial(_write_hippocampus, seed), seed, cases, None, write)


def _ensure(
    root: Path,
    name: str,
    write_case: Callable[[Path, int, tuple[int, int]], None],
    seed: int,
    cases: int,
    scale: float | None,
    write: bool,
) -> bool:
    check_whole("seed", seed, 0)
    check_whole("number of cases (data.phantom.cases)", cases, 1)
    if scale is not None:
        check_scale(scale, WIDTH, SMALLEST_WIDTH, LARGEST_WIDTH, name)
    settings = {"phantom": name, "revision": REVISION, "seed": seed, "cases": cases, "scale": scale}
    if is_made(Path(root), settings):
        return False
    if not write:
        return True
    size = round(WIDTH * (scale or 1)), max(SMALLEST_DEPTH, round(DEPTH * (scale or 1)))

    def fill(folder: Path) -> None:
        for number in track(range(cases), "generating scans", cases, "cases"):
            write_case(folder, number, size)
        if name == "decathlon":
            names = [_hippocampus(number) for number in range(cases)]
            dataset = {
                "name": "Hippocampus",
                "description": "a phantom: generated volumes, not a measurement of anything real",
                "tensorImageSize": "3D",
                "modality": {"0": "MRI"},
                "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
                "numTraining": cases,
                "numTest": 0,
                "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
                "test": [],
            }
            (folder / "dataset.json").write_text(json.dumps(dataset, indent=1) + "\n", encoding="utf-8")

    write_folder(Path(root), settings, fill)
    return True


def _write_lits(seed: int, cases: int, folder: Path, number: int, size: tuple[int, int]) -> None:
    scan = liver_scan(stream(seed, "lits", number), (size[1], size[0], size[0]), tumours=number % 10 != 4)
    first = number < round(cases * BATCH_1)
    place, suffix = (folder / "Training Batch 1", ".nii") if first else (folder / "Training Batch 2", ".nii.gz")
    signs = (-1 if number % 2 else 1, -1 if number % 3 else 1)
    affine = np.diag([signs[0] * 180 / size[0], signs[1] * 180 / size[0], 2.5, 1.0])
    turned = scan.image[:, :: signs[1], :: signs[0]].T, scan.label[:, :: signs[1], :: signs[0]].T
    write_nifti(place / f"volume-{number}{suffix}", np.rint(turned[0]).astype(np.int16), affine)
    write_nifti(place / f"segmentation-{number}{suffix}", turned[1], affine)


def _write_kits(seed: int, folder: Path, number: int, size: tuple[int, int]) -> None:
    width = round(size[0] * 796 / 512) if number == 6 else size[0]
    scan = kidney_scan(stream(seed, "kits", number), (size[1], size[0], width))
    place = folder / f"case_{number:05d}"
    affine = np.zeros((4, 4))
    affine[0, 2], affine[1, 1], affine[2, 0], affine[3, 3] = -180 / size[0], -180 / size[0], -3.0, 1.0
    write_nifti(place / "imaging.nii.gz", np.rint(scan.image), affine)
    write_nifti(place / "segmentation.nii.gz", scan.label.astype(np.uint16 if number % 4 == 0 else np.uint8), affine)


def _write_hippocampus(seed: int, folder: Path, number: int, size: tuple[int, int]) -> None:
    rng = stream(seed, "decathlon", number)
    depth, height, width = (extent + int(rng.integers(-3, 4)) for extent in HIPPOCAMPUS)
    scan: Scan = hippocampus_scan(rng, (depth, height, width))
    image: npt.NDArray[Any] = np.clip(np.rint(scan.image), 0, 255).astype(np.uint8).T
    if number % 3:
        image = (scan.image.T * 10 ** rng.uniform(0, 4)).astype(np.float32)
    write_nifti(folder / "imagesTr" / _hippocampus(number), image, np.eye(4))
    write_nifti(folder / "labelsTr" / _hippocampus(number), scan.label.T, np.eye(4))


def _hippocampus(number: int) -> str:
    return f"hippocampus_{number + 1:03d}.nii.gz"
