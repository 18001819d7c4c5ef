"""Agreement of raters: Dice of each with the majority vote, and of each with each other."""

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]


def rater_dice(annotations: Mask, majority: Mask, *, both_empty: float = 1.0, disjoint: float = 0.0) -> Floats:
    """Dice score of each rater's annotation with the majority vote (paper, Table 1 and section 3.4).

    Args:
        annotations: (R, *spatial), 0 or 1 (anything but 0 is foreground).
        majority: (*spatial), 0 or 1.
        both_empty: value for two empty masks.
        disjoint: value for masks that do not overlap though not both are empty: their Dice, 0, or 1 as in the authors'
            preparation script (JDTLosses, ``datas/prepare/prepare_qubiq.py``).

    Returns:
        (R,) float64 in [0, 1].

    Raises:
        ValueError: if the shapes do not fit.
    """
    annotations, majority = np.asarray(annotations), np.asarray(majority)
    if annotations.ndim == 0 or annotations.shape[1:] != majority.shape:
        raise ValueError(f"annotations {annotations.shape} do not fit a majority vote of shape {majority.shape}")
    target = majority != 0
    return np.array([_mask_dice(rater != 0, target, both_empty, disjoint) for rater in annotations], dtype=np.float64)


def rater_pair_dice(annotations: Mask, *, both_empty: float = 1.0) -> Floats:
    """Dice score of each rater's annotation with each other's.

    Args:
        annotations: (R, *spatial), 0 or 1 (anything but 0 is foreground).
        both_empty: value for two empty masks.

    Returns:
        (R, R) float64 in [0, 1], symmetric; the diagonal is 1, or `both_empty` for a rater who marked nothing.
    """
    return np.stack([rater_dice(annotations, rater, both_empty=both_empty) for rater in annotations])


def _mask_dice(
    first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_], both_empty: float, disjoint: float
) -> float:
    size = np.count_nonzero(first) + np.count_nonzero(second)
    if size == 0:
        return both_empty
    common = np.count_nonzero(first & second)
    return 2 * common / size if common else disjoint
