"""Executes runs as Slurm jobs, through submitit: one array for all runs that can start, with one or more runs per job.

A job writes the outcome of each run to a file as soon as it is known. A job that has left the queue with an outcome
missing was cancelled or died; ``squeue`` and ``scontrol`` are enough to find out, without Slurm's accounting. A job
that reaches its time limit or is pre-empted saves the state of its run and is requeued. Jobs continue if the command
that submitted them ends; their runs appear in the store.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from dmseg.config.settings import JobSettings
from dmseg.errors import UnwritableError, UserError, advice, first_line
from dmseg.files.atomic import write_whole
from dmseg.launch.local import usable_cores, with_threads
from dmseg.launch.outcome import MakeObservers, Outcome, TryRun, try_run_apart, write_log
from dmseg.runs.plan import PlannedRun
from dmseg.runs.status import is_complete
from dmseg.runs.stopping import ask_to_stop, should_stop
from dmseg.runs.store import RunStore

LOOK = 10.0
"""Seconds between two queries of the queue; outcomes are read more often."""
ROOM = 1000
"""Maximum number of jobs in an array: Slurm's default limit (MaxArraySize)."""


class Slurm:
    """Executes runs as Slurm jobs.

    Args:
        settings: settings of a job.
        folder: shared by all nodes; a folder for the jobs, logs and outcomes of this launch is created in it.
        observers: creates the observers of a run.
        try_one: executes one run.

    Raises:
        UserError: if submitit or Slurm is missing.
    """

    def __init__(self, settings: JobSettings, folder: Path, observers: MakeObservers, try_one: TryRun) -> None:
        self._settings, self._observers, self._try_one = settings, observers, try_one
        self._folder = folder.absolute() / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
        self._submitit = _submitit_executor(settings, self._folder)
        self._jobs: list[_Job] = []
        self._last_look = time.monotonic()
        self._clean = True

    def room(self) -> int:
        """Number of runs that fit into one array."""
        return ROOM * self._settings.runs

    def begin(self, runs: Sequence[PlannedRun]) -> None:
        """Submits an array of jobs.

        Raises:
            UserError: if Slurm refuses it.
        """
        size = self._settings.runs
        parts = [tuple(runs[first : first + size]) for first in range(0, len(runs), size)]
        batches = [RunGroup(part, self._observers, self._try_one, self._folder / "outcomes") for part in parts]
        if not batches:
            return
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            with self._submitit.batch():
                submitted = [self._submitit.submit(batch) for batch in batches]
        except OSError as error:
            message = f"{self._submitit.folder} cannot be written to: {error.strerror or error}; {advice(error)}"
            raise UnwritableError(message) from None
        except (FailedJobError, FailedSubmissionError) as error:
            lines = [line for line in str(error).splitlines() if "sbatch: " in line] or [first_line(error)]
            raise UserError(f"Slurm refuses the jobs (see the settings of launcher.job): {lines[-1]}") from None
        ids = [str(job.job_id) for job in submitted]
        self._jobs += [_Job(name, batch, self._folder) for name, batch in zip(ids, batches, strict=True)]

    def ended(self, seconds: float) -> list[Outcome]:
        """Outcomes written since the last call, and those of jobs that ended without writing one."""
        time.sleep(seconds)
        outcomes = [outcome for job in self._jobs for outcome in job.written()]
        if time.monotonic() - self._last_look > LOOK and (queued := _queued()) is not None:
            self._last_look = time.monotonic()
            outcomes += [outcome for job in self._jobs if job.is_gone(queued) for outcome in job.without_outcome()]
        self._jobs = [job for job in self._jobs if job.left]
        self._clean &= all(outcome.kind in ("done", "held") for outcome in outcomes)
        return outcomes

    def ask_to_stop(self) -> None:
        """Cancels all jobs: Slurm sends SIGTERM, on which a run saves its state, and later SIGKILL."""
        if self._jobs:
            subprocess.run(["scancel", *(job.name for job in self._jobs)], check=False, capture_output=True)

    def kill(self) -> None:
        """Cancels all jobs; Slurm kills them after a grace period."""
        self.ask_to_stop()

    def close(self) -> None:
        """Removes the jobs' files, unless something failed or a job is left."""
        if self._clean and not self._jobs:
            shutil.rmtree(self._folder, ignore_errors=True)


