"""Which process is which, also later and from elsewhere: what tells whether the owner of a file still lives."""

import os
import platform
from pathlib import Path


def place() -> dict[str, str]:
    """Where processes can be looked up by their number: this start of this machine, this namespace of numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except (OSError, ValueError):
        boot, namespace = "", ""
    return {"host": platform.node(), "boot": boot, "namespace": namespace}


def start_time(pid: int) -> str | None:
    """When a process of this machine started, in the kernel's ticks; None if there is none (or it is a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except (OSError, IndexError):
        return None
