"""The observers of a run."""

import sys
from pathlib import Path

from rich.console import Console

from dmseg.report.progress import RunProgress
from dmseg.report.tracking import WandbTracker
from dmseg.runs.plan import PlannedRun
from dmseg.training.observers import Observer


def silent(run: PlannedRun) -> list[Observer]:
    """The tracker, if the settings enable one."""
    if run.settings.tracker == "disabled":
        return []
    return [WandbTracker(run.settings.tracker, run.settings.wandb, Path(run.settings.paths.results))]


def verbose(run: PlannedRun) -> list[Observer]:
    """Progress on standard error, and the tracker."""
    return [RunProgress(Console(file=sys.stderr)), *silent(run)]