@dataclass(frozen=True)
class RunGroup:
    """The runs of one job, executed one after another; it continues when called again after a requeue.

    Attributes:
        runs: the runs.
        observers: creates the observers of a run.
        try_one: executes one run.
        outcomes: folder for the outcomes, one file for each run.
        key: prefix of the names of these files.
    """

    runs: tuple[PlannedRun, ...]
    observers: MakeObservers
    try_one: TryRun
    outcomes: Path
    key: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def __call__(self) -> None:
        """Executes the runs without an outcome; a stopped run gets none, as it may be requeued."""
        with _requeueing_later(lambda: not all(self.file(run).exists() for run in self.runs)):
            for run in self.runs:
                if should_stop():
                    return
                if not self.file(run).exists():
                    outcome = try_run_apart(with_threads(run, len(usable_cores())), self.observers, self.try_one)
                    if outcome.kind != "stopped":
                        log = outcome.log and str(outcome.log)
                        node = {"kind": outcome.kind, "error": outcome.error, "log": log}
                        write_whole(self.file(run), json.dumps(node))

    def checkpoint(self) -> Any:  # noqa: ANN401
        """What submitit requeues: the same runs, as outcomes and checkpoints determine what is left."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def file(self, run: PlannedRun) -> Path:
        """Path of the outcome of a run."""
        return self.outcomes / f"{self.key}-{run.run_id}.json"


@contextmanager
def _requeueing_later(is_unfinished: Callable[[], bool]) -> Iterator[None]:
    """Delays submitit's handler of Slurm's warning (requeue, exit) until the current run has saved its state.

    The warning is a special signal at the time limit, or SIGTERM on pre-emption. After ``scancel``, or if Slurm
    requeues by itself, SIGTERM only stops the runs.
    """
    from submitit import JobEnvironment

    warning: signal.Signals = JobEnvironment._usr_sig()
    received: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        received.append(number)
        ask_to_stop()

    before = {number: signal.signal(number, on_signal) for number in (warning, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    requeue = before[warning]
    if not received or not is_unfinished() or not callable(requeue):
        return
    shown = "" if warning in received else _show(os.environ["SLURM_JOB_ID"])
    # a pre-empted job would count as finished if it ended by itself
    if warning in received or ("JobState=RUNNING" in shown and re.search(r"PreemptTime=\d", shown)):
        requeue(warning, None)


class _Job:
    """A submitted job, as seen by the submitting process."""

    def __init__(self, name: str, batch: RunGroup, folder: Path) -> None:
        self.name = name
        self.left = {run.run_id: run for run in batch.runs}
        self._batch, self._folder = batch, folder
        self._looks = 0

    def written(self) -> list[Outcome]:
        """Outcomes that the job has written since the last call."""
        found = []
        for run in list(self.left.values()):
            if (file := self._batch.file(run)).exists():
                node = json.loads(file.read_text())
                found.append(Outcome(run, node["kind"], node["error"], node["log"] and Path(node["log"])))
                del self.left[run.run_id]
        return found

    def is_gone(self, queued: set[str]) -> bool:
        """Whether the job was missing from the queue twice in a row; by then all nodes see its last file."""
        self._looks = 0 if self.name in queued else self._looks + 1
        return self._looks >= 2

    def without_outcome(self) -> list[Outcome]:
        """Outcomes of the runs for which a job that has ended wrote none."""
        outcomes = self.written()
        known = re.search(r"JobState=(\w+)", _show(self.name))
        state = known[1] if known else "UNKNOWN"  # Slurm forgets jobs after some time
        log = self._folder / f"{self.name}_0_log.err"
        for run in self.left.values():
            if is_complete(run):
                outcomes.append(Outcome(run))
            elif state in ("CANCELLED", "PREEMPTED", "COMPLETED"):
                kept = any(RunStore(run.results).checkpoints(run.run_id).glob("[0-9]*"))
                resumes = "resume from its checkpoint" if kept else "start again"
                message = f"Slurm job {self.name} is {state}; run the same command to {resumes}"
                outcomes.append(Outcome(run, "stopped", message))
            else:
                message, tail = f"Slurm job {self.name} ended as {state}, its output: {log}", ""
                with suppress(OSError):
                    tail = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-20:])
                outcomes.append(Outcome(run, "failed", message, write_log(run, f"{tail}{message}\n")))
        self.left = {}
        return outcomes


def _queued() -> set[str] | None:
    """Names of this user's pending and running jobs; None if Slurm does not respond."""
    command = ["squeue", "--noheader", "--array", "--format=%i", f"--user={os.getuid()}"]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return set(done.stdout.split())


def _show(job: str) -> str:
    command = ["scontrol", "--oneliner", "show", "job", job]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout


def _submitit_executor(settings: JobSettings, folder: Path) -> Any:  # noqa: ANN401
    """Builds submitit's executor with these settings."""
    try:
        import submitit
    except ImportError:
        raise UserError("launcher=slurm needs submitit; install it: pip install 'dmseg[slurm]'") from None
    if shutil.which("sbatch") is None:
        raise UserError("launcher=slurm needs Slurm, but there is no command 'sbatch' on this machine")
    executor = submitit.SlurmExecutor(folder, max_num_timeout=settings.requeues)
    wanted = {
        "job_name": "dmseg",
        "time": settings.minutes,
        "cpus_per_task": settings.cpus,
        "gpus_per_node": settings.gpus or None,
        "mem": None if settings.memory_gb is None else f"{round(1024 * settings.memory_gb)}M",
        "array_parallelism": settings.parallel,
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "setup": settings.setup or None,
        "additional_parameters": {"requeue": True, **settings.parameters},
    }
    executor.update_parameters(**{key: value for key, value in wanted.items() if value is not None})
    return executor
