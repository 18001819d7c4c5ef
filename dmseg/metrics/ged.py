"""Generalised energy distance between predicted masks and the raters' annotations, from counts of shared pixels."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

PIXELS = 2**16
"""Pixels that are multiplied at once: they stay in the cache, and their float32 sums are exact (up to 2^24)."""


@torch.no_grad()
def shared_pixels(masks: Tensor) -> Tensor:
    """Counts the pixels that each two masks of a slice share.

    The counts add up over slices; those of a volume are the sum over its slices.

    Args:
        masks: (B, M, H, W) bool.

    Returns:
        (B, M, M) int64 on the device where the masks are; a mask's own size is on the diagonal.

    Raises:
        ValueError: if shape or dtype do not fit.
    """
    if masks.ndim != 4 or masks.dtype != torch.bool:
        raise ValueError(f"masks are {tuple(masks.shape)} {masks.dtype}, but must be (B, M, H, W) bool")
    return torch.stack([_products(mask.flatten(1)) for mask in masks])


def _products(masks: Tensor) -> Tensor:
    """Scalar product of each two rows of (M, pixels)."""
    total = torch.zeros(len(masks), len(masks), dtype=torch.int64, device=masks.device)
    for part in torch.split(masks, PIXELS, dim=1):
        rows = part.to(torch.float32)
        total += (rows @ rows.T).to(torch.int64)
    return total


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
