"""Arguments of fusions and other components, which tell what to call them with."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

RATERS = "raters"
"""Argument of a fusion that the names of the raters are passed as."""


def takes_raters(fusion: Callable[..., Any]) -> bool:
    """Whether a fusion gets the names of the raters; an option of this name that is set is the user's."""
    return RATERS not in getattr(fusion, "keywords", {}) and RATERS in argument_names(fusion)


def argument_names(function: Callable[..., Any]) -> Sequence[str]:
    """Names of a function's arguments; none for one that is not written in Python."""
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []
