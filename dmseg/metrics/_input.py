"""Reads and checks the arrays that users pass to metrics. Imports no torch."""

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dmseg.errors import UserError, kind_of

if TYPE_CHECKING:
    from torch import Tensor

Values: TypeAlias = "npt.ArrayLike | Tensor | Sequence[Tensor]"
"""What metrics take: a numpy array, a tensor, or a list of either or of numbers."""

Mask = npt.NDArray[np.bool_]
Probabilities = npt.NDArray[np.float32]

_ROUNDING = 0.01
"""Values that are farther outside [0, 1] are not probabilities; the first number above 1 in bfloat16 is 1.0078."""

_SAID = "give a numpy array, a tensor, or a list of them"


def as_array(name: str, values: object) -> npt.NDArray[Any]:
    """Returns a numpy array of bool, integers or floats; that of a tensor shares its memory where possible.

    Args:
        name: of the argument, for messages.
        values: array, tensor, or a list or tuple of arrays, tensors or numbers.

    Raises:
        TypeError: if it is something else.
        ValueError: if the arrays of a list differ in shape.
    """
    if isinstance(values, list | tuple):
        items = [_numpy(name, item) for item in values]
        for item in items:
            if not isinstance(item, np.ndarray | np.generic | int | float | list | tuple):
                raise TypeError(f"{name} is {kind_of(values)} with {kind_of(item)} in it; {_SAID}")
        try:
            found: object = np.asarray(items)
        except ValueError:
            shapes = sorted({np.shape(item) for item in items if isinstance(item, np.ndarray)})
            raise ValueError(
                f"{name} is a list whose items differ in shape: {shapes}; give items of one shape"
            ) from None
    else:
        found = _numpy(name, values)
    if not isinstance(found, np.ndarray | np.generic):
        raise TypeError(f"{name} is {kind_of(values)}; {_SAID}")
    if found.dtype.kind not in "biuf":
        raise TypeError(f"{name} has values of type {found.dtype}, but must have real numbers or bool; {_SAID}")
    return np.asarray(found)


def _numpy(name: str, values: object) -> object:
    """The numpy array of a tensor, and anything else as it is; masked arrays are refused."""
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be ignored; give only the pixels that count")
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    if torch is None or not isinstance(values, torch.Tensor):
        return values
    tensor: Tensor = values.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.to(torch.promote_types(tensor.dtype, torch.float32))  # numpy has no bfloat16
    return tensor.numpy()


def as_mask(name: str, values: object) -> Mask:
    """Returns a mask, or several, as bool.

    Args:
        name: of the argument, for messages.
        values: bool, or any numbers that are exactly 0 and 1.

    Raises:
        TypeError: as for `as_array`.
        ValueError: as for `as_array`.
        UserError: if a value is neither 0 nor 1.
    """
    array = as_array(name, values)
    if array.dtype == np.bool_:
        return array
    mask = np.asarray(array == 1)
    other = array[~(mask | (array == 0))]
    if other.size:
        if np.isnan(other).any():
            raise UserError(
                f"{name} has NaN, but a mask must have only 0 and 1; set these pixels to 0, or leave out raters who "
                "did not annotate the case"
            )
        soft = array.dtype.kind == "f" and not bool((other == np.round(other)).all())
        advice = (
            f"threshold the probability first: {name} >= 0.5" if soft else f"if they are foreground, give {name} != 0"
        )
        raise UserError(f"{name} has the value {float(other[0]):g}, but a mask must have only 0 and 1; {advice}")
    return mask


def mask_pair(predicted: object, reference: object) -> tuple[Mask, Mask]:
    """Returns two masks (S, H, W) as bool.

    Raises:
        TypeError: as for `as_array`.
        ValueError: as for `as_array`.
        UserError: if a value is neither 0 nor 1, or the shapes do not fit.
    """
    one, other = as_mask("predicted", predicted), as_mask("reference", reference)
    if one.ndim != 3 or one.shape != other.shape:
        single = "; give mask[None] for a single slice" if {one.ndim, other.ndim} == {2} else ""
        raise UserError(
            f"the masks have shapes {one.shape} and {other.shape}, but must have the same shape (S, H, W){single}"
        )
    return one, other


def as_probability(name: str, values: object) -> Probabilities:
    """Returns probabilities, or soft labels, as float32.

    Args:
        name: of the argument, for messages.
        values: numbers in [0, 1], or bool.

    Raises:
        TypeError: as for `as_array`.
        ValueError: as for `as_array`.
        UserError: if a value is not a number in [0, 1].
    """
    with np.errstate(over="ignore"):
        array = np.asarray(as_array(name, values), np.float32)
    check_unit_interval(name, array)
    return array


def check_unit_interval(name: str, values: Probabilities) -> None:
    """Refuses values that are not numbers in [0, 1].

    Raises:
        UserError: with the range of the values.
    """
    if surely_in_unit_interval(values):
        return
    low, high = float(values.min()), float(values.max())
    if math.isnan(low) or math.isnan(high):
        raise UserError(f"{name} has values that are not a number (NaN), but must be in [0, 1]")
    if not 0.0 <= low <= high <= 1.0:
        rounded = low > -_ROUNDING and high < 1 + _ROUNDING
        advice = (
            f"if this is rounding, give {name}.clip(0, 1)"
            if rounded
            else "apply the sigmoid or softmax to logits, or divide intensities by their maximum"
        )
        raise UserError(f"{name} ranges from {low:.9g} to {high:.9g}, but must be in [0, 1]; {advice}")


def surely_in_unit_interval(values: Probabilities) -> bool:
    """One pass: the bits of floats above 1, of negative ones (also of -0.0) and of NaN are larger integers."""
    return not values.size or bool(values.view(np.uint32).max() <= np.float32(1).view(np.uint32))
