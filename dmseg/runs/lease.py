"""Leases: only one of several processes or nodes works on a run, and a dead owner loses its lease.

A lease is a file that names its owner, who renews its modification time. It relies on atomic creation, renaming and
the file server's times, but not on file locks, so it works on NFS. Two processes can hold a lease one after the other
if the first was suspended for long; as runs are published whole and the first one counts, this costs time only.
"""

import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dmseg.errors import cut
from dmseg.files.atomic import create_file, discard, move_unless_exists, pid_scope, scratch_path, start_time
from dmseg.files.regular import open_regular
from dmseg.text import printable

PATIENCE = 300.0
"""Seconds without renewal after which an owner counts as dead; much longer than NFS caches file times."""
RENEWALS = 10
"""Number of renewals within the patience."""
LARGEST = 65_536
"""Largest number of bytes read from a lease; our own have a few hundred."""

_first_seen: dict[Path, tuple[object, float]] = {}
"""Leases with a time in the future: inode and time when first seen, and our monotonic clock at that moment."""


class RunLocked(Exception):
    """Another process holds the lease."""


@contextmanager
def lease(path: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Holds a lease while the block runs.

    Args:
        path: the lease's file.
        patience: seconds after which a lease that is not renewed is taken over.

    Raises:
        RunLocked: if a living process holds it.
        OSError: if the folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = {**pid_scope(), "pid": os.getpid(), "started": start_time(os.getpid()), "token": uuid.uuid4().hex}
    if not _acquire(path, owner, patience):
        holder = _read(path)  # may hold anything
        pid, host = (cut(printable(str(holder.get(key, "unknown")))) for key in ("pid", "host"))
        described = f"process {pid} on {host}" if holder else "unknown"
        raise RunLocked(f"{path.stem} is being computed by another process ({described})")
    over = threading.Event()

    def renew() -> None:
        while not over.wait(patience / RENEWALS):
            with suppress(OSError):
                if _read(path).get("token") != owner["token"]:
                    return
                os.utime(path)

    beat = threading.Thread(target=renew, daemon=True)
    beat.start()
    try:
        yield
    finally:
        over.set()
        beat.join()
        if _read(path).get("token") == owner["token"]:
            path.unlink(missing_ok=True)


def is_held(path: Path, patience: float = PATIENCE) -> bool:
    """Whether a living process holds a lease."""
    return os.path.lexists(path) and not _is_dead(path, _read(path), patience)


def _acquire(path: Path, owner: dict[str, Any], patience: float) -> bool:
    """Creates the lease, after removing that of a dead owner; returns whether it belongs to this owner."""
    for _ in range(3):
        if create_file(path, json.dumps(owner)):
            return True
        holder = _read(path)
        if os.path.lexists(path) and not _is_dead(path, holder, patience):
            return False
        grave = scratch_path(path)
        with suppress(FileNotFoundError):
            path.rename(grave)
            if _read(grave).get("token") != holder.get("token"):  # another process has just acquired it
                with suppress(OSError):
                    move_unless_exists(grave, path)
            discard(grave)
    return False


def _read(path: Path) -> dict[str, Any]:
    """The owner; empty if the lease is gone, not yet written, or not a lease (a folder, a link, a pipe, other text)."""
    try:
        with open_regular(path) as file:
            found = json.loads(file.read(LARGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_dead(path: Path, holder: dict[str, Any], patience: float) -> bool:
    """Whether the owner is dead: known at once for a process of this machine, after the patience for others.

    A lease with a time in the future, because a clock was set back, counts as dead if it is not renewed for the whole
    patience. A living owner sets it to the current time. We set it too, so that later commands see a current time;
    if that is not permitted, our own monotonic clock measures how long the file has not changed.
    """
    pid, here = holder.get("pid"), pid_scope()
    if type(pid) is int and here["boot"] and {key: holder.get(key) for key in here} == here:
        started = start_time(pid)
        return started is None or started != holder.get("started")
    try:
        status = path.lstat()
    except FileNotFoundError:
        return True
    probe = scratch_path(path.parent / "time")
    try:
        probe.touch()
        now = probe.stat().st_mtime  # by the file server's clock, which sets file times
    except OSError:
        now = time.time()
    finally:
        discard(probe)
    age = now - status.st_mtime
    if age > -patience:
        return age > patience
    with suppress(OSError, NotImplementedError):
        os.utime(path, follow_symlinks=False)
    seen = (status.st_ino, status.st_mtime_ns)
    if path not in _first_seen or _first_seen[path][0] != seen:
        _first_seen[path] = (seen, time.monotonic())
    return time.monotonic() - _first_seen[path][1] > patience
