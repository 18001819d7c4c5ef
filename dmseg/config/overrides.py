"""Overrides of the command line, read with Hydra's own parser; paths may be written as a shell gives them."""

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, OverrideType, Quote, QuotedString
from hydra.errors import HydraException

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
"""Keys whose value is a path; ``~`` is expanded in them."""


@lru_cache(maxsize=4096)
def parse_override(text: str) -> Override:
    """Parses one override; the key of an earlier version becomes the one of today.

    Raises:
        UserError: if it is malformed, or chooses a file of a group by a path.
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
    except (ValueError, RecursionError):  # a number of thousands of digits; lists in lists without end
        raise UserError(f"'{cut(text)}' cannot be parsed: it is too long or too deep") from None


def _refuse_paths(parsed: Override, text: str) -> None:
    """Refuses the choice of a file that is no file of its group: Hydra would follow ``..`` and absolute paths."""
    if parsed.type is OverrideType.DEL or not is_group(dotted(parsed.key_or_group)):
        return
    value = parsed.value()
    chosen = list(value.list) if isinstance(value, ChoiceSweep) else value if isinstance(value, list) else [value]
    for name in chosen:
        if isinstance(name, str) and (fault := fault_of_name(name)):
            group = dotted(parsed.key_or_group)
            raise UserError(f"'{cut(text)}' must choose a file of configs/{group} by its name, but {fault}")


def dotted(name: str) -> str:
    """The key or config group that an override names, with dots: ``hydra/launcher`` is ``hydra.launcher``."""
    return name.strip("/").replace("/", ".")


def is_group(key: str) -> bool:
    """Whether a dotted key is a group of ``configs``."""
    return os.path.isdir(resource("configs") / key.replace(".", "/"))  # False, too, for a key too long to be a name


def refuse_reserved(text: str) -> None:
    """Refuses an override of Hydra's own configuration, of plugins, or of what a method's file says of the method.

    Raises:
        UserError: if it is one.
    """
    refuse_hydra(text)
    parsed = parse_override(text)
    key, value = dotted(parsed.key_or_group), parsed.value()
    if key.partition(".")[0] == "plugins":
        raise UserError(f"'{cut(text)}': plugins are named on the command line only, as plugins=[FILE.py]")
    if key == "method.unused" or (key == "method" and isinstance(value, dict) and "unused" in value):
        raise UserError(f"'{text}': the file of a method in configs/method says which settings it does not use")


def chosen_option(overrides: Sequence[str], group: str) -> str | None:
    """The file of a config group that some overrides choose; the last one counts, None if there is no such."""
    found = [
        item.value()
        for item in map(parse_override, overrides)
        if dotted(item.key_or_group) == group and item.type is not OverrideType.DEL
    ]
    names = [value for value in found if isinstance(value, str)]
    return names[-1] if names else None


def quote_path(text: str) -> str:
    """Quotes the value of a key that is a path, so that it may hold any character: spaces, commas, brackets, ``=``.

    A value that is quoted already, or ``null``, stays as it is.
    """
    key, equals, value = text.partition("=")
    if not equals or key.lstrip("+") not in PATH_KEYS or value in ("", "null") or _is_quoted(value):
        return text
    return f"{key}={quoted(value)}"


def quoted(value: str) -> str:
    """A text in Hydra's single quotes."""
    return QuotedString(value, Quote.single).with_quotes()


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] and value[0] in "'\""


def expand_paths(node: dict[str, Any]) -> None:
    """Expands ``~`` in the paths of a composed configuration, in place."""
    for key in PATH_KEYS:
        *groups, name = key.split(".")
        inner: Any = node
        for group in groups:
            inner = inner.get(group) if isinstance(inner, dict) else None
        if isinstance(inner, dict) and isinstance(inner.get(name), str):
            inner[name] = os.path.expanduser(inner[name])
