"""The files of a store's splits: written once, and sealed by a file of their SHA-256 beside each of them.

A file without a seal was written before there were any, or its writer was killed: the next one who reads it adds the
seal. So the seal need not be written together with the file, and the last reader of several sees the same as the first.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from dmseg.errors import UserError
from dmseg.files.atomic import create_file, writing
from dmseg.files.regular import read_regular

MAX_BYTES = 64 << 20
"""Largest file of a split that is read."""


def read_split_file(path: Path) -> bytes:
    """Reads the file of a split.

    Raises:
        UserError: if it is not a regular file, cannot be read, or is too large.
    """
    try:
        return read_regular(path, MAX_BYTES)
    except OSError as error:
        raise UserError(
            f"{path} is damaged ({error.strerror or error}); restore it, or delete it to make the split anew"
        ) from None


def compare_with_seal(path: Path, content: bytes, write: bool) -> None:
    """Compares the content of a split's file with its seal.

    Args:
        path: the file.
        content: what it holds.
        write: whether a seal that is missing is written, if the store can be written to.

    Raises:
        UserError: if the file has been changed since it was sealed.
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
            f"{path} has been edited or damaged: {seal.name} has another checksum; restore the file,\n"
            f"delete it to make the split anew, or delete {seal.name} to use the split as it is now"
        )


def seal_of(path: Path) -> Path:
    """The file that seals a split's file."""
    return path.with_name(f"{path.name}.sha256")


def write_split_file(path: Path, text: str) -> None:
    """Writes the file of a split whole unless it is there, also when several processes try: the first one's stays.

    Raises:
        UnwritableError: if the store cannot be written to.
    """
    with writing(path):
        seal_of(path).unlink(missing_ok=True)  # of a file that was deleted; before the new one is there
        create_file(path, text)


def split_files(folder: Path) -> list[Path]:
    """Files of splits in a store."""
    return sorted(folder.glob("folds-*.json"))


def copy_split_files(store: Path, folder: Path) -> None:
    """Copies the files of splits and their seals to another folder; what is not a regular file is left out."""
    for path in split_files(store):
        for source in (path, seal_of(path)):
            try:
                content = read_regular(source, MAX_BYTES)
            except OSError:
                continue
            (folder / source.name).write_bytes(content)
