"""Helpers of adapters: natural order of names, and checks of binary masks."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg.errors import UserError, shown, some

TOLERANCE = 1e-2
"""Tolerance for whole numbers in masks and labels: some tools store 0.9999, or fractions of the maximum."""
FOREGROUND = (1, 255, 65535)
"""Foreground values of binary masks."""
LONGEST_NUMBER = 1000
"""Largest number of digits of a number in a name; Python refuses to parse very long ones."""
SOFT = "soft masks are not supported yet; provide one binary mask for each rater"


def natural_key(text: str) -> list[tuple[int, int | str]]:
    """Sort key under which ``case2`` comes before ``case10``."""
    parts = [part for part in re.split(r"(\d+)", text) if part]
    return [(0, int(part)) if part.isdecimal() and len(part) <= LONGEST_NUMBER else (1, part) for part in parts]


def as_mask(values: npt.NDArray[Any], path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Converts an array to a binary mask of the image's shape.

    Args:
        values: content of the file: 0 and one other value, 1, 255 or 65535, within `TOLERANCE`.
        path: the file, for the message.
        shape: the image's (H, W).

    Returns:
        (H, W) bool.

    Raises:
        UserError: if the shape differs, or the array contains other values.
    """
    if values.shape != shape:
        raise UserError(f"{shown(path)} has shape {values.shape}, but its image has {shape}; mask and image must match")
    largest = float(values.max(initial=0))
    foreground = next((value for value in (*FOREGROUND, 0) if abs(largest - value) <= TOLERANCE), None)
    if foreground is not None:
        mask: npt.NDArray[np.bool_] = values > max(foreground, 1) / 2
        if (np.abs(values - mask * np.float32(foreground)) <= TOLERANCE).all():
            return mask
    is_soft = values.min() >= 0 and largest <= 1
    advice = SOFT if is_soft else f"expected 0 and one of {', '.join(map(str, FOREGROUND))}"
    raise UserError(f"{shown(path)} is not a binary mask: it contains {some_values(values)}; {advice}")


def some_values(values: npt.NDArray[Any]) -> str:
    """The first few distinct values of an array, with all their digits."""
    return some([one_value(value) for value in np.unique(values)])


def one_value(value: object) -> str:
    """A number with all its digits, without a fraction of zero."""
    return str(value).removesuffix(".0")
