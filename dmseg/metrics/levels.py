"""Thresholds of the metrics, and Dice from counts. Imports no torch."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg.errors import UserError, is_whole, shown
from dmseg.limits import MAX_LEVELS

BDICE_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Thresholds of BDice (paper, section 3.3)."""

DECISION_LEVEL = 0.5
"""A pixel is predicted as foreground if its probability is at least this."""

EMPTY_DICE = {"skip": float("nan"), "one": 1.0, "zero": 0.0}
"""Score of two empty masks, by the name of the rule."""


def checked_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """Returns thresholds of BDice as a tuple.

    Raises:
        UserError: if they are not ascending numbers in (0, 1], or more than `MAX_LEVELS`.
    """
    try:
        found = tuple(float(level) for level in levels)
    except (TypeError, ValueError):
        raise UserError(f"BDice levels are {shown(levels)}, but must be a list of thresholds in (0, 1]") from None
    if not found or not all(low < high for low, high in pairwise(found)) or not 0 < found[0] <= found[-1] <= 1:
        raise UserError(f"BDice levels are {shown(found)}, but must be ascending thresholds in (0, 1]")
    if len(found) > MAX_LEVELS:
        raise UserError(f"there are {len(found)} BDice levels, but at most {MAX_LEVELS} are allowed")
    return found


def check_bins(n_bins: int) -> None:
    """Checks that a number of bins is a whole number from 1 to `MAX_LEVELS`.

    Raises:
        UserError: if it is not such a number.
    """
    if not is_whole(n_bins) or not 1 <= n_bins <= MAX_LEVELS:
        raise UserError(
            f"the number of calibration bins is {shown(n_bins)}, but must be a whole number from 1 to {MAX_LEVELS}"
        )


def ratio(part: float, whole: float, empty: float = math.nan) -> float:
    """Part / whole, or another value if the whole is 0."""
    return part / whole if whole else empty


def binned_ece(pixels: npt.NDArray[Any], confidence: npt.NDArray[Any], correct: npt.NDArray[Any]) -> float:
    """Sum over bins of |sum of confidences - correct pixels|, divided by the number of pixels; NaN without pixels."""
    return ratio(float(np.abs(confidence - correct).sum()), float(pixels.sum()))


def dice_ratio(hits: npt.NDArray[Any], sizes: npt.NDArray[Any], empty: str) -> npt.NDArray[np.float64]:
    """Elementwise 2 hits / sizes, sizes the sum of both masks' sizes, or the value of the rule if both are empty."""
    return np.where(sizes > 0, 2.0 * hits / np.maximum(sizes, 1), EMPTY_DICE[empty])


def dice_by_level(joint: npt.NDArray[np.int64], empty: str) -> npt.NDArray[np.float64]:
    """Dice of prediction and reference label, both thresholded at each level.

    Args:
        joint: (votes, L + 1, L + 1), pixels by vote, level of the reference label and level of the prediction.
        empty: rule for two empty masks.

    Returns:
        (L,) float64 in [0, 1], NaN for a level that is skipped.
    """
    levels = joint.sum(axis=0)
    reaching = levels[::-1, ::-1].cumsum(axis=0).cumsum(axis=1)[::-1, ::-1]  # [i, j]: reference >= i, prediction >= j
    return dice_ratio(np.diagonal(reaching)[1:], reaching[0, 1:] + reaching[1:, 0], empty)
