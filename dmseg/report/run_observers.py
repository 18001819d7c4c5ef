"""The observers of a run."""

import sys

from rich.console import Console

from dmseg.report.progress import RunProgress
from dmseg.report.tracking.tracking_plan import Tracking
from dmseg.runs.plan import PlannedRun
from dmseg.training.observers import Observer


def silent(run: PlannedRun, tracking: Tracking) -> list[Observer]:
    """The trackers' observer, if the settings name a tracker."""
    observer = tracking.observer(run)
    return [] if observer is None else [observer]


def verbose(run: PlannedRun, tracking: Tracking) -> list[Observer]:
    """Progress on standard error, and the trackers' observer."""
    return [RunProgress(Console(file=sys.stderr)), *silent(run, tracking)]
