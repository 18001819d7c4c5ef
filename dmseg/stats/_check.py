"""Conversion of the values that statistics are computed from."""

import numpy as np
import numpy.typing as npt

from dmseg.errors import cut, first_line, kind_of


def as_numbers(name: str, values: object) -> npt.NDArray[np.float64]:
    """Converts a list, an array, a tensor on the CPU or a pandas object to float64; None becomes NaN.

    Args:
        name: of the argument, for messages.
        values: what to convert.

    Raises:
        TypeError: if it cannot be converted.
    """
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # also a tensor on a GPU, and lists of different lengths
        raise TypeError(
            f"{name} is {kind_of(values)} that cannot be converted to an array of numbers ({cut(first_line(error))}); "
            "give a list, an array, a pandas Series or a tensor on the CPU"
        ) from None
