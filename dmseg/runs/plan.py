"""From settings to runs with ids. Trains nothing, and imports torch only for ``precision=auto``."""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmseg.config.components import bind
from dmseg.config.method_options import check_raters
from dmseg.config.settings import Settings
from dmseg.config.teacher import of_teacher
from dmseg.data.case import Task
from dmseg.data.folds import HELD_OUT, Split, fold_count, inner_split
from dmseg.data.geometry import Geometry, find_geometry
from dmseg.data.known_tasks import known_raters
from dmseg.data.prepared import PreparedTask
from dmseg.errors import UserError, check_choice
from dmseg.labels.arguments import takes_raters
from dmseg.labels.fusion import Votes, declared_votes, majority
from dmseg.labels.trial import try_fusion
from dmseg.metrics.named import mask_metrics
from dmseg.runs.digests import experiment_identity, identifier
from dmseg.runs.identity import PLAIN, WITHOUT_RATERS, evaluation_identity, rater_identity, run_identity
from dmseg.runs.sources import FoundTask, TaskData, case_groups, fold_split

if TYPE_CHECKING:
    from dmseg.methods.base import Method
    from dmseg.training.random_streams import Streams


@dataclass(frozen=True)
class PlannedRun:
    """One run with everything it needs.

    Attributes:
        settings: its settings, with the task filled in.
        precision: ``fp32``, ``tf32`` or ``bf16``; never ``auto``.
        task: the task.
        prepared_folder: folder of the prepared store.
        split: the fold's cases.
        identity: the settings whose digest is the run id.
        run_id: id of the run.
        experiment_id: id shared with the other folds.
        evaluation_id: id of the evaluation that the settings describe.
        evaluation: what the scores depend on besides the trained network; its digest is the evaluation's id. Empty for
            runs from an export.
        teacher: the run that must finish before this one, or None. For a distilled run it is the teacher, or the run
            that calibrates the teacher; the latter's own `teacher` is then the teacher.
        is_prepared: whether its data are prepared. If not, its cases are unknown and its ids are placeholders.
        train_slices: number of slices of the training cases; 0 if it is unknown.
        trained_raters: positions of the raters who annotated a training case, if some did not and the method
            distinguishes raters; else None.
    """

    settings: Settings
    precision: str
    task: Task
    prepared_folder: Path
    split: Split
    identity: dict[str, Any]
    run_id: str
    experiment_id: str
    evaluation_id: str
    teacher: "PlannedRun | None" = None
    is_prepared: bool = True
    train_slices: int = 0
    evaluation: dict[str, Any] = field(default_factory=dict)
    trained_raters: tuple[int, ...] | None = None

    @property
    def fusion(self) -> Callable[..., Any]:
        """The fusion strategy that gives the training labels; the majority for a method that does not read them."""
        labels = self.settings.labels
        if "labels" in self.settings.method.unused:  # any would do, but some leave out cases
            return majority
        return bind(labels.target, labels.options, where="labels")

    @property
    def votes(self) -> Callable[..., Votes] | None:
        """Function that gives the raters' weights for a case, if each rater's mask is resampled; else None."""
        return declared_votes(self.fusion) if self.settings.labels.interpolation == "rater" else None

    @property
    def reference(self) -> Callable[..., Any]:
        """The fusion whose result is the reference for BDice."""
        options = dict(self.settings.evaluate.reference)
        return bind(options.pop("_target_"), options, where="evaluate.reference")

    @property
    def method(self) -> "Method":
        """The method, which builds and trains the network and makes predictions; imports torch."""
        chosen = self.settings.method
        method: Method = bind(chosen.target, chosen.options, where="method", n_positional=0)()
        if self.trained_raters is not None:
            method.trained_raters = self.trained_raters
        return method

    @property
    def streams(self) -> "Streams":
        """Its streams of random numbers, by name; imports torch."""
        from dmseg.training.random_streams import stream

        return partial(stream, self.settings.seed, self.settings.fold)

    @property
    def results(self) -> Path:
        """Path of the results folder that it is stored in."""
        return Path(self.settings.paths.results)

    @property
    def title(self) -> str:
        """Title for display; it names the seed unless it is 0."""
        settings = self.settings
        used = "" if "labels" in settings.method.unused else settings.labels.name
        taught = "" if settings.distill is None else f"+{settings.distill.name}"
        method = "" if settings.method.target == PLAIN else settings.method.name
        parts = [f"{settings.data.name}/{self.task.name}", method, f"{used}{taught}", settings.model.name]
        seed = f"seed {settings.seed}" if settings.seed else ""
        return " ".join(filter(None, [*parts, f"fold {settings.fold}", seed]))


