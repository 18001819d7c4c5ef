"""How far a run is, for other processes: a small file beside the store while the run's process holds its lease.

``<results>/progress/<run id>.json`` is written at most once a second, replaced as a whole, and removed at the end. It
is not part of the run. To readers, a missing or foreign file means that nothing is known.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from dmseg.activity import is_shown, showing
from dmseg.files.atomic import scratch_path, sweep
from dmseg.files.names import is_id
from dmseg.files.regular import read_regular
from dmseg.runs.lease import is_held
from dmseg.runs.store import RunStore
from dmseg.text import printable
from dmseg.training.observers import EpochReport, RunInfo

SECONDS = 1.0
"""Shortest time between two writes."""
LARGEST = 4096
"""Largest number of bytes read; our own files have a few hundred."""
LARGEST_NUMBER = 1e12
"""Larger numbers are not ours, and would not fit a line."""


@dataclass(frozen=True)
class RunState:
    """How far a run is.

    Attributes:
        title: its title.
        stage: what it does: ``starting``, ``training``, ``scoring``, or the title of another activity.
        epoch: number of finished epochs.
        epochs: number of epochs; 0 while unknown.
        step: number of finished optimiser steps.
        steps: number of steps; 0 while unknown.
        loss: mean loss of the last epoch; NaN before the first has ended.
        speed: optimiser steps per second in this session; NaN while unknown.
        done: amount finished, of a stage other than training.
        total: the whole amount; 0 if unknown.
    """

    title: str
    stage: str = "starting"
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    loss: float = math.nan
    speed: float = math.nan
    done: int = 0
    total: int = 0

    @property
    def position(self) -> str:
        """Where it is: ``epoch 3/12``, ``scoring 4/20``, ``starting``."""
        if self.stage == "training":
            return f"epoch {self.epoch}/{self.epochs}"
        return f"{self.stage} {self.done}/{self.total}" if self.total else self.stage

    @property
    def seconds_left(self) -> float:
        """Estimated seconds until training ends, NaN while unknown."""
        return (self.steps - self.step) / self.speed if self.speed > 0 else math.nan


def progress_path(results: Path, run_id: str) -> Path:
    """Path of the progress file of a run."""
    return results / "progress" / f"{run_id}.json"


def read_progress(path: Path) -> RunState | None:
    """Reads a progress file; None if there is none, or it is not one of ours."""
    try:
        node = json.loads(read_regular(path, LARGEST))
        known: dict[str, Any] = {field.name: node[field.name] for field in fields(RunState)}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    for field in fields(RunState):
        value = known[field.name]
        if field.type is float and value is None:
            known[field.name] = math.nan
        elif type(value) is not field.type or (field.type is not str and not 0 <= abs(value) < LARGEST_NUMBER):
            return None
        elif field.type is str:
            known[field.name] = printable(value)
    return RunState(**known)


def remove_stale(results: Path) -> None:
    """Removes the progress files of processes that have died; a run that nobody works on has none."""
    store = RunStore(results)
    with suppress(OSError):
        sweep(results / "progress")
        for path in stale(store):
            path.unlink(missing_ok=True)


def stale(store: RunStore) -> list[Path]:
    """Progress files of runs that nobody is working on."""
    found = sorted((store.results / "progress").glob("*.json"))
    return [path for path in found if is_id(path.stem) and not is_held(store.lease_file(path.stem))]


class ProgressWriter:
    """Follows a run and writes its progress file. A file that cannot be written is skipped.

    Args:
        path: the file.
        title: title of the run.
        clock: returns seconds.
    """

    def __init__(self, path: Path, title: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._state = RunState(title)
        self._steps_per_epoch = 0
        self._first: tuple[int, float] | None = None
        self._written = -math.inf

    def started(self, info: RunInfo) -> None:
        """Notes the number of epochs and steps."""
        self._steps_per_epoch = info.steps_per_epoch
        self._change(True, stage="training", epochs=info.epochs, steps=info.epochs * info.steps_per_epoch)

    def stepped(self, step: int) -> None:
        """Notes the number of steps, and their speed since the first one of this session."""
        now = self._clock()
        if self._first is None:
            self._first = (step, now)
        first, since = self._first
        speed = (step - first) / (now - since) if now > since else math.nan
        self._change(False, step=step, epoch=step // max(self._steps_per_epoch, 1), speed=speed)

    def epoch_ended(self, report: EpochReport) -> None:
        """Notes the loss of an epoch."""
        self._change(False, step=report.step, epoch=report.epoch, loss=float(report.losses.get("loss", math.nan)))

    def evaluated(self, summary: dict[str, float]) -> None:
        """Does nothing: scores are in the store."""

    def ended(self, error: BaseException | None) -> None:
        """Does nothing: `reporting` removes the file."""

    @contextmanager
    def display(self, title: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        """Shows an activity in the file (`dmseg.activity.Display`)."""
        before = self._state
        self._change(True, stage=title, done=0, total=total or 0)

        def advance(amount: int) -> None:
            self._change(False, done=self._state.done + amount)

        yield advance
        self._change(False, stage=before.stage, done=before.done, total=before.total)

    def write(self) -> None:
        """Writes the file, replacing an earlier one as a whole; nothing is synced, as the file may be lost."""
        self._written = self._clock()
        node: dict[str, Any] = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self._state).items()
        }
        scratch = scratch_path(self._path)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(json.dumps(node), encoding="utf-8")
            scratch.replace(self._path)
        except OSError:
            with suppress(OSError):
                scratch.unlink(missing_ok=True)

    def _change(self, at_once: bool, **values: Any) -> None:  # noqa: ANN401
        self._state = replace(self._state, **values)
        if at_once or self._clock() - self._written >= SECONDS:
            self.write()


@contextmanager
def reporting(results: Path, run_id: str, title: str) -> Iterator[ProgressWriter]:
    """Keeps the progress file of a run while the block runs; the caller holds the run's lease.

    Activities of the block (`dmseg.activity`) are shown in the file, unless this process shows them itself.
    """
    path = progress_path(results, run_id)
    writer = ProgressWriter(path, title)
    writer.write()
    try:
        with nullcontext() if is_shown() else showing(writer.display):
            yield writer
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
