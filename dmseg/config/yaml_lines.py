"""The lines of configuration files, with the comments that YAML parsers drop. Imports no parser, to save time."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_LINE = re.compile(r"( *)([\w-]+):(.*)")
_BASE = re.compile(r"^defaults:\n  - (\w+)\n  - _self_", re.MULTILINE)


class Line(NamedTuple):
    """A key of a YAML file.

    Attributes:
        key: dotted name within the file.
        value: the value as written; empty for a mapping.
        comment: the comment on its line.
    """

    key: str
    value: str
    comment: str


def lines(path: Path) -> Iterator[Line]:
    """The keys of a YAML file in order; items of block lists are skipped.

    Raises:
        OSError: if the file cannot be read.
    """
    parents: list[tuple[int, str]] = []
    for text in path.read_text(encoding="utf-8").splitlines():
        found = _LINE.match(text)
        if found is None:
            continue
        indent, name = len(found[1]), found[2]
        parents = [(depth, key) for depth, key in parents if depth < indent]
        value, _, comment = f"{found[3]} ".partition(" # ")
        yield Line(".".join([*(key for _, key in parents), name]), value.strip(), comment.strip())
        parents.append((indent, name))


def base(path: Path) -> str | None:
    """Name of the file of the same group that a file extends; None if there is none."""
    found = _BASE.search(path.read_text(encoding="utf-8"))
    return found[1] if found else None


def is_global(path: Path) -> bool:
    """Whether the keys of a group's file belong to the whole configuration instead of the group."""
    return "@package _global_" in path.read_text(encoding="utf-8")
