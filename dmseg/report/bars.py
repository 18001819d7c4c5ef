"""Progress bars for work that takes longer than a few seconds; plain lines where there is no terminal."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from dmseg.text import printable

DELAY = 3.0
"""Seconds before an activity is shown."""
PLAIN_SECONDS = 30.0
"""Seconds between two lines without a terminal."""


class Bars:
    """Shows the activities of this process (`dmseg.activity.Display`).

    Args:
        console: console to write to.
        delay: seconds before an activity is shown.
        plain_seconds: seconds between two lines of an activity without a terminal.
    """

    def __init__(self, console: Console, delay: float = DELAY, plain_seconds: float = PLAIN_SECONDS) -> None:
        self._console, self._delay, self._plain_seconds = console, delay, plain_seconds
        self._lock = threading.RLock()
        self._progress: Progress | None = None
        self._closed = False

    @contextmanager
    def __call__(self, title: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        """Shows an activity while the block runs, after a delay; yields the function that advances it."""
        bar = _Bar(printable(title), total, unit)
        timer = threading.Timer(self._delay, self._show, [bar])
        timer.daemon = True
        timer.start()

        def advance(amount: int) -> None:
            bar.done += amount
            progress, task = self._progress, bar.task
            if progress is not None and task is not None:
                progress.update(task, completed=bar.done)

        try:
            yield advance
        finally:
            timer.cancel()
            with self._lock:
                bar.closed = True
                if bar.timer is not None:
                    bar.timer.cancel()
                if self._progress is not None and bar.task is not None:
                    self._progress.remove_task(bar.task)
                if self._progress is not None and not self._progress.task_ids:
                    self._progress.stop()
                    self._progress = None

    def close(self) -> None:
        """Removes all bars, including those of blocks that an error has interrupted."""
        with self._lock:
            if self._progress is not None:
                self._progress.stop()
            self._progress = None
            self._closed = True

    def _show(self, bar: "_Bar") -> None:
        with self._lock:
            if bar.closed or self._closed:
                return
            if not is_live(self._console):
                self._console.print(f"{bar.title}: {bar.amount}", markup=False, highlight=False)
                bar.timer = threading.Timer(self._plain_seconds, self._show, [bar])
                bar.timer.daemon = True
                bar.timer.start()
                return
            if self._progress is None:
                self._progress = Progress(
                    TextColumn("{task.description}", markup=False),
                    BarColumn(20),
                    _AmountColumn(),
                    TimeRemainingColumn(compact=True),
                    console=self._console,
                    transient=True,
                    redirect_stdout=False,
                    refresh_per_second=4,
                )
                self._progress.start()
            bar.task = self._progress.add_task(bar.title, total=bar.total, completed=bar.done, unit=bar.unit)


class _Bar:
    """An activity, and its bar or timer."""

    def __init__(self, title: str, total: int | None, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = 0
        self.closed = False
        self.task: TaskID | None = None
        self.timer: threading.Timer | None = None

    @property
    def amount(self) -> str:
        return amount(self.done, self.total, self.unit)


class _AmountColumn(ProgressColumn):
    """Finished and total amount with their unit."""

    def render(self, task: Task) -> Text:
        """The text of one activity."""
        total = None if task.total is None else int(task.total)
        return Text(amount(int(task.completed), total, str(task.fields["unit"])))


def amount(done: int, total: int | None, unit: str) -> str:
    """Formats an amount of work: ``3 of 20 cases``, ``1.2 GB of 3.4 GB``, ``17 cases``."""
    if unit == "B":
        return decimal(done) if total is None else f"{decimal(done)} of {decimal(total)}"
    shown = f"{done}" if total is None else f"{done} of {total}"
    return f"{shown} {unit}".rstrip()


def is_live(console: Console) -> bool:
    """Whether lines on a console can be redrawn: not in a pipe or a file, nor on a terminal without a cursor."""
    return console.is_terminal and not console.is_dumb_terminal
