"""Soft confusion counts: from a prediction and a label to what every region loss is made of.

`pixel_sums` reads the pixels once; `confusion` turns its sums into true positives, false positives and false
negatives. For hard predictions and labels all four definitions of the counts agree with counting pixels.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from dmseg.losses import _check
from dmseg.losses._fused import GapSums, LogitSums, Wanted, gap_sums, sum_pixels

Overlap = Literal["minimum", "product", "classical", "squared"]
"""How a soft prediction and a soft label overlap; see `confusion`."""
OVERLAPS: tuple[Overlap, ...] = ("minimum", "product", "classical", "squared")


class PixelSums(NamedTuple):
    """Sums over the kept pixels of each image, with x the prediction and y the label.

    Attributes:
        pixels: (B,) number of kept pixels.
        label: (B, C) of y.
        gap: (B, C) of x - y and, where wanted, of abs(x - y), (x - y)^2 and x y.
        cross_entropy: (B,) of -sum_c y_c log x_c, or None.
        entropy: (B,) of -sum_c y_c log y_c, or None.
        peak: (B, C) largest y, or None.
    """

    pixels: Tensor
    label: Tensor
    gap: GapSums
    cross_entropy: Tensor | None
    entropy: Tensor | None
    peak: Tensor | None


class Confusion(NamedTuple):
    """Soft counts of each image and class, (B, C) each, in pixels."""

    tp: Tensor
    fp: Tensor
    fn: Tensor


def pixel_sums(
    input: Tensor,
    target: Tensor,
    mask: Tensor | None,
    wanted: Wanted,
    *,
    from_logits: bool = True,
    check_values: bool | None = None,
) -> PixelSums:
    """Sums over the pixels of each image, in float32 or more whatever the input's dtype.

    Args:
        input: (B, C, ...) logits (C = 1: sigmoid, else softmax) or probabilities in [0, 1].
        target: (B, ...) integer classes, or (B, C, ...) soft labels in [0, 1] that sum to 1 over the classes. Of two
            classes only the second channel is read when `input` holds logits.
        mask: (B, ...) bool or 0 and 1, the pixels to keep; None keeps all. What stands elsewhere has no influence.
        wanted: the sums to compute.
        from_logits: whether `input` holds logits. If so, the target gets no gradient.
        check_values: whether values are checked too, which waits for the device; None does so on the CPU.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape or a value does not fit, or the target of logits requires a gradient.
    """
    input, target = _plain_tensor(input), _plain_tensor(target)
    mask = None if mask is None else _plain_tensor(mask)
    _check.check_shapes(input, target, mask)
    if _check.should_check_values(check_values, input):
        _check.check_values(input, target, mask, from_logits=from_logits)
    keep = None if mask is None else mask.bool().unsqueeze(1)
    input = input.to(torch.promote_types(input.dtype, torch.float32))
    if from_logits:
        return _from_logits(input, target, keep, wanted)
    label = label_channels(target, input.shape[1], input.dtype, keep)
    prob = input if keep is None else torch.where(keep, input, 0)
    gap = gap_sums(prob, label, wanted)
    return _with_label_sums(gap, None, label, target, keep, wanted)


def _from_logits(logits: Tensor, target: Tensor, keep: Tensor | None, wanted: Wanted) -> PixelSums:
    """Sums over the pixels with the closed-form gradient; two classes go through the foreground's channel alone."""
    if target.requires_grad:
        raise ValueError("target requires a gradient, which losses of logits do not give it: pass target.detach()")
    channels = logits.shape[1]
    label = label_channels(target, channels, logits.dtype, keep, foreground=channels == 2)
    *gap, cross_entropy = LogitSums.apply(logits, label, keep, wanted)  # type: ignore[no-untyped-call]
    sums = _with_label_sums(GapSums(*gap), cross_entropy, label, target, keep, wanted)
    return _add_background(sums) if channels == 2 else sums


def label_channels(
    target: Tensor, channels: int, dtype: torch.dtype, keep: Tensor | None = None, *, foreground: bool = False
) -> Tensor:
    """Returns a hard or soft target as one channel a class.

    Args:
        target: (B, ...) integer classes or (B, C, ...) soft labels.
        channels: number of classes C; with one, class 1 of a hard target is its channel.
        dtype: of the result.
        keep: (B, 1, ...) bool; labels are 0 where it is False. None keeps all.
        foreground: whether only the last channel is returned.

    Returns:
        (B, C, ...), or (B, 1, ...) with `foreground`; a view of `target` where nothing has to change.
    """
    if target.is_floating_point():
        label = (target[:, -1:] if foreground else target).to(dtype)
    else:
        first = max(channels - 1, 1) if foreground or channels == 1 else 0
        classes = torch.arange(first, max(channels, 2), device=target.device)
        label = (target.unsqueeze(1) == classes.reshape(-1, *(1,) * (target.ndim - 1))).to(dtype)
    return label if keep is None else torch.where(keep, label, 0)


def _with_label_sums(
    gap: GapSums, cross_entropy: Tensor | None, label: Tensor, target: Tensor, keep: Tensor | None, wanted: Wanted
) -> PixelSums:
    """Adds the sums that depend on the label alone."""
    pixels = label.new_full((), label[0, 0].numel()) if keep is None else sum_pixels(keep.to(label.dtype)).squeeze(1)
    return PixelSums(
        pixels=pixels.expand(label.shape[0]),
        label=sum_pixels(label),
        gap=gap,
        cross_entropy=cross_entropy,
        entropy=_entropy(label, keep) if wanted.entropy else None,
        peak=_peak(label, target, keep) if wanted.peak else None,
    )