def plan_run(settings: Settings, data: TaskData, check: bool = True) -> PlannedRun:
    """Plans one run on a task, including its teacher if it is distilled.

    Args:
        settings: the run's settings.
        data: its task.
        check: whether to try what the settings name; False if another fold of the same settings was planned.

    Raises:
        UserError: if the fold does not exist, an option does not fit, or the weights file cannot be read.
    """
    split = fold_split(data, settings.folds, settings.fold)
    distill = settings.distill
    if distill is None or not distill.needs_teacher(settings.loss):
        return _planned(settings, data, split, check=check)
    own = replace(settings, distill=None, **vars(distill.teacher))
    with of_teacher():
        teacher = _planned(own, data, split, check=check)
    ids = {"teacher": teacher.run_id, "teacher_experiment": teacher.experiment_id}
    if distill.calibrate == "inner":
        inner = inner_split(split, settings.seed, settings.fold, case_groups(data, settings.folds))
        teacher = replace(_planned(own, data, inner, held_out=HELD_OUT, check=check), teacher=teacher)
        ids |= {"calibrator": teacher.run_id, "calibrator_experiment": teacher.experiment_id}
    return replace(_planned(settings, data, split, ids, check=check), teacher=teacher)


def _planned(
    settings: Settings,
    data: TaskData,
    split: Split,
    teachers: Mapping[str, str] | None = None,
    held_out: float | None = None,
    *,
    check: bool,
) -> PlannedRun:
    """Plans one run without its teacher."""
    settings = replace(settings, task=data.task.name)
    precision = _resolve_precision(settings)
    store = data.store if isinstance(data, FoundTask) else data
    train, cases = set(split.train), () if store is None else store.cases
    trained = _trained_raters(settings, store, train)
    raters = _rater_identity(settings, data.task, store, trained)
    identity = run_identity(settings, precision, data.digest, split, teachers, held_out, raters)
    evaluation = _evaluation(settings, data.task, store)
    run = PlannedRun(
        settings,
        precision,
        data.task,
        data.folder,
        split,
        identity,
        run_id=identifier(identity),
        experiment_id=identifier(experiment_identity(identity)),
        evaluation_id=identifier(evaluation),
        is_prepared=store is not None,
        train_slices=sum(case.n_slices for case in cases if case.case in train),
        evaluation=evaluation,
        trained_raters=trained,
    )
    if check:
        _check(run)
    return run


def _trained_raters(settings: Settings, store: PreparedTask | None, train: Collection[str]) -> tuple[int, ...] | None:
    """`PlannedRun.trained_raters`.

    Raises:
        UserError: if a method of dmseg is left with a single rater.
    """
    if store is None or settings.method.target in WITHOUT_RATERS:
        return None
    found = {rater for case in store.cases if case.case in train for rater in case.raters}
    if len(found) == len(store.task.raters):
        return None
    trained = tuple(sorted(found))
    if "anonymous_raters" in settings.method.options and len(trained) < 2:
        raise UserError(
            f"only rater {store.task.raters[trained[0]]} annotated training cases of fold {settings.fold} of task "
            f"'{store.task.name}'; this method learns how several raters differ; choose other folds, or another method"
        )
    return trained


def _rater_identity(
    settings: Settings, task: Task, store: PreparedTask | None, trained: Sequence[int] | None
) -> dict[str, Any] | None:
    """What the run depends on of the names and number of its task's raters."""
    labels, unused = settings.labels, "labels" in settings.method.unused
    known = known_raters(settings.data.target, task.name) == task.raters
    return rater_identity(
        task.raters,
        known=known,
        by_name=not known and not unused and takes_raters(bind(labels.target, labels.options, where="labels")),
        method=settings.method.target,
        annotating=range(len(task.raters))
        if store is None
        else {rater for case in store.cases for rater in case.raters},
        trained=trained,
    )


def _evaluation(settings: Settings, task: Task, store: PreparedTask | None) -> dict[str, Any]:
    """What the scores depend on besides the trained network."""
    evaluate, options = settings.evaluate, dict(settings.evaluate.reference)
    known = known_raters(settings.data.target, task.name) == task.raters
    named = not known and takes_raters(bind(options.pop("_target_"), options, where="evaluate.reference"))
    geometry = Geometry()
    if store is not None:
        geometry = find_geometry(store, mask_metrics(evaluate.metrics), evaluate.spacing)
    return evaluation_identity(evaluate, task.raters if named else None, geometry.spacing, geometry.volumes)


def _check(run: PlannedRun) -> None:
    """Reports invalid options before anything starts; nothing here depends on the fold or the seed."""
    settings, task = run.settings, run.task
    try_fusion(run.fusion, len(task.raters), "labels", raters=task.raters)
    try_fusion(run.reference, len(task.raters), "evaluate.reference", candidates=False, raters=task.raters)
    _check_anonymity(run.fusion, "labels", task)
    _check_anonymity(run.reference, "evaluate.reference", task)
    method = settings.method  # building it checks the other options, but imports torch
    if "anonymous_raters" in method.options:
        check_raters(str(method.options["anonymous_raters"]))
        if len(task.raters) < 2:
            raise UserError(f"task '{task.name}' has only one rater; this method learns how several raters differ")
        if task.anonymous_raters and method.options["anonymous_raters"] == "error":
            raise UserError(
                f"the raters of task '{task.name}' are anonymous: rater 1 of one case need not be rater 1 of the next, "
                "so individual raters cannot be learned\n"
                "set method.anonymous_raters=position to treat each position as one person"
            )
    if settings.distill is not None and method.target != PLAIN:
        raise UserError(f"method={method.name} cannot be distilled; set distill=null, or method=plain")


def _check_anonymity(fusion: Callable[..., Any], where: str, task: Task) -> None:
    """Refuses a fusion that distinguishes raters (its argument ``anonymous_raters``) where they are anonymous."""
    argument = inspect.signature(fusion).parameters.get("anonymous_raters")
    if argument is None:
        return
    check_choice(f"{where}.anonymous_raters", argument.default, ("error", "position"))
    if task.anonymous_raters and argument.default == "error":
        raise UserError(
            f"the raters of task '{task.name}' are anonymous: rater 1 of one case need not be rater 1 of the next\n"
            f"set {where}.anonymous_raters=position to treat each position as one person"
        )


def plan_folds(settings: Settings, data: TaskData, folds: Iterable[int] | None = None) -> list[PlannedRun]:
    """Plans the runs of one experiment: all folds, or the given ones."""
    chosen = range(fold_count(settings.folds)) if folds is None else folds
    return [plan_run(replace(settings, fold=fold), data, index == 0) for index, fold in enumerate(chosen)]


def distinct(runs: Iterable[PlannedRun]) -> list[PlannedRun]:
    """Runs and their teachers, each once, teachers before their students."""
    found: dict[str, PlannedRun] = {}
    for run in runs:
        lineage = [run]
        while lineage[-1].teacher is not None:
            lineage.append(lineage[-1].teacher)
        for item in reversed(lineage):
            found.setdefault(item.run_id, item)
    return list(found.values())


def evaluation_passes(runs: Iterable[PlannedRun]) -> list[list[PlannedRun]]:
    """Lists of distinct runs; a run that is evaluated in n ways is in n of the lists."""
    left, found = list(runs), []
    while left:
        found.append(distinct(left))
        scored = {(run.run_id, run.evaluation_id) for run in found[-1]}
        left = [run for run in left if (run.run_id, run.evaluation_id) not in scored]
    return found


def _resolve_precision(settings: Settings) -> str:
    """The precision to use, with ``auto`` resolved.

    Raises:
        UserError: if the device does not support it, or ``auto`` would be resolved on another machine than the run's.
    """
    if settings.precision == "tf32" and settings.device.startswith("cpu"):
        raise UserError(f"precision=tf32 needs a CUDA device, but device is {settings.device}; set precision=fp32")
    if settings.precision == "auto" and settings.launcher.kind == "slurm":
        raise UserError(
            "precision=auto depends on this machine, not on those of Slurm's jobs; set precision=fp32 or precision=bf16"
        )
    if settings.precision != "auto":
        return settings.precision
    from dmseg.training.precision import resolve_precision

    return resolve_precision(settings.precision, settings.device)
