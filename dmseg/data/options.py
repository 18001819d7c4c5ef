"""Options of adapters as users write them, checked: one line that names the key, the value and what it may be."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg.errors import UserError


def check_choices(given: Mapping[str, object], choices: Mapping[str, Sequence[str]]) -> None:
    """Checks options that are one of a few words.

    Args:
        given: the options by name.
        choices: what each of them may be.

    Raises:
        UserError: if one is anything else.
    """
    for option, value in given.items():
        if not isinstance(value, str) or value not in choices[option]:
            raise UserError(f"data.{option} is {value!r:.80}, but may be {' or '.join(choices[option])}")


def check_whole(option: str, value: object, low: int, high: int | None = None, unset: str = "") -> None:
    """Checks an option that is a whole number.

    Args:
        option: its name.
        value: what the user wrote.
        low: least value.
        high: largest value, or None.
        unset: what null stands for; empty where it must be a number.

    Raises:
        UserError: if it is no whole number, or out of range.
    """
    if value is None and unset:
        return
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or value < low or (high is not None and value > high):  # type: ignore[operator]
        allowed = f"must be a whole number, at least {low}" if high is None else f"may be {low} to {high}"
        raise UserError(f"data.{option} is {value!r:.80}, but {allowed}{f', or null for {unset}' if unset else ''}")


def check_max_gib(value: object) -> None:
    """Checks the memory that reading one file may take.

    Raises:
        UserError: if it is not a number above 0.
    """
    if not _is_number(value) or not value > 0:  # type: ignore[operator]
        raise UserError(f"data.max_gib is {value!r:.80}, but must be a number of GiB above 0")


def read_window(value: object) -> npt.NDArray[np.float64] | None:
    """An intensity window as (1, 2) array; None for null.

    Raises:
        UserError: if it is not a list of two finite numbers, the lower one first.
    """
    if value is None:
        return None
    pair = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
    if len(pair) != 2 or not all(map(_is_number, pair)) or not pair[0] < pair[1]:
        raise UserError(f"data.window is {value!r:.80}, but must be [low, high], or null for percentiles")
    return np.array([pair], dtype=np.float64)


def _is_number(value: Any) -> bool:  # noqa: ANN401
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= float(np.finfo(np.float32).max) and not math.isnan(value)
