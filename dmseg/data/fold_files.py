"""The split files of a store: written once, each sealed by a file beside it that contains its SHA-256.

A split file without a seal was written by an earlier version, or its writer was killed: the next reader adds the seal.
So file and seal need not be written together, and every reader sees the same split.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from dmseg.errors import UserError
from dmseg.files.atomic import create_file, writing
from dmseg.files.regular import read_regular

MAX_BYTES = 64 << 20
"""Largest split file that is read."""


def read_split_file(path: Path) -> bytes:
    """Reads a split file.

    Raises:
        UserError: if it is not a regular file, cannot be read, or is too large.
    """
    try:
        return read_regular(path, MAX_BYTES)
    except OSError as error:
        raise UserError(
            f"{path} is damaged ({error.strerror or error}); restore it, or delete it to make a new split"
        ) from None


def compare_with_seal(path: Path, content: bytes, write: bool) -> None:
    """Compares the content of a split file with its seal.

    Args:
        path: the file.
        content: its content.
        write: whether to write a missing seal, if the store can be written to.

    Raises:
        UserError: if the file has changed since it was sealed.
    """
    seal, text = seal_of(path), f"{hashlib.sha256(content).hexdigest()}  {path.name}\n"
    if not os.path.lexists(seal):
        if write:
            with suppress(OSError):
                create_file(seal, text)
        return
    try:
        same = read_regular(seal, 1024) == text.encode()
    except OSError:
        same = False
    if not same:
        raise UserError(
            f"{path} has been edited or damaged: {seal.name} has a different checksum; restore the file,\n"
            f"delete it to make a new split, or delete {seal.name} to use the split as it is now"
        )


def seal_of(path: Path) -> Path:
    """The seal of a split file."""
    return path.with_name(f"{path.name}.sha256")


def write_split_file(path: Path, text: str) -> None:
    """Writes a split file atomically unless it exists; if several processes try, the first one's file stays.

    Raises:
        UnwritableError: if the store cannot be written to.
    """
    with writing(path):
        seal_of(path).unlink(missing_ok=True)  # left by a deleted file; remove it before the new file appears
        create_file(path, text)


def split_files(folder: Path) -> list[Path]:
    """Split files of a store."""
    return sorted(folder.glob("folds-*.json"))


def copy_split_files(store: Path, folder: Path) -> None:
    """Copies split files and their seals to another folder; skips what is not a regular file."""
    for path in split_files(store):
        for source in (path, seal_of(path)):
            try:
                content = read_regular(source, MAX_BYTES)
            except OSError:
                continue
            (folder / source.name).write_bytes(content)
