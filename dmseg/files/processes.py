"""Identifies processes across time and machines, to find out whether the owner of a file is still running."""

import os
import platform
from pathlib import Path


def place() -> dict[str, str]:
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
