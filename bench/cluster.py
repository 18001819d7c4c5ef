"""All tables of the paper on 1, 8 and 64 GPUs, with the real plan and scheduler, and a simulated executor and clock.

Run ``python bench/cluster.py``. No time of a run is measured: its steps are those of the paper's settings, `SLICES` are
estimates for the paper's data, and a step takes `SECONDS` (an assumption) times `STEP` (ratios measured on a CPU in
bfloat16). The scheduler orders runs by ratios of its own, measured in float32, and does not know how long a run takes.
5 % of the attempts die at some point, and GPUs are pre-empted. A run then resumes from its last checkpoint,
and what it did since is repeated. The command is repeated until nothing is left. The wall time of all commands may
be at most 1.1 times the larger of two bounds that no order of runs can beat: the longest chain of teacher and student,
and all work (with what is repeated) over the GPUs.
"""

import heapq
import logging
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

from rows import Row, report

from dmseg.cli.tables import plan_all, split_tables
from dmseg.launch import scheduler
from dmseg.launch.outcome import Outcome
from dmseg.runs.plan import PlannedRun, distinct
from dmseg.runs.seal import DONE
from dmseg.runs.sources import find_tasks
from dmseg.runs.store import RunStore

GOAL = 1.1
SLICES = {"qubiq": 28, "lits": 5700, "kits": 4600}
"""Training slices of a fold: those with the target, of four fifths of the cases (of QUBIQ, the mean of its tasks)."""
STEP = {"unet_resnet18": 0.45, "unet_efficientnet_b0": 1.25, "unet_mobilenetv2": 0.62, "deeplabv3plus_resnet18": 0.48}
"""Time of a step of a network relative to UNet-ResNet50's: CPU with AMX, bfloat16, channels last, 8 x 256 x 256."""
FORWARD = 1 / 3
"""Share of a step that the forward pass takes; a distilled run also runs that of its teacher."""
SECONDS = 0.16
"""Of a step on 8 slices of 512 x 512 with UNet-ResNet50: assumed; it only matters relative to the next three."""
SET_UP = 25.0
"""Seconds from the start of a run to its first step, and from its last step to the end."""
CHECKPOINT = 600.0
"""Seconds between checkpoints, the default of ``checkpoint.minutes``."""
PRE_EMPTIONS = 1 / (24 * 3600)
"""Rate at which a GPU is pre-empted, per second."""
FAILURES = 0.05


