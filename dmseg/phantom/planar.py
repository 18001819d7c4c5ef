"""Writes the phantom to disk in QUBIQ's own layout."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg.activity import track
from dmseg.errors import UserError, shown
from dmseg.phantom.cases import COHORTS, PhantomCase
from dmseg.phantom.folder import (
    check_scale,
    check_spread,
    check_view,
    check_whole,
    is_made,
    write_folder,
    write_nifti,
)

REVISION = 1
"""Incremented when a change of the generator produces different files for the same settings."""
SMALLEST_WIDTH = 16
"""Minimum width of an image, in pixels."""
LARGEST_WIDTH = 2048
"""Maximum width of an image, in pixels."""
MISSING = {("prostate", 9): (3,)}
"""Raters without annotations in the real data (for all tasks of the case)."""
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


def ensure_qubiq(
    root: Path,
    *,
    seed: int = 0,
    cases: Mapping[str, int] | None = None,
    scale: float = 1.0,
    view: float | None = None,
    spread: float = 1.0,
    raters: int | None = None,
    write: bool = True,
) -> bool:
    """Writes a phantom of QUBIQ 2020, seven tasks in four data sets, unless `root` already contains it.

    Writes ``<root>/<data set>/Training/caseNN/{image,taskTT_segSS,taskTT_probability}.nii.gz`` and a marker,
    ``phantom.json``. The probability (float32) that a rater marks each pixel is unknown for real data. It is over all
    raters that could have been drawn: the few raters that were drawn keep their habits over all cases, so the mean of
    their annotations need not approach it, even with many cases.

    The same settings give the same files, byte for byte. The folder is written beside `root` and renamed at the end; an
    existing phantom with other settings is replaced.

    Args:
        root: folder to create; it must not contain anything but an earlier phantom.
        seed: seed of all random numbers, not negative.
        cases: number of cases of each data set; a data set that is omitted or 0 is not written. Default: the paper's 55
            prostate, 39 brain-growth, 32 brain-tumor and 24 kidney cases (section 3.1).
        scale: factor on the images' native sizes, 640 (or 960) x 640, 256 x 256, 240 x 240 x 4 and 497 x 497.
        view: width of an image in diameters of the structure of task T1, which it is centred on; None for the whole
            image. The number of pixels does not change, and neither does the agreement of raters, which is relative to
            the structure's size; what they disagree on covers more pixels.
        spread: factor on the spread of the raters' outlines, above 0; with 1 they agree as in the paper's Table 1.
        raters: write the first raters of each task only, at most this many; None for all, which are 3 to 7.
        write: False to only check the settings and the folder.

    Returns:
        Whether anything was written, or would be.

    Raises:
        UserError: if a setting is out of range, or `root` contains something other than a phantom.
        UnwritableError: if the disk is full or cannot be written to.
    """
    check_whole("seed", seed, 0)
    if cases is None:
        cases = {cohort: about.cases for cohort, about in COHORTS.items()}
    if not isinstance(cases, Mapping):
        raise UserError(
            f"data.phantom.cases is {shown(cases)}; name each data set: data.phantom.cases={{prostate:10,kidney:5}}"
        )
    for cohort, count in cases.items():
        if cohort not in COHORTS:
            raise UserError(f"the phantom has no data set {shown(cohort)}; it has {', '.join(COHORTS)}")
        check_whole(f"number of {cohort} cases", count, 0)
    counts = {cohort: cases[cohort] for cohort in COHORTS if cases.get(cohort)}  # in the order of tables
    if not counts:
        raise UserError("the phantom would have no cases; set the number of cases of at least one data set")
    for cohort in counts:
        check_scale(scale, COHORTS[cohort].width, SMALLEST_WIDTH, LARGEST_WIDTH, cohort)
    settings: dict[str, Any] = {"phantom": "qubiq", "revision": REVISION, "seed": seed, "cases": counts}
    settings["scale"] = float(scale)
    if view is not None:
        settings["view"] = check_view(view)
    if check_spread(spread) != 1:
        settings["spread"] = float(spread)
    if raters is not None:
        settings["raters"] = check_whole("number of raters", raters, 1, ", or null for all raters")
    if is_made(Path(root), settings):
        return False

    def fill(folder: Path) -> None:
        for cohort, count in counts.items():
            for number in track(range(1, count + 1), f"generating {cohort}", count, "cases"):
                case_folder = folder / cohort / "Training" / f"case{number:02d}"
                _write_case(case_folder, cohort, number, PhantomCase(seed, cohort, number, scale, view, spread), raters)

    if write:
        write_folder(Path(root), settings, fill)
    return True


def _write_case(folder: Path, cohort: str, number: int, case: PhantomCase, raters: int | None) -> None:
    """Writes the image, the annotations of the first raters, or of all, and the probabilities of one case."""
    # rows run posterior, columns to the patient's left, slices are 3 mm thick; the origin is at the centre of the whole
    # image, so that a view lies where its part of the whole image does
    (height, width), (down, across), edge = case.shape, case.centre, case.spacing
    affine = np.zeros((4, 4))
    affine[1, 0] = affine[0, 1] = -edge
    affine[:2, 3] = edge * (width - 1) / 2 - across, edge * (height - 1) / 2 - down
    affine[2, 2], affine[3, 3] = 3.0, 1.0
    write_nifti(folder / "image.nii.gz", _as_filed(case.image().astype(IMAGE_TYPES[cohort]), cohort), affine)
    for task in range(1, len(case.cohort.models) + 1):
        chance = _as_filed(case.probability(task)[None], cohort)
        write_nifti(folder / f"task{task:02d}_probability.nii.gz", chance, affine)
        for rater, mask in enumerate(islice(case.annotations(task), raters), start=1):
            if rater not in MISSING.get((cohort, number), ()):
                filed = _as_filed(mask.astype(MASK_TYPES[cohort])[None], cohort)
                write_nifti(folder / f"task{task:02d}_seg{rater:02d}.nii.gz", filed, affine)


def _as_filed(values: npt.NDArray[Any], cohort: str) -> npt.NDArray[Any]:
    """Converts (C, H, W) to the layout of the data set: (H, W), (H, W, 4), or (H, W, 1) for prostate."""
    filed = np.moveaxis(values, 0, -1)
    return filed if cohort == "prostate" or filed.shape[-1] > 1 else filed[..., 0]
