"""Lesion-wise F1: how many connected components of prediction and reference overlap."""

import numpy as np

from dmseg.errors import UserError, check_choice, shown
from dmseg.metrics._input import Mask, Values, mask_pair
from dmseg.metrics.levels import EMPTY_DICE


def lesion_f1(predicted: Values, reference: Values, volume: bool, empty: str = "skip") -> float:
    """Lesion-wise F1: 2 TP / (2 TP + FP + FN), counted over all slices of a case.

    A lesion is a connected component; pixels are connected if they share an edge or a corner (in volumes: or a face).
    TP is the number of reference lesions that overlap with the prediction in at least one pixel, FN the number of the
    others, and FP the number of predicted lesions that overlap with no reference lesion. This is the F1 of the ISLES
    2022 challenge (Hernandez Petzsche et al., 2022, doi:10.1038/s41597-022-01875-5).

    Args:
        predicted: (S, H, W) mask: bool, or only 0 and 1; not a probability.
        reference: (S, H, W) mask.
        volume: whether the slices form one volume; if not, each slice has lesions of its own.
        empty: score of a case without a lesion in either mask: ``skip`` (NaN), ``one`` or ``zero``.

    Returns:
        Fraction in [0, 1], or NaN.

    Raises:
        UserError: if an argument is invalid.
        TypeError: if a mask is neither an array nor a tensor.
    """
    check_choice("empty", empty, tuple(EMPTY_DICE))
    if not isinstance(volume, bool | np.bool_):
        raise UserError(f"volume is {shown(volume)}, but must be True or False")
    found, truth = mask_pair(predicted, reference)
    hits, missed = _count(truth, found, volume)
    _, false = _count(found, truth, volume)
    if hits + missed + false == 0:
        return EMPTY_DICE[empty]
    return 2 * hits / (2 * hits + false + missed)


def _count(mask: Mask, other: Mask, volume: bool | np.bool_) -> tuple[int, int]:
    """Numbers of the components of a mask that overlap with the other mask, and of those that do not."""
    from scipy import ndimage

    structure = np.zeros((3, 3, 3), dtype=bool)
    structure[slice(None) if volume else 1] = True
    labels, total = ndimage.label(mask, structure)
    hit = int(np.count_nonzero(np.unique(labels[other])))
    return hit, int(total) - hit
