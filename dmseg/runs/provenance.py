"""The software and hardware that a run records."""

import datetime
import functools
import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import dmseg

PACKAGES = (
    "torch",
    "timm",
    "segmentation-models-pytorch",
    "numpy",
    "scipy",
    "pandas",
    "nibabel",
    "hydra-core",
)


@functools.cache
def describe_versions() -> dict[str, str | None]:
    """Versions of Python, dmseg, CUDA and the packages that numbers depend on, and the git commit.

    They are looked up once in a process, as imported code does not change.
    """
    found: dict[str, str | None] = {
        "python": platform.python_version(),
        "dmseg": dmseg.__version__,
        "git": git_state(),
        "cuda": torch.version.cuda,
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def git_state() -> str | None:
    """Commit of the checkout that dmseg runs from, with ``+changes`` if files were changed; None outside a checkout."""
    root = Path(dmseg.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Processor, threads and accelerator of this process."""
    return {
        "platform": platform.platform(),
        "processor": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device) if device.type == "cpu" else torch.cuda.get_device_name(device),
    }


def begin_usage(device: torch.device) -> None:
    """Resets the peak device memory of earlier runs in this process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def describe_usage(device: torch.device) -> dict[str, Any]:
    """End time and peak memory in MiB: of this process, and on a CUDA device since `begin_usage`."""
    unit = 1 if sys.platform == "darwin" else 1024
    usage: dict[str, Any] = {
        "ended": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20),
    }
    if device.type == "cuda":
        usage["peak_device_memory_mib"] = round(torch.cuda.max_memory_allocated(device) / 2**20)
    return usage


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
