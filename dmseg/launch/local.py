"""Runs in this process, or in worker processes of this machine.

Each worker is a process of its own, so that one that dies takes only its run with it; it is started once, not per run.
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

from dmseg.launch.outcome import MakeObservers, Outcome, TryRun, lost, try_run_apart
from dmseg.runs.plan import PlannedRun
from dmseg.runs.stopping import signals_held_back, stop_with_parent, working


class Inline:
    """Carries runs out in this process, one after another."""

    def __init__(self, observers: MakeObservers, try_one: TryRun) -> None:
        self._observers, self._try_one = observers, try_one
        self._begun: deque[PlannedRun] = deque()

    def room(self) -> int:
        """One run at a time."""
        return 1 - len(self._begun)

    def begin(self, runs: Sequence[PlannedRun]) -> None:
        """Keeps the run for `ended`."""
        self._begun.extend(runs)

    def ended(self, seconds: float) -> list[Outcome]:
        """Carries out the run, however long it takes."""
        return [self._try_one(self._begun.popleft(), self._observers)]

    def ask_to_stop(self) -> None:
        """The run itself hears of it."""

    def kill(self) -> None:
        """An exception is on its way through the run."""

    def close(self) -> None:
        """Nothing is held."""


class Local:
    """Carries runs out in worker processes, each on its share of the cores and one of the CUDA devices.

    Args:
        runs: all runs; only their number, and whether they name a device, counts.
        workers: number of worker processes; several may share a device.
        observers: makes a run's observers.
        try_one: what is done with a run.
    """

    def __init__(self, runs: Sequence[PlannedRun], workers: int, observers: MakeObservers, try_one: TryRun) -> None:
        dealt = shares(min(workers, len(runs)), _devices(runs))
        self._workers = [_Worker(share, observers, try_one) for share in dealt]
        self._free = deque(self._workers)
        self._busy: dict[Future[Outcome], tuple[_Worker, PlannedRun]] = {}
        self._told = False

    def room(self) -> int:
        """As many as there are idle workers."""
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
            if outcome.kind == "stopped" and not self._told:
                worker.close()  # somebody asked this worker alone: the next run gets a new one
            self._free.append(worker)
            outcomes.append(outcome)
        return outcomes

    def ask_to_stop(self) -> None:
        """Sends SIGTERM to all workers."""
        self._told = True
        for worker in self._workers:
            worker.ask_to_stop()

    def kill(self) -> None:
        """Kills all workers."""
        self._told = True
        for worker in self._workers:
            worker.kill()

    def close(self) -> None:
        """Ends all workers, after the runs under way."""
        for worker in self._workers:
            worker.close()


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
        cores = usable_cores()
    dealt = []
    for index in range(workers):
        first, last = (len(cores) * edge // workers for edge in (index, index + 1))
        own = tuple(cores[first:last]) or (cores[index % len(cores)],)
        dealt.append(Share(own, devices[index % len(devices)] if devices else None))
    return dealt


def usable_cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def with_threads(run: PlannedRun, cores: int) -> PlannedRun:
    """The run with a thread for each of its cores, unless its settings name a number."""
    return replace(run, settings=replace(run.settings, threads=run.settings.threads or cores))


def _devices(runs: Sequence[PlannedRun]) -> list[str]:
    """CUDA devices among which runs are divided: none where they name a device themselves."""
    if any(run.settings.device != "auto" for run in runs):
        return []
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    named = [name for name in visible.split(",") if name] if visible is not None else None
    count = torch.cuda.device_count()
    return (named or [str(index) for index in range(count)])[:count]


class _Worker:
    """Carries runs out in a process of its own, which begins with the first run and is replaced when it dies."""

    def __init__(self, share: Share, observers: MakeObservers, try_one: TryRun) -> None:
        self._share, self._observers, self._try_one = share, observers, try_one
        self._pool: ProcessPoolExecutor | None = None
        self._pid: Future[int] | None = None

    def submit(self, run: PlannedRun) -> Future[Outcome]:
        run = with_threads(run, len(self._share.cores))
        try:
            return self._start().submit(_try_run_in_worker, run, self._observers, self._try_one)
        except BrokenProcessPool:  # it died between two runs
            self.close()
            return self._start().submit(_try_run_in_worker, run, self._observers, self._try_one)

    def outcome(self, future: Future[Outcome], run: PlannedRun) -> Outcome:
        try:
            return replace(future.result(), run=run)
        except BrokenProcessPool:
            self.close()
            return lost(run, "its worker process died (out of memory?)")

    def ask_to_stop(self) -> None:
        if self._pid is not None:
            with suppress(ProcessLookupError, BrokenProcessPool):
                os.kill(self._pid.result(), SIGTERM)

    def kill(self) -> None:
        """Kills the process; one that is still starting notices that its parent is gone."""
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
    """How worker processes begin: on Linux as forks of a server that has imported torch once and used nothing of it.

    The server receives no signals, which may be sent to the whole group of processes: it ends with the last of those
    that use it.
    """
    with signals_held_back():
        resource_tracker.ensure_running()  # which lets some signals through again
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
    """Runs first in each worker, before a device is used."""
    stop_with_parent()
    faulthandler.enable()
    if share.device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = share.device
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, share.cores)
    logging.getLogger().setLevel(logging.WARNING)
