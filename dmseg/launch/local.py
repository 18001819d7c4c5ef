"""Executes runs in this process, or in worker processes on this machine.

Each worker is a separate process, so if one dies only its current run is lost. It is started once, not for every run.
"""

import faulthandler
import logging
import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from signal import SIGKILL, SIGTERM

from dmseg.launch.outcome import MakeObservers, Outcome, TryRun, try_run_apart, write_log
from dmseg.runs.plan import PlannedRun
from dmseg.runs.stopping import signals_held_back, stop_with_parent, working


class Inline:
    """Executes runs in this process, one after another."""

    def __init__(self, observers: MakeObservers, try_one: TryRun) -> None:
        self._observers, self._try_one = observers, try_one
        self._begun: deque[PlannedRun] = deque()

    def room(self) -> int:
        """One run at a time."""
        return 1 - len(self._begun)

    def begin(self, runs: Sequence[PlannedRun]) -> None:
        """Stores the run for `ended`."""
        self._begun.extend(runs)

    def ended(self, seconds: float) -> list[Outcome]:
        """Executes the run, however long it takes."""
        return [self._try_one(self._begun.popleft(), self._observers)]

    def ask_to_stop(self) -> None:
        """Does nothing: the run itself checks `should_stop`."""

    def kill(self) -> None:
        """Does nothing: an exception already ends the run."""

    def close(self) -> None:
        """Does nothing."""


class Local:
    """Executes runs in worker processes, each with its share of the CPU cores and one CUDA device.

    Args:
        runs: all runs; only their number and whether they name a device matter.
        workers: number of worker processes; several may share a device.
        observers: creates the observers of a run.
        try_one: executes one run.
    """

    def __init__(self, runs: Sequence[PlannedRun], workers: int, observers: MakeObservers, try_one: TryRun) -> None:
        devices = []  # none to divide if the settings of a run name a device
        if all(run.settings.device == "auto" for run in runs):
            import torch

            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            named = [name for name in visible.split(",") if name] if visible is not None else None
            count = torch.cuda.device_count()
            devices = (named or [str(index) for index in range(count)])[:count]
        allotted = shares(min(workers, len(runs)), devices)
        self._workers = [_Worker(share, observers, try_one) for share in allotted]
        self._free = deque(self._workers)
        self._busy: dict[Future[Outcome], tuple[_Worker, PlannedRun]] = {}
        self._stopping = False

    def room(self) -> int:
        """Number of idle workers."""
        return len(self._free)

    def begin(self, runs: Sequence[PlannedRun]) -> None:
        """Gives each run to an idle worker."""
        for run in runs:
            worker = self._free.popleft()
            self._busy[worker.submit(run)] = (worker, run)

    def ended(self, seconds: float) -> list[Outcome]:
        """Outcomes of the workers that have become idle."""
        outcomes = []
        for future in wait(self._busy, timeout=seconds, return_when=FIRST_COMPLETED).done:
            worker, run = self._busy.pop(future)
            outcome = worker.outcome(future, run)
            if outcome.kind == "stopped" and not self._stopping:
                worker.close()  # only this worker received a signal; the next run gets a new process
            self._free.append(worker)
            outcomes.append(outcome)
        return outcomes

    def ask_to_stop(self) -> None:
        """Sends SIGTERM to all workers."""
        self._stopping = True
        for worker in self._workers:
            worker.ask_to_stop()

    def kill(self) -> None:
        """Kills all workers."""
        self._stopping = True
        for worker in self._workers:
            worker.kill()

    def close(self) -> None:
        """Ends all workers after their current runs."""
        for worker in self._workers:
            worker.close()


@dataclass(frozen=True)
class Share:
    """Resources of one of several workers.

    Attributes:
        cores: numbers of its CPU cores; shared if there are more workers than cores.
        device: value of CUDA_VISIBLE_DEVICES; None to leave it unchanged.
    """

    cores: tuple[int, ...]
    device: str | None = None


def shares(workers: int, devices: Sequence[str], cores: Sequence[int] | None = None) -> list[Share]:
    """Divides CPU cores and CUDA devices among workers as evenly as possible.

    Args:
        workers: number of workers.
        devices: CUDA devices as named in CUDA_VISIBLE_DEVICES; empty for the CPU.
        cores: numbers of the cores; None for those that this process may use.
    """
    if cores is None:
        cores = usable_cores()
    allotted = []
    for index in range(workers):
        first, last = (len(cores) * edge // workers for edge in (index, index + 1))
        own = tuple(cores[first:last]) or (cores[index % len(cores)],)
        allotted.append(Share(own, devices[index % len(devices)] if devices else None))
    return allotted


def usable_cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def with_threads(run: PlannedRun, cores: int) -> PlannedRun:
    """The run with one thread for each core, unless its settings give a number of threads."""
    return replace(run, settings=replace(run.settings, threads=run.settings.threads or cores))


class _Worker:
    """Executes runs in one process, which is started for the first run and replaced when it dies."""

    def __init__(self, share: Share, observers: MakeObservers, try_one: TryRun) -> None:
        self._share, self._observers, self._try_one = share, observers, try_one
        self._pool: ProcessPoolExecutor | None = None
        self._pid: Future[int] | None = None

    def submit(self, run: PlannedRun) -> Future[Outcome]:
        run = with_threads(run, len(self._share.cores))
        try:
            return self._start().submit(_try_run_in_worker, run, self._observers, self._try_one)
        except BrokenProcessPool:  # the process died between two runs
            self.close()
            return self._start().submit(_try_run_in_worker, run, self._observers, self._try_one)

    def outcome(self, future: Future[Outcome], run: PlannedRun) -> Outcome:
        try:
            return replace(future.result(), run=run)
        except BrokenProcessPool:
            self.close()
            message = "its worker process died (out of memory?)"
            return Outcome(run, "failed", message, write_log(run, f"{message}\n"), died=True)

    def ask_to_stop(self) -> None:
        if self._pid is not None:
            with suppress(ProcessLookupError, BrokenProcessPool):
                os.kill(self._pid.result(), SIGTERM)

    def kill(self) -> None:
        """Kills the process; one that is still starting ends by itself once its parent has ended."""
        if self._pool is None or self._pid is None:
            return
        if self._pid.done():
            with suppress(ProcessLookupError, BrokenProcessPool):
                os.kill(self._pid.result(), SIGKILL)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = self._pid = None

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = self._pid = None

    def _start(self) -> ProcessPoolExecutor:
        if self._pool is None:
            how = context()
            self._pool = ProcessPoolExecutor(1, mp_context=how, initializer=_start_worker, initargs=(self._share,))
            with signals_held_back():
                self._pid = self._pool.submit(os.getpid)
        return self._pool


def context() -> BaseContext:
    """How worker processes are started: on Linux as forks of a server process that has imported torch.

    The server blocks signals, as these may be sent to the whole process group; it ends when no process uses it any
    more.
    """
    with signals_held_back():
        resource_tracker.ensure_running()  # unblocks some signals again
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["dmseg.runs.execute"])
    with signals_held_back():
        forkserver.ensure_running()
    return server


def _try_run_in_worker(run: PlannedRun, observers: MakeObservers, try_one: TryRun) -> Outcome:
    with working():
        return try_run_apart(run, observers, try_one)


def _start_worker(share: Share) -> None:
    """Prepares each worker before it uses a device."""
    stop_with_parent()
    faulthandler.enable()
    if share.device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = share.device
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, share.cores)
    logging.getLogger().setLevel(logging.WARNING)
