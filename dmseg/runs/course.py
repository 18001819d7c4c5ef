"""Facts about a finished training, which are kept with its weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd

from dmseg.files.schema import GROUP, TEXT, number, plain, record, whole
from dmseg.training.checkpoint import REPORTS, SESSIONS, Session
from dmseg.training.observers import EpochReport

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


@dataclass(frozen=True)
class Course:
    """Facts about a finished training, kept with its weights until these are scored.

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
            Misfit: if `node` does not have this form.
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
