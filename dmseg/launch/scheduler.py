"""Which run begins when: teachers before students; a run that another process works on waits, the others go on."""

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

from dmseg.launch.outcome import Outcome
from dmseg.runs.lease import is_held
from dmseg.runs.plan import PlannedRun
from dmseg.runs.stopping import should_stop
from dmseg.runs.store import RunStore

log = logging.getLogger(__name__)

POLL = 2.0
"""Seconds until a run that another process works on is looked at again."""


class Executor(Protocol):
    """Carries runs out somewhere; knows nothing of teachers, nor of other processes that want the same runs."""

    def room(self) -> int:
        """How many runs may be begun now."""

    def begin(self, runs: Sequence[PlannedRun]) -> None:
        """Begins some runs, at most as many as there is room for."""

    def ended(self, seconds: float) -> list[Outcome]:
        """Outcomes of runs that have ended since the last call; waits up to so many seconds for the first."""

    def ask_to_stop(self) -> None:
        """Asks all runs under way to keep their state and stop."""

    def kill(self) -> None:
        """Ends all runs under way at once; what they have kept so far stays."""

    def close(self) -> None:
        """Waits for the runs under way and frees what is held."""


def schedule(runs: Sequence[PlannedRun], executor: Executor) -> Iterator[Outcome]:
    """Carries out runs and yields each one's outcome as soon as it is known.

    Once a run finds that the results folder cannot be written to, no further one begins, and it is said once.

    Args:
        runs: the runs, each once; a teacher that is not done yet must be among them.
        executor: carries them out.
    """
    queue = _Queue(runs)
    running: set[str] = set()
    told = unwritable = False
    while running or (queue and not should_stop() and not unwritable):
        if should_stop() and not told:
            told = True
            executor.ask_to_stop()
        if not told and not unwritable:
            yield from queue.blocked()
            ready = queue.take(executor.room())
            executor.begin(ready)
            running |= {run.run_id for run in ready}
        if not running:
            time.sleep(POLL / 4 if queue else 0)
            continue
        for outcome in executor.ended(POLL):
            running.remove(outcome.run.run_id)
            if queue.note(outcome) and not (unwritable and outcome.kind == "unwritable"):
                yield outcome
            unwritable |= outcome.kind == "unwritable"


class _Queue:
    """The runs that have not begun, teachers first, and what became of the others."""

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        teachers = {run.teacher.run_id for run in runs if run.teacher is not None}
        self._waiting = sorted(runs, key=lambda run: run.run_id not in teachers)
        self._ended: dict[str, Outcome] = {}
        self._unknown = {run.run_id for run in runs}
        self._not_before: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def note(self, outcome: Outcome) -> bool:
        """Notes what became of a run; one that is held by another process waits again. Returns whether it ended."""
        run = outcome.run
        if outcome.kind == "held":
            if run.run_id not in self._not_before:
                log.info("%s waits: %s", run.title, outcome.error)
            self._not_before[run.run_id] = time.monotonic() + POLL
            self._waiting.append(run)
            return False
        self._ended[run.run_id] = outcome
        self._unknown.discard(run.run_id)
        return True

    def blocked(self) -> list[Outcome]:
        """Takes the runs out that cannot be carried out for want of a teacher, and says so."""
        found = []
        while reasons := {run.run_id: reason for run in self._waiting if (reason := self._obstacle(run))}:
            for run in [run for run in self._waiting if run.run_id in reasons]:
                self._waiting.remove(run)
                found.append(Outcome(run, "blocked", reasons[run.run_id]))
                self.note(found[-1])
        return found

    def take(self, room: int) -> list[PlannedRun]:
        """Takes the first runs that may begin now."""
        now = time.monotonic()
        ready: list[PlannedRun] = []
        for run in self._waiting:
            if len(ready) == room:
                break
            if self._may_begin(run, now):
                ready.append(run)
        taken = {run.run_id for run in ready}
        self._waiting = [run for run in self._waiting if run.run_id not in taken]
        return ready

    def _may_begin(self, run: PlannedRun, now: float) -> bool:
        if run.teacher is not None and run.teacher.run_id in self._unknown:
            return False
        due = self._not_before.get(run.run_id)
        return due is None or (due <= now and not is_held(_store(run).lease_file(run.run_id)))

    def _obstacle(self, run: PlannedRun) -> str | None:
        """Why a run can never begin, None where it can."""
        teacher = run.teacher
        if teacher is None or teacher.run_id in self._unknown:
            return None
        ended = self._ended.get(teacher.run_id)
        if ended is not None and ended.kind != "done":
            return f"not started, for its teacher {teacher.title} ({teacher.run_id}) is not done: {ended.error}"
        if ended is None and not _store(teacher).is_done(teacher.run_id):
            return f"not started, for its teacher {teacher.title} ({teacher.run_id}) is not done; run the teacher first"
        return None


def _store(run: PlannedRun) -> RunStore:
    return RunStore(run.results)
