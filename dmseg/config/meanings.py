"""Descriptions of the keys, from the docstrings of the typed settings."""

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_type_hints


def meanings(settings: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields the dotted keys of a settings class and its nested classes, each with its description."""
    _, _, section = (inspect.getdoc(settings) or "").partition("Attributes:\n")
    items = re.split(r"^(\w+): ", textwrap.dedent(section), flags=re.MULTILINE)
    texts = (" ".join(text.split()).rstrip(".").replace("``", "`") for text in items[2::2])
    described = dict(zip(items[1::2], texts, strict=True))
    hints: Mapping[str, Any] = get_type_hints(settings)
    for field in dataclasses.fields(settings):
        name = "_target_" if field.name == "target" else field.name
        if field.name in described:
            yield f"{prefix}{name}", described[field.name]
        for kind in (hints[field.name], *get_args(hints[field.name])):
            if dataclasses.is_dataclass(kind) and isinstance(kind, type):
                yield from meanings(kind, f"{prefix}{name}.")
