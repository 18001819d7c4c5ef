"""Names that become files and folders, and the ids of runs and evaluations: one rule for all of them.

They come from data sets, configurations, prepared stores and exports, so each is checked before it becomes part of a
path.
"""

import re
import unicodedata
from typing import TypeGuard

from dmseg.errors import UserError

LONGEST_NAME = 200
"""A name may have so many bytes in UTF-8: files named after it get a suffix, and file systems end at 255."""

ID = re.compile(r"[0-9a-f]{16}")
"""What runs, experiments and evaluations are called."""


def is_id(value: object) -> TypeGuard[str]:
    """Whether a value is the id of a run, an experiment or an evaluation: 16 lower-case hexadecimal digits."""
    return isinstance(value, str) and ID.fullmatch(value) is not None


def check_id(value: object, what: str) -> str:
    """Returns an id.

    Args:
        value: the id.
        what: what it is the id of; begins the message.

    Raises:
        UserError: if it is not 16 lower-case hexadecimal digits.
    """
    if not is_id(value):
        raise UserError(f"{what} is {_shown(value)}; expected 16 hexadecimal digits")
    return value


def check_name(name: object, what: str) -> None:
    """Refuses a name that cannot be the name of a file or folder.

    Args:
        name: id of a case, or name of a task, data set or file of the configuration.
        what: what the name is of, and where it comes from; begins the message.

    Raises:
        UserError: if it is not text, empty, too long, begins with a dot, or holds a slash, a backslash, a control
            character or anything that is not UTF-8.
    """
    fault = fault_of_name(name)
    if fault:
        raise UserError(f"{what} is {_shown(name)}, which cannot name a file: {fault}; rename it")


def fault_of_name(name: object) -> str | None:
    """Says why a name cannot be the name of a file or folder; None if it can (`check_name`)."""
    if not isinstance(name, str):
        return "it is not text"
    if not name:
        return "it is empty"
    plain = name.isascii() and name.isprintable()
    categories = set() if plain else {unicodedata.category(sign) for sign in name}
    if "Cs" in categories:
        return "it is not UTF-8"
    if categories & {"Cc", "Zl", "Zp"}:
        return "it holds a control character"
    if "/" in name or "\\" in name:
        return "it holds a slash"
    if name.startswith("."):
        return "it begins with a dot"
    length = len(name.encode())
    return f"it has {length} bytes, more than {LONGEST_NAME}" if length > LONGEST_NAME else None


def _shown(value: object) -> str:
    return repr(value) if len(repr(value)) < 80 else repr(value)[:76] + "...'"
