"""Converts plain values to typed settings, and the terms of the loss from their form in YAML files."""

import dataclasses
import difflib
import re
import types
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from dmseg.config.allowed import ALLOWED, TRACKERS
from dmseg.config.overrides import PATH_KEYS, translate_stored_loss
from dmseg.errors import UserError, cut, shown

HISTORY = ("epoch", "step", "lr", "loss")
"""Columns of a run's history besides those of the loss terms."""
TERM_NAME = re.compile(r"[A-Za-z]\w{0,59}", re.ASCII)
"""Names of loss terms."""
NOT_GUESSED = ("distill.teacher.", "profile.")
"""Prefixes of keys that `guess` proposes only if the user wrote the prefix."""
_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a string", dict: "a mapping"}
_hints = cache(get_type_hints)


def typed(kind: Any, value: Any, key: str) -> Any:  # noqa: ANN401
    """Converts a plain value to the type of a field of the settings.

    Args:
        kind: the type; a settings class for a mapping.
        value: the plain value.
        key: its dotted key, for messages; empty for the whole configuration.

    Raises:
        UserError: if it has another type or structure.
    """
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise UserError(f"{key} is {shown(value)}, but must be a mapping")
        hints, prefix = _hints(kind), f"{key}." if key else ""
        for name in value:
            if name not in hints:
                unknown = shown(name) if not isinstance(name, str) else f"'{prefix}{cut(name)}'"
                raise UserError(f"unknown key {unknown}{guess(str(name), list(hints), prefix)}")
        for field in dataclasses.fields(kind):
            if field.default is field.default_factory is dataclasses.MISSING and field.name not in value:
                raise UserError(f"key '{prefix}{field.name}' is missing")
        return kind(**{name: typed(hints[name], item, f"{prefix}{name}") for name, item in value.items()})
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
            raise UserError(f"{key} is {shown(value)}, but must be a mapping")
        check_plain(list(value), key)
        return {name: typed(get_args(kind)[1], item, f"{key}.{name}") for name, item in value.items()}
    expected = get_origin(kind) or kind
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise UserError(f"{key} is {shown(value)}, but must be a finite number") from None
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        if key in ALLOWED:
            raise UserError(f"{key} is {shown(value)}, but must be one of {', '.join(ALLOWED[key])}")
        raise UserError(f"{key} is {shown(value)}, but must be {_NAMES.get(expected, expected.__name__)}")
    check_plain(value, key)
    return value


def check_group(node: Mapping[str, Any], key: str, choices: str) -> Mapping[str, Any]:
    """Returns the mapping under a required key.

    Args:
        node: the mapping that contains the key.
        key: the key.
        choices: allowed values, for the message.

    Raises:
        UserError: if the key is missing, or its value is not a mapping.
    """
    if key not in node:
        raise UserError(f"key '{key}' is missing")
    group = node[key]
    if not isinstance(group, Mapping):
        raise UserError(f"{key} is {shown(group)}, but must be {choices}")
    return group


def check_plain(value: Any, key: str) -> None:  # noqa: ANN401
    """Refuses values that files or system calls cannot hold: keys that are not strings, NUL, integers beyond 64 bits.

    Bytes that are not UTF-8 are allowed in paths only.

    Raises:
        UserError: if nested containers have such a value.
    """
    if isinstance(value, str):
        if "\0" in value:
            raise UserError(f"{key} is {shown(value)}, but must not contain a NUL character")
        if key not in PATH_KEYS and not value.isascii() and any("\ud800" <= item <= "\udfff" for item in value):
            raise UserError(f"{key} is {shown(value)}, but must be valid UTF-8")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if not isinstance(name, str):
                raise UserError(f"{key} has the key {shown(name)}, but keys must be strings")
            check_plain(name, key)
            check_plain(item, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for item in value:
            check_plain(item, key)
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise UserError(f"{key} is {shown(value)}, but whole numbers must fit into 64 bits")
    elif not isinstance(value, bool | int | float | None):
        raise UserError(f"{key} is {shown(value)}, but must be a number, string, boolean, null, list or mapping")


def guess(key: str, known: Sequence[str], prefix: str) -> str:
    """The end of a message about an unknown key: the key that was probably meant, or up to three.

    That is a key that is spelled almost the same, else those with the same last part (``optim.lr`` for ``lr``), else
    the most similar one.
    """
    if key.startswith("distill.") and not any(item.startswith("distill.") for item in known):
        return "; it needs distill=kd"
    hidden = tuple(start for start in NOT_GUESSED if not key.lower().startswith(start))
    open_keys = [item for item in known if not item.startswith(hidden)]
    last = key.rpartition(".")[2].lower()
    same = [item for item in open_keys if item.rpartition(".")[2].lower() == last]
    found = [item for item in same if item.lower() == key.lower()]
    found = found or difflib.get_close_matches(key, open_keys, n=1, cutoff=0.85)
    if same and not found:  # those that share most parts with the key
        shared = {item: len(set(key.split(".")) & set(item.split("."))) for item in same}
        best = [item for item in same if shared[item] == max(shared.values())]
        found = sorted(best, key=lambda item: item.count("."))[:3]
    found = found or difflib.get_close_matches(key, open_keys, n=1, cutoff=0.6)
    return "; did you mean " + " or ".join(f"'{prefix}{item}'" for item in found) + "?" if found else ""


def gather_loss(parent: Mapping[str, Any]) -> dict[str, Any]:
    """Splits each term of the loss into its weight, its target and its options.

    Args:
        parent: a composed configuration, or a teacher.

    Raises:
        UserError: if the loss or a term is not a mapping, or a term has an invalid name, no weight or no target.
    """
    loss = translate_stored_loss(check_group(parent, "loss", "one of the files in configs/loss"))
    terms: dict[str, Any] = {}
    for name, term in check_terms(loss).items():
        where = f"loss.terms.{name}"
        if not isinstance(term, Mapping):
            raise UserError(
                f"{where} is {shown(term)}, but must be a mapping: weight, _target_ and the options of the loss; "
                "weight: 0 switches a term off"
            )
        if "_target_" not in term:
            raise UserError(f"{where} has no _target_; set it to the dotted name of a loss")
        if "weight" not in term:
            raise UserError(f"{where} has no weight; set it to a number (0 switches the term off)")
        options = {key: value for key, value in term.items() if key not in ("_target_", "weight")}
        terms[name] = {"weight": term["weight"], "target": term["_target_"], "options": options}
    return {**loss, "terms": terms}


def check_terms(loss: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the terms of a loss by name.

    Raises:
        UserError: if they are missing, or a name cannot be a column of the history.
    """
    if "terms" not in loss:
        raise UserError("key 'loss.terms' is missing")
    terms = loss["terms"]
    if not isinstance(terms, Mapping):
        raise UserError(f"loss.terms is {shown(terms)}, but must be a mapping from names to terms")
    for name in terms:
        if not isinstance(name, str) or not TERM_NAME.fullmatch(name):
            raise UserError(
                f"loss.terms has the name {shown(name)}, but a name must be a letter, then letters, digits or _"
            )
        if name in HISTORY:
            raise UserError(f"loss.terms has the name '{name}', which is a column of history.csv; choose another name")
    return terms