def seconds(run: PlannedRun) -> float:
    """Time that a run takes without failures."""
    settings = run.settings
    cost = STEP.get(settings.model.name, 1.0)
    if run.teacher is not None:
        cost += FORWARD * STEP.get(run.teacher.settings.model.name, 1.0)
    steps = settings.train.epochs * max(run.train_slices // settings.train.batch_size, 1)
    return SET_UP + SECONDS * cost * steps * (settings.data.size / 512) ** 2


class Clock:
    """Takes the place of the module ``time`` in the scheduler."""

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
            dies.
    """

    def __init__(self, clock: Clock, count: int, outlook: Callable[[PlannedRun], tuple[float, float, bool]]) -> None:
        self._clock, self._count, self._outlook = clock, count, outlook
        self._ends: list[tuple[float, int, PlannedRun, bool]] = []
        self.begun: list[tuple[float, PlannedRun]] = []
        self.done: dict[str, float] = {}
        self.busy = self.repeated = 0.0

    def room(self) -> int:  # noqa: D102
        return self._count - len(self._ends)

    def begin(self, runs: Sequence[PlannedRun]) -> None:  # noqa: D102
        for run in runs:
            taken, repeated, dies = self._outlook(run)
            self.busy += taken
            self.repeated += repeated
            self.begun.append((self._clock.now, run))
            heapq.heappush(self._ends, (self._clock.now + taken, len(self.begun), run, dies))

    def ended(self, wait: float) -> list[Outcome]:  # noqa: D102
        self._clock.now, _, run, dies = heapq.heappop(self._ends)
        if dies:
            return [Outcome(run, "failed", "its worker process died", died=True)]
        self.done[run.run_id] = self._clock.now
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
        repeated: the part of them that had to be done again.
        bound: seconds that no order of runs can beat.
        calls: number of commands.
        begun: time and run of each attempt, in their order.
        done: time at which a run was done, by its id.
    """

    wall: float
    work: float
    repeated: float
    bound: float
    calls: int
    begun: list[tuple[float, PlannedRun]]
    done: dict[str, float]

    @property
    def ratio(self) -> float:
        """Wall time over what no order of runs can beat."""
        return self.wall / self.bound


def simulate(
    runs: Sequence[PlannedRun],
    gpus: int,
    seed: int = 0,
    duration: Callable[[PlannedRun], float] = seconds,
    failures: float = FAILURES,
    pre_emptions: float = PRE_EMPTIONS,
    set_up: float = SET_UP,
    checkpoint: float = CHECKPOINT,
) -> Result:
    """Executes runs until all are done; their results folder is emptied first.

    Args:
        runs: the runs, each once.
        gpus: number of GPUs.
        seed: of failures and pre-emptions.
        duration: seconds of a run without failures.
        failures: probability that an attempt dies, at a uniformly distributed time.
        pre_emptions: rate at which a GPU is pre-empted, per second.
        set_up: seconds from the start of an attempt to its first step.
        checkpoint: seconds between checkpoints.
    """
    shutil.rmtree(runs[0].results, ignore_errors=True)
    rng, clock, left_of = random.Random(seed), Clock(), {run.run_id: duration(run) for run in runs}

    def outlook(run: PlannedRun) -> tuple[float, float, bool]:
        whole, repeated = left_of[run.run_id], 0.0
        dies, gap = rng.random() < failures, rng.expovariate(1.0)
        reached = whole * rng.random() if dies else whole
        while gap < pre_emptions * (reached + repeated):
            repeated += set_up + checkpoint * rng.random()
            gap += rng.expovariate(1.0)
        lost = min(set_up + checkpoint * rng.random(), reached) if dies else 0.0
        left_of[run.run_id] = whole - (reached - lost)
        if dies and reached > lost:
            steps = int(duration(run) - left_of[run.run_id])
            (RunStore(run.results).checkpoints(run.run_id) / f"{steps:09d}").mkdir(parents=True, exist_ok=True)
        return reached + repeated, repeated + lost, dies

    executor, calls, left = Gpus(clock, gpus, outlook), 0, list(runs)
    with mock.patch.object(scheduler, "time", clock):
        while left:
            done = {outcome.run.run_id for outcome in scheduler.schedule(left, executor) if outcome.kind == "done"}
            left, calls = [run for run in left if run.run_id not in done], calls + 1
    bound = max(executor.busy / gpus, *(chain(run, duration) for run in runs))
    return Result(clock.now, executor.busy, executor.repeated, bound, calls, executor.begun, executor.done)


def chain(run: PlannedRun, duration: Callable[[PlannedRun], float]) -> float:
    """Time of a run and the teachers before it."""
    return duration(run) + (chain(run.teacher, duration) if run.teacher else 0.0)


def plan(results: Path, tables: str = "all") -> list[PlannedRun]:
    """The runs of tables, planned without data, with as many training slices as the paper's data have."""
    nowhere = [f"paths.{name}='{results / name}'" for name in ("data", "prepared")]
    words = [
        f"tables={tables}",
        "profile=paper",
        "device=cpu",
        "precision=bf16",
        f"paths.results='{results}'",
        *nowhere,
    ]
    specs, overrides = split_tables(words)
    plans = plan_all(specs, overrides, find_tasks).values()
    return [with_slices(run) for run in distinct(run for planned in plans for run in planned.runs)]


def with_slices(run: PlannedRun) -> PlannedRun:
    """A run, and its teachers, with as many training slices as they would have."""
    teacher = None if run.teacher is None else with_slices(run.teacher)
    return replace(run, train_slices=SLICES[run.settings.data.name], teacher=teacher)


def main() -> None:
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        runs = plan(Path(folder) / "results")
        for gpus in (1, 8, 64):
            found = [simulate(runs, gpus, seed) for seed in range(3 if gpus > 1 else 1)]
            worst = max(found, key=lambda result: result.ratio)
            repeated = f"{worst.repeated / worst.work:.1%} repeated"
            calls = f"{worst.calls} call{'s' if worst.calls > 1 else ''}"
            what = f"{gpus} GPU{'s' if gpus > 1 else ''} ({worst.wall / 3600:.1f} h, {repeated}, {calls})"
            report(Row(f"cluster: {len(runs)} runs on {what}", worst.ratio, GOAL, "lower bound"))


if __name__ == "__main__":
    main()
