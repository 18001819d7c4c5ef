"""Parses overrides of the command line with Hydra's parser; paths need no quotes."""

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, OverrideType, Quote, QuotedString
from hydra.errors import HydraException

from dmseg.config.nested import get
from dmseg.config.renamed import current_override
from dmseg.config.reserved import refuse_hydra
from dmseg.config.resources import resource
from dmseg.errors import UserError, cut
from dmseg.files.names import fault_of_name

PATH_KEYS = (
    "data.root",
    "distill.teacher.model.weights",
    "distill.teacher.weights",
    "folds.file",
    "folds.groups",
    "model.weights",
    "paths.data",
    "paths.prepared",
    "paths.results",
)
"""Keys whose value is a path, in which ``~`` is expanded."""


@lru_cache(maxsize=4096)
def parse_override(text: str) -> Override:
    """Parses one override; keys of earlier versions are translated.

    Raises:
        UserError: if it is malformed, or chooses a file of a group by a path instead of a name.
    """
    try:
        parsed = OverridesParser.create().parse_override(quote_path(current_override(text)))
        _refuse_paths(parsed, text)
        return parsed
    except HydraException as error:
        if "=" not in text and not text.startswith("~"):
            raise UserError(f"'{cut(text)}' is not an override; write key=value") from None
        said = cut((str(error).splitlines() or [""])[0])
        raise UserError(f"'{cut(text)}' cannot be parsed ({said}); put the value in quotes: key='\"value\"'") from None
    except (ValueError, RecursionError):  # a number with thousands of digits; lists nested too deeply
        raise UserError(f"'{cut(text)}' cannot be parsed: it is too long or too deep") from None


def _refuse_paths(parsed: Override, text: str) -> None:
    """Refuses paths as names of files of a group, as Hydra would follow ``..`` and absolute paths."""
    if parsed.type is OverrideType.DEL or not is_group(dotted(parsed.key_or_group)):
        return
    value = parsed.value()
    chosen = list(value.list) if isinstance(value, ChoiceSweep) else value if isinstance(value, list) else [value]
    for name in chosen:
        if isinstance(name, str) and (fault := fault_of_name(name)):
            group = dotted(parsed.key_or_group)
            raise UserError(f"'{cut(text)}' must choose a file of configs/{group} by its name, but {fault}")


def dotted(name: str) -> str:
    """The key or config group of an override, with dots: ``hydra.launcher`` for ``hydra/launcher``."""
    return name.strip("/").replace("/", ".")


def is_group(key: str) -> bool:
    """Whether a dotted key is a group of ``configs``."""
    return os.path.isdir(resource("configs") / key.replace(".", "/"))  # also False if the key is too long for a path


def refuse_reserved(text: str) -> None:
    """Refuses overrides of Hydra's own configuration, of plugins, and of the settings that a method does not use.

    Raises:
        UserError: if it is such an override.
    """
    refuse_hydra(text)
    parsed = parse_override(text)
    key, value = dotted(parsed.key_or_group), parsed.value()
    if key.partition(".")[0] == "plugins":
        raise UserError(f"'{cut(text)}': plugins are named on the command line only, as plugins=[FILE.py]")
    if key == "method.unused" or (key == "method" and isinstance(value, dict) and "unused" in value):
        raise UserError(f"'{text}': method.unused cannot be overridden; it belongs to the method's YAML file")


def chosen_option(overrides: Sequence[str], group: str) -> str | None:
    """The file of a config group that the overrides choose; the last choice if there are several, None without one."""
    found = [
        item.value()
        for item in map(parse_override, overrides)
        if dotted(item.key_or_group) == group and item.type is not OverrideType.DEL
    ]
    names = [value for value in found if isinstance(value, str)]
    return names[-1] if names else None


def quote_path(text: str) -> str:
    """Quotes the value of a path, which may then contain any character: spaces, commas, brackets, ``=``.

    ``null`` and values in quotes are not changed.
    """
    key, equals, value = text.partition("=")
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if not equals or key.lstrip("+") not in PATH_KEYS or value in ("", "null") or is_quoted:
        return text
    return f"{key}={quoted(value)}"


def quoted(value: str) -> str:
    """Quotes a text for Hydra."""
    return QuotedString(value, Quote.single).with_quotes()


def expand_paths(node: dict[str, Any]) -> None:
    """Expands ``~`` in the paths of a composed configuration, in place."""
    for key in PATH_KEYS:
        group, _, name = key.rpartition(".")
        inner = get(node, group)
        if isinstance(inner, dict) and isinstance(inner.get(name), str):
            inner[name] = os.path.expanduser(inner[name])
