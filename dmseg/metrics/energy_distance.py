"""Generalised energy distance between predicted masks and annotations, from counts of shared pixels."""

import numpy as np
import numpy.typing as npt

WORD = 64
"""Pixels per word: masks are packed into bits, so that 64 pixels are compared at once."""


def generalised_energy_distance(samples: npt.NDArray[np.bool_], annotations: npt.NDArray[np.bool_]) -> float:
    """Squared generalised energy distance between predicted masks and annotations of one case (`squared_ged`).

    Args:
        samples: (S, ...) bool, predicted masks of an image or a volume.
        annotations: (R, ...) bool, of the same pixels.

    Returns:
        Distance in [0, 2]; lower is better.

    Raises:
        ValueError: if shapes or dtypes do not match, or a set is empty.
    """
    if samples.shape[1:] != annotations.shape[1:]:
        raise ValueError(
            f"samples are {samples.shape}, but annotations {annotations.shape}; they must have the same pixels"
        )
    masks = np.concatenate([samples, annotations])
    return squared_ged(shared_pixels(masks.reshape(1, len(masks), 1, -1))[0], len(samples))


def shared_pixels(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Counts the pixels shared by each pair of masks of a slice.

    The counts of a volume are the sum over its slices.

    Args:
        masks: (B, M, H, W) bool.

    Returns:
        (B, M, M) int64; the diagonal has the size of each mask.

    Raises:
        ValueError: if the shape or dtype is wrong.
    """
    if masks.ndim != 4 or masks.dtype != np.bool_:
        raise ValueError(f"masks are {masks.shape} {masks.dtype}, but must be (B, M, H, W) bool")
    shared = np.empty((*masks.shape[:2], masks.shape[1]), dtype=np.int64)
    for counts, slice_masks in zip(shared, masks, strict=True):
        # words of bits, padded with zeros
        packed = np.packbits(slice_masks.reshape(len(slice_masks), -1), axis=1)
        words = np.zeros((len(slice_masks), -(-slice_masks[0].size // WORD)), dtype=np.uint64)
        words.view(np.uint8)[:, : packed.shape[1]] = packed
        for mask in range(len(words)):
            both = np.bitwise_count(words[mask:] & words[mask]).sum(axis=1, dtype=np.int64)
            counts[mask, mask:] = counts[mask:, mask] = both
    return shared


def squared_ged(shared: npt.NDArray[np.int64], n_samples: int) -> float:
    """Squared generalised energy distance (Kohl et al., NeurIPS 2018; Szekely and Rizzo, JSPI 2013).

    2 E d(S, Y) - E d(S, S') - E d(Y, Y') for samples S of the prediction and annotations Y, where d = 1 - IoU is 0 for
    two empty masks. As in the code of that paper, the expectations are means over all ordered pairs, including those of
    a mask with itself (the V-statistic): the distance of equal sets is 0, and it is never negative.

    Args:
        shared: (S + R, S + R) counts of shared pixels (`shared_pixels`), first the S samples, then the R annotations.
        n_samples: S.

    Returns:
        Distance in [0, 2]; lower is better.

    Raises:
        ValueError: if there are no samples or no annotations.
    """
    if not 0 < n_samples < len(shared):
        raise ValueError(f"{n_samples} samples among {len(shared)} masks; there must be samples and annotations")
    sizes = np.diagonal(shared)
    union = sizes[:, None] + sizes - shared
    distance = np.where(union > 0, 1 - shared / np.maximum(union, 1), 0.0)
    samples, raters = slice(n_samples), slice(n_samples, None)
    between = 2 * distance[samples, raters].mean()
    return float(between - distance[samples, samples].mean() - distance[raters, raters].mean())
