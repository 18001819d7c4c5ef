"""Carries out one planned run: train, evaluate, store; or only what is missing of it."""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from dmseg.data.batches import BatchSource, load_training
from dmseg.data.prepared import PreparedTask
from dmseg.experiments.distill import distill_objective
from dmseg.experiments.identity import evaluation_identity
from dmseg.experiments.plan import PlannedRun
from dmseg.experiments.provenance import begin_usage, describe_machine, describe_usage, describe_versions
from dmseg.experiments.status import is_complete
from dmseg.experiments.stopping import should_stop
from dmseg.experiments.store import RunStore, mean_scores, save_weights, write_json, write_scores
from dmseg.methods.base import Streams
from dmseg.training.checkpoint import Checkpoints, Session
from dmseg.training.evaluate import evaluate, save_predictions
from dmseg.training.fit import fit, resolve_device
from dmseg.training.objective import Objective
from dmseg.training.observers import EpochReport, Observer, Observers, RunInfo
from dmseg.training.precision import check_precision, describe_precision
from dmseg.training.streams import stream, stream_seed


class _History:
    """Keeps the epoch reports for the run's own file."""

    def __init__(self) -> None:
        self.reports: list[EpochReport] = []

    def epoch_ended(self, report: EpochReport) -> None:
        self.reports.append(report)

    def write(self, path: Path) -> None:
        rows = [{"epoch": item.epoch, "step": item.step, "lr": item.lr, **item.losses} for item in self.reports]
        pd.DataFrame(rows).to_csv(path, index=False)

    def started(self, info: RunInfo) -> None: ...
    def stepped(self, step: int) -> None: ...
    def evaluated(self, summary: dict[str, float]) -> None: ...
    def ended(self, error: BaseException | None) -> None: ...


def execute(run: PlannedRun, observers: Callable[[PlannedRun], list[Observer]] = lambda run: []) -> bool:
    """Does what is missing of a run; a finished training is never repeated.

    Args:
        run: the planned run.
        observers: makes the run's observers; called only if there is something to do.

    Returns:
        Whether anything was done.

    Raises:
        Held: if another process works on the run.
        Interrupted: if this process was asked to stop; the state is kept.
        UserError: if the data, the settings or the store are at fault.
    """
    store = RunStore(run.results)
    if is_complete(run):
        store.tidy(run.run_id)
        return False
    with store.working_on(run.run_id):
        if is_complete(run):
            return False
        _do_what_is_missing(run, store, observers)
    return True


def _do_what_is_missing(run: PlannedRun, store: RunStore, observers: Callable[[PlannedRun], list[Observer]]) -> None:
    device = resolve_device(run.settings.device)
    if run.settings.threads is not None:
        torch.set_num_threads(run.settings.threads)
    if store.is_done(run.run_id):
        _score_again(run, store, device)
        return
    check_precision(run.precision, device)
    history = _History()
    told = Observers([history, *observers(run)])
    kept = run.settings.checkpoint
    checkpoints = Checkpoints(store.checkpoints(run.run_id), kept.minutes, kept.steps, should_stop)
    error: BaseException | None = None
    try:
        store.write(run.run_id, partial(_train_and_score, run, device, history, told, checkpoints))
        checkpoints.remove()
        store.log(run.run_id).unlink(missing_ok=True)
    except BaseException as caught:
        error = caught
        raise
    finally:
        told.ended(error)


def _train_and_score(
    run: PlannedRun,
    device: torch.device,
    history: _History,
    told: Observers,
    checkpoints: Checkpoints,
    folder: Path,
) -> None:
    """Fills a run's folder."""
    settings = run.settings
    start = time.monotonic()
    begin_usage(device)
    prepared = PreparedTask(run.store)
    source = _batch_source(run, prepared, device)
    config = {"identity": run.identity, "settings": asdict(settings)}
    told.started(RunInfo(run.run_id, run.experiment_id, run.title, config, source.epochs, source.steps_per_epoch))
    write_json(folder / "config.json", config)
    model = initial_model(run, prepared.n_channels).to(device)
    torch.manual_seed(stream_seed(settings.seed, settings.fold, "dropout"))
    objective = _objective(run, prepared, device)
    sessions = _fit(run, model, source, objective, told, checkpoints)
    history.write(folder / "history.csv")
    save_weights(folder / "weights.safetensors", model)
    predictions = folder / "predictions" if settings.evaluate.save_predictions else None
    cases = _score(run, model, prepared, device, predictions)
    _write_evaluation(run, cases, folder)
    trained = sum(session.seconds for session in sessions)
    course = {
        "train_seconds": trained,
        "seconds": trained + time.monotonic() - start - sessions[-1].seconds,
        "steps": source.steps_per_epoch * source.epochs,
        "sessions": [asdict(session) for session in sessions],
        **objective.facts(),
    }
    write_json(folder / "manifest.json", _manifest(run, device, course))
    told.evaluated(mean_scores(cases))


def _objective(run: PlannedRun, prepared: PreparedTask, device: torch.device) -> Objective:
    """What is minimised: what the method says, or a loss against the label and a teacher."""
    settings = run.settings
    if settings.distill is None:
        return run.method.objective(settings.loss, _streams(run))
    return distill_objective(run, settings.distill, prepared, device, _streams(run))


def initial_model(run: PlannedRun, n_channels: int) -> nn.Module:
    """The untrained network of a run: the same for all label strategies."""
    torch.manual_seed(stream_seed(run.settings.seed, run.settings.fold, "initialisation"))
    return run.method.network(run.settings.model, n_channels, run.task)


def _fit(
    run: PlannedRun,
    model: nn.Module,
    source: BatchSource,
    objective: Objective,
    told: Observers,
    checkpoints: Checkpoints,
) -> list[Session]:
    method, optim = run.method, run.settings.optim
    optimizer = method.optimizer(model, optim)
    schedule = method.schedule(optimizer, optim, source.steps_per_epoch * source.epochs)
    return fit(model, source, objective, optimizer, schedule, run.precision, told, checkpoints)


def _streams(run: PlannedRun) -> Streams:
    return partial(stream, run.settings.seed, run.settings.fold)


def _batch_source(run: PlannedRun, prepared: PreparedTask, device: torch.device) -> BatchSource:
    settings = run.settings
    raters = run.method.uses_raters
    data = load_training(prepared, run.split.train, run.fusion, device, raters, run.votes)
    order, rater, augmentation = map(_streams(run), ("order", "rater", "augmentation"))
    return BatchSource(data, settings.labels, settings.train, order, rater, augmentation)


def _score(
    run: PlannedRun, model: nn.Module, prepared: PreparedTask, device: torch.device, predictions: Path | None
) -> pd.DataFrame:
    keep = None if predictions is None else save_predictions(predictions)
    predictor = run.method.predictor(model, _streams(run))
    return evaluate(predictor, prepared, run.split.validation, run.reference, run.settings.evaluate, device, keep)


def _score_again(run: PlannedRun, store: RunStore, device: torch.device) -> None:
    """Re-evaluates saved weights: new evaluation settings, or predictions that were not kept."""
    prepared = PreparedTask(run.store)
    model = run.method.network(replace(run.settings.model, weights=None), prepared.n_channels, run.task)
    model.load_state_dict(store.load_weights(run.run_id))
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    scored: list[pd.DataFrame] = []
    if run.settings.evaluate.save_predictions and not store.has_predictions(run.run_id):
        store.add(
            run.run_id,
            "predictions",
            lambda folder: scored.append(_score(run, model, prepared, device, folder)),
        )
    if not store.has_evaluation(run.run_id, run.evaluation_id):
        cases = scored[0] if scored else _score(run, model, prepared, device, None)
        store.add(run.run_id, f"evaluations/{run.evaluation_id}", partial(_write_evaluation, run, cases))


def _write_evaluation(run: PlannedRun, cases: pd.DataFrame, folder: Path) -> None:
    write_scores(folder, cases, run.evaluation_id, evaluation_identity(run.settings.evaluate))


def _manifest(run: PlannedRun, device: torch.device, course: dict[str, Any]) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "experiment_id": run.experiment_id,
        "title": run.title,
        "phantom": run.settings.data.phantom is not None,
        "split": {"train": list(run.split.train), "validation": list(run.split.validation)},
        "versions": describe_versions(),
        "machine": describe_machine(device),
        "precision": describe_precision(run.precision),
        **course,
        **describe_usage(device),
    }
