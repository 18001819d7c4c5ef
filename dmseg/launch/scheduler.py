"""The order of runs: teachers first, then the longest; runs that another process is working on wait."""

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
"""Seconds before a run that another process is working on is retried."""

ATTEMPTS = 3
"""How often the process of a run may die without a new checkpoint before the run has failed."""

STEP = {"resnet18": 0.54, "resnet50": 1.0, "efficientnet_b0": 0.8, "mobilenetv2": 0.64}
"""Time of a training step with an encoder relative to ResNet-50 (smp's U-Net, float32 on a CPU); 1 for others. It only
affects the order of runs."""
TEACHER = 1 / 3
"""Time in which a teacher predicts a batch, relative to a training step of its network."""


class Executor(Protocol):
    """Executes runs; unaware of teachers and of other processes that work on the same runs."""

    def room(self) -> int:
        """Number of runs that can be started now."""

    def begin(self, runs: Sequence[PlannedRun]) -> None:
        """Starts some runs, at most `room` of them."""

    def ended(self, seconds: float) -> list[Outcome]:
        """Outcomes of runs that ended since the last call; waits up to this many seconds for the first."""

    def ask_to_stop(self) -> None:
        """Asks all current runs to save their state and stop."""

    def kill(self) -> None:
        """Ends all current runs at once; what they have saved is kept."""

    def close(self) -> None:
        """Waits for the current runs and frees all resources."""


def schedule(runs: Sequence[PlannedRun], executor: Executor) -> Iterator[Outcome]:
    """Executes runs and yields the outcome of each as soon as it is known.

    A run whose process died is retried. It fails after `ATTEMPTS` deaths in a row without a new checkpoint.

    If the results folder turns out not to be writable, no further run starts, and only one such outcome is yielded.

    Args:
        runs: the runs, each once; a teacher that is not done yet must be among them.
        executor: executes them.
    """
    queue = _Queue(runs)
    running: set[str] = set()
    stopping = unwritable = False
    while running or (queue and not should_stop() and not unwritable):
        if should_stop() and not stopping:
            stopping = True
            executor.ask_to_stop()
        if not stopping and not unwritable:
            yield from queue.blocked()
            ready = queue.take(executor.room())
            executor.begin(ready)
            running |= {run.run_id for run in ready}
        if not running:
            time.sleep(POLL / 4 if queue else 0)
            continue
        for outcome in executor.ended(POLL):
            running.remove(outcome.run.run_id)
            if outcome.died and not (stopping or unwritable) and queue.put_back(outcome):
                continue
            if queue.note(outcome) and not (unwritable and outcome.kind == "unwritable"):
                yield outcome
            unwritable |= outcome.kind == "unwritable"


def by_urgency(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Runs in the order in which they should start: teachers first, then by the work that begins with them.

    With few GPUs the order hardly matters, but many GPUs may all wait for a long run that starts last. The work of a
    run is an estimate of its time (`work`); that of its longest chain of students is added. Runs of equal work stay in
    their order.

    Args:
        runs: the runs, each once.
    """
    students: dict[str, list[PlannedRun]] = {}
    for run in runs:
        if run.teacher is not None:
            students.setdefault(run.teacher.run_id, []).append(run)

    def urgency(run: PlannedRun) -> float:
        return work(run) + max(map(urgency, students.get(run.run_id, ())), default=0.0)

    return sorted(runs, key=lambda run: (run.run_id not in students, -urgency(run)))


def work(run: PlannedRun) -> float:
    """Estimated time of a run: the pixels of all its steps, times the cost of its network, and of its teacher's."""
    train = run.settings.train
    steps = max(train.epochs * max(run.train_slices // train.batch_size, 1), train.min_steps)
    cost = _step_cost(run) + (TEACHER * _step_cost(run.teacher) if run.teacher is not None else 0.0)
    return steps * train.batch_size * (run.settings.data.size * train.crop) ** 2 * cost


def _step_cost(run: PlannedRun) -> float:
    encoder = run.settings.model.encoder
    return next((cost for name, cost in STEP.items() if encoder.startswith(name)), 1.0)


class _Queue:
    """The runs that have not started, in the order of `by_urgency`, and the outcomes of the others."""

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        self._waiting = by_urgency(runs)
        self._ended: dict[str, Outcome] = {}
        self._unknown = {run.run_id for run in runs}
        self._not_before: dict[str, float] = {}
        self._deaths: dict[str, tuple[str, int]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def note(self, outcome: Outcome) -> bool:
        """Records the outcome of a run; one held by another process is queued again. Returns whether it has ended."""
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

    def put_back(self, outcome: Outcome) -> bool:
        """Queues a run whose process died again, ahead of the others, unless it has died too often."""
        run = outcome.run
        places = _store(run).checkpoints(run.run_id).glob("[0-9]*")
        reached = max((place.name for place in places), default="")
        before, deaths = self._deaths.get(run.run_id, (reached, 0))
        deaths = deaths + 1 if reached <= before else 1
        self._deaths[run.run_id] = reached, deaths
        if deaths >= ATTEMPTS:
            return False
        log.info("retrying %s: %s", run.title, outcome.error)
        self._waiting.insert(0, run)
        return True

    def blocked(self) -> list[Outcome]:
        """Removes the runs that cannot be executed because a teacher is missing, and returns their outcomes."""
        found = []
        while reasons := {run.run_id: reason for run in self._waiting if (reason := self._obstacle(run))}:
            for run in [run for run in self._waiting if run.run_id in reasons]:
                self._waiting.remove(run)
                found.append(Outcome(run, "blocked", reasons[run.run_id]))
                self.note(found[-1])
        return found

    def _obstacle(self, run: PlannedRun) -> str | None:
        """Why a run can never start; None if it can."""
        teacher = run.teacher
        if teacher is None or teacher.run_id in self._unknown:
            return None
        ended = self._ended.get(teacher.run_id)
        if ended is not None and ended.kind != "done":
            return f"skipped, as its teacher {teacher.title} ({teacher.run_id}) is not done: {ended.error}"
        if ended is None and not _store(teacher).is_done(teacher.run_id):
            return f"skipped, as its teacher {teacher.title} ({teacher.run_id}) is not done; run the teacher first"
        return None

    def take(self, room: int) -> list[PlannedRun]:
        """Removes and returns the first runs that can start now."""
        now, ready = time.monotonic(), list[PlannedRun]()
        for run in self._waiting:
            if len(ready) >= room:
                break
            due = self._not_before.get(run.run_id, now)
            held = run.run_id in self._not_before and due <= now and is_held(_store(run).lease_file(run.run_id))
            if due <= now and not held and (run.teacher is None or run.teacher.run_id not in self._unknown):
                ready.append(run)
        taken = {run.run_id for run in ready}
        self._waiting = [run for run in self._waiting if run.run_id not in taken]
        return ready


def _store(run: PlannedRun) -> RunStore:
    return RunStore(run.results)
