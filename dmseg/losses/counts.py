"""Soft confusion counts, from which every region loss is computed.

`pixel_sums` reads the pixels once; `confusion` turns the sums into true positives, false positives and false negatives.
For hard predictions and labels, all four definitions of these counts agree with counting pixels.
"""

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from dmseg.losses import _check
from dmseg.losses._fused import DifferenceSums, LogitSums, RequiredSums, difference_sums, sum_pixels

Overlap = Literal["minimum", "product", "classical", "squared"]
"""Definition of the overlap of a soft prediction and a soft label; see `confusion`."""
OVERLAPS: tuple[Overlap, ...] = ("minimum", "product", "classical", "squared")
FOREGROUND_PIXELS = 2**18
"""Largest image of two classes whose background is computed from the foreground, as 1 - x and 1 - y. In larger ones,
which are volumes, rounding could exceed the sums of a background of a few voxels."""


class PixelSums(NamedTuple):
    """Sums over the kept pixels of each image, with x the prediction and y the label.

    Attributes:
        pixels: (B,) number of kept pixels.
        label: (B, C) of y.
        difference: (B, C) of x - y and, if required, of abs(x - y), (x - y)^2 and x y.
        cross_entropy: (B,) of -sum_c y_c log x_c, or None.
        entropy: (B,) of -sum_c y_c log y_c, or None.
        peak: (B, C) largest y, or None.
    """

    pixels: Tensor
    label: Tensor
    difference: DifferenceSums
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
    required: RequiredSums,
    *,
    from_logits: bool = True,
    check_values: bool | None = None,
) -> PixelSums:
    """Sums over the pixels of each image, in float32 or more for any dtype of the input.

    Args:
        input: (B, C, ...) logits (C = 1: sigmoid, else softmax) or probabilities in [0, 1].
        target: (B, ...) integer classes, or (B, C, ...) soft labels in [0, 1] that sum to 1 over the classes. For
            logits of two classes only the second channel is read, in images of up to `FOREGROUND_PIXELS`.
        mask: (B, ...) bool or 0 and 1, the pixels to keep; None keeps all. Values of other pixels have no effect.
        required: the sums to compute.
        from_logits: whether `input` holds logits. If so, the target gets no gradient.
        check_values: whether to check values too, which synchronises the device; None checks them on the CPU only.

    Raises:
        TypeError: if an argument is not a tensor, or a dtype does not fit.
        ValueError: if a shape or a value does not fit, or `input` holds logits and the target requires a gradient.
    """
    input, target, keep = prepare(input, target, mask, from_logits=from_logits, check_values=check_values)
    channels = input.shape[1]
    if not from_logits:
        label = label_channels(target, channels, input.dtype, keep)
        return plain_sums(input if keep is None else torch.where(keep, input, 0), label, required, keep)
    if target.requires_grad:
        raise ValueError("target requires a gradient, which losses on logits do not provide; pass target.detach()")
    foreground = channels == 2 and input[:1, :1].numel() <= FOREGROUND_PIXELS
    label = label_channels(target, channels, input.dtype, keep, foreground=foreground)
    *difference, cross_entropy, _, _ = LogitSums.apply(input, label, keep, required)
    sums = _with_label_sums(DifferenceSums(*difference), cross_entropy, label, channels, keep, required)
    return _add_background(sums) if foreground else sums


def plain_sums(prob: Tensor, label: Tensor, required: RequiredSums, keep: Tensor | None = None) -> PixelSums:
    """Sums over the pixels of each image, differentiable by autograd in prediction and label; without checks.

    Args:
        prob: (B, C, ...) predictions in [0, 1], 0 where masked out.
        label: (B, C, ...) labels in [0, 1], 0 where masked out.
        required: the sums to compute, except cross-entropy, which needs logits.
        keep: (B, 1, ...) bool, the kept pixels; None for all.
    """
    return _with_label_sums(
        difference_sums(prob - label, prob, label, required), None, label, prob.shape[1], keep, required
    )


def prepare(
    input: Tensor, target: Tensor, mask: Tensor | None, *, from_logits: bool, check_values: bool | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Checks the arguments of a loss and converts them to the form that all losses use.

    Args:
        input: logits or probabilities, see `pixel_sums` for all arguments.
        target: hard or soft.
        mask: the pixels to keep.
        from_logits: whether `input` holds logits.
        check_values: whether to check values.

    Returns:
        The input in float32 or more; the target unchanged; the mask as (B, 1, ...) bool, or None. All are plain
        tensors, as autograd functions do not support subclasses such as MONAI's MetaTensor.
    """
    _check.check_types(input, target, mask)
    input, target = _plain(input), _plain(target)
    mask = None if mask is None else _plain(mask)
    _check.check_shapes(input, target, mask)
    if _check.should_check_values(check_values, input):
        _check.check_values(input, target, mask, from_logits=from_logits)
    keep = None if mask is None else mask.bool().unsqueeze(1)
    return input.to(torch.promote_types(input.dtype, torch.float32)), target, keep


def _plain(tensor: Tensor) -> Tensor:
    """Returns a tensor without its subclass."""
    return tensor if type(tensor) is Tensor else tensor.as_subclass(Tensor)


def label_channels(
    target: Tensor, channels: int, dtype: torch.dtype, keep: Tensor | None = None, *, foreground: bool = False
) -> Tensor:
    """Returns a hard or soft target with one channel for each class.

    Args:
        target: (B, ...) integer classes or (B, C, ...) soft labels.
        channels: number of classes C; for 1, the channel is class 1 of a hard target.
        dtype: dtype of the result.
        keep: (B, 1, ...) bool; labels are 0 where it is False. None keeps all.
        foreground: whether only the last channel is returned.

    Returns:
        (B, C, ...), or (B, 1, ...) with `foreground`; a view of `target` if nothing has to change.
    """
    if target.is_floating_point():
        label = (target[:, -1:] if foreground else target).to(dtype)
    else:
        first = max(channels - 1, 1) if foreground or channels == 1 else 0
        target = target.long() if target.dtype in (torch.uint16, torch.uint32, torch.uint64) else target
        classes = torch.arange(first, max(channels, 2), device=target.device)
        label = (target.unsqueeze(1) == classes.reshape(-1, *(1,) * (target.ndim - 1))).to(dtype)
    return label if keep is None else torch.where(keep, label, 0)


def _with_label_sums(
    difference: DifferenceSums,
    cross_entropy: Tensor | None,
    label: Tensor,
    channels: int,
    keep: Tensor | None,
    required: RequiredSums,
) -> PixelSums:
    """Adds the sums that depend only on the label, (B, C, ...) or for two classes (B, 1, ...)."""
    pixels = label.new_full((1,), label[:1, :1].numel()) if keep is None else sum_pixels(keep.to(label.dtype))[:, 0]
    peak = None
    if required.peak:
        kept = label
        if label.shape[1] < channels:
            background = 1 - label if keep is None else torch.where(keep, 1 - label, 0)
            kept = torch.cat((background, label), 1)
            del background
        # the largest label of each image and class, (B, C)
        peak = kept.amax(tuple(range(2, kept.ndim))) if kept.numel() else kept.new_zeros(kept.shape[:2])
        del kept
    return PixelSums(
        pixels=pixels.expand(label.shape[0]),
        label=sum_pixels(label),
        difference=difference,
        cross_entropy=cross_entropy,
        entropy=_entropy(label) if required.entropy else None,
        peak=peak,
    )


def _entropy(label: Tensor) -> Tensor:
    """Returns the sum of -sum_c y_c log y_c over the pixels of each image, (B,); one channel means two classes."""
    label = label.clamp(0, 1)  # rounding may have moved labels out of [0, 1], where the logarithm is undefined
    surprise = torch.special.xlogy(label, label)
    if label.shape[1] == 1:
        surprise = surprise + torch.special.xlogy(1 - label, 1 - label)
    return -sum_pixels(surprise).sum(1)


def _add_background(sums: PixelSums) -> PixelSums:
    """Adds the sums of the background, with prediction 1 - x and label 1 - y, to those of the foreground (B, 1)."""
    label, (signed, absolute, squared, product) = sums.label, sums.difference
    background = sums.pixels.unsqueeze(1) - label
    difference = DifferenceSums(
        signed=torch.cat((-signed, signed), 1),
        absolute=_twice(absolute),
        squared=_twice(squared),
        product=None if product is None else torch.cat((background - (label + signed - product), product), 1),
    )
    return sums._replace(label=torch.cat((background, label), 1), difference=difference)


def _twice(values: Tensor | None) -> Tensor | None:
    """Returns (B, 1) as (B, 2), for a sum that is the same for both classes."""
    return None if values is None else values.expand(-1, 2)


def sums_for(overlap: Overlap) -> RequiredSums:
    """Returns the sums that `confusion` needs."""
    return RequiredSums(
        absolute=overlap in ("minimum", "product"), squared=overlap == "squared", product=overlap != "minimum"
    )


def confusion(sums: PixelSums, overlap: Overlap) -> Confusion:
    """Turns sums into soft counts.

    =========== ============= =================== =================== ============================================
    overlap     tp, sum of    fp, sum of          fn, sum of          source
    =========== ============= =================== =================== ============================================
    minimum     min(x, y)     max(x - y, 0)       max(y - x, 0)       Dice semimetric losses, Eqs. 3-4, variant 1
    product     x y           max(x - y, 0)       max(y - x, 0)       Dice semimetric losses, Eqs. 3-4, variant 2
    classical   x y           x (1 - y)           (1 - x) y           soft Dice and others, Eqs. 1-2 and 21
    squared     x y           (x - y)^2 / 2       (x - y)^2 / 2       V-Net: tp + fp/2 + fn/2 = (x^2 + y^2) / 2
    =========== ============= =================== =================== ============================================

    Args:
        sums: sums that include those of `sums_for`.
        overlap: one of `OVERLAPS`.

    Raises:
        ValueError: if the overlap is unknown, or a sum that it needs was not computed.
    """
    _check.check_choice("overlap", overlap, OVERLAPS)
    signed, absolute, squared, product = sums.difference
    if overlap == "squared":
        half = require(squared) / 2
        return Confusion(require(product), half, half)
    if overlap == "classical":
        product = require(product)
        return Confusion(product, sums.label + signed - product, sums.label - product)
    absolute = require(absolute)
    fp, fn = (absolute + signed) / 2, (absolute - signed) / 2
    return Confusion(sums.label - fn if overlap == "minimum" else require(product), fp, fn)


def require(values: Tensor | None) -> Tensor:
    """Returns sums, after checking that they were computed.

    Raises:
        ValueError: if they were not.
    """
    if values is None:
        raise ValueError("a sum that the loss needs was not computed; request those of sums_for(overlap)")
    return values


def mean_pixels(values: Tensor, keep: Tensor | None) -> Tensor:
    """Sums values over the channels and averages them over the kept pixels of the batch.

    Args:
        values: (B, C, ...)
        keep: (B, 1, ...) bool; None keeps all.

    Returns:
        A scalar; 0 if no pixel is kept.
    """
    if keep is None:
        return values.sum() / max(values[:, 0].numel(), 1)
    return torch.where(keep, values, 0).sum() / keep.sum().clamp_min(1)


class PixelSumLoss(nn.Module, ABC):
    """A loss that is a function of `PixelSums`, so that several of them can share one pass over the pixels.

    Attributes:
        required: the sums that it needs.
        from_logits: whether its input holds logits.
        check_values: whether to check values, see `pixel_sums`.
    """

    def __init__(self, required: RequiredSums, *, from_logits: bool, check_values: bool | None) -> None:
        super().__init__()
        _check.check_flag("from_logits", from_logits)
        _check.check_optional_flag("check_values", check_values)
        self.required = required
        self.from_logits = from_logits
        self.check_values = check_values

    @abstractmethod
    def from_sums(self, sums: PixelSums) -> Tensor:
        """Returns the loss, a scalar, from sums that include `required`."""

    def forward(self, input: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the loss, a scalar in float32 or more; arguments and errors are those of `pixel_sums`."""
        sums = pixel_sums(
            input, target, mask, self.required, from_logits=self.from_logits, check_values=self.check_values
        )
        return self.from_sums(sums)
