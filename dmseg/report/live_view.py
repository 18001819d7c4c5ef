"""A live view of many runs: one line for each that is running or queued, and one that stays for each that has ended.

Runs are executed by other processes or Slurm jobs, which write their progress to files
(`dmseg.runs.progress_file`). Without a terminal, there is one line for each run that has ended.
"""

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from dmseg.activity import showing
from dmseg.files.names import is_id
from dmseg.launch import Outcome
from dmseg.report.bars import is_live
from dmseg.runs.identity import PLAIN
from dmseg.runs.inventory import stored_means
from dmseg.runs.plan import PlannedRun
from dmseg.runs.progress_file import RunState, progress_path, read_progress, remove_stale
from dmseg.runs.seal import DamagedError
from dmseg.runs.status import similar_seconds
from dmseg.runs.stopping import should_stop
from dmseg.runs.store import RunStore
from dmseg.text import printable

LEAST_NAME = 24
"""Minimum width of a run's name; details are left out to keep it."""
WIDE = 160
"""Width of a line without a terminal."""
MOST_READ = 64
"""Progress files that are read per refresh; if more runs are active, they take turns."""
QUEUED_ROWS = 5
"""Maximum number of queued runs that are listed."""
STYLES = {"running": "cyan", "queued": "dim", "done": "green", "failed": "red", "stopped": "yellow", "waits": "yellow"}
WORDS = {"stopped": "stopped", "blocked": "waits", "done": "done"}
"""Words for the kinds of outcomes; ``failed`` for all others."""


