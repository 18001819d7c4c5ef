"""Leases: of several processes or nodes that want the same run, one gets it; a dead owner loses it.

A lease is a file that names its owner and whose time the owner renews. Only atomic creation, renaming and file times of
the file server are relied on, not file locks, so that it holds on NFS. Two owners can follow one another when one was
suspended for long; as runs are published whole and the first one counts, that costs time, never a result.
"""

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dmseg.files import create_file, move_unless_exists

PATIENCE = 300.0
"""Seconds without renewal after which an owner counts as dead: well above the time that NFS caches file times."""
RENEWALS = 10
"""How often a lease is renewed within the patience."""


class Held(Exception):
    """Somebody else has the lease."""


@contextmanager
def lease(path: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Holds a lease while the block runs.

    Args:
        path: the lease's file.
        patience: seconds after which a lease that is not renewed is taken over.

    Raises:
        Held: if a living process has it.
        OSError: if the folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = {**_place(), "pid": os.getpid(), "started": _start_time(os.getpid()), "token": uuid.uuid4().hex}
    if not _acquire(path, owner, patience):
        raise Held(f"{path.stem} is being computed by another process ({_describe(_read(path))})")
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
    return path.exists() and not _is_dead(path, _read(path), patience)


def _acquire(path: Path, owner: dict[str, Any], patience: float) -> bool:
    for _ in range(3):
        if create_file(path, json.dumps(owner)):
            return True
        holder = _read(path)
        if path.exists() and not _is_dead(path, holder, patience):
            return False
        _bury(path, holder.get("token"))
    return False


def _read(path: Path) -> dict[str, Any]:
    """The owner, empty where the lease is gone or not yet written."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_dead(path: Path, holder: dict[str, Any], patience: float) -> bool:
    """Whether the owner is gone: at once for a process of this machine, after the patience for any other."""
    if holder and _place()["boot"] and {key: holder.get(key) for key in _place()} == _place():
        return bool(_start_time(int(holder["pid"])) != holder["started"])
    try:
        return _server_time(path.parent) - path.stat().st_mtime > patience
    except FileNotFoundError:
        return True


def _bury(path: Path, token: str | None) -> None:
    """Removes a dead owner's lease; one that somebody else has just got is put back."""
    grave = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.rename(grave)
    except FileNotFoundError:
        return
    if _read(grave).get("token") != token:
        with suppress(OSError):
            move_unless_exists(grave, path)
    grave.unlink(missing_ok=True)


def _renew(path: Path, token: str, seconds: float, over: threading.Event) -> None:
    while not over.wait(seconds):
        with suppress(OSError):
            if _read(path).get("token") != token:
                return
            os.utime(path)


def _server_time(folder: Path) -> float:
    """The file server's clock, which gives files their times; our own where nothing can be written."""
    probe = folder / f".time.{uuid.uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        probe.unlink(missing_ok=True)


def _place() -> dict[str, str]:
    """Where processes can be looked up by their number: this start of this machine, this namespace of numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot, namespace = "", ""
    return {"host": platform.node(), "boot": boot, "namespace": namespace}


def _start_time(pid: int) -> str | None:
    """When a process of this machine started, in the kernel's ticks; None if there is none (or it is a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _describe(holder: dict[str, Any]) -> str:
    return f"process {holder['pid']} on {holder['host']}" if holder else "unknown"
