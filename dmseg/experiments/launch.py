"""Carries out many runs, one after the other or side by side; one that fails does not stop the others."""

import logging
import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dmseg.errors import UserError
from dmseg.experiments.plan import PlannedRun
from dmseg.training.observers import Observer

MakeObservers = Callable[[PlannedRun], list[Observer]]


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        run: the run.
        error: one or a few lines where it failed, else None.
        log: file with the traceback where it failed for no fault of the user's, else None.
    """

    run: PlannedRun
    error: str | None = None
    log: Path | None = None

    @property
    def status(self) -> int:
        """Exit status: 0 done, 2 a mistake of use, 1 anything else."""
        if self.error is None:
            return 0
        return 1 if self.log is not None else 2


def launch(runs: Sequence[PlannedRun], workers: int, observers: MakeObservers) -> Iterator[Outcome]:
    """Carries out runs and yields each one's outcome as soon as it is known.

    Args:
        runs: the runs, each once.
        workers: how many at a time; 1 runs them in this process.
        observers: makes each run's observers; must be picklable if there is more than one worker.
    """
    workers = min(workers, len(runs))
    if workers <= 1:
        yield from map(partial(attempt, observers=observers), runs)
        return
    threads = max(1, (os.cpu_count() or 1) // workers)
    shared = [_with_threads(run, threads) for run in runs]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        futures = {pool.submit(attempt, run, observers): run for run in shared}
        try:
            for future in as_completed(futures):
                yield _outcome(future, futures[future])
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def attempt(run: PlannedRun, observers: MakeObservers) -> Outcome:
    """Carries out one run; an error becomes an outcome."""
    from dmseg.experiments.run import execute

    try:
        execute(run, observers)
    except UserError as error:
        return Outcome(run, str(error))
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else ""
        return Outcome(run, f"{type(error).__name__}: {said}", _write_log(run, traceback.format_exc()))
    return Outcome(run)


def _write_log(run: PlannedRun, text: str) -> Path:
    path = Path(run.settings.paths.results) / "failed" / f"{run.run_id}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _outcome(future: "Future[Outcome]", run: PlannedRun) -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool:
        said = "its worker process died (out of memory?)"
        return Outcome(run, said, _write_log(run, f"{said}; nothing more is known\n"))


def _with_threads(run: PlannedRun, threads: int) -> PlannedRun:
    if run.settings.threads is not None:
        return run
    return replace(run, settings=replace(run.settings, threads=threads))


def _start_worker() -> None:
    logging.getLogger().setLevel(logging.WARNING)
