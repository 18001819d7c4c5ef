"""Checks names that become files and folders, and ids of runs and evaluations; paths of folders.

Names come from data sets, configurations, prepared stores and exports; each is checked before it is used in a path.
"""

import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

from dmseg.errors import UserError, cut, shown

LONGEST_NAME = 200
"""Maximum length of a name in UTF-8 bytes: file systems allow 255, and files named after it get a suffix."""

ID = re.compile(r"[0-9a-f]{16}")
"""Ids of runs, experiments and evaluations."""


def is_id(value: object) -> TypeGuard[str]:
    """Whether a value is the id of a run, an experiment or an evaluation: 16 lower-case hexadecimal digits."""
    return isinstance(value, str) and ID.fullmatch(value) is not None


def check_id(value: object, what: str) -> str:
    """Returns an id after checking it.

    Args:
        value: the id.
        what: what it is the id of; starts the message.

    Raises:
        UserError: if it is not 16 lower-case hexadecimal digits.
    """
    if not is_id(value):
        raise UserError(f"{what} is {shown(value)}; expected 16 hexadecimal digits")
    return value


def check_name(name: object, what: str) -> None:
    """Refuses a name that cannot be the name of a file or folder.

    Args:
        name: a case id, or the name of a task, data set or configuration file.
        what: what the name belongs to and where it comes from; starts the message.

    Raises:
        UserError: if it is not text, is empty or too long, starts with a dot, or contains a slash, a backslash, a
            control character or anything that is not UTF-8.
    """
    fault = fault_of_name(name)
    if fault:
        raise UserError(f"{what} is {shown(name)}, which cannot name a file: {fault}; rename it")


def expand_home(path: str, what: str) -> str:
    """Replaces ``~`` or ``~USER`` at the start of a path by the home folder.

    Args:
        path: the path.
        what: the key or argument that names it; starts the message.

    Raises:
        UserError: if there is no such user, or the home folder is unknown.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        home = cut(path.partition("/")[0])
        raise UserError(
            f"{what} is {shown(path)}, but the home folder {home} is unknown; write the whole path, or ./{home} for a "
            "folder of this name"
        )
    return expanded


def fault_of_name(name: object) -> str | None:
    """Says why a name cannot be the name of a file or folder (`check_name`); None if it can."""
    if not isinstance(name, str):
        return "it is not text"
    if not name:
        return "it is empty"
    plain = name.isascii() and name.isprintable()
    categories = set() if plain else {unicodedata.category(sign) for sign in name}
    if "Cs" in categories:
        return "it is not UTF-8"
    if categories & {"Cc", "Zl", "Zp"}:
        return "it contains a control character"
    if "/" in name or "\\" in name:
        return "it contains a slash"
    if name.startswith("."):
        return "it starts with a dot"
    length = len(name.encode())
    return f"it is {length} bytes long; at most {LONGEST_NAME} are allowed" if length > LONGEST_NAME else None


def folder_of_all(folders: Sequence[str]) -> Path:
    """The folder that contains all of the given folders, or the first of them if only the root contains all.

    Args:
        folders: absolute or relative paths; the result is relative if all of them are.
    """
    if len(set(folders)) == 1:
        return Path(folders[0])
    common = os.path.commonpath([os.path.abspath(folder) for folder in folders])
    if common == os.path.sep:
        return Path(folders[0])
    return Path(common if any(map(os.path.isabs, folders)) else os.path.relpath(common))
