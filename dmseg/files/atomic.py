"""Writes files and folders atomically, even if the process crashes, on any file system with atomic renames.

Also identifies processes, to find out whether the owner of a file is still running.
"""

import fcntl
import hashlib
import os
import platform
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

SCRATCH = re.compile(r"\.(.+)\.([0-9a-f]{6})([0-9a-f]{6})([0-9a-f]{6})[0-9a-f]{6}", re.DOTALL)
"""Names of scratch files and folders: the final name, machine, process, start of the process, random digits."""
OLD_SCRATCH = re.compile(r"\.(.+)\.([0-9a-f]{8}|[0-9a-f]{32})", re.DOTALL)
"""Scratch names of earlier versions, which do not identify the process."""
STALE = 86_400.0
"""Age in seconds after which scratch of another machine counts as abandoned; on this machine processes are known."""
UNKNOWN = "0" * 6
CLAIM_SECONDS = 10.0
"""A claim that exists for this long was left by a process that died, as a rename takes no time."""


@contextmanager
def writing(place: Path | str, kept: str = "") -> Iterator[None]:
    """Turns the errors of writing to a full, read-only or failing disk into a message.

    Args:
        place: the file or folder being written. The block should not read other files.
        kept: what is not lost; added to the message.

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


def scratch_path(place: Path) -> Path:
    """An unused scratch name beside `place` that identifies this process.

    `remove_scratch` and `sweep` remove the scratch file or folder once the process has ended.
    """
    pid = os.getpid()
    mark = f"{_machine_mark()}{pid & 0xFFFFFF:06x}{_start_mark(pid) or UNKNOWN}"
    return place.parent / f".{place.name}.{mark}{uuid.uuid4().hex[:6]}"


@contextmanager
def scratch_folder(place: Path) -> Iterator[Path]:
    """Creates an empty folder beside `place` to fill and publish; if it still exists at the end, it is removed.

    Scratch folders that killed processes left for the same place are removed first.

    Args:
        place: the final path; its parent is created if missing.
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
    """Removes the scratch files and folders that killed processes left beside `place`.

    Args:
        place: the final path of what they were writing.
        alone: whether no other process can be writing there; then all scratch is removed, whoever made it.
    """
    for left in abandoned(place.parent, alone):
        if _scratch_of(left.name) == place.name:
            discard(left)


def sweep(folder: Path, alone: bool = False) -> None:
    """Removes all scratch that killed processes left in a folder; `alone` as in `remove_scratch`."""
    for left in abandoned(folder, alone):
        discard(left)


def abandoned(folder: Path, alone: bool = False) -> list[Path]:
    """Scratch in a folder whose process has ended; with `alone`, also that of running processes."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(".")]
    except OSError:
        return []
    found = sorted(folder / name for name in names if _scratch_of(name) is not None)
    if alone:
        return found
    left = []
    for path in found:
        made_by = SCRATCH.fullmatch(path.name)
        with suppress(OSError):
            if made_by and made_by[2] == _machine_mark() != UNKNOWN:
                has_ended = made_by[4] != _start_mark(int(made_by[3], 16))
            else:
                has_ended = abs(time.time() - path.lstat().st_mtime) > STALE  # abs: a clock may have been wrong
            if has_ended:
                left.append(path)
    return left


def remove(path: Path) -> None:
    """Removes a file, a link (not its target) or a folder with its content, if it exists.

    Raises:
        OSError: if it cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Like `remove`, but ignores errors."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        shutil.rmtree(path, ignore_errors=True)


def publish(scratch: Path, place: Path) -> None:
    """Renames a filled scratch folder to its final path, after everything in it has been synced to disk.

    Args:
        scratch: the folder.
        place: the final path, which must not exist.

    Raises:
        OSError: if the path exists, or the disk is full or failing.
    """
    folders = list(os.walk(scratch, topdown=False))
    with ThreadPoolExecutor() as pool:  # file systems commit concurrent syncs together
        list(pool.map(_sync, [Path(folder) / name for folder, _, names in folders for name in names]))
    for folder, _, _ in folders:
        _sync(Path(folder))
    scratch.rename(place)
    _sync(place.parent)


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file atomically; an existing file is replaced.

    Args:
        path: the file; its folder is created if missing.
        content: bytes, or text, which is written as UTF-8.

    Raises:
        OSError: if it cannot be written; the error names the path.
    """
    remove_scratch(path)
    scratch = scratch_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(content.encode() if isinstance(content, str) else content)
        _sync(scratch)
        scratch.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None  # name the file, not the scratch file
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


def create_file(path: Path, text: str) -> bool:
    """Creates a text file atomically unless it exists.

    Of several writers, also on different machines, exactly one creates the file. Every writer sees the same file once
    its call has returned.

    Args:
        path: the file; its folder is created if missing.
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
    """Renames a file within its folder unless the target exists; returns whether it was renamed.

    A hard link does this atomically. If the file system does not support hard links, writers take turns.

    Raises:
        OSError: if the folder cannot be written to.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        if source.stat().st_nlink == 1:
            return False  # otherwise it is our own link: a file server may respond like this to a repeated request
    except OSError:
        with _turn(target):
            if target.exists():
                return False
            source.rename(target)
        return True
    source.unlink(missing_ok=True)
    return True


@contextmanager
def exclusive(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Lets one process at a time enter the block; others on the same machine wait. Creates the folder if missing.

    If the file system has no locks, all processes enter, so the block must be safe (if wasteful) without a lock.

    Args:
        folder: the folder.
        wait: whether to wait; otherwise the block starts at once.

    Yields:
        Whether no other process is in the block.
    """
    folder.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # never opens the target of a link
    handle = os.open(folder / "lock", flags, 0o666)
    alone = True
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            alone = False
        except OSError:
            alone = wait  # without locks, skip what must not run concurrently
        yield alone
    finally:
        os.close(handle)


def pid_scope() -> dict[str, str]:
    """Where process ids are valid: this boot of this machine, and this PID namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except (OSError, ValueError):
        boot, namespace = "", ""
    return {"host": platform.node(), "boot": boot, "namespace": namespace}


def start_time(pid: int) -> str | None:
    """Start time of a process of this machine, in kernel ticks; None if it does not exist or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except (OSError, IndexError):
        return None


def _scratch_of(name: str) -> str | None:
    """The final name of a scratch file or folder; None for other names."""
    found = SCRATCH.fullmatch(name) or OLD_SCRATCH.fullmatch(name)
    return found[1] if found else None


@cache
def _machine_mark() -> str:
    """Digits for this boot of this machine and its PID namespace; `UNKNOWN` if there is no ``/proc``."""
    here = pid_scope()
    return hashlib.sha256(repr(here).encode()).hexdigest()[:6] if here["boot"] else UNKNOWN


def _start_mark(pid: int) -> str | None:
    """Digits for the start time of a process; None if there is no such process."""
    started = start_time(pid)
    return None if started is None else f"{int(started) & 0xFFFFFF:06x}"


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    """Lets one writer of a path at a time enter the block, by a file that only one of them can create."""
    claim = path.parent / f".{path.name}.claim"
    seen, since = None, time.monotonic()
    while True:
        with suppress(FileExistsError):
            os.close(os.open(claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            break
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


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
