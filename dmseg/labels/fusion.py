"""Fusion strategies, which combine the annotations of several raters into one label.

A strategy is a function of the annotations of a whole case (all slices), shaped (R, *spatial) with values 0 and 1;
R is the number of raters who annotated the case. It returns the fused label (*spatial), or a stack (V, *spatial) of
candidates, from which training draws one each time the case is used. The dtype determines the kind of label: integers
and booleans (0 or 1) are hard labels, floats (in [0, 1]) are soft labels.
To add a strategy, write such a function and name it in a file of ``configs/labels``. A strategy that weights the raters
can declare the weights with `with_votes`, which ``labels.interpolation=rater`` requires.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dmseg.errors import UserError, cut, shown
from dmseg.metrics.agreement import rater_dice

Annotations = npt.NDArray[np.uint8] | npt.NDArray[np.bool_]
Fusion = Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]]
Decorated = TypeVar("Decorated", bound=Callable[..., npt.NDArray[Any]])

TIES = ("background", "foreground")
"""What a pixel that exactly half of the raters marked can be in a majority vote."""

MAX_RATERS = 16
"""Largest number of raters that a fusion is tried with to find out which kind of label it returns."""


class FusionWarning(UserWarning):
    """A strategy could not be applied to a case, and a fallback was used."""


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

    def fuse(self, annotations: Annotations) -> npt.NDArray[Any]:
        """Fuses annotations (R, *spatial) to a label (*spatial): float64 if soft, bool if hard."""
        weights = self.weights / self.weights.sum() if self.threshold is None else self.weights
        votes = np.tensordot(weights, np.asarray(annotations, dtype=np.float64), axes=1)
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


def declared_votes(fusion: Callable[..., Any]) -> Callable[[Annotations], Votes] | None:
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


def gives_soft_labels(fusion: Fusion) -> bool:
    """Whether a fusion returns soft labels, determined by fusing a few small masks.

    A fusion may require a certain number of raters, so several numbers are tried until it accepts one.

    Args:
        fusion: the fusion with its options bound.

    Raises:
        ValueError: if it accepts no number of raters up to `MAX_RATERS`, or returns another dtype.
    """
    edge = np.arange(8)
    refusals: list[Exception] = []
    for n_raters in (3, *range(1, MAX_RATERS + 1)):
        extents = 3 + np.arange(n_raters) % 3
        masks = np.array([np.multiply.outer(edge < extent, edge > 1)[np.newaxis] for extent in extents], dtype=np.uint8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                label = np.asarray(fusion(masks))
            except Exception as error:
                refusals.append(error)
                continue
        return is_soft(label)
    said = cut(" ".join(str(refusals[0]).splitlines()[:1]))
    raise ValueError(f"it fails on small masks of 1 to {MAX_RATERS} raters ({type(refusals[0]).__name__}: {said})")


def _equal_votes(annotations: Annotations) -> Votes:
    return Votes(np.ones(len(annotations)))


def _dice_votes(annotations: Annotations, disjoint_weight: float = 0.0) -> Votes:
    """Each rater's Dice score with the majority; equal weights where all are zero."""
    weights = rater_dice(annotations, majority(annotations), disjoint=disjoint_weight)
    if weights.any():
        return Votes(weights)
    warnings.warn("no rater overlaps with the majority; using equal weights", FusionWarning, stacklevel=3)
    return _equal_votes(annotations)


def votes_needed(n_raters: int, ties: str = "background") -> int:
    """Smallest number of raters whose marks make a pixel foreground in a majority vote.

    Args:
        n_raters: number of raters R who annotated the case.
        ties: what a pixel is that exactly half of the raters marked: ``background`` (R // 2 + 1 votes are needed, as in
            JDTLosses) or ``foreground`` ((R + 1) // 2). For an odd R the two are the same.

    Raises:
        UserError: if `ties` is neither.
    """
    if ties not in TIES:
        raise UserError(f"ties is {shown(ties)}, but may be {' or '.join(TIES)}")
    return n_raters // 2 + 1 if ties == "background" else (n_raters + 1) // 2


