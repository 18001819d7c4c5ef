"""Checks of what fusions are called with: masks, names of raters and numbers."""

import math
import numbers
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg.errors import UserError, cut, is_number, is_whole, kind_of, shown, some

Masks = npt.NDArray[np.uint8]

MANY_RATERS = 16
"""More raters of masks without a shape, (R, pixels), are probably the rows of a single mask."""

_READ = (list, tuple, numbers.Number)
_INTERFACES = ("__array__", "__array_interface__", "__array_struct__")


def as_masks(annotations: npt.ArrayLike, *, warn: bool = True) -> Masks:
    """Checks annotations and converts them to an array of 0 and 1, without a copy if they are bool or one byte wide.

    Args:
        annotations: (R, *spatial): an array, a list of arrays, or a tensor on the CPU; bool, or integers or floats that
            are exactly 0 and 1. Bool is not read.
        warn: whether to warn if two-dimensional annotations look like one mask.

    Returns:
        (R, *spatial) uint8, 0 or 1.

    Raises:
        TypeError: if they cannot be converted to an array of such a type.
        ValueError: if there is no rater, shapes differ, the axis of the raters is missing, or another value is found.
    """
    masks = as_array(annotations, "annotations")
    if masks.ndim < 2 or not len(masks):
        raise ValueError(
            f"annotations have the shape {masks.shape}, but must be masks of at least one rater, (raters, *spatial); "
            "give a single mask as mask[np.newaxis]"
        )
    if warn and masks.ndim == 2 and len(masks) > MANY_RATERS:
        warnings.warn(
            f"annotations of shape {masks.shape} are read as {len(masks)} raters with {masks.shape[1]} pixels each; if "
            "it is a single mask, give mask[np.newaxis], else annotations[:, np.newaxis]",
            stacklevel=3,
        )
    if masks.dtype.kind == "b":
        return masks.view(np.uint8)
    if masks.dtype.kind in "iu" and masks.dtype.itemsize == 1 and masks.view(np.uint8).max(initial=0) <= 1:
        return masks.view(np.uint8)
    strange = masks[(masks != 0) & (masks != 1)]
    if not strange.size:
        return masks.astype(np.uint8)
    if np.isnan(strange).any():
        raise ValueError(
            "annotations hold NaN, but must be 0 or 1 everywhere; set these pixels to 0, or leave out raters who did "
            "not annotate the case"
        )
    low, high = strange.min(), strange.max()
    if low > 0 and high < 1:
        advice = "threshold soft masks first (annotations >= 0.5), or average them with np.mean(annotations, axis=0)"
    elif low < high:
        advice = "compare with the value of the foreground or with a threshold (annotations >= ...)"
    else:
        advice = f"compare with the value of the foreground (annotations == {high:g})"
        advice = f"divide by 255, or {advice}" if high == 255 else advice
    found = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    raise ValueError(f"annotations hold {found}, but must be 0 or 1; {advice}")


