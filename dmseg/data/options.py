"""Checks options of adapters; messages name the key, the value and what is allowed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg.errors import UserError, check_choice, shown


def check_choices(given: Mapping[str, object], choices: Mapping[str, Sequence[str]]) -> None:
    """Checks options that have a fixed set of values.

    Args:
        given: the options by name.
        choices: the values that each of them may have.

    Raises:
        UserError: if one has another value.
    """
    for option, value in given.items():
        check_choice(f"data.{option}", value, choices[option])


def check_whole(option: str, value: object, low: int, high: int | None = None, unset: str = "") -> None:
    """Checks an option that is a whole number.

    Args:
        option: its name.
        value: the value to check.
        low: smallest value.
        high: largest value, or None for no limit.
        unset: meaning of null; empty if null is not allowed.

    Raises:
        UserError: if it is not a whole number, or out of range.
    """
    if value is None and unset:
        return
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or value < low or (high is not None and value > high):  # type: ignore[operator]
        allowed = f"a whole number of at least {low}" if high is None else f"a whole number from {low} to {high}"
        raise UserError(
            f"data.{option} is {shown(value)}, but must be {allowed}{f', or null for {unset}' if unset else ''}"
        )


def check_max_gib(value: object) -> None:
    """Checks the memory limit for reading one file.

    Raises:
        UserError: if it is not a number above 0.
    """
    if not _is_number(value) or not value > 0:  # type: ignore[operator]
        raise UserError(f"data.max_gib is {shown(value)}, but must be a number of GiB above 0")


def read_window(value: object) -> npt.NDArray[np.float64] | None:
    """Converts an intensity window to a (1, 2) array; null becomes None.

    Raises:
        UserError: if it is not a list of two finite numbers in ascending order.
    """
    if value is None:
        return None
    pair = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
    if len(pair) != 2 or not all(map(_is_number, pair)) or not pair[0] < pair[1]:
        raise UserError(f"data.window is {shown(value)}, but must be [low, high], or null for percentiles")
    return np.array([pair], dtype=np.float64)


def _is_number(value: Any) -> bool:  # noqa: ANN401
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= float(np.finfo(np.float32).max) and not math.isnan(value)
