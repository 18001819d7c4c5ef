"""Fusion strategies: several raters' annotations of one case into one label.

A strategy is a function of the annotations, shaped (R, *spatial) with values 0 and 1, where R counts the raters who
annotated this case and the spatial axes hold the whole case (all its slices). It returns the fused label (*spatial),
or a stack (V, *spatial) of candidates, of which the training draws one each time that the case is seen.
To add a strategy, write such a function and name it in one file of ``configs/labels``.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg.errors import UserError
from dmseg.metrics.agreement import rater_dice

Annotations = npt.NDArray[np.uint8] | npt.NDArray[np.bool_]


class FusionWarning(UserWarning):
    """A strategy could not do with one case what its name says, and did something else."""


def majority(annotations: Annotations) -> npt.NDArray[np.uint8]:
    """Majority vote: foreground where at least R // 2 + 1 of R raters marked it (a tie is background).

    Args:
        annotations: (R, *spatial), 0 or 1.

    Returns:
        Hard label (*spatial), 0 or 1.
    """
    votes = np.sum(annotations, axis=0, dtype=np.int64)
    return np.asarray(votes >= len(annotations) // 2 + 1, dtype=np.uint8)


def each_rater(annotations: Annotations) -> npt.NDArray[np.uint8]:
    """Random rater: every annotation is a candidate, one is drawn anew each time that the case is seen.

    Args:
        annotations: (R, *spatial), 0 or 1.

    Returns:
        Candidates (R, *spatial), 0 or 1.
    """
    return np.asarray(annotations, dtype=np.uint8)


def uniform(annotations: Annotations) -> npt.NDArray[np.float32]:
    """Uniform average of the raters.

    Args:
        annotations: (R, *spatial), 0 or 1.

    Returns:
        Soft label (*spatial) in [0, 1].
    """
    votes = np.sum(annotations, axis=0, dtype=np.int64)
    return np.asarray(votes / np.float64(len(annotations)), dtype=np.float32)


def weighted(annotations: Annotations, disjoint_weight: float = 0.0) -> npt.NDArray[np.float32]:
    """Average of the raters, each weighted by the Dice score of its annotation with the majority (paper, section 3.4).

    Weights are taken over the whole case. Two empty masks agree fully (weight 1). Where all weights are zero the
    uniform average is returned, with a `FusionWarning`.

    Args:
        annotations: (R, *spatial), 0 or 1.
        disjoint_weight: weight of a rater whose annotation does not overlap with the majority: 0 as the paper says,
            or 1 as in the authors' released preparation script (JDTLosses, ``prepare_qubiq.py``).

    Returns:
        Soft label (*spatial) in [0, 1].
    """
    weights = rater_dice(annotations, majority(annotations), disjoint=disjoint_weight)
    if not weights.any():
        warnings.warn("no rater overlaps with the majority: uniform weights", FusionWarning, stacklevel=2)
        return uniform(annotations)
    label = np.tensordot(weights / weights.sum(), np.asarray(annotations, dtype=np.float64), axes=1)
    return np.clip(label, 0.0, 1.0).astype(np.float32)


def try_fusion(fusion: Callable[[Annotations], npt.NDArray[Any]], where: str, *, candidates: bool = True) -> None:
    """Applies a strategy with its options to a few pixels, so that a mistake shows before anything is trained.

    Args:
        fusion: with its options bound.
        where: the configuration node, for messages.
        candidates: whether it may return a stack of candidates; what is scored against is one label.

    Raises:
        UserError: if it fails, or returns something that is no label.
    """
    annotations = np.array([[[0, 0, 1, 1]], [[0, 1, 1, 1]], [[1, 0, 0, 0]]], dtype=np.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FusionWarning)
            label = np.asarray(fusion(annotations))
            fits = bool(np.all((label >= 0) & (label <= 1)))
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise UserError(f"{where} cannot fuse annotations with these options: {error}") from None
    if label.shape != annotations.shape[1:] and not (candidates and label.shape[1:] == annotations.shape[1:]):
        kind = "one label or a stack of candidates" if candidates else "one label"
        raise UserError(f"{where} turns annotations {annotations.shape} into {label.shape}, but must make {kind}")
    if not fits:
        raise UserError(f"{where} makes labels from {label.min():g} to {label.max():g}, but they must lie in [0, 1]")
