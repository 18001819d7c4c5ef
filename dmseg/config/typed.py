"""Converts plain values to typed settings; values of another type or structure become plain messages."""

import dataclasses
import difflib
import types
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from dmseg.config.allowed import CHOICES, TRACKERS
from dmseg.config.overrides import PATH_KEYS
from dmseg.errors import UserError, cut, shown


def typed(kind: Any, value: Any, key: str) -> Any:  # noqa: ANN401
    """Converts a plain value to the type of a field of the settings.

    Args:
        kind: the type; a settings class for a group of keys.
        value: the plain value.
        key: its dotted key, for messages; empty for the whole configuration.

    Raises:
        UserError: if it has another type or structure.
    """
    if dataclasses.is_dataclass(kind):
        return _typed_node(kind, value, key)
    if get_origin(kind) in (Union, types.UnionType):
        inner = next(choice for choice in get_args(kind) if choice is not type(None))
        return None if value is None else typed(inner, value, key)
    if get_origin(kind) is list:
        if not isinstance(value, list):
            named = f"{', '.join(TRACKERS)}, or a list of them" if key == "tracker" else "a list"
            raise UserError(f"{key} is {shown(value)}, but must be {named}")
        return [typed(get_args(kind)[0], item, key) for item in value]
    if get_origin(kind) is dict and dataclasses.is_dataclass(get_args(kind)[1]):
        if not isinstance(value, Mapping):
            raise UserError(f"{key} is {shown(value)}, but must be a group of keys")
        check_plain(list(value), key)
        return {name: typed(get_args(kind)[1], item, f"{key}.{name}") for name, item in value.items()}
    expected = get_origin(kind) or kind
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise UserError(f"{key} is {shown(value)}, but must be a finite number") from None
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        if key in CHOICES:
            raise UserError(f"{key} is {shown(value)}, but may be {', '.join(CHOICES[key])}")
        raise UserError(f"{key} is {shown(value)}, but must be {_NAMES.get(expected, expected.__name__)}")
    check_plain(value, key)
    return value


def check_group(node: Mapping[str, Any], key: str, choices: str) -> Mapping[str, Any]:
    """Returns the group of keys under a required key.

    Args:
        node: the group that contains the key.
        key: the key.
        choices: allowed values, for the message.

    Raises:
        UserError: if the key is missing, or its value is not a group.
    """
    if key not in node:
        raise UserError(f"key '{key}' is missing")
    group = node[key]
    if not isinstance(group, Mapping):
        raise UserError(f"{key} is {shown(group)}, but must be {choices}")
    return group


def check_plain(value: Any, key: str) -> None:  # noqa: ANN401
    """Refuses values that files or system calls cannot hold: keys that are not text, NUL, integers beyond 64 bits.

    Bytes that are not UTF-8 are allowed in paths only.

    Raises:
        UserError: if nested containers have such a value.
    """
    if isinstance(value, str):
        if "\0" in value:
            raise UserError(f"{key} is {shown(value)}, but may not hold the character NUL")
        if key not in PATH_KEYS and not value.isascii() and any("\ud800" <= item <= "\udfff" for item in value):
            raise UserError(f"{key} is {shown(value)}, but must be text in UTF-8")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if not isinstance(name, str):
                raise UserError(f"{key} has the key {shown(name)}, but keys must be words")
            check_plain(name, key)
            check_plain(item, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for item in value:
            check_plain(item, key)
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise UserError(f"{key} is {shown(value)}, but whole numbers must fit into 64 bits")
    elif not isinstance(value, bool | int | float | None):
        raise UserError(f"{key} is {shown(value)}, but must be a number, a text, true, false, null or a list or group")


_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a word",
    dict: "a group of keys",
}


def _typed_node(kind: Any, node: Any, key: str) -> Any:  # noqa: ANN401
    if not isinstance(node, Mapping):
        raise UserError(f"{key} is {shown(node)}, but must be a group of keys")
    hints = _hints(kind)
    prefix = f"{key}." if key else ""
    for name in node:
        if name not in hints:
            unknown = shown(name) if not isinstance(name, str) else f"'{prefix}{cut(name)}'"
            raise UserError(f"unknown key {unknown}{guess(str(name), list(hints), prefix)}")
    fields = dataclasses.fields(kind)
    lacking = [field.name for field in fields if field.default is field.default_factory is dataclasses.MISSING]
    for name in lacking:
        if name not in node:
            raise UserError(f"key '{prefix}{name}' is missing")
    return kind(**{name: typed(hints[name], value, f"{prefix}{name}") for name, value in node.items()})


_hints = cache(get_type_hints)


def guess(key: str, known: Sequence[str], prefix: str) -> str:
    """The end of a message about an unknown key: the most similar known key, if there is one."""
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"; did you mean '{prefix}{close[0]}'?" if close else ""
