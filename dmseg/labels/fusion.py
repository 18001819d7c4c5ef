"""Fusion strategies, which combine the annotations of several raters into one label.

A strategy is a function of the annotations of a whole case (all slices), shaped (R, *spatial) with values 0 and 1;
R is the number of raters who annotated the case. The strategies here take what NumPy can convert (arrays, lists of
arrays, tensors on the CPU) to bool, or to integers or floats that are exactly 0 and 1; they refuse anything else with a
TypeError, or a ValueError for wrong values. A strategy returns the fused label (*spatial), or a stack (V, *spatial) of
candidates, from which training draws one each time the case is used. The dtype determines the kind of label: integers
and booleans (0 or 1) are hard labels, floats (in [0, 1]) are soft labels.
A strategy that has an argument ``raters`` gets the names of these R raters (`fuse`). It raises `NoLabelError` where it
has no label for a case.
To add a strategy, write such a function and name it in a file of ``configs/labels``. A strategy that weights the raters
can declare the weights with `with_votes`, which ``labels.interpolation=rater`` requires.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dmseg.errors import check_choice
from dmseg.labels._check import as_masks, check_disjoint_weight, check_names, check_rater, check_staple, check_weights
from dmseg.labels.arguments import RATERS, takes_raters
from dmseg.labels.staple_em import MAX_ITERATIONS, TOLERANCE, estimate, vote_patterns
from dmseg.metrics.agreement import average_mask, rater_dice

Annotations = npt.NDArray[np.uint8] | npt.NDArray[np.bool_]
Fusion = Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]]
Decorated = TypeVar("Decorated", bound=Callable[..., npt.NDArray[Any]])
Result = TypeVar("Result")

TIES = ("background", "foreground")
"""Rules for ties in a majority vote: the class of a pixel that exactly half of the raters marked."""


class FusionWarning(UserWarning):
    """A strategy could not be applied to a case, and a fallback was used."""


class NoLabelError(Exception):
    """A strategy has no label for a case, because of the raters who annotated it.

    Training leaves the case out. Scoring, which needs a reference for every case, stops.
    """


@dataclass(frozen=True)
class Votes:
    """A fusion expressed as weights of the raters, which are the same for all pixels of a case.

    Attributes:
        weights: (R,), finite and at least 0, not all 0.
        threshold: None for a soft label, which is the weighted mean ``sum(w * m) / sum(w)`` of the masks m; for a hard
            label, the smallest ``sum(w * m)`` of a foreground pixel.
    """

    weights: npt.NDArray[np.float64]
    threshold: float | None = None

    def fit(self, annotations: Annotations) -> bool:
        """Whether the weights are valid for annotations (R, *spatial)."""
        weights = np.asarray(self.weights)
        valid = weights.shape == (len(annotations),) and weights.dtype.kind in "iuf"
        return valid and bool(np.isfinite(weights).all() and (weights >= 0).all() and weights.any())

    def fuse(self, annotations: npt.ArrayLike) -> npt.NDArray[Any]:
        """Fuses annotations (R, *spatial) to a label (*spatial): float64 if soft, bool if hard."""
        masks = as_masks(annotations, warn=False).view(np.bool_)
        weights = self.weights / self.weights.sum() if self.threshold is None else self.weights
        votes = np.tensordot(weights, masks.astype(np.float64), axes=1)
        return np.asarray(votes if self.threshold is None else votes >= self.threshold)


def with_votes(votes: Callable[..., Votes]) -> Callable[[Decorated], Decorated]:
    """Declares the `Votes` behind a fusion.

    Args:
        votes: function with the arguments of the fusion, annotations (R, *spatial) and options, that returns the
            `Votes` of the case; they must reproduce the fusion's label.
    """

    def declare(fusion: Decorated) -> Decorated:
        fusion.votes = votes  # type: ignore[attr-defined]
        return fusion

    return declare


def fuse(function: Callable[..., Result], annotations: Annotations, raters: Sequence[str] | None) -> Result:
    """Calls a fusion or its votes, with the names of the raters if it has an argument ``raters``.

    Args:
        function: the fusion, or the function of its votes, with its options bound.
        annotations: (R, *spatial), 0 or 1; a function that changes them changes a copy.
        raters: R names; None where they are unknown.
    """
    own = annotations.copy()
    return function(own, **{RATERS: raters}) if takes_raters(function) else function(own)


def naming_raters(option: str) -> Callable[[Decorated], Decorated]:
    """Declares an option of a fusion that names raters, so that planning can refuse names that a task does not have.

    Args:
        option: the option, whose value is a name, a list of names or a mapping with names as its keys.
    """

    def declare(fusion: Decorated) -> Decorated:
        fusion.naming = option  # type: ignore[attr-defined]
        return fusion

    return declare


def named_raters(fusion: Callable[..., Any]) -> tuple[str, list[str]] | None:
    """The option of a fusion that names raters, and these names; None if it has no such option (`naming_raters`)."""
    function, options = (fusion.func, fusion.keywords) if isinstance(fusion, partial) else (fusion, {})
    option = getattr(function, "naming", None)
    if option is None:
        return None
    value = options.get(option)
    names = [] if value is None else value if isinstance(value, list | tuple | Mapping) else [value]
    return option, [str(name) for name in names]


def declared_votes(fusion: Callable[..., Any]) -> Callable[..., Votes] | None:
    """The `Votes` declared by a fusion, as a function of the annotations with options bound; None if it has none."""
    function, options = (fusion.func, fusion.keywords) if isinstance(fusion, partial) else (fusion, {})
    votes = getattr(function, "votes", None)
    return None if votes is None else partial(votes, **options)


def is_soft(label: npt.NDArray[Any]) -> bool:
    """Whether a fused label is soft, by its dtype: floats are soft, integers and booleans are hard.

    Raises:
        ValueError: if it has another dtype.
    """
    if label.dtype.kind not in "biuf":
        raise ValueError(f"it returns values of type {label.dtype}, but must return integers, booleans or floats")
    return label.dtype.kind == "f"


def _equal_votes(annotations: Annotations) -> Votes:
    return Votes(np.ones(len(annotations)))


def _dice_votes(annotations: npt.ArrayLike, disjoint_weight: float = 0.0, ties: str = "background") -> Votes:
    """Each rater's Dice score with the majority; equal weights where all are zero."""
    masks = as_masks(annotations, warn=False)
    weights = rater_dice(masks, _vote(masks, ties), disjoint=check_disjoint_weight(disjoint_weight))
    if weights.any():
        return Votes(weights)
    warnings.warn("no rater overlaps with the majority; using equal weights", FusionWarning, stacklevel=3)
    return _equal_votes(masks)


