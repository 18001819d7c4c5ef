"""Scores of one case from its probabilities and masks. The values are those that an evaluation stores.

All functions take numpy arrays, tensors on any device, or lists of them. Every score of one case is computed over all
its pixels; call the functions once for each case of a batch.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch

from dmseg.errors import UserError, check_choice, either, shown
from dmseg.metrics import scores
from dmseg.metrics._input import Mask, Probabilities, Values, as_array, as_mask, as_probability
from dmseg.metrics.agreement import average_mask, majority_vote
from dmseg.metrics.counting import count_stored
from dmseg.metrics.energy_distance import generalised_energy_distance
from dmseg.metrics.histogram import CaseCounts, as_tensor, count_batch
from dmseg.metrics.levels import BDICE_LEVELS
from dmseg.metrics.named import COUNT_METRICS, MASK_METRICS, Ties
from dmseg.metrics.scores import EmptyRule
from dmseg.metrics.stored_counts import TIES

PLAIN = ("dice", "bdice", "ece")
"""The scores of every evaluation."""


def dice(probability: Values, masks: Values, *, ties: Ties = "background", empty: EmptyRule = "skip") -> float:
    """Dice score of the prediction (probability >= 0.5) with the majority vote: 2 |x and y| / (|x| + |y|).

    Args:
        probability: predicted probability of the foreground, in [0, 1], compared in float32: (H, W), a volume or
            slices (S, H, W), or selected pixels (n,). A mask is accepted, too.
        masks: the raters' masks, with one axis more, raters first: (R, H, W), (R, S, H, W) or (R, n). A single mask may
            have the shape of the probability. Bool, or only 0 and 1.
        ties: class in the majority vote of a pixel that half of the raters marked: ``background`` or ``foreground``.
        empty: score of two empty masks: ``skip`` (NaN), ``one`` or ``zero``.

    Returns:
        Fraction in [0, 1], or NaN.

    Raises:
        TypeError: if an argument is not an array, a tensor or a list of them.
        ValueError: if shapes do not match.
        UserError: if a value is out of range, or a setting is unknown.
    """
    image, raters = _case(probability, masks)
    return scores.dice(_counts(image, _majority(raters, ties)), empty)


def bdice(
    probability: Values, label: Values, *, levels: Sequence[float] = BDICE_LEVELS, empty: EmptyRule = "skip"
) -> float:
    """Binarised Dice (paper, section 3.3): mean over the levels of the Dice of prediction and soft label.

    Both are thresholded at each level with ``>=``, in float32.

    Args:
        probability: as for `dice`.
        label: the raters' masks, as for `dice`, whose mean is the soft label; or a soft label of the probability's
            shape, in [0, 1].
        levels: thresholds in (0, 1], ascending and including 0.5.
        empty: score of a level at which both are empty: ``skip`` (the level is left out), ``one`` or ``zero``.

    Returns:
        Fraction in [0, 1]; NaN if all levels are skipped.

    Raises:
        TypeError: if an argument is not an array, a tensor or a list of them.
        ValueError: if shapes do not match.
        UserError: if a value is out of range, or a setting is invalid.
    """
    image, soft = as_probability("probability", probability), as_array("label", label)
    if soft.shape == image.shape:
        _check_axes(image)
        soft = as_probability("label", soft)
    else:
        soft = average_mask(_raters(image, as_mask("label", soft), "label"))
    return scores.bdice(_counts(image, np.zeros(image.shape, np.bool_), soft, levels=levels), empty)


def ece(probability: Values, masks: Values, *, n_bins: int = 10, ties: Ties = "background") -> float:
    """Expected calibration error of the top label over all pixels, with the majority vote as the truth.

    The confidence is max(p, 1 - p), and the predicted class is foreground if p >= 0.5 (Guo et al., ICML 2017, eq. 5).

    Args:
        probability: as for `dice`.
        masks: as for `dice`.
        n_bins: number of equal bins on [0, 1], 1 to 100.
        ties: as for `dice`.

    Returns:
        Fraction in [0, 1]; NaN without pixels.

    Raises:
        TypeError: if an argument is not an array, a tensor or a list of them.
        ValueError: if shapes do not match.
        UserError: if a value is out of range, or a setting is invalid.
    """
    image, raters = _case(probability, masks)
    return scores.ece(_counts(image, _majority(raters, ties), n_bins=n_bins))


def case_metrics(
    probability: Values,
    masks: Values,
    metrics: Sequence[str] = PLAIN,
    *,
    label: "Values | None" = None,
    n_bins: int = 10,
    boundary: int = 2,
    ties: Ties = "background",
    empty: EmptyRule = "skip",
) -> dict[str, float]:
    """Several metrics of one case by name.

    Args:
        probability: predicted probability of the foreground, in [0, 1]: (H, W) or (S, H, W).
        masks: the raters' masks, as for `dice`.
        metrics: ``dice``, ``bdice``, ``ece``, and any of `COUNT_METRICS`.
        label: soft label of the probability's shape, in [0, 1], for BDice; None: the mean of the masks.
        n_bins: number of bins of all calibration errors, 1 to 100.
        boundary: ``ece_boundary``: pixels on each side of a contour, at least 1.
        ties: as for `dice`.
        empty: Dice of two empty masks: ``skip`` (NaN), ``one`` or ``zero``.

    Returns:
        The values in the order of the names: fractions, not percentages, except for ``nll`` (nats) and
        ``agreement_kappa`` (-1 to 1); NaN where a metric is not defined.

    Raises:
        TypeError: if an argument is not an array, a tensor or a list of them.
        ValueError: if shapes do not match.
        UserError: if a value is out of range, or a metric or setting is unknown.
    """
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    known = (*PLAIN, *COUNT_METRICS)
    for name in names:
        if name in MASK_METRICS or name == "ged":
            raise UserError(f"{name} cannot be computed from counts; call dmseg.metrics.{name}")
        if name not in known:
            raise UserError(f"metrics names {shown(name)}, which is not a metric; choose from {either(known)}")
    image, raters = _case(probability, masks)
    if image.ndim == 1:
        raise ValueError(f"probability has shape {image.shape}; give an image (H, W) or slices (S, H, W)")
    soft = average_mask(raters) if label is None else as_probability("label", label)
    if soft.shape != image.shape:
        raise ValueError(f"label has shape {soft.shape} and probability {image.shape}; give a label of the same shape")
    if image.ndim == 2:
        image, raters, soft = image[None], raters[:, None], soft[None]
    stored = count_stored(image, raters, soft, n_bins, boundary, ties=ties, empty=empty)
    plain = cast(
        Mapping[str, float], scores.case_scores(_counts(image, _majority(raters, ties), soft, n_bins=n_bins), empty)
    )
    return {name: plain[name] if name in PLAIN else COUNT_METRICS[name](stored) for name in names}


def ged(samples: Values, masks: Values) -> float:
    """Squared generalised energy distance between predicted masks and the raters' masks (Kohl et al., NeurIPS 2018).

    Args:
        samples: (S, H, W), or (S, slices, H, W) of a volume: predicted masks, bool or only 0 and 1. A single mask may
            lack the first axis if the raters' masks have it.
        masks: (R, H, W) or (R, slices, H, W), the raters' masks, likewise.

    Returns:
        Distance in [0, 2], not a percentage; lower is better.

    Raises:
        TypeError: if an argument is not an array, a tensor or a list of them.
        ValueError: if shapes do not match, or a set is empty.
        UserError: if a value is neither 0 nor 1.
    """
    drawn, raters = as_mask("samples", samples), as_mask("masks", masks)
    if drawn.shape == raters.shape[1:]:
        drawn = drawn[None]
    elif raters.shape == drawn.shape[1:]:
        raters = raters[None]
    if drawn.ndim < 3 or drawn.shape[1:] != raters.shape[1:]:
        raise ValueError(
            f"samples have shape {drawn.shape} and masks {raters.shape}; give (S, H, W) and (R, H, W), or "
            "(S, slices, H, W) and (R, slices, H, W)"
        )
    return generalised_energy_distance(drawn, raters)


def _case(probability: Values, masks: Values) -> tuple[Probabilities, Mask]:
    """Probabilities (...) and the raters' masks (R, ...)."""
    image = as_probability("probability", probability)
    try:
        found = as_mask("masks", masks)
    except UserError as fault:
        if ((image == 0) | (image == 1)).all() and as_array("masks", masks).max() <= 1:
            raise UserError(f"{fault}. The probability has only 0 and 1: are the two arguments swapped?") from None
        raise
    return image, _raters(image, found, "masks")


