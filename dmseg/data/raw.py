"""Opens raw files that users provide: regular files only, without blocking, and text of limited length.

All code that reads a data set's own files goes through here. A pipe, a device, a socket or a folder in place of a file
is reported and never opened, even behind a link: opening a pipe blocks, and a device may have no end.
"""

import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from isal import isal_zlib

from dmseg.errors import UserError, cut, first_line, shown
from dmseg.files.schema import parse_json

TEXT_BYTES = 16 * 2**20
"""Largest size of a JSON or CSV file: enough for a list of a hundred thousand cases."""

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


def is_file(path: Path) -> bool:
    """Whether a path is a regular file, or a link to one.

    Raises:
        UserError: if it is something else, or cannot be accessed (permissions, a link to itself).
    """
    mode = _mode(path)
    if mode is not None and not stat.S_ISREG(mode):
        _refuse_kind(path, mode)
    return mode is not None


def is_folder(path: Path) -> bool:
    """Whether a path is a folder, or a link to one.

    Raises:
        UserError: if it cannot be accessed (permissions, a link to itself).
    """
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def is_there(path: Path) -> bool:
    """Whether a path exists and is not a folder; only opening it shows whether it can be read.

    Raises:
        UserError: if it cannot be accessed (permissions, a link to itself).
    """
    mode = _mode(path)
    return mode is not None and not stat.S_ISDIR(mode)


def is_broken_link(path: Path) -> bool:
    """Whether a path is a link whose target does not exist.

    Raises:
        UserError: if it cannot be accessed (permissions, a link to itself).
    """
    return _mode(path) is None and path.is_symlink()


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns the errors of reading a missing or damaged file into a `UserError`.

    Raises:
        UserError: if the block cannot read the file, or runs out of memory.
    """
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{shown(path)} is missing") from None
    except MemoryError:
        raise UserError(f"{shown(path)} cannot be read: not enough memory") from None
    except PermissionError:
        raise UserError(f"{shown(path)} cannot be read: permission denied; make it readable") from None
    except _DAMAGE as error:
        why = cut(first_line(error))
        raise UserError(f"{shown(path)} cannot be read ({why}); the file is damaged: download it again") from None


def open_file(path: Path) -> BinaryIO:
    """Opens a regular file for reading.

    Raises:
        OSError: if it is missing or may not be read.
        UserError: if it is not a regular file.
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
        UserError: if it is missing, not a regular file, larger than `TEXT_BYTES`, or not UTF-8.
    """
    with readable(path), open_file(path) as file:
        content = file.read(TEXT_BYTES + 1)
    if len(content) > TEXT_BYTES:
        raise UserError(f"{shown(path)} is larger than {TEXT_BYTES >> 20} MiB; check that it is the right file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{shown(path)} is not a text file in UTF-8; save it as UTF-8") from None


def read_json(path: Path, distinct: bool = False) -> Any:  # noqa: ANN401
    """Reads a JSON file, see `parse_json`; otherwise as `read_text`.

    Raises:
        UserError: if it cannot be read, is not JSON, or exceeds a limit.
    """
    try:
        return parse_json(read_text(path), distinct)
    except ValueError as error:
        raise UserError(f"{shown(path)} is not valid JSON ({cut(first_line(error))}); download it again") from None


def _mode(path: Path) -> int | None:
    """Mode of a path, links followed; None if it does not exist."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{shown(path)} cannot be read: {error.strerror or error}") from None
    except ValueError:  # a NUL, or a lone surrogate
        raise UserError(f"{shown(path)} cannot be the path of a file; rename it") from None


def _refuse_kind(path: Path, mode: int) -> None:
    kind = next((name for check, name in _KINDS if check(mode)), "a special file")
    raise UserError(f"{shown(path)} is {kind}, not a regular file; replace it with the file itself")
