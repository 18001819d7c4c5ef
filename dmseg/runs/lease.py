"""Leases: of several processes or nodes that want the same run, one gets it; a dead owner loses it.

A lease is a file that names its owner and whose time the owner renews. Only atomic creation, renaming and file times of
the file server are relied on, not file locks, so that it holds on NFS. Two owners can follow one another when one was
suspended for long; as runs are published whole and the first one counts, that costs time, never a result.
"""

import json
import os
import stat
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dmseg.errors import cut
from dmseg.files.atomic import create_file, discard, move_unless_exists, scratch_path
from dmseg.files.processes import place as _place
from dmseg.files.processes import start_time as _start_time
from dmseg.text import printable

PATIENCE = 300.0
"""Seconds without renewal after which an owner counts as dead: well above the time that NFS caches file times."""
RENEWALS = 10
"""How often a lease is renewed within the patience."""
LARGEST = 65_536
"""Bytes that are read of a lease at most: ours have some hundreds."""

_first_seen: dict[Path, tuple[object, float]] = {}
"""Leases from the future: the file as it was when it was first seen so, and when that was, by our monotonic clock."""


class RunLocked(Exception):
    """Somebody else has the lease."""


@contextmanager
def lease(path: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Holds a lease while the block runs.

    Args:
        path: the lease's file.
        patience: seconds after which a lease that is not renewed is taken over.

    Raises:
        RunLocked: if a living process has it.
        OSError: if the folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = {**_place(), "pid": os.getpid(), "started": _start_time(os.getpid()), "token": uuid.uuid4().hex}
    if not _acquire(path, owner, patience):
        raise RunLocked(f"{path.stem} is being computed by another process ({_describe(_read(path))})")
    over = threading.Event()
    beat = threading.Thread(target=_renew, args=(path, owner["token"], patience / RENEWALS, over), daemon=True)
    beat.start()
    try:
        yield
    finally:
        over.set()
        beat.join()
        if _read(path).get("token") == owner["token"]:
            path.unlink(missing_ok=True)


def is_held(path: Path, patience: float = PATIENCE) -> bool:
    """Whether a living process has a lease."""
    return os.path.lexists(path) and not _is_dead(path, _read(path), patience)


def _acquire(path: Path, owner: dict[str, Any], patience: float) -> bool:
    for _ in range(3):
        if create_file(path, json.dumps(owner)):
            return True
        holder = _read(path)
        if os.path.lexists(path) and not _is_dead(path, holder, patience):
            return False
        _bury(path, holder.get("token"))
    return False


def _read(path: Path) -> dict[str, Any]:
    """The owner, empty where the lease is gone, not yet written, or no lease: a folder, a link, a pipe, other text."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            found = json.loads(file.read(LARGEST)) if is_file else None
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_dead(path: Path, holder: dict[str, Any], patience: float) -> bool:
    """Whether the owner is gone: at once for a process of this machine, after the patience for any other."""
    pid, here = holder.get("pid"), _place()
    if type(pid) is int and here["boot"] and {key: holder.get(key) for key in here} == here:
        started = _start_time(pid)
        return started is None or started != holder.get("started")
    try:
        status = path.lstat()
    except FileNotFoundError:
        return True
    age = _server_time(path.parent) - status.st_mtime
    return age > patience if age > -patience else _stays_in_future(path, status, patience)


def _stays_in_future(path: Path, status: os.stat_result, patience: float) -> bool:
    """Whether a lease whose time lies ahead (a clock was set back) has not been renewed for as long as the patience.

    An owner that lives gives it the time of now. So do we, for commands that come later; where we may not, our own
    clock tells how long it has stayed as it is.
    """
    with suppress(OSError, NotImplementedError):
        os.utime(path, follow_symlinks=False)
    seen = (status.st_ino, status.st_mtime_ns)
    if path not in _first_seen or _first_seen[path][0] != seen:
        _first_seen[path] = (seen, time.monotonic())
    return time.monotonic() - _first_seen[path][1] > patience


def _bury(path: Path, token: object) -> None:
    """Removes a dead owner's lease; one that somebody else has just got is put back."""
    grave = scratch_path(path)
    try:
        path.rename(grave)
    except FileNotFoundError:
        return
    if _read(grave).get("token") != token:
        with suppress(OSError):
            move_unless_exists(grave, path)
    discard(grave)


def _renew(path: Path, token: str, seconds: float, over: threading.Event) -> None:
    while not over.wait(seconds):
        with suppress(OSError):
            if _read(path).get("token") != token:
                return
            os.utime(path)


def _server_time(folder: Path) -> float:
    """The file server's clock, which gives files their times; our own where nothing can be written."""
    probe = scratch_path(folder / "time")
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        discard(probe)


def _describe(holder: dict[str, Any]) -> str:
    """The owner in words; a lease may hold anything."""
    pid, host = (cut(printable(str(holder.get(key, "unknown")))) for key in ("pid", "host"))
    return f"process {pid} on {host}" if holder else "unknown"
