"""The average and the majority vote of raters, and their agreement with it."""

from typing import Any

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]


def average_mask(marked: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Unweighted mean of the raters' masks, a soft label.

    Args:
        marked: (R, *spatial), bool, or integers 0 and 1.

    Returns:
        (*spatial) float32 in [0, 1].
    """
    votes = np.sum(marked, axis=0, dtype=np.int64)
    return np.asarray(votes / np.float64(len(marked)), dtype=np.float32)


def majority_vote(marked: npt.NDArray[np.bool_], ties: str) -> npt.NDArray[np.bool_]:
    """Majority vote of the raters.

    Args:
        marked: (R, *spatial) bool.
        ties: what a tie of an even number of raters counts as: ``background`` or ``foreground``.

    Returns:
        (*spatial) bool.
    """
    votes = 2 * marked.sum(axis=0, dtype=np.int64)
    return np.asarray(votes > len(marked) if ties == "background" else votes >= len(marked))


def rater_dice(annotations: Mask, majority: Mask, *, both_empty: float = 1.0, disjoint: float = 0.0) -> Floats:
    """Dice score of each rater's annotation with the majority vote (paper, Table 1 and section 3.4).

    Args:
        annotations: (R, *spatial), 0 or 1 (any other value counts as foreground).
        majority: (*spatial), 0 or 1.
        both_empty: value for two empty masks.
        disjoint: value for masks that do not overlap unless both are empty: 0, which is their Dice, or 1 as in the
            authors' preparation script (JDTLosses, ``datas/prepare/prepare_qubiq.py``).

    Returns:
        (R,) float64 in [0, 1].

    Raises:
        ValueError: if the shapes do not match.
    """
    annotations, majority = np.asarray(annotations), np.asarray(majority)
    if annotations.ndim == 0 or annotations.shape[1:] != majority.shape:
        raise ValueError(f"annotations {annotations.shape} do not match a majority vote of shape {majority.shape}")
    target = majority != 0
    scores = np.empty(len(annotations))
    for index, rater in enumerate(annotations):
        marked = rater != 0
        size = np.count_nonzero(marked) + np.count_nonzero(target)
        common = np.count_nonzero(marked & target)
        scores[index] = both_empty if size == 0 else 2 * common / size if common else disjoint
    return scores
