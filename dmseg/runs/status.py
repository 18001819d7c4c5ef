"""How far planned runs are, and how long the rest will take."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from dmseg.runs.lease import is_held
from dmseg.runs.plan import PlannedRun
from dmseg.runs.seal import DamagedError
from dmseg.runs.store import RunStore

Status = Literal["done", "running", "failed", "missing", "unknown"]


def is_complete(run: PlannedRun) -> bool:
    """Whether a run is trained, scored as its settings ask, and its predictions are kept if they ask for it."""
    keep = run.settings.evaluate.save_predictions
    return RunStore(run.results).is_complete(run.run_id, run.evaluation_id, keep)


def run_status(run: PlannedRun) -> Status:
    """How far a run is. A run that failed and is tried again counts as running.

    While its data are not prepared its id is not known, so neither is whether it is done.
    """
    if not run.prepared:
        return "unknown"
    store = RunStore(run.results)
    with suppress(DamagedError):  # it is set aside and computed anew
        if is_complete(run):
            return "done"
    if is_held(store.lease_file(run.run_id)):
        return "running"
    return "failed" if store.log(run.run_id).is_file() else "missing"


@dataclass(frozen=True)
class Summary:
    """What some runs take.

    Attributes:
        experiments: number of distinct configurations, folds apart.
        runs: number of distinct runs.
        counts: how many of them are done, running, failed, missing or unknown.
        hours: estimate for those that are not done, one after the other; None without any measured run to go by.
    """

    experiments: int
    runs: int
    counts: Counter[Status]
    hours: float | None


def summarise(runs: Iterable[PlannedRun]) -> Summary:
    """Counts runs and estimates the time left from those that are done.

    A run that is to come is taken to last as long as the mean of the done ones most like it: those of its experiment,
    else of its task and network, else of its network, else all.
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


_LIKENESS: tuple[Callable[[PlannedRun], object], ...] = (
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
        for level, like in enumerate(_LIKENESS):
            measured[level, like(run)].append(seconds)
    return sum(_expected(run, measured) for run in left) / 3600 if measured else None


def _expected(run: PlannedRun, measured: dict[object, list[float]]) -> float:
    found = next(measured[key] for level, like in enumerate(_LIKENESS) if (key := (level, like(run))) in measured)
    return sum(found) / len(found)
