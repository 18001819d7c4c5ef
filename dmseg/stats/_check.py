"""Conversion of the values that statistics are computed from."""

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg.errors import cut, first_line, kind_of


def as_numbers(name: str, values: object) -> npt.NDArray[np.float64]:
    """Converts a list, an array, a tensor or a pandas object to float64; None becomes NaN.

    Args:
        name: of the argument, for messages.
        values: what to convert.

    Raises:
        TypeError: if it cannot be converted, or is a masked array or one of text, times or complex numbers.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be ignored; give NaN where a value is missing")
    given: Any = values
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    if torch is not None and isinstance(values, torch.Tensor):
        given = values.detach().cpu().double() if not values.is_complex() else values.detach().cpu()
    try:
        kind = np.asarray(given).dtype.kind
        if kind in "cmMSU":
            raise ValueError("its values are text, times or complex numbers")
        return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # also lists of different lengths
        raise TypeError(
            f"{name} is {kind_of(values)} that cannot be converted to an array of numbers ({cut(first_line(error))}); "
            "give a list, an array, a pandas Series or a tensor of numbers"
        ) from None
