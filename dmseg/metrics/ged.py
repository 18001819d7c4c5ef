"""Generalised energy distance between predicted masks and the raters' annotations, from counts of shared pixels."""

import numpy as np
import numpy.typing as npt

WORD = 64
"""Pixels in a word: masks are packed into bits, and sixty-four of them are compared at once."""


def generalised_energy_distance(samples: npt.NDArray[np.bool_], annotations: npt.NDArray[np.bool_]) -> float:
    """Squared generalised energy distance between two sets of masks of one case (`squared_ged`).

    Args:
        samples: (S, ...) bool, predicted masks of an image or a volume.
        annotations: (R, ...) bool, of the same pixels.

    Returns:
        Distance in [0, 2]; lower is better.

    Raises:
        ValueError: if shapes or dtypes do not fit, or a set is empty.
    """
    if samples.shape[1:] != annotations.shape[1:]:
        raise ValueError(f"samples are {samples.shape}, annotations {annotations.shape}: their pixels differ")
    masks = np.concatenate([samples, annotations])
    return squared_ged(shared_pixels(masks.reshape(1, len(masks), 1, -1))[0], len(samples))


def shared_pixels(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Counts the pixels that each two masks of a slice share.

    The counts add up over slices; those of a volume are the sum over its slices.

    Args:
        masks: (B, M, H, W) bool.

    Returns:
        (B, M, M) int64; a mask's own size is on the diagonal.

    Raises:
        ValueError: if shape or dtype do not fit.
    """
    if masks.ndim != 4 or masks.dtype != np.bool_:
        raise ValueError(f"masks are {masks.shape} {masks.dtype}, but must be (B, M, H, W) bool")
    shared = np.empty((*masks.shape[:2], masks.shape[1]), dtype=np.int64)
    for counts, words in zip(shared, map(_packed, masks), strict=True):
        for mask in range(len(words)):
            both = np.bitwise_count(words[mask:] & words[mask]).sum(axis=1, dtype=np.int64)
            counts[mask, mask:] = counts[mask:, mask] = both
    return shared


def _packed(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    """Masks (M, H, W) as words of bits, (M, number of words); the last one is filled up with zeros."""
    packed = np.packbits(masks.reshape(len(masks), -1), axis=1)
    words = np.zeros((len(masks), -(-masks[0].size // WORD)), dtype=np.uint64)
    words.view(np.uint8)[:, : packed.shape[1]] = packed
    return words


def squared_ged(shared: npt.NDArray[np.int64], n_samples: int) -> float:
    """Squared generalised energy distance (Kohl et al., NeurIPS 2018; Szekely and Rizzo, JSPI 2013).

    2 E d(S, Y) - E d(S, S') - E d(Y, Y') for samples S of the prediction and annotations Y, where d = 1 - IoU is 0 for
    two empty masks. As in the code of that paper, the expectations are means over all ordered pairs, those of a mask
    with itself included (the V-statistic): equal sets are at distance 0, and it is never below 0.

    Args:
        shared: (S + R, S + R) counts of pixels that masks share (`shared_pixels`), first the S samples, then the R
            annotations that there are.
        n_samples: S.

    Returns:
        Distance in [0, 2]; lower is better.

    Raises:
        ValueError: if there are no samples or no annotations.
    """
    if not 0 < n_samples < len(shared):
        raise ValueError(f"{n_samples} samples among {len(shared)} masks: there must be samples and annotations")
    distance = _iou_distance(shared)
    samples, raters = slice(n_samples), slice(n_samples, None)
    between = 2 * distance[samples, raters].mean()
    return float(between - distance[samples, samples].mean() - distance[raters, raters].mean())


def _iou_distance(shared: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """1 - IoU of each two masks; 0 where both are empty."""
    sizes = np.diagonal(shared)
    union = sizes[:, None] + sizes - shared
    return np.where(union > 0, 1 - shared / np.maximum(union, 1), 0.0)
