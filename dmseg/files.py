"""Files and folders that appear whole or not at all, also after a crash, on any file system that renames atomically."""

import errno
import fcntl
import hashlib
import os
import shutil
import time
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


def create_file(path: Path, text: str) -> bool:
    """Creates a text file unless there is one already; it is seen whole or not at all.

    Of several writers, also on several machines, exactly one creates the file. Every writer sees the same file once its
    call has returned.

    Args:
        path: the file; its folder is made where it is missing.
        text: its content.

    Returns:
        Whether this call created the file.

    Raises:
        OSError: if the folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}"
    try:
        scratch.write_text(text, encoding="utf-8")
        _sync(scratch)
        return move_unless_exists(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def move_unless_exists(source: Path, target: Path) -> bool:
    """Renames a file in its folder unless there is something at the target; returns whether it was renamed.

    A hard link does this atomically. Where the file system refuses hard links, writers take turns.

    Raises:
        OSError: if the folder cannot be written to.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        if source.stat().st_nlink == 1:
            return False  # else it is our own link: a file server may answer a repeated request so
    except OSError:
        with _turn(target):
            if target.exists():
                return False
            source.rename(target)
        return True
    source.unlink(missing_ok=True)
    return True


CLAIM_SECONDS = 10.0
"""A claim that stays for so long was left by a process that died: a rename takes no time."""


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    """Lets one writer of a path at a time into the block, by a file that only one of them can create."""
    claim = path.parent / f".{path.name}.claim"
    seen, since = None, time.monotonic()
    while not _creates(claim):
        with suppress(FileNotFoundError):
            status = claim.stat()
            if (holder := (status.st_ino, status.st_mtime_ns)) != seen:
                seen, since = holder, time.monotonic()
            elif time.monotonic() - since > CLAIM_SECONDS:
                claim.unlink()
        time.sleep(0.01)
    try:
        yield
    finally:
        claim.unlink(missing_ok=True)


def _creates(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError:
        return False
    return True


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


JUNK = frozenset(
    (
        "#recycle",
        "$recycle.bin",
        "@__thumb",
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "__macosx",
        "desktop.ini",
        "ehthumbs.db",
        "lost+found",
        "system volume information",
        "thumbs.db",
    )
)
"""Names, in lower case, of what file managers, archives and file servers leave in any folder."""


def is_junk(name: str) -> bool:
    """Whether a name is in `JUNK` or hidden (``._slice-0.png``): neither data nor a file of ours."""
    return name.startswith(".") or name.lower() in JUNK


def checksums(folder: Path) -> dict[str, str]:
    """Checksums of all files below a folder, by their path within it; what is junk (`is_junk`) is left out."""
    files = ((path, path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(name): checksum(path) for path, name in files if not any(map(is_junk, name.parts))}


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
