"""The average and the majority vote of raters, and their agreement with it."""

from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg.metrics._input import Values, as_array

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


def rater_dice(annotations: Values, majority: Values, *, both_empty: float = 1.0, disjoint: float = 0.0) -> Floats:
    """Dice score of each rater's annotation with the majority vote (paper, Table 1 and section 3.4).

    Args:
        annotations: (R, *spatial), 0 or 1 (any other number counts as foreground).
        majority: (*spatial), 0 or 1.
        both_empty: value for two empty masks.
        disjoint: value for masks that do not overlap unless both are empty: 0, which is their Dice, or 1 as in the
            authors' preparation script (JDTLosses, ``datas/prepare/prepare_qubiq.py``).

    Returns:
        (R,) float64 in [0, 1].

    Raises:
        TypeError: if an argument is not an array, a tensor or a list of them.
        ValueError: if the shapes do not match, or a value is NaN.
    """
    raters, vote = as_array("annotations", annotations), as_array("majority", majority)
    if raters.ndim == 0 or raters.shape[1:] != vote.shape:
        raise ValueError(
            f"annotations {raters.shape} do not match a majority vote of shape {vote.shape}; give masks (R, *spatial) "
            "and one mask (*spatial)"
        )
    for name, values in (("annotations", raters), ("majority", vote)):
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise ValueError(f"{name} has NaN; give 0 and 1, and leave out raters who did not annotate the case")
    target = vote != 0
    scores = np.empty(len(raters))
    for index, rater in enumerate(raters):
        marked = rater != 0
        size = np.count_nonzero(marked) + np.count_nonzero(target)
        common = np.count_nonzero(marked & target)
        scores[index] = both_empty if size == 0 else 2 * common / size if common else disjoint
    return scores
