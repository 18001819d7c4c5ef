"""Distances between the contours of two masks, in mm: NSD and the 95th percentile of the Hausdorff distance (HD95).

Both are computed by MONAI, an optional dependency (``pip install 'dmseg[surface]'``).
`docs/explanation/surface-metrics.md` explains the choice, the definitions and how other libraries differ.

A case is an array of slices (S, H, W). With a spacing of two numbers, each slice is scored on its own, and the score of
the case is the mean over its slices; with three numbers, the slices are one volume.
"""

import importlib.util
import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dmseg.errors import UserError, check_choice

if TYPE_CHECKING:
    import torch

EMPTY_RULES = ("skip", "one", "zero")
"""Score of two empty masks: NaN (left out of means), the best value, or the worst value."""

Mask = npt.NDArray[np.bool_]


def nsd(predicted: Mask, reference: Mask, spacing: Sequence[float], tolerance: float, empty: str = "skip") -> float:
    """Normalised surface distance (surface Dice): share of both surfaces that is near the other surface.

    A surface consists of the elements between pixels of the mask and its complement (beyond the image, too), weighted
    by their length or area (Nikolov et al., 2021, doi:10.2196/26151).

    Args:
        predicted: (S, H, W) bool.
        reference: (S, H, W) bool.
        spacing: distances in mm between rows and columns, to score each slice, or between rows, columns and slices, to
            score the volume.
        tolerance: largest distance that counts as near, in mm, at least 0.
        empty: score of two empty masks: ``skip`` (NaN), ``one`` (1) or ``zero`` (0). If only one is empty, it is 0.

    Returns:
        Fraction in [0, 1], for slices the mean over those that count; NaN if none does.

    Raises:
        UserError: if an argument is invalid, or MONAI is not installed.
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise UserError(f"tolerance is {tolerance}, but must be a finite number of at least 0, in mm")

    def score(one: Mask, other: Mask, sizes: list[float]) -> float:
        if not one.any() and not other.any():
            return dict(zip(EMPTY_RULES, (math.nan, 1.0, 0.0), strict=True))[empty]
        return _surface_dice(one, other, sizes, tolerance) if one.any() and other.any() else 0.0

    return _score(score, predicted, reference, spacing, empty)


def hd95(predicted: Mask, reference: Mask, spacing: Sequence[float], empty: str = "skip") -> float:
    """95th percentile of the Hausdorff distance: the larger one of the two directions' percentiles.

    Distances run from the centres of one mask's contour pixels to the nearest ones of the other's. Contour pixels are
    pixels of a mask with an edge (in volumes: face) in common with its complement or with the image's border.

    Args:
        predicted: (S, H, W) bool.
        reference: (S, H, W) bool.
        spacing: as for `nsd`.
        empty: score of two empty masks: ``skip`` (NaN), ``one`` (the best value, 0) or ``zero`` (the worst value). If
            only one is empty, it is the worst value: the diagonal of the slice or volume.

    Returns:
        Distance in mm, for slices the mean over those that count; NaN if none does.

    Raises:
        UserError: if an argument is invalid, or MONAI is not installed.
    """

    def score(one: Mask, other: Mask, sizes: list[float]) -> float:
        worst = math.hypot(*(size * extent for size, extent in zip(sizes, one.shape, strict=True)))
        if not one.any() and not other.any():
            return dict(zip(EMPTY_RULES, (math.nan, 0.0, worst), strict=True))[empty]
        return _hausdorff(one, other, sizes) if one.any() and other.any() else worst

    return _score(score, predicted, reference, spacing, empty)


def require_library() -> None:
    """Checks that MONAI is installed, without importing it.

    Raises:
        UserError: if it is not.
    """
    if importlib.util.find_spec("monai") is None:
        raise UserError(
            "nsd and hd95 need MONAI, which is not installed; run python -m pip install 'dmseg[surface]', or leave "
            "them out of evaluate.metrics"
        )


def _score(
    score: Callable[[Mask, Mask, list[float]], float],
    predicted: Mask,
    reference: Mask,
    spacing: Sequence[float],
    empty: str,
) -> float:
    check_choice("empty", empty, EMPTY_RULES)
    if predicted.ndim != 3 or predicted.shape != reference.shape or predicted.size == 0:
        raise UserError(
            f"the masks have shapes {predicted.shape} and {reference.shape}, but must have the same shape (S, H, W)"
        )
    if len(spacing) not in (2, 3) or not all(math.isfinite(size) and size > 0 for size in spacing):
        raise UserError(f"spacing is {list(spacing)}; expected two or three numbers above 0, in mm")
    require_library()
    row, column, *between = map(float, spacing)
    predicted, reference = predicted.astype(bool, copy=False), reference.astype(bool, copy=False)
    if between:
        return score(predicted, reference, [between[0], row, column])
    scores = [score(one, other, [row, column]) for one, other in zip(predicted, reference, strict=True)]
    known = [value for value in scores if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _surface_dice(one: Mask, other: Mask, spacing: list[float], tolerance: float) -> float:
    from monai.metrics import compute_surface_dice

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI warns of its own calls
        found = compute_surface_dice(
            _batch(one), _batch(other), [tolerance], include_background=True, spacing=spacing, use_subvoxels=True
        )
    return min(float(found), 1.0)


def _hausdorff(one: Mask, other: Mask, spacing: list[float]) -> float:
    from monai.metrics import compute_hausdorff_distance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = compute_hausdorff_distance(
            _batch(one), _batch(other), include_background=True, percentile=95, spacing=spacing
        )
    return float(found)


def _batch(mask: Mask) -> "torch.Tensor":
    """A mask as one channel of a batch of one."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(mask, dtype=np.float32))[None, None]
