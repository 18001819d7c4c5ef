"""Augments whole batches with tensor operations: isotropic scale, left-right flip, crop with padding.

All of it is a single resampling of the source at transformed positions, on the device of the batch.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from dmseg.limits import crop_edge

Value = TypeVar("Value", bound=np.generic)


@dataclass(frozen=True)
class Views:
    """The transformation of each sample of a batch.

    Attributes:
        scale: (B,) magnification.
        offset: (B, 2) position of the crop in the scaled slice (row, column), from 0 at the first possible position to
            1 at the last; a slice smaller than the crop has this position within the padding.
        flip: (B,) bool, whether to flip left and right.
    """

    scale: Tensor
    offset: Tensor
    flip: Tensor


def centre_crop(values: npt.NDArray[Value], share: float) -> npt.NDArray[Value]:
    """The centre (..., h, w) of arrays (..., H, W), with each edge reduced to a fraction (`crop_edge`)."""
    height, width = (crop_edge(extent, share) for extent in values.shape[-2:])
    top, left = (values.shape[-2] - height) // 2, (values.shape[-1] - width) // 2
    return values[..., top : top + height, left : left + width]


def draw_views(n: int, scale: tuple[float, float], flip: float, generator: torch.Generator) -> Views:
    """Draws random views.

    Args:
        n: batch size B.
        scale: smallest and largest scale of the uniform distribution.
        flip: probability of a flip.
        generator: CPU generator for augmentation.
    """
    drawn = torch.rand(n, 4, generator=generator)
    return Views(scale[0] + (scale[1] - scale[0]) * drawn[:, 0], drawn[:, 1:3], drawn[:, 3] < flip)


def sampling_grid(
    views: Views, shape: tuple[int, int], device: torch.device, share: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Positions in the source slices at which crops are sampled.

    Args:
        views: the transformations.
        shape: (H, W) of the slices.
        device: device of the result.
        share: edge length of the crops as a fraction of the slices' (`crop_edge`).

    Returns:
        Grid (B, h, w, 2) for `torch.nn.functional.grid_sample` (x, y in [-1, 1] between the outer pixel edges), and the
        mask (B, h, w) of pixels inside the slice.
    """
    scale = views.scale.to(device)
    axes = []
    for axis, extent in enumerate(shape):
        edge = crop_edge(extent, share)
        pixel = torch.arange(edge, device=device, dtype=torch.float32) + 0.5
        start = views.offset[:, axis].to(device) * (scale - edge / extent) * extent
        axes.append((pixel + start[:, None]) / (scale[:, None] * extent) * 2.0 - 1.0)
    y, x = axes
    x = torch.where(views.flip.to(device)[:, None], -x, x)
    inside = (x.abs() <= 1.0)[:, None, :] & (y.abs() <= 1.0)[:, :, None]
    shape_of_grid = (len(scale), y.shape[1], x.shape[1])
    grid = torch.stack([x[:, None, :].expand(shape_of_grid), y[:, :, None].expand(shape_of_grid)], dim=-1)
    return grid, inside


def resample(values: Tensor, grid: Tensor, linear: bool) -> Tensor:
    """Samples (B, C, H, W) at the grid's positions, bilinear or nearest; positions outside repeat the border."""
    mode = "bilinear" if linear else "nearest"
    return functional.grid_sample(values, grid, mode=mode, padding_mode="border", align_corners=False)


def fuse_resampled(masks: Tensor, grid: Tensor, weights: Tensor, threshold: Tensor | None) -> Tensor:
    """Samples each rater's mask bilinearly, thresholds it at 0.5 and fuses the masks (`dmseg.labels.fusion.Votes`).

    Args:
        masks: (B, R, H, W), 0 or 1; those of absent raters have no effect.
        grid: (B, h, w, 2) positions.
        weights: (B, R) float64, 0 for absent raters.
        threshold: (B,) float64 for a hard label; None for a soft one.

    Returns:
        (B, 1, h, w) float32 in [0, 1].
    """
    marked = resample(masks.float(), grid, linear=True) >= 0.5
    votes = (weights[:, :, None, None] * marked).sum(dim=1, keepdim=True)
    if threshold is None:
        return (votes / weights.sum(dim=1)[:, None, None, None]).float()
    return (votes >= threshold[:, None, None, None]).float()
