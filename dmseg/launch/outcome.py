"""The outcome of one run, and the log of a failed one."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dmseg.config.plugins import Plugin, use_plugins
from dmseg.errors import UnwritableError, UserError, advice, first_line
from dmseg.files.atomic import write_whole
from dmseg.runs.lease import RunLocked
from dmseg.runs.plan import PlannedRun
from dmseg.runs.store import FULL, RunStore
from dmseg.training.observers import Observer

MakeObservers = Callable[[PlannedRun], list[Observer]]
Kind = Literal["done", "misused", "failed", "blocked", "held", "stopped", "unwritable"]
EXIT_STATUS: dict[Kind, int] = {
    "done": 0,
    "failed": 1,
    "blocked": 1,
    "held": 1,
    "misused": 2,
    "unwritable": 2,
    "stopped": 130,
}

LOG_LINES = 5
"""Number of lines shown of a failed run's log."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run.

    Attributes:
        run: the run.
        kind: ``done``; ``misused``: an error of the user; ``failed``: any other error; ``blocked``: its teacher is
            missing; ``held``: another process is working on it; ``stopped`` on request, with its state saved;
            ``unwritable``: the results folder cannot be written to, which concerns all runs.
        error: one or a few lines if it is not done.
        log: file with the output of a failed run.
        died: whether its process died, so that a second attempt may succeed; it resumes from the last checkpoint.
    """

    run: PlannedRun
    kind: Kind = "done"
    error: str | None = None
    log: Path | None = None
    died: bool = False

    @property
    def status(self) -> int:
        """Exit status: 0 done, 1 failed, 2 user error, 130 stopped."""
        return EXIT_STATUS[self.kind]

    @property
    def tail(self) -> str:
        """The last lines of the log; empty if there is none."""
        with suppress(OSError):
            return "\n".join(self.log.read_text().splitlines()[-LOG_LINES:]) if self.log else ""
        return ""


TryRun = Callable[[PlannedRun, MakeObservers], Outcome]


@dataclass(frozen=True)
class WithPlugins:
    """Loads the plugins of a command in the process that executes a run, then executes the run.

    Attributes:
        plugins: the plugins, with their digests.
        try_one: executes one run.
    """

    plugins: tuple[Plugin, ...]
    try_one: TryRun

    def __call__(self, run: PlannedRun, observers: MakeObservers) -> Outcome:
        """The run's outcome; ``misused`` if a plugin cannot be loaded, or has changed since the command loaded it."""
        try:
            use_plugins(self.plugins)
        except UserError as error:
            return Outcome(run, "misused", str(error))
        return self.try_one(run, observers)


def try_run(run: PlannedRun, observers: MakeObservers) -> Outcome:
    """Executes one run; an error becomes an outcome."""
    from dmseg.runs.execute import execute
    from dmseg.training.checkpoint import Interrupted

    try:
        execute(run, observers)
    except RunLocked as error:
        return Outcome(run, "held", str(error))
    except Interrupted as interrupted:
        return Outcome(run, "stopped", str(interrupted))
    except UnwritableError as error:
        return Outcome(run, "unwritable", _with_notes(error, str(error)))
    except UserError as error:
        return Outcome(run, "misused", _with_notes(error, str(error)))
    except OSError as error:
        if error.errno not in FULL:
            return _failed(run, error)
        place = error.filename or run.results  # an error of the store itself is an UnwritableError
        return Outcome(run, "unwritable", _with_notes(error, f"{place}: {error.strerror or error}; {advice(error)}"))
    except Exception as error:
        return _failed(run, error)
    return Outcome(run)


def _failed(run: PlannedRun, error: Exception) -> Outcome:
    message = f"{type(error).__name__}: {first_line(error, '')}"
    return Outcome(run, "failed", _with_notes(error, message), write_log(run, traceback.format_exc()))


def _with_notes(error: Exception, message: str) -> str:
    """The message of an error with the notes added to it, such as that the trained weights are kept."""
    return "\n".join([message, *getattr(error, "__notes__", [])])


def try_run_apart(run: PlannedRun, observers: MakeObservers, try_one: TryRun = try_run) -> Outcome:
    """Executes one run in a background process; its output goes to a log, which is kept if the run fails."""
    with _output_to(_unfinished_log(run)):
        outcome = try_one(run, observers)
        if outcome.kind == "misused":
            return replace(outcome, log=write_log(run, f"{outcome.error}\n"))
    with suppress(OSError):
        _unfinished_log(run).unlink(missing_ok=True)
    return outcome


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Redirects standard output and error to a file while the block runs, if the file can be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
    except OSError:
        yield
        return
    before = [os.dup(number) for number in (1, 2)]
    _point(file, file)
    os.close(file)
    try:
        yield
    finally:
        _point(*before)
        for number in before:
            os.close(number)


def write_log(run: PlannedRun, text: str) -> Path | None:
    """Writes a failed run's log: the output so far, then `text`; returns None if the store cannot be written to."""
    unfinished = _unfinished_log(run)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        output = unfinished.read_text(errors="replace") if unfinished.exists() else ""
        write_whole(RunStore(run.results).log(run.run_id), output + text)
        unfinished.unlink(missing_ok=True)
    except OSError:
        return None
    return RunStore(run.results).log(run.run_id)


def _unfinished_log(run: PlannedRun) -> Path:
    """Path of the output of a run in progress; the name is hidden, as the run has not failed."""
    log = RunStore(run.results).log(run.run_id)
    return log.with_name(f".{log.name}")


def _point(out: int, error: int) -> None:
    """Points standard output and error at these file descriptors."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(out, 1)
    os.dup2(error, 2)
