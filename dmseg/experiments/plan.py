"""From settings to runs with ids. Nothing here trains, and nothing imports torch unless precision=auto asks for it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dmseg.components import bind
from dmseg.data.case import Task
from dmseg.data.folds import Split
from dmseg.data.prepared import PreparedTask
from dmseg.experiments.compose import compose_settings
from dmseg.experiments.identity import evaluation_identity, experiment_identity, identifier, run_identity
from dmseg.experiments.sources import Notify, fold_split, prepare_task, task_names
from dmseg.settings import Settings


@dataclass(frozen=True)
class PlannedRun:
    """One training with everything that it needs.

    Attributes:
        settings: its settings, task resolved.
        precision: resolved precision.
        task: the task.
        store: folder of the prepared store.
        split: the fold's cases.
        identity: what the run id is a digest of.
        run_id: id of the run.
        experiment_id: id shared with the other folds.
        evaluation_id: id of the evaluation that the settings ask for.
        teacher: the run that must be finished before this one, or None.
    """

    settings: Settings
    precision: str
    task: Task
    store: Path
    split: Split
    identity: dict[str, Any]
    run_id: str
    experiment_id: str
    evaluation_id: str
    teacher: "PlannedRun | None" = None

    @property
    def fusion(self) -> Callable[..., Any]:
        """The fusion strategy whose labels are trained on."""
        labels = self.settings.labels
        return bind(labels.target, labels.options, where="labels")

    @property
    def reference(self) -> Callable[..., Any]:
        """The fusion that BDice compares with."""
        options = dict(self.settings.evaluate.reference)
        return bind(options.pop("_target_"), options, where="evaluate.reference")

    @property
    def title(self) -> str:
        """Words for people."""
        settings = self.settings
        return (
            f"{settings.data.name}/{self.task.name} {settings.labels.name} {settings.model.name} fold {settings.fold}"
        )


def plan_run(settings: Settings, prepared: PreparedTask) -> PlannedRun:
    """Plans one run on a prepared task.

    Raises:
        UserError: if the fold does not exist, an option does not fit, or the weights file cannot be read.
    """
    settings = replace(settings, task=prepared.task.name)
    precision = _resolve_precision(settings)
    split = fold_split(prepared, settings.folds, settings.fold)
    identity = run_identity(settings, precision, prepared.digest, split)
    run = PlannedRun(
        settings,
        precision,
        prepared.task,
        prepared.folder,
        split,
        identity,
        run_id=identifier(identity),
        experiment_id=identifier(experiment_identity(identity)),
        evaluation_id=identifier(evaluation_identity(settings.evaluate)),
    )
    _ = run.fusion, run.reference  # an option that does not fit is an error before anything starts
    return run


def plan_folds(settings: Settings, prepared: PreparedTask, folds: Iterable[int] | None = None) -> list[PlannedRun]:
    """Plans the runs of one experiment: all folds, or those named."""
    chosen = range(settings.folds.count) if folds is None else folds
    return [plan_run(replace(settings, fold=fold), prepared) for fold in chosen]


@dataclass(frozen=True)
class PlannedTable:
    """The runs of a table, by task and column.

    Attributes:
        tasks: the rows, in order.
        cells: runs of each (task name, column key).
        settings: settings of the first column, for titles.
    """

    tasks: tuple[Task, ...]
    cells: dict[tuple[str, str], list[PlannedRun]]
    settings: Settings

    @property
    def runs(self) -> list[PlannedRun]:
        """All runs, those that several cells share once."""
        return list({run.run_id: run for runs in self.cells.values() for run in runs}.values())


def plan_table(
    overrides: Sequence[str], columns: Mapping[str, Sequence[str]], notify: Notify = lambda text: None
) -> PlannedTable:
    """Plans a table, preparing its data where that is missing.

    Args:
        overrides: the user's; ``task=`` limits the rows, ``fold=`` the folds.
        columns: overrides of each column, by key; the user's come after them.
        notify: told what is being prepared.

    Raises:
        UserError: if an override is wrong, or data are missing or damaged.
    """
    by_column = {key: compose_settings([*own, *overrides]) for key, own in columns.items()}
    first = next(iter(by_column.values()))
    folds = [first.fold] if any(item.startswith("fold=") for item in overrides) else None
    names = task_names(first.data, first.task)
    cells: dict[tuple[str, str], list[PlannedRun]] = {}
    tasks: dict[str, Task] = {}
    for name in names:
        prepared = prepare_task(first.data, first.paths, name, notify)
        tasks[name] = prepared.task
        for key, settings in by_column.items():
            cells[name, key] = plan_folds(settings, prepared, folds)
    return PlannedTable(tuple(tasks.values()), cells, first)


def _resolve_precision(settings: Settings) -> str:
    if settings.precision != "auto":
        return settings.precision
    from dmseg.training.fit import resolve_precision

    return resolve_precision(settings.precision, settings.device)
