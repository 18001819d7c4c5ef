"""Checks of a loss's settings and arguments: types, shapes and dtypes always, values on request."""

import math
from collections.abc import Iterable, Mapping
from operator import index

import torch
from torch import Tensor

from dmseg.errors import kind_of

ClassWeights = Iterable[float] | Mapping[int, float] | Tensor
"""One number for each class, in order or by class index."""

_SUM_TOLERANCE = {torch.float16: 2e-2, torch.bfloat16: 2e-2}
"""Tolerance for the sum of a soft label over the channels; 1e-3 for other dtypes."""


def check_at_least(name: str, value: object, least: float, *, strictly: bool = False) -> float:
    """Checks a setting of a loss.

    Args:
        name: the setting, for messages.
        value: a number, also as a tensor or an array with one element.
        least: its lower bound.
        strictly: whether the bound itself is excluded.

    Returns:
        The number.

    Raises:
        TypeError: if `value` is not a number, or is a tensor that requires a gradient.
        ValueError: if it is less than `least` (or equal to it, with `strictly`), infinite or NaN.
    """
    if isinstance(value, Tensor) and value.requires_grad:
        raise TypeError(f"{name} requires a gradient, but must be a fixed number; detach it")
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        shown = repr(value) if isinstance(value, str | bytes | complex | None) else kind_of(value)
        raise TypeError(f"{name} is {shown}; give a number") from None
    if not (number > least if strictly else number >= least) or number == math.inf:
        finite = "finite and " if number == math.inf else ""
        raise ValueError(f"{name} is {number:g}; it must be {finite}{'more than' if strictly else 'at least'} {least}")
    return number


def as_class_weights(weights: ClassWeights | None) -> tuple[float, ...] | None:
    """Copies class weights from a sequence of numbers, or from a mapping that contains every class index.

    Args:
        weights: a sequence, a one-dimensional tensor or array (values are copied, without a gradient), a mapping such
            as ``{0: 0.5, 1: 2}``, or None.

    Returns:
        One finite number of at least 0 for each class, not all of them 0; or None.

    Raises:
        TypeError: if it is none of these.
        ValueError: if it is empty, a class is missing, or a number lies outside its range.
    """
    if weights is None:
        return None
    if isinstance(weights, Mapping):
        try:
            by_index = {index(key): weight for key, weight in weights.items()}
        except TypeError:
            raise TypeError(
                f"class_weights has the keys {list(weights)}; give class indices, 0 for the first"
            ) from None
        if set(by_index) != set(range(len(weights))):
            raise ValueError(f"class_weights has the keys {list(weights)}; name every class by its index: 0, 1, ...")
        weights = [by_index[position] for position in range(len(weights))]
    if isinstance(weights, Tensor):
        weights = weights.detach()
    if isinstance(weights, str | bytes | set | frozenset) or getattr(weights, "ndim", 1) == 0:
        raise TypeError(_class_weights_message(weights))
    try:
        numbers = tuple(check_at_least("a class weight", weight, 0) for weight in weights)
    except TypeError as error:
        raise TypeError(f"{_class_weights_message(weights)} ({error})") from None
    if not any(numbers):
        raise ValueError(f"class_weights is {list(numbers)}; give one number per channel, not all of them 0")
    return numbers


def _class_weights_message(weights: object) -> str:
    shown = repr(weights) if isinstance(weights, str | int | float | set) else kind_of(weights)
    return f"class_weights is {shown}; give one number per channel, for example [0.5, 2]"


def check_flag(name: str, value: object) -> None:
    """Checks a setting of a loss that must be true or false: the string "false" would count as true.

    Raises:
        TypeError: if `value` is not a bool.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; give True or False")


def check_optional_flag(name: str, value: object) -> None:
    """Checks a setting of a loss that must be true, false or None.

    Raises:
        TypeError: if `value` is neither a bool nor None.
    """
    if value is not None:
        check_flag(name, value)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Checks a setting of a loss that must be one of several strings.

    Raises:
        ValueError: if `value` is not one of `choices`.
    """
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, choices))}")


def check_types(input: object, target: object, mask: object) -> None:
    """Checks that a loss is called with tensors.

    Raises:
        TypeError: if an argument is something else, such as a network's list or dictionary of outputs, or an array.
    """
    if not isinstance(input, Tensor):
        advice = "give one tensor of logits or probabilities"
        if isinstance(input, Mapping):
            names = ", ".join(repr(name) for name in input)
            advice = f"give one of its tensors ({names}), or call the loss on each"
        elif isinstance(input, list | tuple):
            advice = "give one tensor, or call the loss on each output and add up"
        elif hasattr(input, "__array__"):
            advice = "give a tensor: torch.from_numpy(input)"
        raise TypeError(f"input is {kind_of(input)}; {advice}")
    for name, value in (("target", target), ("mask", mask)):
        if not isinstance(value, Tensor) and not (name == "mask" and value is None):
            advice = f": torch.from_numpy({name})" if hasattr(value, "__array__") else ""
            raise TypeError(f"{name} is {kind_of(value)}; give a tensor{advice}")


