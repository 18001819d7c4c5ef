"""Status of planned runs, and an estimate of the remaining time."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from dmseg.metrics.named import needs_counts
from dmseg.runs.lease import is_held
from dmseg.runs.plan import PlannedRun
from dmseg.runs.seal import DamagedError
from dmseg.runs.store import RunStore

Status = Literal["done", "running", "failed", "missing", "unknown"]


def is_complete(run: PlannedRun) -> bool:
    """Whether a run is trained and has the evaluation and everything beside it that its settings ask for."""
    asked = run.settings.evaluate
    counts, pack = needs_counts(asked.metrics), asked.pack and asked.add_packs
    return RunStore(run.results).is_complete(run.run_id, run.evaluation_id, asked.save_predictions, counts, pack)


def run_status(run: PlannedRun) -> Status:
    """Status of a run; a failed run that is being retried counts as running.

    It is unknown as long as the data are not prepared, as the run's id is unknown then.
    """
    if not run.prepared:
        return "unknown"
    store = RunStore(run.results)
    with suppress(DamagedError):  # it will be set aside and computed again
        if is_complete(run):
            return "done"
    if is_held(store.lease_file(run.run_id)):
        return "running"
    return "failed" if store.log(run.run_id).is_file() else "missing"


@dataclass(frozen=True)
class Summary:
    """Counts and remaining time of some runs.

    Attributes:
        experiments: number of distinct configurations, regardless of folds.
        runs: number of distinct runs.
        counts: number of runs by status.
        hours: estimated time of the runs that are not done, one after another; None without a measured run.
    """

    experiments: int
    runs: int
    counts: Counter[Status]
    hours: float | None


def summarise(runs: Iterable[PlannedRun]) -> Summary:
    """Counts runs and estimates the time left from those that are done.

    The estimate for a run is the mean time of the most similar finished runs: those of its experiment, else of its task
    and network, else of its network, else all.
    """
    distinct = list({run.run_id: run for run in runs}.values())
    status = {run.run_id: run_status(run) for run in distinct}
    left = [run for run in distinct if status[run.run_id] != "done"]
    return Summary(
        experiments=len({run.experiment_id for run in distinct}),
        runs=len(distinct),
        counts=Counter(status.values()),
        hours=_hours(left, [run for run in distinct if status[run.run_id] == "done"]),
    )


_SIMILARITY: tuple[Callable[[PlannedRun], object], ...] = (
    lambda run: run.experiment_id,
    lambda run: (run.task.name, run.settings.model.name),
    lambda run: run.settings.model.name,
    lambda run: "any",
)


def _hours(left: Sequence[PlannedRun], done: Sequence[PlannedRun]) -> float | None:
    if not left:
        return 0.0
    if not done:
        return None
    measured: dict[object, list[float]] = defaultdict(list)
    for run in done:
        try:
            seconds = float(RunStore(run.results).read_json(run.run_id, "manifest.json")["seconds"])
        except DamagedError:
            continue
        for level, group in enumerate(_SIMILARITY):
            measured[level, group(run)].append(seconds)
    if not measured:
        return None
    total = 0.0
    for run in left:
        keys = ((level, group(run)) for level, group in enumerate(_SIMILARITY))
        similar = next(measured[key] for key in keys if key in measured)
        total += sum(similar) / len(similar)
    return total / 3600