def votes_needed(n_raters: int, ties: str = "background") -> int:
    """Smallest number of raters whose marks make a pixel foreground in a majority vote.

    Args:
        n_raters: number of raters R who annotated the case.
        ties: class of a pixel that exactly half of the raters marked: ``background`` (R // 2 + 1 votes are needed, as
            in JDTLosses) or ``foreground`` ((R + 1) // 2). For an odd R the two are the same.

    Raises:
        UserError: if `ties` is neither.
    """
    check_choice("ties", ties, TIES)
    return n_raters // 2 + 1 if ties == "background" else (n_raters + 1) // 2


@with_votes(
    lambda annotations, ties="background": Votes(np.ones(len(annotations)), votes_needed(len(annotations), ties))
)
def majority(annotations: npt.ArrayLike, ties: str = "background") -> npt.NDArray[np.uint8]:
    """Majority vote: foreground if more than half of the raters marked the pixel.

    Args:
        annotations: (R, *spatial), 0 or 1.
        ties: ``background`` or ``foreground``, the class of a pixel that exactly half of the raters marked.

    Returns:
        Hard label (*spatial), 0 or 1.

    Raises:
        UserError: if `ties` is neither.
        ValueError: if the annotations are not masks of 0 and 1.
    """
    return _vote(as_masks(annotations), ties)


def _vote(masks: npt.NDArray[np.uint8], ties: str) -> npt.NDArray[np.uint8]:
    votes = np.sum(masks, axis=0, dtype=np.int64)
    return np.asarray(votes >= votes_needed(len(masks), ties), dtype=np.uint8)


