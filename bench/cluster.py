"""All tables of the paper on 1, 8 and 64 GPUs, with the real plan and scheduler, and a made-up executor and clock.

Run ``python bench/cluster.py``. Every run takes the time that its steps take; the times of steps (`STEP`, `SECONDS`),
the numbers of slices and the time for starting a run are estimates, not measurements. 5 % of the attempts die somewhere
on their way; the command is given again until nothing is left; GPUs are pre-empted. After each of these a run resumes
from the checkpoint of its last whole epoch, and what was trained since is repeated. The wall time of all commands may
be at most 1.1 times the larger of two bounds that no order of runs can beat: the longest chain of teacher and student,
and all work (repeated work too) over the GPUs.
"""

import heapq
import logging
import random
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

from rows import Row, report

from dmseg.cli.tables import plan_all, split_tables
from dmseg.data.folds import Split
from dmseg.launch import scheduler
from dmseg.launch.outcome import Outcome
from dmseg.runs.plan import PlannedRun, distinct
from dmseg.runs.seal import DONE
from dmseg.runs.sources import find_tasks
from dmseg.runs.store import RunStore

GOAL = 1.1
CASES = {"qubiq": 28, "lits": 105, "kits": 168}
"""Training cases of a fold: four fifths of the cases of a data set (of QUBIQ, the mean over its data sets)."""
SLICES = {"qubiq": 28, "lits": 5700, "kits": 4600}
"""Training slices of a fold: those with the target."""
STEP = {"unet_resnet50": 1.0, "unet_resnet18": 0.5, "unet_efficientnet_b0": 0.65, "unet_mobilenetv2": 0.5}
"""Time of a step of a network relative to UNet-ResNet50's, 0.6 where it is not named."""
SECONDS = 0.16
"""Of a step of 8 slices of 512 x 512 with UNet-ResNet50. All results are ratios, so only proportions matter."""
SET_UP = 25.0
"""Seconds from the start of a run to its first step, and from its last step to the end."""
FAILURES = 0.05
PRE_EMPTIONS = 1 / (24 * 3600)
"""Of each GPU, in a second."""


