"""Distances between the contours of two masks, in mm: NSD and the 95th percentile of the Hausdorff distance (HD95).

Both are computed by MONAI, an optional dependency (``pip install 'dmseg[surface]'``).
`docs/explanation/surface-metrics.md` explains the choice, the definitions and how other libraries differ.

A case is an array of slices (S, H, W). With a spacing of two numbers, each slice is scored on its own, and the score of
the case is the mean over its slices; with three numbers, the slices are one volume.
"""

import importlib.util
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dmseg.errors import UserError, check_choice, shown
from dmseg.metrics._input import Mask, Values, mask_pair

if TYPE_CHECKING:
    import torch

EMPTY_RULES = ("skip", "one", "zero")
"""Score of two empty masks: NaN (left out of means), the best value, or the worst value."""


def nsd(predicted: Values, reference: Values, spacing: Sequence[float], tolerance: float, empty: str = "skip") -> float:
    """Normalised surface distance (surface Dice): share of both surfaces that is near the other surface.

    A surface consists of the elements between pixels of the mask and its complement (beyond the image, too), weighted
    by their length or area (Nikolov et al., 2021, doi:10.2196/26151).

    Args:
        predicted: (S, H, W) mask: bool, or only 0 and 1; not a probability.
        reference: (S, H, W) mask.
        spacing: distances in mm between rows and columns, to score each slice, or between rows, columns and slices, to
            score the volume.
        tolerance: largest distance that counts as near, in mm, at least 0.
        empty: score of two empty masks: ``skip`` (NaN), ``one`` (1) or ``zero`` (0). If only one is empty, it is 0.

    Returns:
        Fraction in [0, 1], for slices the mean over those that count; NaN if none does.

    Raises:
        UserError: if an argument is invalid, or MONAI is not installed.
        TypeError: if a mask is neither an array nor a tensor.
    """
    if not (_is_number(tolerance) and tolerance >= 0):
        raise UserError(f"tolerance is {shown(tolerance)}, but must be a finite number of at least 0, in mm")

    def score(one: Mask, other: Mask, sizes: list[float]) -> float:
        if not one.any() and not other.any():
            return dict(zip(EMPTY_RULES, (math.nan, 1.0, 0.0), strict=True))[empty]
        if not (one.any() and other.any()):
            return 0.0
        from monai.metrics import compute_surface_dice

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MONAI warns of its own calls
            found = compute_surface_dice(
                _batch(one), _batch(other), [tolerance], include_background=True, spacing=sizes, use_subvoxels=True
            )
        return min(float(found), 1.0)

    return _score(score, predicted, reference, spacing, empty)


def hd95(predicted: Values, reference: Values, spacing: Sequence[float], empty: str = "skip") -> float:
    """95th percentile of the Hausdorff distance: the larger of the percentiles of the two directions.

    Distances run from the centres of one mask's contour pixels to the nearest ones of the other's. Contour pixels are
    pixels of a mask with an edge (in volumes: face) in common with its complement or with the image's border.

    Args:
        predicted: (S, H, W) mask, as for `nsd`.
        reference: (S, H, W) mask.
        spacing: as for `nsd`.
        empty: score of two empty masks: ``skip`` (NaN), ``one`` (the best value, 0) or ``zero`` (the worst value). If
            only one is empty, it is the worst value: the diagonal of the slice or volume.

    Returns:
        Distance in mm, for slices the mean over those that count; NaN if none does.

    Raises:
        UserError: if an argument is invalid, or MONAI is not installed.
        TypeError: if a mask is neither an array nor a tensor.
    """

    def score(one: Mask, other: Mask, sizes: list[float]) -> float:
        worst = math.hypot(*(size * extent for size, extent in zip(sizes, one.shape, strict=True)))
        if not one.any() and not other.any():
            return dict(zip(EMPTY_RULES, (math.nan, 0.0, worst), strict=True))[empty]
        if not (one.any() and other.any()):
            return worst
        from monai.metrics import compute_hausdorff_distance

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MONAI warns of its own calls
            found = compute_hausdorff_distance(
                _batch(one), _batch(other), include_background=True, percentile=95, spacing=sizes
            )
        return float(found)

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
    predicted: Values,
    reference: Values,
    spacing: Sequence[float],
    empty: str,
) -> float:
    check_choice("empty", empty, EMPTY_RULES)
    found, truth = mask_pair(predicted, reference)
    if not found.size:
        raise UserError(f"the masks have the shape {found.shape}, which has no pixels")
    if _is_number(spacing):
        raise UserError(
            f"spacing is {shown(spacing)}, but must be two numbers, (row, column), to score each slice, or three, "
            "(row, column, slice), to score the volume"
        )
    given = list(spacing) if isinstance(spacing, Iterable) else []
    if len(given) not in (2, 3) or not all(_is_number(size) and size > 0 for size in given):
        raise UserError(f"spacing is {shown(spacing)}; expected two or three numbers above 0, in mm")
    row, column, *between = map(float, given)
    require_library()
    if between:
        return score(found, truth, [between[0], row, column])
    scores = [score(one, other, [row, column]) for one, other in zip(found, truth, strict=True)]
    known = [value for value in scores if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _is_number(value: object) -> bool:
    """Whether a value, also a tensor or array of one element, is a finite number."""
    try:
        return math.isfinite(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return False


def _batch(mask: Mask) -> "torch.Tensor":
    """A mask as one channel of a batch of one."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(mask, dtype=np.float32))[None, None]
