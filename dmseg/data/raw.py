"""Raw files as strangers hand them in: regular files only, opened without waiting, their text bounded.

Everything that reads a data set's own files goes through here. A pipe, a device, a socket or a folder in a file's place
is refused by name and never opened, also behind a link: opening a pipe waits for ever, and a device may have no end.
"""

import json
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from isal import isal_zlib

from dmseg.errors import UserError

TEXT_BYTES = 16 * 2**20
"""A JSON or CSV file may have so many bytes: a list of a hundred thousand cases."""
JSON_DEPTH = 32
"""So deep may lists and objects of a JSON file lie in one another."""

_DAMAGE: tuple[Any, ...] = (
    OSError,
    EOFError,
    ValueError,
    SyntaxError,
    zlib.error,
    struct.error,
    isal_zlib.error,
)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def shown(path: object) -> str:
    """A path or a text of a file as messages have it: shortened, without control characters or broken UTF-8."""
    text = str(path)
    text = text if len(text) <= 300 else f"{text[:140]}...{text[-140:]}"
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape", "backslashreplace").decode() for sign in text
    )


def is_file(path: Path) -> bool:
    """Whether there is a regular file, links followed.

    Raises:
        UserError: if there is something else of that name, or it cannot be looked at (permissions, a link to itself).
    """
    mode = _mode(path)
    if mode is not None and not stat.S_ISREG(mode):
        _refuse_kind(path, mode)
    return mode is not None


def is_folder(path: Path) -> bool:
    """Whether there is a folder, links followed.

    Raises:
        UserError: if it cannot be looked at (permissions, a link to itself).
    """
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def is_there(path: Path) -> bool:
    """Whether there is anything but a folder of that name; whether it can be read is seen when it is opened.

    Raises:
        UserError: if it cannot be looked at (permissions, a link to itself).
    """
    mode = _mode(path)
    return mode is not None and not stat.S_ISDIR(mode)


def is_broken_link(path: Path) -> bool:
    """Whether this is a link to nothing."""
    return path.is_symlink() and _mode(path) is None


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what reading a missing or damaged file raises into a message.

    Raises:
        UserError: if the block fails to read the file, or there is not enough memory for it.
    """
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{shown(path)} is missing") from None
    except MemoryError:
        raise UserError(f"{shown(path)} cannot be read: there is not enough memory for it") from None
    except PermissionError:
        raise UserError(f"{shown(path)} cannot be read: permission denied; make it readable") from None
    except _DAMAGE as error:
        why = _first_line(error)
        raise UserError(f"{shown(path)} cannot be read ({why}); the file is damaged: get it again") from None


def open_file(path: Path) -> BinaryIO:
    """Opens a regular file for reading.

    Raises:
        OSError: if it is missing or may not be read.
        UserError: if there is something else of that name.
    """
    if not is_file(path):
        raise FileNotFoundError(path)
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # it may have become a pipe since
    file = os.fdopen(handle, "rb")
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        file.close()
        _refuse_kind(path, mode)
    return file


def read_text(path: Path) -> str:
    """Reads a text file in UTF-8, with or without a byte order mark.

    Raises:
        UserError: if it is missing, no regular file, longer than `TEXT_BYTES`, or not UTF-8.
    """
    with readable(path), open_file(path) as file:
        content = file.read(TEXT_BYTES + 1)
    if len(content) > TEXT_BYTES:
        raise UserError(f"{shown(path)} is longer than {TEXT_BYTES >> 20} MiB; it cannot be what its name says")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{shown(path)} is not a text file in UTF-8; save it as UTF-8") from None


def read_json(path: Path) -> Any:  # noqa: ANN401
    """Reads a JSON file, nested at most `JSON_DEPTH` deep; otherwise as `read_text`.

    Raises:
        UserError: if it cannot be read, is no JSON, or is nested too deep.
    """
    text = read_text(path)
    try:
        node = json.loads(text)
        if _depth(node) <= JSON_DEPTH:
            return node
    except RecursionError:
        pass
    except ValueError as error:
        raise UserError(f"{shown(path)} is not valid JSON ({_first_line(error)}); get it again") from None
    raise UserError(f"{shown(path)} is nested more than {JSON_DEPTH} deep; get it again")


def _depth(node: object) -> int:
    """How deep lists and objects lie in one another, counted up to one more than `JSON_DEPTH`."""
    level: list[Any] = [node]
    depth = 0
    while depth <= JSON_DEPTH:
        level = [child for child in level if isinstance(child, dict | list)]
        if not level:
            break
        depth += 1
        level = [child for parent in level for child in (parent.values() if isinstance(parent, dict) else parent)]
    return depth


def _mode(path: Path) -> int | None:
    """Mode of what lies there, links followed; None if there is nothing."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{shown(path)} cannot be read: {error.strerror or error}") from None
    except ValueError:  # a NUL, or a lone surrogate
        raise UserError(f"{shown(path)} is no path of a file; rename it") from None


def _refuse_kind(path: Path, mode: int) -> None:
    kind = next((name for check, name in _KINDS if check(mode)), "a special file")
    raise UserError(f"{shown(path)} is {kind}, not a regular file; put the file itself there")


def _first_line(error: BaseException) -> str:
    return shown((str(error) or type(error).__name__).splitlines()[0][:120])
