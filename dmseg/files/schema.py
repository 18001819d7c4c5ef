"""Composable checks of what stored files contain, and a JSON parser with limits.

A check takes a value and a description of where it stands. It returns nothing and raises `SchemaError`:

    CASE = record({"case": name, "dice": number(0, 1)}, {"note": text()})
    CASE({"case": "a", "dice": 2}, "row 3")    # SchemaError: row 3: dice is 2, but must be a number from 0 to 1
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dmseg.errors import cut, shown
from dmseg.files.names import ID, fault_of_name
from dmseg.files.regular import read_regular

Check = Callable[[Any, str], None]

DEEPEST = 50
"""Maximum nesting depth of JSON."""
LARGEST_JSON = 64 * 2**20
"""Maximum size of a JSON file, in bytes."""
MOST_VALUES = 10_000_000
"""Maximum number of values in a JSON file; small ones take 20 times as much memory as their text."""


class SchemaError(ValueError):
    """A value that fails a check; the message says where it is, what it is, and what is expected."""


def _refuse(value: object, where: str, expected: str) -> SchemaError:
    return SchemaError(f"{where} is {shown(value)}, but must be {expected}")


def anything(value: object, where: str) -> None:
    """Accepts every value."""


def name(value: object, where: str) -> None:
    """Accepts a name that a file can have."""
    if fault := fault_of_name(value):
        raise SchemaError(f"{where} is {shown(value)}, which cannot be a name: {fault}")


def matching(pattern: re.Pattern[str], expected: str) -> Check:
    """Accepts text that a pattern matches as a whole; `expected` describes such text in messages."""

    def check(value: object, where: str) -> None:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise _refuse(value, where, expected)

    return check


identity = matching(ID, "16 hexadecimal digits")
"""Accepts the id of a run, an experiment or an evaluation."""


def flag(value: object, where: str) -> None:
    """Accepts true and false."""
    if not isinstance(value, bool):
        raise _refuse(value, where, "true or false")


def text(longest: int = 1000) -> Check:
    """Accepts text that is valid in UTF-8 and not longer than this many characters."""

    def check(value: object, where: str) -> None:
        fits = isinstance(value, str) and len(value) <= longest
        if not fits or not (value.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in value)):  # type: ignore[attr-defined]
            raise _refuse(value, where, f"text of at most {longest} characters")

    return check


def number(low: float = -1e300, high: float = 1e300) -> Check:
    """Accepts a finite number in a closed range."""

    def check(value: object, where: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise _refuse(value, where, f"a number from {low:g} to {high:g}")

    return check


def whole(low: int = 0, high: int = 2**63 - 1) -> Check:
    """Accepts a whole number in a closed range."""

    def check(value: object, where: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _refuse(value, where, f"a whole number from {low} to {high}")

    return check


def nullable(inner: Check) -> Check:
    """Accepts None and whatever another check accepts."""

    def check(value: object, where: str) -> None:
        if value is not None:
            inner(value, where)

    return check


def list_of(inner: Check, unique: bool = False, least: int = 0) -> Check:
    """Accepts a list or tuple of at least `least` items that all pass a check; `unique` refuses repeated items."""

    def check(value: object, where: str) -> None:
        if not isinstance(value, list | tuple) or len(value) < least:
            raise _refuse(value, where, f"a list with at least {least} item{'s' * (least > 1)}" if least else "a list")
        for index, item in enumerate(value):
            inner(item, f"{where}[{index}]")
        if unique and len(set(value)) < len(value):
            twice = next(item for item in value if value.count(item) > 1)
            raise SchemaError(f"{where} contains {shown(twice)} twice")

    return check


TEXT = text()
"""Accepts text that is short enough for a key or a title."""


def mapping(keys: Check = TEXT, values: Check = anything) -> Check:
    """Accepts a mapping whose keys and values all pass their checks."""

    def check(value: object, where: str) -> None:
        if not isinstance(value, Mapping):
            raise _refuse(value, where, "a mapping")
        about_key = f"a key of {where}"
        for key in value:
            keys(key, about_key)
        if values is not anything:
            for key, item in value.items():
                values(item, f"{where}.{key}")

    return check


GROUP = mapping()
"""Accepts a mapping with any keys."""


def record(
    required: Mapping[str, Check], optional: Mapping[str, Check] | None = None, others: Check | None = anything
) -> Check:
    """Accepts a mapping with these keys; `others` checks the values of further keys, None refuses such keys."""
    known = {**required, **(optional or {})}

    def check(value: object, where: str) -> None:
        GROUP(value, where)
        group: Mapping[str, Any] = value  # type: ignore[assignment]
        for key in required:
            if key not in group:
                raise SchemaError(f"{where} has no key '{key}'")
        for key, item in group.items():
            inner = known.get(key, others)
            if inner is None:
                raise SchemaError(f"{where} has the unknown key {shown(key)}")
            inner(item, f"{where}: {key}" if ":" not in where else f"{where}.{key}")

    return check


_SCALARS = frozenset((type(None), bool, str, int, float))


def plain(value: object, where: str) -> None:
    """Accepts what JSON can represent: mappings, lists, text, numbers (also NaN), true, false and null."""
    left = [(value, 0)]
    while left:
        item, depth = left.pop()
        if depth > DEEPEST:
            raise SchemaError(f"{where} is nested more than {DEEPEST} levels deep")
        if isinstance(item, Mapping):
            GROUP(item, where)
            left += [(inner, depth + 1) for inner in item.values() if type(inner) not in _SCALARS]
        elif isinstance(item, list | tuple):
            left += [(inner, depth + 1) for inner in item if type(inner) not in _SCALARS]
        elif not (item is None or isinstance(item, bool | str | int | float)):
            raise _refuse(item, where, "plain values")


def parse_json(content: bytes | str, distinct: bool = False) -> Any:  # noqa: ANN401
    """Parses JSON within limits: at most `MOST_VALUES` values, nested at most `DEEPEST` levels deep.

    Args:
        content: text, or bytes in UTF-8; the caller limits its length.
        distinct: whether a key that an object has twice is an error; otherwise the last value counts.

    Raises:
        ValueError: if it is not JSON, or exceeds a limit.
    """

    def refuse_repeated(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) < len(keys):
            raise SchemaError(f"a key is repeated in {cut(str(keys))}")
        return dict(pairs)

    text = content.decode() if isinstance(content, bytes) else content
    if sum(map(text.count, ",[{")) > MOST_VALUES:
        raise SchemaError(f"it holds more than {MOST_VALUES} values")
    too_deep = SchemaError(f"it is nested more than {DEEPEST} levels deep")
    try:
        node = json.loads(text, object_pairs_hook=refuse_repeated if distinct else None)
    except RecursionError:
        raise too_deep from None
    level: list[Any] = [[node]]
    for _ in range(DEEPEST + 1):
        items = (item for group in level for item in (group.values() if isinstance(group, dict) else group))
        level = [item for item in items if isinstance(item, dict | list)]
        if not level:
            return node
    raise too_deep


def read_json(path: Path, check: Check = GROUP, limit: int = LARGEST_JSON) -> Any:  # noqa: ANN401
    """Reads and checks a regular file of JSON; a link is not followed.

    Raises:
        OSError: if it is missing, a link, not a regular file, or too large.
        ValueError: if it is not JSON, exceeds a limit (`parse_json`), or fails the check.
    """
    return check_json(read_regular(path, limit), path.name, check)


def check_json(content: bytes, name: str, check: Check = GROUP) -> Any:  # noqa: ANN401
    """Parses and checks the content of a file of JSON, as `read_json` does.

    Raises:
        ValueError: if it is not JSON, exceeds a limit (`parse_json`), or fails the check.
    """
    node = parse_json(content)
    plain(node, "it")
    check(node, name)
    return node


def finite(node: Any) -> Any:  # noqa: ANN401
    """Plain containers in which NaN and infinity are null, which JSON cannot represent."""
    if isinstance(node, Mapping):
        return {str(key): finite(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [finite(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node