def each_rater(annotations: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Random rater: every annotation is a candidate, and training draws one each time the case is used.

    Args:
        annotations: (R, *spatial), 0 or 1.

    Returns:
        Candidates (R, *spatial), 0 or 1; they may share memory with the annotations.

    Raises:
        ValueError: if the annotations are not masks of 0 and 1.
    """
    return as_masks(annotations)


@with_votes(_equal_votes)
def uniform(annotations: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Unweighted mean of the annotations.

    Args:
        annotations: (R, *spatial), 0 or 1.

    Returns:
        Soft label (*spatial) in [0, 1].

    Raises:
        ValueError: if the annotations are not masks of 0 and 1.
    """
    return average_mask(as_masks(annotations))


@with_votes(_dice_votes)
def weighted(
    annotations: npt.ArrayLike, disjoint_weight: float = 0.0, ties: str = "background"
) -> npt.NDArray[np.float32]:
    """Mean of the annotations, each weighted by its Dice score with the majority vote (paper, section 3.4).

    Weights are computed over the whole case. Two empty masks agree fully (weight 1). If all weights are zero, the
    unweighted mean is returned, with a `FusionWarning`.

    Args:
        annotations: (R, *spatial), 0 or 1.
        disjoint_weight: weight of a rater whose annotation does not overlap with the majority: 0 as in the paper, or 1
            as in the authors' released preparation script (JDTLosses, ``prepare_qubiq.py``).
        ties: rule of the majority vote for ties, see `majority`.

    Returns:
        Soft label (*spatial) in [0, 1].

    Raises:
        UserError: if `ties` is unknown, or `disjoint_weight` is below 0.
        ValueError: if the annotations are not masks of 0 and 1.
    """
    masks = as_masks(annotations)
    label = _dice_votes(masks, disjoint_weight, ties).fuse(masks)
    return np.asarray(np.clip(label, 0.0, 1.0), dtype=np.float32)


def _one_vote(
    annotations: Annotations, raters: Sequence[str] | None, rater: str | None = None, anonymous_raters: str = "error"
) -> Votes:
    """All weight on the rater with this name, or on the first one if names are unknown."""
    check_rater(rater)
    weights = np.zeros(len(annotations))
    names = check_names(raters, len(annotations))
    if names is None:
        weights[0] = 1.0
    elif str(rater) in names:
        weights[names.index(str(rater))] = 1.0
    else:
        raise NoLabelError(f"rater {rater} did not annotate it")
    return Votes(weights, 1.0)


@naming_raters("rater")
@with_votes(_one_vote)
def one_rater(
    annotations: npt.ArrayLike, raters: Sequence[str] | None, rater: str | None = None, anonymous_raters: str = "error"
) -> npt.NDArray[np.uint8]:
    """The annotation of one rater.

    Args:
        annotations: (R, *spatial), 0 or 1.
        raters: names of the R raters; None where they are unknown: then it is the first one's annotation.
        rater: name of the rater.
        anonymous_raters: what planning does where the k-th raters of different cases may be different people: ``error``
            refuses, ``position`` takes the name for a position. Does not change the label.

    Returns:
        Hard label (*spatial), 0 or 1.

    Raises:
        NoLabelError: if the rater did not annotate the case.
        UserError: if `rater` is not a name.
        ValueError: if the annotations are not masks of 0 and 1.
    """
    masks = as_masks(annotations)
    return np.asarray(masks[_one_vote(masks, raters, rater).weights.argmax()])


def _own_votes(
    annotations: Annotations,
    raters: Sequence[str] | None,
    weights: Mapping[str, float] | None = None,
    anonymous_raters: str = "error",
) -> Votes:
    """The user's weights of the raters who are present."""
    by_name = check_weights(weights)
    names = check_names(raters, len(annotations))
    if names is None:
        return _equal_votes(annotations)
    values = np.array([by_name.get(name, 0.0) for name in names], dtype=np.float64)
    if not values.any():
        raise NoLabelError(f"none of its raters ({', '.join(names)}) has a weight")
    return Votes(values / values.max())  # sums of the largest weights do not overflow


@naming_raters("weights")
@with_votes(_own_votes)
def rater_weights(
    annotations: npt.ArrayLike,
    raters: Sequence[str] | None,
    weights: Mapping[str, float] | None = None,
    anonymous_raters: str = "error",
) -> npt.NDArray[np.float32]:
    """Mean of the annotations with given weights, divided by the sum of the weights of the raters who are present.

    Args:
        annotations: (R, *spatial), 0 or 1.
        raters: names of the R raters; None where they are unknown: then the mean is unweighted.
        weights: a weight above 0 for each rater by name. Raters without a weight are not used.
        anonymous_raters: see `one_rater`.

    Returns:
        Soft label (*spatial) in [0, 1].

    Raises:
        NoLabelError: if none of the case's raters has a weight.
        UserError: if a weight is not above 0.
        ValueError: if the annotations are not masks of 0 and 1.
    """
    masks = as_masks(annotations)
    label = _own_votes(masks, raters, weights).fuse(masks)
    return np.asarray(np.clip(label, 0.0, 1.0), dtype=np.float32)


def staple(
    annotations: npt.ArrayLike,
    prior: float | None = None,
    threshold: float | None = None,
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
) -> npt.NDArray[Any]:
    """STAPLE: probability that a pixel is foreground, given the raters' estimated sensitivities and specificities.

    All pixels of the case are used. If all raters agree, or there is only one, the label is theirs. A rater who marked
    nothing has sensitivity 0 and specificity 1, and influences the prior only. If the estimation has not converged, the
    last estimate is used, with a `FusionWarning`. `staple_posterior` takes several classes and returns all estimates.

    Args:
        annotations: (R, *spatial), 0 or 1.
        prior: probability of the foreground at any pixel, between 0 and 1; None takes the raters' mean share of
            foreground pixels in the case.
        threshold: None for a soft label; for a hard one, the smallest probability of a foreground pixel, above 0.
        tolerance: largest change of a sensitivity or specificity in an iteration that counts as converged.
        max_iterations: maximum number of iterations.

    Returns:
        Soft label (*spatial) float32 in [0, 1], or hard label (*spatial) uint8, 0 or 1.

    Raises:
        UserError: if an option is out of its range.
        ValueError: if the annotations are not masks of 0 and 1.
    """
    prior, threshold, tolerance, max_iterations = check_staple(prior, threshold, tolerance, max_iterations)
    patterns, counts, index = vote_patterns(as_masks(annotations).view(np.bool_))
    priors = None if prior is None else (1.0 - prior, prior)
    posterior, _, iterations, change = estimate(patterns, counts, 2, priors, tolerance, max_iterations)
    if not change <= tolerance:
        last = f"changes of {change:.1e} in the last one" if math.isfinite(change) else "too few to tell"
        warnings.warn(f"STAPLE has not converged in {iterations} iterations ({last})", FusionWarning, stacklevel=2)
    foreground = posterior[:, 1]
    values = foreground.astype(np.float32) if threshold is None else (foreground >= threshold).astype(np.uint8)
    return values[index]
