"""Status of planned runs, and an estimate of the remaining time."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from dmseg.limits import crop_edge
from dmseg.metrics.named import needs_counts
from dmseg.runs.lease import is_held
from dmseg.runs.plan import PlannedRun
from dmseg.runs.seal import DamagedError, in_words, repair_advice
from dmseg.runs.store import RunStore

Status = Literal["done", "trained", "running", "failed", "missing", "unknown"]
"""States of planned runs; one that is trained lacks only the evaluation that is planned, or a part of it."""


def is_complete(run: PlannedRun) -> bool:
    """Whether a run is trained and has the evaluation, predictions, counts and pictures that its settings require."""
    store, evaluate = RunStore(run.results), run.settings.evaluate
    if not store.has_evaluation(run.run_id, run.evaluation_id):
        return False
    if evaluate.save_predictions and saved_edge(run) != scored_edge(run):
        return False
    required = {"counts.npz": needs_counts(evaluate.metrics), "pack.npz": evaluate.pack and evaluate.add_packs}
    return not any(store.lacks(name, run.run_id, run.evaluation_id) for name in required if required[name])


def scored_edge(run: PlannedRun) -> int:
    """Edge length in pixels of the crops that a run is scored on, and of the predictions that it saves."""
    return crop_edge(run.settings.data.size, run.settings.evaluate.crop)


def saved_edge(run: PlannedRun) -> int | None:
    """Edge length in pixels of the predictions that a finished run has saved; None if it has saved none.

    Raises:
        DamagedError: if the predictions of its first case are damaged.
    """
    import numpy as np

    store = RunStore(run.results)
    folder = store.folder(run.run_id)
    path = next(iter(sorted((folder / "predictions").glob("*.npy"))), None)
    if path is None or not store.has_predictions(run.run_id):
        return None
    try:
        return int(np.load(path, mmap_mode="r").shape[-1])
    except (OSError, ValueError, IndexError) as error:
        raise DamagedError(f"{path} is damaged ({in_words(error)}); {repair_advice(folder)}") from None


def run_status(run: PlannedRun) -> Status:
    """Status of a run; a failed run that is being retried counts as running.

    It is unknown as long as the data are not prepared, as the run's id is unknown then.
    """
    if not run.is_prepared:
        return "unknown"
    store = RunStore(run.results)
    with suppress(DamagedError):  # it will be set aside and computed again
        if is_complete(run):
            return "done"
    if is_held(store.lease_file(run.run_id)):
        return "running"
    if store.log(run.run_id).is_file():
        return "failed"
    return "trained" if store.is_done(run.run_id) and not store.damage(run.run_id) else "missing"


def is_to_be_scored(run: PlannedRun) -> bool:
    """Whether a run is trained, but has no evaluation with its settings."""
    store = RunStore(run.results)
    with suppress(DamagedError):
        return store.is_done(run.run_id) and not store.has_evaluation(run.run_id, run.evaluation_id)
    return False


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
    """Counts runs and estimates the time left from those that are done or trained.

    The estimate for a run is the mean time of the most similar finished runs: those of its experiment, else of its task
    and network, else of its network, else all. A trained run takes as long as it took to score it before.
    """
    distinct = list({run.run_id: run for run in runs}.values())
    status = {run.run_id: run_status(run) for run in distinct}
    left = [run for run in distinct if status[run.run_id] not in ("done", "trained")]
    measured, scoring = [], 0.0
    for run in [run for run in distinct if status[run.run_id] in ("done", "trained")]:
        with suppress(DamagedError):
            manifest = RunStore(run.results).read_json(run.run_id, "manifest.json")
            measured.append((run, float(manifest["seconds"])))
            if status[run.run_id] == "trained":
                scoring += max(0.0, float(manifest["seconds"]) - float(manifest.get("train_seconds", 0.0)))
    seconds = similar_seconds(left, measured)
    return Summary(
        experiments=len({run.experiment_id for run in distinct}),
        runs=len(distinct),
        counts=Counter(status.values()),
        hours=None if seconds is None else (seconds + scoring) / 3600,
    )


_SIMILARITY: tuple[Callable[[PlannedRun], object], ...] = (
    lambda run: run.experiment_id,
    lambda run: (run.task.name, run.settings.model.name),
    lambda run: run.settings.model.name,
    lambda run: "any",
)


def similar_seconds(left: Sequence[PlannedRun], measured: Sequence[tuple[PlannedRun, float]]) -> float | None:
    """Estimated seconds of some runs, one after another; None if nothing is measured.

    Args:
        left: the runs; the estimate for each is the mean time of the most similar measured ones (`summarise`).
        measured: other runs with the seconds that they took.
    """
    if not left:
        return 0.0
    found: dict[object, list[float]] = defaultdict(list)
    for run, seconds in measured:
        for level, group in enumerate(_SIMILARITY):
            found[level, group(run)].append(seconds)
    if not found:
        return None
    total = 0.0
    for run in left:
        keys = ((level, group(run)) for level, group in enumerate(_SIMILARITY))
        similar = next(found[key] for key in keys if key in found)
        total += sum(similar) / len(similar)
    return total