def seconds(run: PlannedRun) -> float:
    """Time that a run takes if nothing happens."""
    settings = run.settings
    step = SECONDS * STEP.get(settings.model.name, 0.6) * (settings.data.size / 512) ** 2
    taught = 1.0 if run.teacher is None else 1.3  # a distilled run predicts with its teacher
    per_epoch = max(SLICES[settings.data.name] // settings.train.batch_size, 1)
    return SET_UP + step * taught * per_epoch * settings.train.epochs


class Clock:
    """Stands for the module ``time`` in the scheduler."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:  # noqa: D102
        return self.now

    def sleep(self, wait: float) -> None:  # noqa: D102
        self.now += wait


class Gpus:
    """An executor that trains nothing: each run ends at its time.

    Args:
        clock: it is moved to the next end of a run.
        count: number of GPUs.
        outlook: for a run, the seconds that it will hold its GPU, those of them that are repeated, and whether it
            fails.
    """

    def __init__(self, clock: Clock, count: int, outlook: Callable[[PlannedRun], tuple[float, float, bool]]) -> None:
        self._clock, self._count, self._outlook = clock, count, outlook
        self._ends: list[tuple[float, int, PlannedRun, bool]] = []
        self._begun = 0
        self.busy = self.repeated = 0.0

    def room(self) -> int:  # noqa: D102
        return self._count - len(self._ends)

    def begin(self, runs: Sequence[PlannedRun]) -> None:  # noqa: D102
        for run in runs:
            taken, repeated, fails = self._outlook(run)
            self.busy += taken
            self.repeated += repeated
            self._begun += 1
            heapq.heappush(self._ends, (self._clock.now + taken, self._begun, run, fails))

    def ended(self, wait: float) -> list[Outcome]:  # noqa: D102
        self._clock.now, _, run, fails = heapq.heappop(self._ends)
        if fails:
            return [Outcome(run, "failed", "its worker process died", died=True)]
        folder = RunStore(run.results).folder(run.run_id)
        folder.mkdir(parents=True)
        (folder / DONE).touch()
        return [Outcome(run)]

    def ask_to_stop(self) -> None: ...  # noqa: D102

    def kill(self) -> None: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Result:
    """How all runs went.

    Attributes:
        wall: seconds until the last of them was done.
        work: seconds that GPUs were held.
        repeated: of them, what had to be done again.
        chain: seconds of the longest chain of teacher and student.
        calls: number of commands.
        gpus: number of GPUs.
    """

    wall: float
    work: float
    repeated: float
    chain: float
    calls: int
    gpus: int

    @property
    def ratio(self) -> float:
        """Wall time over what no order of runs can beat."""
        return self.wall / max(self.chain, self.work / self.gpus)


def simulate(
    runs: Sequence[PlannedRun],
    gpus: int,
    duration: Callable[[PlannedRun], float] = seconds,
    failures: float = FAILURES,
    pre_emptions: float = PRE_EMPTIONS,
    set_up: float = SET_UP,
) -> Result:
    """Carries out runs until all are done; their results folder must be a new one."""
    rng, clock, left_of = random.Random(0), Clock(), {run.run_id: duration(run) for run in runs}

    def outlook(run: PlannedRun) -> tuple[float, float, bool]:
        whole, epoch, repeated = left_of[run.run_id], duration(run) / run.settings.train.epochs, 0.0
        fails, gap = rng.random() < failures, rng.expovariate(1.0)
        reached = whole * rng.random() if fails else whole
        while gap < pre_emptions * (reached + repeated):
            repeated += set_up + epoch * rng.random()
            gap += rng.expovariate(1.0)
        lost = min(set_up + epoch * rng.random(), reached) if fails else 0.0
        left_of[run.run_id] = whole - (reached - lost)
        return reached + repeated, repeated + lost, fails

    executor, calls, left = Gpus(clock, gpus, outlook), 0, list(runs)
    with mock.patch.object(scheduler, "time", clock):
        while left:
            done = {outcome.run.run_id for outcome in scheduler.schedule(left, executor) if outcome.kind == "done"}
            left, calls = [run for run in left if run.run_id not in done], calls + 1
    return Result(clock.now, executor.busy, executor.repeated, max(map(chain(duration), runs)), calls, gpus)


def chain(duration: Callable[[PlannedRun], float]) -> Callable[[PlannedRun], float]:
    """Time of a run and the teachers before it."""

    def of(run: PlannedRun) -> float:
        return duration(run) + (of(run.teacher) if run.teacher else 0.0)

    return of


def plan(results: Path) -> list[PlannedRun]:
    """The runs of all tables, planned without data, with as many training cases as the paper's data have."""
    nowhere = [f"paths.{name}='{results / name}'" for name in ("data", "prepared")]
    words = ["tables=all", "profile=paper", "device=cpu", "precision=bf16", f"paths.results='{results}'", *nowhere]
    specs, overrides = split_tables(words)
    plans = plan_all(specs, overrides, find_tasks).values()
    return with_cases(distinct(run for planned in plans for run in planned.runs))


def with_cases(runs: Iterable[PlannedRun]) -> list[PlannedRun]:
    """Runs whose folds have as many cases as they would."""
    cases = {name: tuple(map(str, range(count))) for name, count in CASES.items()}
    return [replace(run, split=Split(cases[run.settings.data.name], run.split.validation)) for run in runs]


def main() -> None:
    logging.disable()
    for gpus in (1, 8, 64):
        with tempfile.TemporaryDirectory() as folder:
            runs = plan(Path(folder))
            found = simulate(runs, gpus)
        hours = f"{found.wall / 3600:.1f} h, {found.repeated / found.work:.1%} repeated, {found.calls} calls"
        machines = f"{gpus} GPUs" if gpus > 1 else "1 GPU"
        report(Row(f"cluster: {len(runs)} runs on {machines} ({hours})", found.ratio, GOAL, "lower bound"))


if __name__ == "__main__":
    main()
