"""Writes the phantom to disk in QUBIQ's own layout."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg.errors import UserError
from dmseg.phantom.cases import COHORTS, PhantomCase
from dmseg.phantom.folder import check_scale, check_seed, is_made, write_folder, write_nifti

REVISION = 1
"""Raised when a change of the generator gives other files for the same settings."""
SMALLEST_WIDTH = 16
"""No image is made narrower than this, in pixels."""
MISSING = {("prostate", 9): (3,)}
"""Raters whose annotations the real data lacks (all tasks of the case)."""
IMAGE_TYPES: dict[str, Any] = {
    "prostate": np.int16,
    "brain-growth": np.float32,
    "brain-tumor": np.float32,
    "kidney": np.int16,
}
MASK_TYPES: dict[str, Any] = {
    "prostate": np.uint8,
    "brain-growth": np.float32,
    "brain-tumor": np.uint8,
    "kidney": np.int16,
}


def write_qubiq(root: Path, *, seed: int = 0, cases: Mapping[str, int] | None = None, scale: float = 1.0) -> None:
    """Writes a phantom of QUBIQ 2020: seven tasks in four data sets, several raters each.

    Files: ``<root>/<data set>/Training/caseNN/{image,taskTT_segSS,taskTT_probability}.nii.gz``, the last
    being the probability (float32) with which a rater marks each pixel, which real data cannot know; and a
    marker, ``phantom.json``. The probability is over all raters that could have been drawn. The few that were
    drawn keep habits of their own over all cases, so their mean need not approach it, however many the cases.

    Same settings, same files, byte for byte. The folder is written beside `root` and renamed at the end; a
    phantom that is there already is replaced.

    Args:
        root: folder to make; it may not hold anything but an earlier phantom.
        seed: seed of everything, not negative.
        cases: number of cases of each data set; one left out or 0 is not written. Default: the paper's 55
            prostate, 39 brain-growth, 32 brain-tumor and 24 kidney cases (section 3.1).
        scale: factor on the images' native sizes, 640 (or 960) x 640, 256 x 256, 240 x 240 x 4 and 497 x 497.

    Raises:
        UserError: if a setting is out of range, or `root` holds something else than a phantom.
    """
    settings = _settings(seed, cases, scale)

    def fill(folder: Path) -> None:
        for cohort, count in settings["cases"].items():
            for number in range(1, count + 1):
                case_folder = folder / cohort / "Training" / f"case{number:02d}"
                _write_case(case_folder, cohort, number, PhantomCase(seed, cohort, number, scale))

    write_folder(Path(root), settings, fill)


def ensure_qubiq(
    root: Path,
    *,
    seed: int = 0,
    cases: Mapping[str, int] | None = None,
    scale: float = 1.0,
    write: bool = True,
) -> bool:
    """Writes the phantom (`write_qubiq`, same arguments) unless `root` holds it already, with these settings.

    Args:
        root: see `write_qubiq`, also for the settings.
        seed: see there.
        cases: see there.
        scale: see there.
        write: False to check the settings and the folder only.

    Returns:
        Whether anything was written, or would be.

    Raises:
        UserError: as `write_qubiq`.
    """
    if is_made(Path(root), _settings(seed, cases, scale)):
        return False
    if write:
        write_qubiq(root, seed=seed, cases=cases, scale=scale)
    return True


def _settings(seed: int, cases: Mapping[str, int] | None, scale: float) -> dict[str, Any]:
    """The marker's content; refuses settings out of range."""
    check_seed(seed)
    counts = _counts(cases)
    for cohort in counts:
        check_scale(scale, COHORTS[cohort].width, SMALLEST_WIDTH, cohort)
    return {"phantom": "qubiq", "revision": REVISION, "seed": seed, "cases": counts, "scale": float(scale)}


def _counts(cases: Mapping[str, int] | None) -> dict[str, int]:
    """Number of cases of each data set that is to be written, in the order of the tables."""
    if cases is None:
        return {cohort: about.cases for cohort, about in COHORTS.items()}
    if not isinstance(cases, Mapping):
        raise UserError(
            f"data.phantom.cases is {cases!r}; name each data set: data.phantom.cases={{prostate:10,kidney:5}}"
        )
    for cohort, count in cases.items():
        if cohort not in COHORTS:
            raise UserError(f"the phantom has no data set '{cohort}'; it has {', '.join(COHORTS)}")
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise UserError(f"the phantom's number of {cohort} cases is {count!r}; set a whole number, 0 or more")
    counts = {cohort: cases[cohort] for cohort in COHORTS if cases.get(cohort)}
    if not counts:
        raise UserError("the phantom would have no case at all; set the number of cases of at least one data set")
    return counts


def _write_case(folder: Path, cohort: str, number: int, case: PhantomCase) -> None:
    """Writes the image, all annotations and the probabilities of one case."""
    affine = _affine(case)
    write_nifti(folder / "image.nii.gz", _as_filed(case.image().astype(IMAGE_TYPES[cohort]), cohort), affine)
    for task in range(1, len(case.cohort.models) + 1):
        chance = _as_filed(case.probability(task)[None], cohort)
        write_nifti(folder / f"task{task:02d}_probability.nii.gz", chance, affine)
        for rater, mask in enumerate(case.annotations(task), start=1):
            if rater not in MISSING.get((cohort, number), ()):
                filed = _as_filed(mask.astype(MASK_TYPES[cohort])[None], cohort)
                write_nifti(folder / f"task{task:02d}_seg{rater:02d}.nii.gz", filed, affine)


def _as_filed(values: npt.NDArray[Any], cohort: str) -> npt.NDArray[Any]:
    """(C, H, W) as the data set files it: (H, W), (H, W, 4), or (H, W, 1) for prostate."""
    filed = np.moveaxis(values, 0, -1)
    return filed if cohort == "prostate" or filed.shape[-1] > 1 else filed[..., 0]


def _affine(case: PhantomCase) -> npt.NDArray[np.float64]:
    """Rows run to the back, columns to the patient's left, the origin is in the middle; slices of 3 mm."""
    height, width = case.shape
    edge = case.cohort.spacing * case.cohort.width / width
    affine = np.zeros((4, 4))
    affine[1, 0] = affine[0, 1] = -edge
    affine[:2, 3] = edge * (width - 1) / 2, edge * (height - 1) / 2
    affine[2, 2], affine[3, 3] = 3.0, 1.0
    return affine