def check_shapes(input: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
    """Checks shapes, dtypes and devices. Reads no values, so the device is not synchronised.

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
    pixels = (input.shape[0], *input.shape[2:])
    if target.is_complex():
        raise TypeError(f"target is {target.dtype}; give integer classes or floating-point soft labels")
    if target.is_floating_point():
        if target.shape != input.shape:
            raise ValueError(
                f"target is a soft label ({target.dtype}) of shape {_shape(target)}; give the input's shape "
                f"{_shape(input)}, or integer classes of shape {pixels} ({_reading(input)})"
            )
    elif target.shape != pixels:
        raise ValueError(
            f"target holds hard labels ({target.dtype}) of shape {_shape(target)}; give shape {pixels} without "
            f"channels, or floating-point labels of shape {_shape(input)} ({_reading(input)})"
        )
    if mask is not None and mask.shape != pixels:
        raise ValueError(f"mask has shape {_shape(mask)}; give (batch, spatial ...) = {pixels}")
    if mask is not None and mask.is_complex():
        raise TypeError(f"mask is {mask.dtype}; give bool, or the numbers 0 and 1")
    for name, tensor in (("target", target), ("mask", mask)):
        if tensor is not None and tensor.device != input.device:
            raise ValueError(f"{name} is on {tensor.device} and input on {input.device}; move them to one device")


def _reading(input: Tensor) -> str:
    """Says how an input was read, for those who forgot a dimension."""
    return (
        f"the input is read as {input.shape[0]} images of {input.shape[1]} channels; add a missing dimension with "
        f"unsqueeze(0) for the batch or unsqueeze(1) for the channel"
    )


def should_check_values(setting: bool | None, input: Tensor) -> bool:
    """Whether to check values: as set, or for None only on the CPU; never within torch.compile."""
    if torch.compiler.is_compiling():
        return False
    return input.device.type == "cpu" if setting is None else setting


@torch.no_grad()
def check_values(input: Tensor, target: Tensor, mask: Tensor | None = None, *, from_logits: bool = True) -> None:
    """Checks the values of all kept pixels, which synchronises the device. Shapes must have passed `check_shapes`.

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
            raise ValueError("mask holds values other than 0 and 1; give a bool mask, True for the pixels to use")
        mask = mask != 0
    if not from_logits:
        _check_range("input", input, 1, _channel_mask(mask), "give probabilities, or logits with from_logits=True")
    if not target.is_floating_point():
        advice = "mask ignored pixels out and count classes from 0"
        _check_range("target", target, max(input.shape[1] - 1, 1), mask, advice)
        return
    _check_range("target", target, 1, _channel_mask(mask), "give probabilities, or integers for hard labels")
    if input.shape[1] == 1:
        return
    error = (target.sum(1, dtype=torch.promote_types(target.dtype, torch.float32)) - 1).abs()
    worst = float((error if mask is None else torch.where(mask, error, 0)).max())
    if worst > _SUM_TOLERANCE.get(target.dtype, 1e-3):
        raise ValueError(
            f"target does not sum to 1 over its {target.shape[1]} channels (off by up to {worst:g}); give all classes, "
            f"background included, or leave pixels without a label out with mask ({_reading(input)}); for structures "
            "that may overlap, call the loss on each channel, input[:, k : k + 1]"
        )


def _check_range(name: str, values: Tensor, high: int, mask: Tensor | None, advice: str) -> None:
    """Checks that the kept values lie in [0, high], up to rounding; a NaN does not."""
    kept = values if mask is None else torch.where(mask, values, 0)
    low, top = (float(bound) for bound in torch.aminmax(kept if kept.is_floating_point() else kept.long()))
    slack = max(4 * torch.finfo(kept.dtype).eps, 1e-6) if kept.is_floating_point() else 0
    if not (low >= -slack and top <= high + slack):
        found = low if not low >= -slack else top
        raise ValueError(f"{name} holds {found:g}, outside [0, {high}]: {advice}")


def _channel_mask(mask: Tensor | None) -> Tensor | None:
    """Returns (B, ...) as (B, 1, ...)."""
    return None if mask is None else mask.unsqueeze(1)


def _shape(tensor: Tensor) -> tuple[int, ...]:
    """Returns a shape that prints as a tuple."""
    return tuple(tensor.shape)
