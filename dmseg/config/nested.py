"""Nested mappings by dotted key."""

from collections.abc import Iterator, Mapping
from typing import Any


def get(node: Any, key: str, default: Any = None) -> Any:  # noqa: ANN401
    """Returns the value of a dotted key, or a default if there is no such key."""
    for name in key.split("."):
        if not isinstance(node, Mapping) or name not in node:
            return default
        node = node[name]
    return node


def flatten(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields each dotted key with its value, a mapping before its own keys."""
    for name, value in node.items():
        yield f"{prefix}{name}", value
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