def _raters(image: Probabilities, masks: Mask, name: str) -> Mask:
    """The masks with an axis of raters."""
    _check_axes(image)
    raters = masks[None] if masks.shape == image.shape else masks
    if raters.shape[1:] != image.shape or raters.ndim != image.ndim + 1:
        axes = ", ".join(map(str, image.shape))
        raise ValueError(
            f"probability has shape {image.shape} and {name} {masks.shape}; give one mask of the same shape, or the "
            f"masks of R raters as (R, {axes})"
        )
    if not len(raters):
        raise ValueError(f"{name} has shape {masks.shape}, without a rater; give at least one mask")
    return raters


def _check_axes(image: Probabilities) -> None:
    if not 1 <= image.ndim <= 3:
        raise ValueError(
            f"probability has shape {image.shape}; give the foreground's probability of one case, (H, W) or (S, H, W), "
            "without axes for batch and channel"
        )


def _majority(raters: Mask, ties: str) -> Mask:
    check_choice("ties", ties, tuple(TIES))
    return majority_vote(raters, ties)


def _counts(
    image: Probabilities,
    majority: Mask,
    label: Probabilities | None = None,
    *,
    levels: Sequence[float] = BDICE_LEVELS,
    n_bins: int = 10,
) -> CaseCounts:
    soft = np.zeros(image.shape, np.float32) if label is None else label
    probability, vote, reference = (as_tensor(item.reshape(1, -1)) for item in (image, majority, soft))
    return count_batch(probability, vote, reference, torch.zeros(1, dtype=torch.int64), 1, levels, n_bins)[0]
