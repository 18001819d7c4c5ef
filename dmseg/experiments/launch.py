"""Carries out many runs, in this process or in worker processes; one that fails does not stop the others.

Each slot is a worker of its own, so that one that dies takes only its run with it. A run that another process is
working on waits, and the others go on.
"""

import logging
import multiprocessing
import os
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.context import BaseContext
from pathlib import Path
from signal import SIGTERM
from typing import Literal, Protocol

from dmseg.errors import UserError
from dmseg.experiments.lease import Held
from dmseg.experiments.plan import PlannedRun
from dmseg.experiments.stopping import should_stop, stop_with_parent, stopping_gently, working
from dmseg.experiments.store import RunStore
from dmseg.files import write_whole
from dmseg.training.observers import Observer

MakeObservers = Callable[[PlannedRun], list[Observer]]
Kind = Literal["done", "misused", "failed", "held", "stopped"]

POLL = 2.0
"""Seconds until a run that another process works on is looked at again."""
LOG_LINES = 5
"""How many lines of a failed run's log are shown."""


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        run: the run.
        kind: ``done``; ``misused`` for a mistake of the user's; ``failed`` for anything else; ``held`` by another
            process; ``stopped`` on request, its state kept.
        error: one or a few lines where it is not done.
        log: file with the traceback where it failed.
    """

    run: PlannedRun
    kind: Kind = "done"
    error: str | None = None
    log: Path | None = None

    @property
    def status(self) -> int:
        """Exit status: 0 done, 1 failed, 2 a mistake of use, 130 stopped."""
        return {"done": 0, "failed": 1, "misused": 2, "held": 1, "stopped": 130}[self.kind]

    @property
    def tail(self) -> str:
        """The last lines of the log, empty where there is none."""
        with suppress(OSError):
            return "\n".join(self.log.read_text().splitlines()[-LOG_LINES:]) if self.log else ""
        return ""


def launch(runs: Sequence[PlannedRun], workers: int, observers: MakeObservers) -> Iterator[Outcome]:
    """Carries out runs and yields each one's outcome as soon as it is known.

    On SIGTERM or Ctrl-C no further run begins, those under way keep their state, and the rest are left out.

    Args:
        runs: the runs, each once.
        workers: how many at a time; 1 runs them in this process.
        observers: makes each run's observers; must be picklable if there is more than one worker.
    """
    workers = min(workers, len(runs))
    slots: list[_Slot] = [_Here()] if workers <= 1 else [_Worker(share) for share in shares(workers, _devices(runs))]
    with stopping_gently():
        try:
            yield from _schedule(deque(runs), slots, observers)
        except BaseException:
            for slot in slots:
                slot.ask_to_stop()
            raise
        finally:
            for slot in slots:
                slot.close()


def _schedule(waiting: deque[PlannedRun], slots: Sequence["_Slot"], observers: MakeObservers) -> Iterator[Outcome]:
    """Gives each free slot the next run, until none is left or a stop is asked for."""
    busy: dict[Future[Outcome], tuple[_Slot, PlannedRun]] = {}
    not_before: dict[str, float] = {}
    told = False
    while (waiting and not should_stop()) or busy:
        free = [slot for slot in slots if slot not in [used for used, _ in busy.values()]]
        for slot in free:
            if (run := _next_due(waiting, not_before)) is not None:
                busy[slot.submit(run, observers)] = (slot, run)
        if not busy:
            time.sleep(POLL / 4)
        for future in wait(busy, timeout=POLL, return_when=FIRST_COMPLETED).done:
            slot, run = busy.pop(future)
            outcome = slot.outcome(future, run)
            if outcome.kind == "held":
                not_before[run.run_id] = time.monotonic() + POLL
                waiting.append(run)
                continue
            if outcome.kind == "stopped" and not told:
                slot.close()  # somebody asked this worker alone: the next run gets a new one
            yield outcome
        if should_stop() and not told:
            told = True
            for slot in slots:
                slot.ask_to_stop()


def _next_due(waiting: deque[PlannedRun], not_before: Mapping[str, float]) -> PlannedRun | None:
    """Takes the first run that may be tried now."""
    now = time.monotonic()
    if should_stop():
        return None
    for index, run in enumerate(waiting):
        if not_before.get(run.run_id, now) <= now:
            del waiting[index]
            return run
    return None


def attempt(run: PlannedRun, observers: MakeObservers) -> Outcome:
    """Carries out one run; an error becomes an outcome."""
    from dmseg.experiments.run import execute
    from dmseg.training.checkpoint import Interrupted

    try:
        execute(run, observers)
    except Held as held:
        return Outcome(run, "held", str(held))
    except Interrupted as interrupted:
        return Outcome(run, "stopped", str(interrupted))
    except UserError as error:
        return Outcome(run, "misused", str(error))
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else ""
        return Outcome(run, "failed", f"{type(error).__name__}: {said}", _write_log(run, traceback.format_exc()))
    return Outcome(run)


def _write_log(run: PlannedRun, text: str) -> Path | None:
    path = RunStore(Path(run.settings.paths.results)).log(run.run_id)
    try:
        write_whole(path, text)
    except OSError:
        return None
    return path


@dataclass(frozen=True)
class Share:
    """What one of several workers may use.

    Attributes:
        cores: numbers of its CPU cores; shared with others where there are more workers than cores.
        device: what CUDA_VISIBLE_DEVICES becomes, None to leave it.
    """

    cores: tuple[int, ...]
    device: str | None = None


def shares(workers: int, devices: Sequence[str], cores: Sequence[int] | None = None) -> list[Share]:
    """Deals cores and CUDA devices out among workers, as evenly as they go.

    Args:
        workers: number of workers.
        devices: CUDA devices, as CUDA_VISIBLE_DEVICES names them; none for the CPU.
        cores: numbers of the cores; None for those that this process may use.
    """
    if cores is None:
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    dealt = []
    for index in range(workers):
        first, last = (len(cores) * edge // workers for edge in (index, index + 1))
        own = tuple(cores[first:last]) or (cores[index % len(cores)],)
        dealt.append(Share(own, devices[index % len(devices)] if devices else None))
    return dealt


def _devices(runs: Sequence[PlannedRun]) -> list[str]:
    """CUDA devices among which runs are dealt out: none where they name a device themselves."""
    if any(run.settings.device != "auto" for run in runs):
        return []
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    named = [name for name in visible.split(",") if name] if visible is not None else None
    count = torch.cuda.device_count()
    return (named or [str(index) for index in range(count)])[:count]


class _Slot(Protocol):
    """Something that carries out one run at a time."""

    def submit(self, run: PlannedRun, observers: MakeObservers) -> "Future[Outcome]":
        """Begins a run."""

    def outcome(self, future: "Future[Outcome]", run: PlannedRun) -> Outcome:
        """What became of it."""

    def ask_to_stop(self) -> None:
        """Asks the run under way to stop."""

    def close(self) -> None:
        """Waits for the run under way and frees what the slot holds."""


class _Here:
    """Carries runs out in this process."""

    def submit(self, run: PlannedRun, observers: MakeObservers) -> "Future[Outcome]":
        future: Future[Outcome] = Future()
        future.set_result(attempt(run, observers))
        return future

    def outcome(self, future: "Future[Outcome]", run: PlannedRun) -> Outcome:
        return future.result()

    def ask_to_stop(self) -> None: ...
    def close(self) -> None: ...


class _Worker:
    """Carries runs out in a process of its own, which begins with the first run and is replaced when it dies."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._pool: ProcessPoolExecutor | None = None
        self._pid: Future[int] | None = None

    def submit(self, run: PlannedRun, observers: MakeObservers) -> "Future[Outcome]":
        threads = run.settings.threads or len(self._share.cores)
        run = replace(run, settings=replace(run.settings, threads=threads))
        return self._start().submit(_attempt_in_worker, run, observers)

    def outcome(self, future: "Future[Outcome]", run: PlannedRun) -> Outcome:
        try:
            return future.result()
        except BrokenProcessPool:
            self.close()
            said = "its worker process died (out of memory?)"
            return Outcome(run, "failed", said, _write_log(run, f"{said}; nothing more is known\n"))

    def ask_to_stop(self) -> None:
        if self._pid is not None:
            with suppress(ProcessLookupError, BrokenProcessPool):
                os.kill(self._pid.result(), SIGTERM)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = self._pid = None

    def _start(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                1, mp_context=_context(), initializer=_start_worker, initargs=(self._share,)
            )
            self._pid = self._pool.submit(os.getpid)
        return self._pool


def _context() -> BaseContext:
    """How worker processes begin: on Linux as forks of a server that has imported torch once and used nothing of it."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dmseg.experiments.run"])
    return context


def _attempt_in_worker(run: PlannedRun, observers: MakeObservers) -> Outcome:
    with working():
        return attempt(run, observers)


def _start_worker(share: Share) -> None:
    """Runs first in each worker, before a device is used."""
    stop_with_parent()
    if share.device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = share.device
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, share.cores)
    logging.getLogger().setLevel(logging.WARNING)
