"""Dice, BDice and calibration error from per-case counts."""

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from dmseg.errors import check_choice
from dmseg.metrics.histogram import CaseCounts
from dmseg.metrics.levels import DECISION_LEVEL, EMPTY_DICE, binned_ece, dice_by_level, ratio

EmptyRule = Literal["skip", "one", "zero"]
"""Dice of two empty masks: NaN (skipped in means), 1 or 0. If only one mask is empty, the Dice is always 0."""
RULE = "the rule for empty masks"

Floats = npt.NDArray[np.float64]


def dice(counts: CaseCounts, empty: EmptyRule = "skip") -> float:
    """Dice score of the prediction (probability >= 0.5) with the majority vote: 2 |x and y| / (|x| + |y|).

    Args:
        counts: counts of a case; summed over its slices they give the score of the volume.
        empty: score of two empty masks.

    Returns:
        Fraction in [0, 1], or NaN.

    Raises:
        UserError: if `empty` is not a known rule.
    """
    hits, predicted, foreground, _ = _decision_counts(counts)
    check_choice(RULE, empty, get_args(EmptyRule))
    return ratio(2 * hits, predicted + foreground, EMPTY_DICE[empty])


def bdice(counts: CaseCounts, empty: EmptyRule = "skip") -> float:
    """Binarised Dice (paper, section 3.3): mean over the levels of the Dice of prediction and reference.

    Both are thresholded with ``>=``. A level at which both are empty is skipped, or counts as 1 or 0, depending on
    `empty`.

    Args:
        counts: counts of a case.
        empty: score of two empty masks.

    Returns:
        Fraction in [0, 1]; NaN if all levels are skipped.

    Raises:
        UserError: if `empty` is not a known rule.
    """
    present = _present(level_dice(counts, empty))
    return ratio(float(present.sum()), present.size)


def level_dice(counts: CaseCounts, empty: EmptyRule = "skip") -> Floats:
    """Dice of prediction and reference at each level.

    Args:
        counts: counts of a case.
        empty: score of two empty masks.

    Returns:
        (L,) float64 in [0, 1], NaN for skipped levels.

    Raises:
        UserError: if `empty` is not a known rule.
    """
    check_choice(RULE, empty, get_args(EmptyRule))
    return dice_by_level(counts.joint, empty)


def ece(counts: CaseCounts) -> float:
    """Expected calibration error of the top label over all pixels, including the background.

    Sum over bins of |sum of confidence - number of correct pixels|, divided by the number of pixels (Guo et al., ICML
    2017, eq. 5). The predicted class is 1 if p >= 0.5, and correct if it equals the majority vote.

    Args:
        counts: counts of a case.

    Returns:
        Fraction in [0, 1]; NaN without pixels.
    """
    return binned_ece(*counts.bins.T)


def case_scores(counts: CaseCounts, empty: EmptyRule = "skip") -> dict[str, float | int]:
    """All scores and counts recorded for one case.

    Args:
        counts: counts of a case.
        empty: score of two empty masks.

    Returns:
        ``dice, bdice, ece``, ``precision`` (NaN if nothing is predicted) and ``recall`` (NaN if the majority is empty)
        as fractions; ``n_pixels``, ``n_foreground`` (of the majority) and ``n_predicted`` pixels; ``n_levels``, the
        number of levels averaged by BDice.

    Raises:
        UserError: if `empty` is not a known rule.
    """
    hits, predicted, foreground, total = _decision_counts(counts)
    present = _present(level_dice(counts, empty))
    return {
        "dice": ratio(2 * hits, predicted + foreground, EMPTY_DICE[empty]),
        "bdice": ratio(float(present.sum()), present.size),
        "ece": ece(counts),
        "precision": ratio(hits, predicted),
        "recall": ratio(hits, foreground),
        "n_pixels": total,
        "n_foreground": foreground,
        "n_predicted": predicted,
        "n_levels": present.size,
    }


def _present(values: Floats) -> Floats:
    return values[~np.isnan(values)]


def _decision_counts(counts: CaseCounts) -> tuple[int, int, int, int]:
    """Numbers of pixels in the intersection, in the prediction, in the majority and in all."""
    background, foreground = counts.joint.sum(axis=1).tolist()  # by level of the prediction
    decision = counts.levels.index(DECISION_LEVEL) + 1
    hits, majority = sum(foreground[decision:]), sum(foreground)
    return hits, hits + sum(background[decision:]), majority, majority + sum(background)
