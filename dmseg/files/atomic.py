"""Files and folders that appear whole or not at all, also after a crash, on any file system that renames atomically."""

import fcntl
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from dmseg.errors import UnwritableError, advice
from dmseg.files.processes import place as this_place
from dmseg.files.processes import start_time


@contextmanager
def writing(place: Path | str, kept: str = "") -> Iterator[None]:
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
        ending = f"; {kept}" if kept else ""
        raise UnwritableError(
            f"{place} cannot be written: {error.strerror or error}; {advice(error)}{ending}"
        ) from error


SCRATCH = re.compile(r"\.(.+)\.([0-9a-f]{6})([0-9a-f]{6})([0-9a-f]{6})[0-9a-f]{6}", re.DOTALL)
"""Names of what is being written: what it will be called; then machine, process, its start and chance."""
OLD_SCRATCH = re.compile(r"\.(.+)\.([0-9a-f]{8}|[0-9a-f]{32})", re.DOTALL)
"""The same in earlier versions, which did not say whose it is."""
STALE = 86_400.0
"""Seconds after which scratch of another machine counts as left behind; that of this machine tells at once."""


def scratch_path(place: Path) -> Path:
    """A free name beside `place`, for what is not yet, or no longer, to be seen there; it says which process took it.

    `remove_scratch` and `sweep` remove it once that process is gone.
    """
    return place.parent / f".{place.name}.{_own_mark()}{uuid.uuid4().hex[:6]}"


@contextmanager
def scratch_folder(place: Path) -> Iterator[Path]:
    """Makes an empty folder beside `place`, to be filled and published; what is left of it at the end is removed.

    What killed processes left of earlier ones for the same place is removed first.

    Args:
        place: the final place; its parent is made where it is missing.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    remove_scratch(place)
    scratch = scratch_path(place)
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def remove_scratch(place: Path, alone: bool = False) -> None:
    """Removes what killed processes left beside `place`.

    Args:
        place: the final place of what they were writing.
        alone: whether nobody else can be writing there now; then all goes, whoever made it.
    """
    for left in abandoned(place.parent, alone):
        if _scratch_of(left.name) == place.name:
            discard(left)


def sweep(folder: Path, alone: bool = False) -> None:
    """Removes what killed processes left in a folder, whatever it should have become; `alone` as above."""
    for left in abandoned(folder, alone):
        discard(left)


def abandoned(folder: Path, alone: bool = False) -> list[Path]:
    """Scratch in a folder whose process is gone; with `alone` that of living ones too."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(".")]
    except OSError:
        return []
    found = sorted(folder / name for name in names if _scratch_of(name) is not None)
    return [path for path in found if alone or _is_abandoned(path)]


def remove(path: Path) -> None:
    """Removes a file, a link (not what it leads to), or a folder with all that is in it; what is gone is fine.

    Raises:
        OSError: if it cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Removes a file, a link or a folder with all that is in it, as far as that is possible; a link is not followed."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        shutil.rmtree(path, ignore_errors=True)


def _scratch_of(name: str) -> str | None:
    """What a scratch file or folder was to become; None for any other name."""
    found = SCRATCH.fullmatch(name) or OLD_SCRATCH.fullmatch(name)
    return found[1] if found else None


def _is_abandoned(path: Path) -> bool:
    """Whether the process that made a scratch file or folder is gone."""
    if (found := SCRATCH.fullmatch(path.name)) and found[2] == _machine_mark() != UNKNOWN:
        return found[4] != _start_mark(int(found[3], 16))
    try:
        return abs(time.time() - path.lstat().st_mtime) > STALE  # as far ahead: a clock was wrong
    except OSError:
        return False


UNKNOWN = "0" * 6


def _own_mark() -> str:
    """This process in 18 digits: machine, number, start."""
    pid = os.getpid()
    return f"{_machine_mark()}{pid & 0xFFFFFF:06x}{_start_mark(pid) or UNKNOWN}"


@cache
def _machine_mark() -> str:
    """This start of this machine and its namespace of process numbers; `UNKNOWN` where there is no ``/proc``."""
    here = this_place()
    return hashlib.sha256(repr(here).encode()).hexdigest()[:6] if here["boot"] else UNKNOWN


def _start_mark(pid: int) -> str | None:
    """When a process started; None if there is no such process."""
    started = start_time(pid)
    return None if started is None else f"{int(started) & 0xFFFFFF:06x}"


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
    remove_scratch(path)
    scratch = scratch_path(path)
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
    remove_scratch(path)
    scratch = scratch_path(path)
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
def exclusive(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Lets one process at a time into the block; others on the same machine wait. Makes the folder where it is missing.

    Where the file system has no locks everybody is let in, so the block must be safe, if wasteful, without.

    Args:
        folder: the folder.
        wait: whether to wait; else the block begins at once and is told whether nobody else is in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # nor is a link's target emptied
    handle = os.open(folder / "lock", flags, 0o666)
    alone = True
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            alone = False
        except OSError:
            alone = wait  # there are no locks: what must not be done beside others is left
        yield alone
    finally:
        os.close(handle)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