def as_array(values: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    """Converts an array, a list of arrays of the same shape, or a tensor on the CPU to an array.

    Args:
        values: what to convert.
        name: its name, for messages.

    Raises:
        TypeError: if it is something else.
        ValueError: if the arrays of a list have different shapes, or pixels of a masked array are masked.
    """
    if type(values) is np.ndarray and values.dtype.kind in "biuf":
        return values
    if not isinstance(values, list | tuple):
        return _one_array(values, name)
    items = [_one_array(item, f"{name}[{position}]") for position, item in enumerate(values)]
    shapes = [item.shape for item in items]
    for position, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(f"{name} must have one shape, but {name}[0] is {shapes[0]} and {name}[{position}] {shape}")
    return np.stack(items) if items else np.zeros(0, dtype=np.uint8)


def _one_array(values: object, name: str) -> npt.NDArray[Any]:
    if values is None:
        advice = "leave out raters who did not annotate the case" if "[" in name else "give an array"
        raise TypeError(f"{name} is None; {advice}")
    if isinstance(values, Mapping):
        raise TypeError(f"{name} is {kind_of(values)}; give its arrays: list({name}.values())")
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        raise ValueError(f"there are masked pixels in {name}; give them a value, for example with .filled(0)")
    advice = "give an array of numbers, a list of such arrays, or a tensor on the CPU"
    if not isinstance(values, _READ) and not any(hasattr(values, how) for how in _INTERFACES):
        raise TypeError(f"{name} is {kind_of(values)}; {advice}")  # an image that NumPy would read pixel by pixel
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor on a GPU, lists of different lengths
        reason = cut(" ".join(str(error).splitlines()[:1]))
        raise TypeError(f"{name} is {kind_of(values)} that cannot be converted ({reason}); {advice}") from None
    if array.dtype.kind not in "biuf":
        of = f" of {array.dtype}" if array.ndim else ""
        raise TypeError(f"{name} is {kind_of(values)}{of}; {advice}")
    return array


def check_names(raters: Sequence[str] | None, n_raters: int) -> list[str] | None:
    """Checks that there is a name for each rater.

    Returns:
        The names as texts; None if they are unknown.

    Raises:
        TypeError: if `raters` is not a list of names.
        ValueError: if there are more or fewer names than annotations.
    """
    if raters is None:
        return None
    if isinstance(raters, str | bytes | Mapping | set | frozenset) or not hasattr(raters, "__len__"):
        raise TypeError(f"raters is {shown(raters)}, but must be a list of the raters' names")
    names = [str(name) for name in raters]
    if len(names) != n_raters:
        raise ValueError(
            f"raters has {len(names)} names ({some(names)}), but there are annotations of {n_raters}; "
            "give one name for each, in their order"
        )
    return names


def check_disjoint_weight(value: object) -> float:
    """Checks the weight of a rater who does not overlap with the majority.

    Raises:
        UserError: if it is not finite, or below 0.
    """
    if not is_number(value) or not 0 <= value < math.inf:
        raise UserError(f"disjoint_weight is {shown(value)}, but must be a number of at least 0, such as 0 or 1")
    return float(value)


def check_rater(rater: object) -> None:
    """Checks the name of one rater, a text or a number; None is no name.

    Raises:
        UserError: if it is something else.
    """
    if not isinstance(rater, str | int | float | None):
        raise UserError(f"rater is {shown(rater)}, but must be the name of one rater; rater_weights takes several")


def check_weights(weights: object) -> dict[str, float]:
    """Checks weights of raters by name; None is no weights.

    Returns:
        The weights, with the names as texts.

    Raises:
        UserError: if they are not a mapping, or a weight is not above 0.
    """
    if weights is None:
        return {}
    if not isinstance(weights, Mapping):
        raise UserError(f"weights is {shown(weights)}, but must be weights of raters by name, such as {{A: 2, B: 1}}")
    for name, weight in weights.items():
        if not is_number(weight) or not 0 < weight < math.inf:
            raise UserError(
                f"weights.{name} is {shown(weight)}, but must be a number above 0; leave out raters that do not count"
            )
    return {str(name): float(weight) for name, weight in weights.items()}


def check_staple(
    prior: object, threshold: object, tolerance: object, max_iterations: object
) -> tuple[float | None, float | None, float, int]:
    """Checks the options of `staple`.

    Returns:
        The options as Python's numbers.

    Raises:
        UserError: if one is out of its range.
    """
    if prior is not None and not (is_number(prior) and 0 < prior < 1):
        raise UserError(f"prior is {shown(prior)}, but must lie between 0 and 1, or be None (null in YAML)")
    if threshold is not None and not (is_number(threshold) and 0 < threshold <= 1):
        raise UserError(f"threshold is {shown(threshold)}, but must be above 0 and at most 1, or None (null in YAML)")
    if not (is_number(tolerance) and 0 < tolerance < 1):
        raise UserError(f"tolerance is {shown(tolerance)}, but must lie between 0 and 1")
    if not is_whole(max_iterations) or max_iterations < 2:
        raise UserError(f"max_iterations is {shown(max_iterations)}, but must be a whole number of at least 2")
    return (
        None if prior is None else float(prior),
        None if threshold is None else float(threshold),
        float(tolerance),
        int(max_iterations),
    )
