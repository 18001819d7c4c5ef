"""What a run records besides its scores: software, hardware, pretrained weights, and the course of its training."""

import datetime
import functools
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import pandas as pd
import torch

import dmseg
from dmseg.errors import UserError
from dmseg.files.schema import GROUP, TEXT, number, plain, record, whole
from dmseg.models.weights import HUB, describe_weights
from dmseg.runs.plan import PlannedRun
from dmseg.runs.seal import DamagedError
from dmseg.runs.store import RunStore
from dmseg.training.checkpoint import REPORTS, SESSIONS, Session
from dmseg.training.observers import EpochReport
from dmseg.training.precision import cpu_info

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
COURSE = record(
    {
        "epochs": whole(1),
        "steps_per_epoch": whole(1),
        "reports": REPORTS,
        "sessions": SESSIONS,
        "facts": GROUP,
        "machine": GROUP,
        "usage": record(
            {"ended": TEXT, "peak_memory_mib": number(0)}, {"peak_device_memory_mib": number(0)}, others=None
        ),
    },
    others=None,
)
"""The plain form of `Course`."""


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
    processor = cpu_info().get("model name")
    return {
        "platform": platform.platform(),
        "processor": platform.processor() if processor is None else processor,
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


def pretrained_facts(run: PlannedRun) -> dict[str, Any]:
    """The manifest's entry for the pretrained weights that a network was just built with; empty for none.

    The run id only contains the word ``imagenet``, so weights that changed on the hub would share one name.

    Raises:
        UserError: if the weights are not the pinned ones, or another run of the store was trained from different
            ImageNet weights of the same encoder.
    """
    model = run.settings.model
    described = describe_weights(model.encoder, model.weights, model.weights_sha256)
    if described is None:
        return {}
    store = RunStore(run.results)
    for run_id in store.run_ids() if model.weights == HUB and described["sha256"] is not None else ():
        try:
            other = store.read_json(run_id, "manifest.json").get("pretrained")
        except DamagedError:
            continue
        if not isinstance(other, dict) or other.get("source") != described["source"] or other.get("sha256") is None:
            continue
        if other["sha256"] != described["sha256"]:
            raise UserError(
                f"the ImageNet weights of {described['encoder']} here have the SHA-256 {described['sha256']}, but run "
                f"{run_id} in {store.runs} was trained from {other['sha256']}\n"
                "use the same file for all runs (model.weights=FILE), another results folder, or pin one with "
                "model.weights_sha256"
            )
    return {"pretrained": described}


@dataclass(frozen=True)
class Course:
    """Facts about finished training, kept with its weights until these are scored.

    Attributes:
        epochs: number of epochs.
        steps_per_epoch: optimiser steps in an epoch.
        reports: one for each epoch.
        sessions: one for each stretch between interruptions.
        facts: reported by the objective.
        machine: hardware and software versions.
        usage: end time and peak memory.
    """

    epochs: int
    steps_per_epoch: int
    reports: list[EpochReport]
    sessions: list[Session]
    facts: dict[str, Any]
    machine: dict[str, Any]
    usage: dict[str, Any]

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> Self:
        """Restores the object from the plain form that `dataclasses.asdict` returns.

        Raises:
            SchemaError: if `node` does not have this form.
        """
        plain(node, "rest.pt")
        COURSE(node, "rest.pt")
        reports = [EpochReport(**report) for report in node["reports"]]
        sessions = [Session(**session) for session in node["sessions"]]
        return cls(**{**node, "reports": reports, "sessions": sessions})

    def write_history(self, path: Path) -> None:
        """Writes ``history.csv``."""
        rows = [{"epoch": item.epoch, "step": item.step, "lr": item.lr, **item.losses} for item in self.reports]
        pd.DataFrame(rows).to_csv(path, index=False)


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
