"""Files and folders that appear whole or not at all, also after a crash, on any file system that renames atomically."""

import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from dmseg.errors import UnwritableError

ADVICE = {
    errno.ENOSPC: "free space there and call again",
    errno.EDQUOT: "free space there (the quota is used up) and call again",
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "make it writable, or choose another folder"),
}


@contextmanager
def writing(place: Path, kept: str = "") -> Iterator[None]:
    """Turns what writing to a full, read-only or failing disk raises into a message.

    Args:
        place: what is being written. Reading other files does not belong into the block.
        kept: what is not lost; ends the message.

    Raises:
        UnwritableError: if the block raises an OSError.
    """
    try:
        yield
    except OSError as error:
        advice = ADVICE.get(error.errno or 0, "check the disk and the path, and call again")
        ending = f"; {kept}" if kept else ""
        raise UnwritableError(f"{place} cannot be written: {error.strerror or error}; {advice}{ending}") from error


@contextmanager
def scratch_folder(place: Path) -> Iterator[Path]:
    """Makes an empty folder beside `place`, to be filled and published; what is left of it at the end is removed.

    Its name begins with ``.<name of place>.``, so that `remove_scratch` finds those that killed processes left.

    Args:
        place: the final place; its parent is made where it is missing.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    scratch = place.parent / f".{place.name}.{uuid.uuid4().hex[:8]}"
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def remove_scratch(place: Path) -> None:
    """Removes what killed processes left beside `place`; nobody may be writing there."""
    for left in place.parent.glob(f".{place.name}.*"):
        shutil.rmtree(left, ignore_errors=True)


def publish(scratch: Path, place: Path) -> None:
    """Renames a filled scratch folder to its place, everything in it safely on the disk before.

    Args:
        scratch: the folder.
        place: where it goes; there may be nothing.

    Raises:
        OSError: if there is something already, or the disk is full or failing.
    """
    folders = list(os.walk(scratch, topdown=False))
    with ThreadPoolExecutor() as pool:  # a file system commits what is synced at the same time together
        list(pool.map(_sync, [Path(folder) / name for folder, _, names in folders for name in names]))
    for folder, _, _ in folders:
        _sync(Path(folder))
    scratch.rename(place)
    _sync(place.parent)


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file that is seen whole or not at all; what was there before is replaced.

    Args:
        path: the file; its folder is made where it is missing.
        content: bytes, or text, which is written as UTF-8.

    Raises:
        OSError: if it cannot be written; it names the path.
    """
    scratch = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(content.encode() if isinstance(content, str) else content)
        _sync(scratch)
        scratch.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None  # not the scratch file, or no file at all
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Lets one process at a time into the block; others on the same machine wait. Makes the folder where it is missing.

    Where the file system has no locks everybody is let in, so the block must be safe, if wasteful, without.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksums(folder: Path) -> dict[str, str]:
    """Checksums of all files below a folder, by their path within it."""
    return {str(path.relative_to(folder)): checksum(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