class LiveView:
    """Shows many runs.

    Args:
        console: console to write to.
        runs: the runs to execute.
        clock: returns seconds.
    """

    def __init__(
        self, console: Console, runs: Sequence[PlannedRun], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._clock = console, clock
        self._left = {run.run_id: run for run in runs}
        self._names = short_names(runs)
        self._longest = max(map(len, self._names.values()), default=0)
        self._running: dict[str, RunState] = {}
        self._began: dict[str, float] = {}
        self._read: dict[str, float] = {}
        self._measured: list[tuple[PlannedRun, float]] = []
        self._counts: Counter[str] = Counter()

    @contextmanager
    def shown(self) -> Iterator["LiveView"]:
        """Shows the view while the block runs."""
        for results in {run.results for run in self._left.values()}:
            remove_stale(results)
        live = (
            Live(self, console=self._console, refresh_per_second=1, transient=True, redirect_stdout=False)
            if is_live(self._console)
            else nullcontext()
        )
        with showing(None), live:
            if len(self._names) > 1 and (shared := shared_parts(list(self._left.values()))):
                self._print(Text(f"all of {shared}", "dim"))
            yield self

    def ended(self, outcome: Outcome) -> None:
        """Notes that a run has ended; prints the line that stays, unless it failed: the caller prints the error."""
        run, word = outcome.run, WORDS.get(outcome.kind, "failed")
        began = self._began.pop(run.run_id, None)
        self._left.pop(run.run_id, None)
        self._running.pop(run.run_id, None)
        self._counts[word] += 1
        if outcome.kind != "done":
            return
        if began is not None:
            self._measured.append((run, self._clock() - began))
        store, shown = RunStore(run.results), []
        with suppress(DamagedError, OSError):
            dice = stored_means(store.evaluation_folder(run.run_id, run.evaluation_id)).get("dice", math.nan)
            seconds = float(store.read_json(run.run_id, "manifest.json")["seconds"])
            shown = ["dice undefined" if math.isnan(dice) else f"dice {100 * dice:.2f} %", f"{duration(seconds):>6}"]
        width = max(self._console.width, 0 if is_live(self._console) else WIDE)
        self._print(self._row(width, "done", run.run_id, shown))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The current lines."""
        self.look()
        yield from self.lines(options.max_width, options.height or console.height)

    def look(self) -> None:
        """Reads the progress of the runs."""
        now = self._clock()
        writing = set()
        for results in {run.results for run in self._left.values()}:
            with suppress(OSError):
                names = os.listdir(progress_path(results, "").parent)
                writing |= {name.removesuffix(".json") for name in names if is_id(name.removesuffix(".json"))}
        here = [run_id for run_id in list(self._left) if run_id in writing]
        for run_id in sorted(here, key=lambda run_id: self._read.get(run_id, -math.inf))[:MOST_READ]:
            self._read[run_id] = now
            run = self._left.get(run_id)
            if run is not None and (found := read_progress(progress_path(run.results, run_id))) is not None:
                self._began.setdefault(run_id, now)
                self._running[run_id] = found
        for run_id in [run_id for run_id in self._running if run_id not in writing]:
            self._running.pop(run_id, None)

    def lines(self, width: int, height: int) -> Iterator[Text]:
        """Rows of the running and the next queued runs, and a summary.

        Args:
            width: columns of the terminal.
            height: its rows, of which one stays free.
        """
        running = [run_id for run_id in list(self._left) if run_id in self._running]
        queued = [run_id for run_id in list(self._left) if run_id not in self._running]
        room = max(1, height - 4)
        shown = running[:room]
        for run_id in shown:
            yield self._row(width, "running", run_id, details(self._running[run_id]))
        if len(running) > room:
            yield _cut(Text(f"... and {len(running) - room} more running", "dim"), width)
        following = queued[: max(0, min(QUEUED_ROWS, room - len(shown)))]
        for run_id in following:
            yield self._row(width, "queued", run_id, [])
        if following and len(queued) > len(following):
            yield _cut(Text(f"... and {len(queued) - len(following)} more queued", "dim"), width)
        counts = {"running": len(running), "queued": len(queued), **self._counts}
        summary = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        if should_stop():
            summary += ": saving states before stopping; press Ctrl-C again to stop at once"
        elif not math.isnan(left := self.seconds_left()):
            summary += f", about {duration(left)} left"
        yield _cut(Text(summary, "bold"), width)

    def seconds_left(self) -> float:
        """Estimated seconds until all runs have ended; NaN until a speed has been measured."""
        current = {run_id: state.seconds_left for run_id, state in list(self._running.items())}
        measured = list(self._measured)
        now = self._clock()
        for run_id, left in current.items():
            run, began = self._left.get(run_id), self._began.get(run_id)
            if run is not None and began is not None and not math.isnan(left):
                state = self._running.get(run_id)
                if state is not None and state.speed > 0:
                    measured.append((run, max(state.steps / state.speed, now - began)))
        waiting = [run for run_id, run in list(self._left.items()) if math.isnan(current.get(run_id, math.nan))]
        known = [left for left in current.values() if not math.isnan(left)]
        if not measured:
            return math.nan
        total = sum(known) + (similar_seconds(waiting, measured) or 0.0)
        return max([total / max(1, len(self._running)), *known])

    def _row(self, width: int, word: str, run_id: str, shown: Sequence[str]) -> Text:
        return row(width, word, self._names[run_id], shown, self._longest)

    def _print(self, line: Text) -> None:
        if not is_live(self._console):
            line = Text(line.plain.rstrip())
        self._console.print(line, soft_wrap=True, highlight=False)


def row(width: int, word: str, name: str, shown: Sequence[str], longest: int) -> Text:
    """One line: the state, the name and details, of which the middle ones are left out where there is no room.

    Args:
        width: columns of the line.
        word: the state.
        name: name of the run.
        shown: the details; the first is never left out, the second-to-last is left out first.
        longest: length of the longest name; all lines leave as much room.
    """
    kept = list(shown)
    space = width - 9
    while len(kept) > 1 and space - len("  ".join(kept)) - 2 < min(longest, LEAST_NAME):
        kept.pop(-2 if len(kept) > 2 else -1)
    ending = "  ".join(kept)
    room = max(8, min(longest, space - len(ending) - 2))
    text = Text.assemble((f"{word:<7}  ", STYLES.get(word, "")), f"{squeezed(name, room):<{room}}  ", ending)
    return _cut(text, width)


def details(state: RunState) -> list[str]:
    """What is shown for a running run: epoch, loss, speed, time left; or the stage it is in."""
    if state.stage != "training":
        return [state.position]
    digits = len(str(state.epochs))
    shown = [f"epoch {state.epoch:>{digits}}/{state.epochs}"]
    shown += [] if math.isnan(state.loss) else [f"loss {state.loss:.4f}"]
    if not math.isnan(state.speed) and state.speed > 0:
        shown += [f"{speed(state.speed):>9}", f"{duration(state.seconds_left):>6}"]
    return shown


def speed(steps: float) -> str:
    """Optimiser steps per second, or seconds per step: ``8.1 it/s``, ``2.3 s/it``."""
    return f"{steps:.1f} it/s" if steps >= 1 else f"{1 / steps:.1f} s/it"


def duration(seconds: float) -> str:
    """Formats a time: ``0:42``, ``12:03``, ``3:07:00``, ``2 d 3 h``."""
    whole = max(0, round(seconds))
    minutes, hours = whole // 60, whole // 3600
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes % 60:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def shared_parts(runs: Sequence[PlannedRun]) -> str:
    """What all runs have in common, which their short names leave out."""
    parts = zip(*map(_parts, runs), strict=True)
    return printable(" ".join(items[0] for items in parts if items[0] and len(set(items)) == 1))


def short_names(runs: Sequence[PlannedRun]) -> dict[str, str]:
    """Names made of the parts in which runs differ; always with the fold, and with an id where names would be equal."""
    parts = {run.run_id: _parts(run) for run in runs}
    folds = {run.run_id: f"fold {run.settings.fold}" for run in runs}
    fixed = [len({item[index] for item in parts.values()}) == 1 for index in range(len(next(iter(parts.values()), ())))]
    names = {}
    for run_id, item in parts.items():
        kept = [text for text, same in zip(item, fixed, strict=True) if text and not (same and len(parts) > 1)]
        names[run_id] = printable(" ".join(kept if folds[run_id] in kept else [*kept, folds[run_id]]))
    count = Counter(names.values())
    return {run_id: f"{name} {run_id[:6]}" if count[name] > 1 else name for run_id, name in names.items()}


def _parts(run: PlannedRun) -> tuple[str, ...]:
    settings = run.settings
    taught = "" if settings.distill is None else f"+{settings.distill.name}"
    unused = settings.method.unused
    return (
        settings.data.name,
        run.task.name,
        "" if settings.method.target == PLAIN else settings.method.name,
        f"{'' if 'labels' in unused else settings.labels.name}{taught}",
        settings.model.name,
        "" if "loss" in unused else settings.loss.name,
        f"seed {settings.seed}",
        f"fold {settings.fold}",
    )


def squeezed(text: str, room: int) -> str:
    """Leaves out the middle of a text that is longer than its room."""
    if len(text) <= room:
        return text
    end = (room - 2) * 2 // 3
    return f"{text[: room - 2 - end]}..{text[len(text) - end :]}"


def _cut(text: Text, width: int) -> Text:
    text.truncate(width)
    text.no_wrap = True
    return text
