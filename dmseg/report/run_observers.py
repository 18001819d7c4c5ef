"""The observers of a run, and its progress: a bar on a terminal, plain lines elsewhere."""

import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from dmseg.report.bars import is_live
from dmseg.report.tracking.tracking_plan import Tracking
from dmseg.runs.plan import PlannedRun
from dmseg.text import printable, score_text
from dmseg.training.observers import EpochReport, Observer, RunInfo

PLAIN_LINES = 10
"""Number of lines that a run prints without a terminal."""
BAR_WIDTH = 10
"""Minimum width of the bar in columns; losses are left out to keep it."""


def silent(run: PlannedRun, tracking: Tracking) -> list[Observer]:
    """The trackers' observer, if the settings name a tracker."""
    observer = tracking.observer(run)
    return [] if observer is None else [observer]


def verbose(run: PlannedRun, tracking: Tracking) -> list[Observer]:
    """Progress on standard error, and the trackers' observer."""
    return [RunProgress(Console(file=sys.stderr)), *silent(run, tracking)]


class RunProgress:
    """Shows loss, learning rate and remaining time of one run.

    Args:
        console: console to write to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._epochs = 0

    def started(self, info: RunInfo) -> None:
        """Prints the title and starts the bar."""
        self._epochs = info.epochs
        self._console.print(Text.assemble(printable(info.title), "  ", (info.run_id, "dim")), highlight=False)
        if is_live(self._console):
            self._bar = Progress(
                TextColumn("  {task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(table_column=Column(no_wrap=True)),
                TimeRemainingColumn(table_column=Column(no_wrap=True)),
                console=self._console,
            )
            self._bar.add_task("training", total=info.epochs * info.steps_per_epoch)
            self._bar.start()

    def stepped(self, step: int) -> None:
        """Updates the bar."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step)

    def epoch_ended(self, report: EpochReport) -> None:
        """Shows the epoch's mean losses; without a terminal only after each tenth of the run."""
        parts = [*(f"{name} {value:.4f}" for name, value in report.losses.items()), f"lr {report.lr:.5f}"]
        text = " ".join(parts)
        if self._bar is not None:
            steps = len(f"{self._bar.tasks[0].total:.0f}")
            room = self._console.width - len("   ") - BAR_WIDTH - (2 * steps + 2) - len(" 0:00:00 ")
            while len(parts) > 1 and len(" ".join(parts)) > room:
                parts.pop()
            self._bar.update(self._bar.task_ids[0], description=" ".join(parts))
            if report.epoch == self._epochs:
                self._bar.stop()  # scoring has its own bar
        elif report.epoch % max(1, self._epochs // PLAIN_LINES) == 0 or report.epoch == self._epochs:
            self._console.print(f"  epoch {report.epoch}/{self._epochs} {text}", highlight=False, markup=False)

    def evaluated(self, summary: dict[str, float]) -> None:
        """Prints the means over the validation cases."""
        shown = " ".join(score_text(name, value) for name, value in summary.items())
        self._console.print(f"  validation: {shown}", highlight=False, markup=False)

    def ended(self, error: BaseException | None) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.stop()