@with_votes(
    lambda annotations, ties="background": Votes(np.ones(len(annotations)), votes_needed(len(annotations), ties))
)
def majority(annotations: Annotations, ties: str = "background") -> npt.NDArray[np.uint8]:
    """Majority vote: foreground if more than half of the raters marked the pixel.

    Args:
        annotations: (R, *spatial), 0 or 1.
        ties: ``background`` or ``foreground``, what a pixel is that exactly half of the raters marked.

    Returns:
        Hard label (*spatial), 0 or 1.

    Raises:
        UserError: if `ties` is neither.
    """
    votes = np.sum(annotations, axis=0, dtype=np.int64)
    return np.asarray(votes >= votes_needed(len(annotations), ties), dtype=np.uint8)


def each_rater(annotations: Annotations) -> npt.NDArray[np.uint8]:
    """Random rater: every annotation is a candidate, and training draws one each time the case is used.

    Args:
        annotations: (R, *spatial), 0 or 1.

    Returns:
        Candidates (R, *spatial), 0 or 1.
    """
    return np.asarray(annotations, dtype=np.uint8)


@with_votes(_equal_votes)
def uniform(annotations: Annotations) -> npt.NDArray[np.float32]:
    """Unweighted mean of the annotations.

    Args:
        annotations: (R, *spatial), 0 or 1.

    Returns:
        Soft label (*spatial) in [0, 1].
    """
    votes = np.sum(annotations, axis=0, dtype=np.int64)
    return np.asarray(votes / np.float64(len(annotations)), dtype=np.float32)


@with_votes(_dice_votes)
def weighted(annotations: Annotations, disjoint_weight: float = 0.0) -> npt.NDArray[np.float32]:
    """Mean of the annotations, each weighted by its Dice score with the majority vote (paper, section 3.4).

    Weights are computed over the whole case. Two empty masks agree fully (weight 1). If all weights are zero, the
    unweighted mean is returned, with a `FusionWarning`.

    Args:
        annotations: (R, *spatial), 0 or 1.
        disjoint_weight: weight of a rater whose annotation does not overlap with the majority: 0 as in the paper, or 1
            as in the authors' released preparation script (JDTLosses, ``prepare_qubiq.py``).

    Returns:
        Soft label (*spatial) in [0, 1].
    """
    label = _dice_votes(annotations, disjoint_weight).fuse(annotations)
    return np.asarray(np.clip(label, 0.0, 1.0), dtype=np.float32)


def try_fusion(fusion: Fusion, n_raters: int, where: str, *, candidates: bool = True) -> None:
    """Fuses a few pixels to detect mistakes before training.

    Args:
        fusion: the fusion with its options bound.
        n_raters: number of raters of the task; the last one marks different pixels from the others.
        where: the configuration node, for messages.
        candidates: whether it may return a stack of candidates; a reference for scoring must be a single label.

    Raises:
        UserError: if it fails, or does not return a label.
    """
    annotations = np.zeros((n_raters, 1, 2, 4), dtype=np.uint8)
    annotations[:-1, 0, 1, 2:] = 1
    annotations[-1, 0, 0, 0] = 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            label = np.asarray(fusion(annotations))
            fits = bool(np.all((label >= 0) & (label <= 1)))
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"{where} cannot fuse the masks of {n_raters} raters with these options: {cut(str(error), 300)}"
        ) from None
    if label.shape != annotations.shape[1:] and not (candidates and label.shape[1:] == annotations.shape[1:]):
        kind = "one label or a stack of candidates" if candidates else "one label"
        raise UserError(f"{where} turns annotations {annotations.shape} into {label.shape}, but must return {kind}")
    if not fits:
        raise UserError(f"{where} returns labels from {label.min():g} to {label.max():g}, but they must be in [0, 1]")
