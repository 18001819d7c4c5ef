"""What stored files must hold, as small checks that are put together; and JSON that is read with bounds.

A check is a function of a value and of words for its place. It returns nothing and raises `Misfit`:

    CASE = record({"case": name, "dice": number(0, 1)}, {"note": text()})
    CASE({"case": "a", "dice": 2}, "row 3")    # Misfit: row 3: dice is 2, but must be a number from 0 to 1
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dmseg.files.names import fault_of_name, is_id
from dmseg.files.regular import read_regular

Check = Callable[[Any, str], None]

DEEPEST = 50
"""JSON may be nested so deeply."""
LARGEST_JSON = 64 * 2**20
"""Bytes of a JSON file."""


class Misfit(ValueError):
    """A value that does not fit; the message says where, what it is, and what is expected."""


def _refuse(value: object, where: str, expected: str) -> Misfit:
    return Misfit(f"{where} is {shortened(value)}, but must be {expected}")


def shortened(value: object) -> str:
    """A value as a message shows it, on one line of at most 60 characters."""
    try:
        shown = ascii(value[:60] if isinstance(value, str) else value)
    except (RecursionError, ValueError):  # a whole number of thousands of digits
        return "too long to show"
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def anything(value: object, where: str) -> None:
    """Fits every value."""


def name(value: object, where: str) -> None:
    """A name that can name a file."""
    if fault := fault_of_name(value):
        raise Misfit(f"{where} is {shortened(value)}, which cannot be a name: {fault}")


def identity(value: object, where: str) -> None:
    """The id of a run, an experiment or an evaluation."""
    if not is_id(value):
        raise _refuse(value, where, "16 hexadecimal digits")


def flag(value: object, where: str) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise _refuse(value, where, "true or false")


def text(longest: int = 1000) -> Check:
    """Text of at most so many characters, valid in UTF-8."""

    def check(value: object, where: str) -> None:
        if not isinstance(value, str) or len(value) > longest or any("\ud800" <= sign <= "\udfff" for sign in value):
            raise _refuse(value, where, f"text of at most {longest} characters")

    return check


def number(low: float = -1e300, high: float = 1e300) -> Check:
    """A finite number in a closed range."""

    def check(value: object, where: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise _refuse(value, where, f"a number from {low:g} to {high:g}")

    return check


def whole(low: int = 0, high: int = 2**63 - 1) -> Check:
    """A whole number in a closed range."""

    def check(value: object, where: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _refuse(value, where, f"a whole number from {low} to {high}")

    return check


def nullable(inner: Check) -> Check:
    """None, or what fits another check."""

    def check(value: object, where: str) -> None:
        if value is not None:
            inner(value, where)

    return check


def list_of(inner: Check, unique: bool = False, least: int = 0) -> Check:
    """A list (or tuple) of values that fit, with at least so many; `unique` refuses a value that is there twice."""

    def check(value: object, where: str) -> None:
        if not isinstance(value, list | tuple) or len(value) < least:
            raise _refuse(value, where, f"a list of at least {least}" if least else "a list")
        for index, item in enumerate(value):
            inner(item, f"{where}[{index}]")
        if unique and len(set(value)) < len(value):
            twice = next(item for item in value if value.count(item) > 1)
            raise Misfit(f"{where} has {shortened(twice)} twice")

    return check


TEXT = text()
"""Text that is not too long to be a key or a title."""


def mapping(keys: Check = TEXT, values: Check = anything) -> Check:
    """A group of keys that all fit, with values that all fit."""

    def check(value: object, where: str) -> None:
        if not isinstance(value, Mapping):
            raise _refuse(value, where, "a group of keys")
        for key, item in value.items():
            keys(key, f"a key of {where}")
            values(item, f"{where}.{key}")

    return check


GROUP = mapping()
"""A group of any keys."""


def record(
    required: Mapping[str, Check], optional: Mapping[str, Check] | None = None, others: Check | None = anything
) -> Check:
    """A group with these keys; `others` is what values of further keys must fit, None for no such keys."""
    known = {**required, **(optional or {})}

    def check(value: object, where: str) -> None:
        GROUP(value, where)
        group: Mapping[str, Any] = value  # type: ignore[assignment]
        for key in required:
            if key not in group:
                raise Misfit(f"{where} has no key '{key}'")
        for key, item in group.items():
            inner = known.get(key, others)
            if inner is None:
                raise Misfit(f"{where} has the unknown key {shortened(key)}")
            inner(item, f"{where}: {key}" if ":" not in where else f"{where}.{key}")

    return check


def plain(value: object, where: str) -> None:
    """What JSON can hold: groups, lists, text, numbers (NaN among them), true, false and null."""
    left = [(value, 0)]
    while left:
        item, depth = left.pop()
        if depth > DEEPEST:
            raise Misfit(f"{where} is nested more than {DEEPEST} levels deep")
        if isinstance(item, Mapping):
            GROUP(item, where)
            left += [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list | tuple):
            left += [(inner, depth + 1) for inner in item]
        elif not (item is None or isinstance(item, bool | str | int | float)):
            raise _refuse(item, where, "plain values")


def load_json(content: bytes) -> Any:  # noqa: ANN401
    """Parses JSON in UTF-8 that is nested at most `DEEPEST` levels deep.

    Raises:
        ValueError: if it is not such.
    """
    try:
        node = json.loads(content.decode("utf-8"))
    except RecursionError:
        raise Misfit(f"it is nested more than {DEEPEST} levels deep") from None
    plain(node, "it")
    return node


def read_json(path: Path, check: Check = GROUP, limit: int = LARGEST_JSON) -> Any:  # noqa: ANN401
    """Reads a regular file of JSON, no link, and checks it.

    Raises:
        OSError: if it is missing, a link, no regular file, or too large.
        ValueError: if it is no JSON, or does not fit.
    """
    node = load_json(read_regular(path, limit))
    check(node, path.name)
    return node
