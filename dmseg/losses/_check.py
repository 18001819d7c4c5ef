"""Checks of what a loss is called with: shapes and dtypes always, values on request."""

import torch
from torch import Tensor

_SUM_TOLERANCE = {torch.float16: 2e-2, torch.bfloat16: 2e-2}


def check_at_least(name: str, value: float, least: float, *, strictly: bool = False) -> None:
    """Checks a setting of a loss.

    Raises:
        ValueError: if `value` is less than `least` (or equal to it, with `strictly`), or is not a number.
    """
    if not (value > least if strictly else value >= least):
        raise ValueError(f"{name} is {value}; it must be {'more than' if strictly else 'at least'} {least}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Checks a setting of a loss that is one of a few words.

    Raises:
        ValueError: if `value` is none of `choices`.
    """
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, choices))}")


def check_shapes(input: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
    """Checks shapes, dtypes and devices. Reads no values, so nothing waits for the device.

    Args:
        input: (B, C, ...) floating point with at least one spatial dimension.
        target: (B, ...) integer or bool (hard), or (B, C, ...) floating point (soft).
        mask: (B, ...), or None.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape or a device does not fit.
    """
    if not input.is_floating_point():
        raise TypeError(f"input is {input.dtype}; give floating-point logits or probabilities")
    if input.ndim < 3 or input.shape[1] == 0:
        raise ValueError(f"input has shape {_shape(input)}; give (batch, channels, at least one spatial dimension)")
    _check_target_shape(input, target)
    pixels = _pixel_shape(input)
    if mask is not None and mask.shape != pixels:
        raise ValueError(f"mask has shape {_shape(mask)}; give (batch, spatial ...) = {tuple(pixels)}")
    if mask is not None and mask.is_complex():
        raise TypeError(f"mask is {mask.dtype}; give bool, or the numbers 0 and 1")
    for name, tensor in (("target", target), ("mask", mask)):
        if tensor is not None and tensor.device != input.device:
            raise ValueError(f"{name} is on {tensor.device} and input on {input.device}; move them to one device")


def _check_target_shape(input: Tensor, target: Tensor) -> None:
    """Checks that an integer target fits (B, ...) and a floating-point one (B, C, ...)."""
    if target.is_complex():
        raise TypeError(f"target is {target.dtype}; give integer classes or floating-point soft labels")
    if target.is_floating_point():
        if target.shape != input.shape:
            raise ValueError(
                f"target is a soft label ({target.dtype}) of shape {_shape(target)}; give the input's shape "
                f"{_shape(input)}, or integer classes of shape {tuple(_pixel_shape(input))}"
            )
    elif target.shape != _pixel_shape(input):
        raise ValueError(
            f"target holds hard labels ({target.dtype}) of shape {_shape(target)}; give shape "
            f"{tuple(_pixel_shape(input))} without channels, or floating-point labels of shape {_shape(input)}"
        )


def check_several_channels(channels: int, loss: str) -> None:
    """Checks that a softmax loss has more than one channel to choose from.

    Raises:
        ValueError: if there is one channel, whose softmax is 1 whatever the prediction.
    """
    if channels < 2:
        raise ValueError(
            f"{loss} was given one channel, whose softmax is 1 everywhere and the loss 0; "
            "give two channels (background, foreground)"
        )


def should_check_values(setting: bool | None, input: Tensor) -> bool:
    """Tells whether values are checked: as set, or (None) on the CPU outside of torch.compile."""
    if torch.compiler.is_compiling():
        return False
    return input.device.type == "cpu" if setting is None else setting


@torch.no_grad()
def check_values(input: Tensor, target: Tensor, mask: Tensor | None = None, *, from_logits: bool = True) -> None:
    """Checks the values of all kept pixels; waits for the device. The shapes have passed `check_shapes`.

    Args:
        input: (B, C, ...) logits, or with ``from_logits=False`` probabilities in [0, 1].
        target: classes in [0, C) (0 or 1 for one channel), or soft labels in [0, 1] that sum to 1 over the channels
            (if there are several).
        mask: bool, or 0 and 1.
        from_logits: whether `input` holds logits.

    Raises:
        ValueError: if a value lies outside its range.
    """
    if input.numel() == 0:
        return
    if mask is not None:
        if bool(((mask != 0) & (mask != 1)).any()):
            raise ValueError("mask holds values other than 0 and 1; it keeps a pixel or leaves it out, give a bool")
        mask = mask != 0
    if not from_logits:
        _check_range("input", input, 1, _channel_mask(mask), "give probabilities, or logits with from_logits=True")
    if not target.is_floating_point():
        advice = "mask ignored pixels out and count classes from 0"
        _check_range("target", target, max(input.shape[1] - 1, 1), mask, advice)
        return
    _check_range("target", target, 1, _channel_mask(mask), "give probabilities, or integers for hard labels")
    if input.shape[1] > 1:
        _check_sum(target, mask)


def _check_range(name: str, values: Tensor, high: int, mask: Tensor | None, advice: str) -> None:
    """Checks that the kept values lie in [0, high]; a NaN does not."""
    kept = values if mask is None else torch.where(mask, values, 0)
    low, top = (float(bound) for bound in torch.aminmax(kept if kept.is_floating_point() else kept.long()))
    if not (low >= 0 and top <= high):
        found = low if not low >= 0 else top
        raise ValueError(f"{name} holds {found:g}, outside [0, {high}]: {advice}")


def _check_sum(target: Tensor, mask: Tensor | None) -> None:
    """Checks that the kept soft labels sum to 1 over the channels."""
    total = target.sum(1, dtype=torch.promote_types(target.dtype, torch.float32))
    error = (total - 1).abs()
    worst = float((error if mask is None else torch.where(mask, error, 0)).max())
    if worst > _SUM_TOLERANCE.get(target.dtype, 1e-3):
        raise ValueError(
            f"target does not sum to 1 over its {target.shape[1]} channels (off by up to {worst:g}); "
            "give all classes, background included, or leave pixels without a label out with mask"
        )


def _channel_mask(mask: Tensor | None) -> Tensor | None:
    """Returns (B, ...) as (B, 1, ...)."""
    return None if mask is None else mask.unsqueeze(1)


def _pixel_shape(input: Tensor) -> torch.Size:
    """Returns the shape of `input` without its channels."""
    return torch.Size((input.shape[0], *input.shape[2:]))


def _shape(tensor: Tensor) -> tuple[int, ...]:
    """Returns a shape that prints as a tuple."""
    return tuple(tensor.shape)
