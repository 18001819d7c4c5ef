"""Runs one planned run: train, evaluate and store, or only the steps that are missing."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from dmseg.data.batches import BatchSource
from dmseg.data.parts import Intensities
from dmseg.data.prepared import PreparedTask
from dmseg.data.training_slices import load_training, place
from dmseg.errors import UserError
from dmseg.metrics.counting import count_stored
from dmseg.metrics.named import CaseMasks
from dmseg.metrics.stored_counts import StoredCounts
from dmseg.runs.distillation import distill_objective
from dmseg.runs.network import initial_model, on_device, stored_network, untrained_network
from dmseg.runs.plan import PlannedRun
from dmseg.runs.preflight import check_schedule, check_scoring, warn_of_absent_raters
from dmseg.runs.progress_file import reporting
from dmseg.runs.provenance import (
    Course,
    begin_usage,
    describe_machine,
    describe_usage,
    describe_versions,
    pretrained_facts,
)
from dmseg.runs.records import BASIC_SCORES, mean_scores
from dmseg.runs.salvage import find_intact, salvage
from dmseg.runs.seal import write_json
from dmseg.runs.status import is_complete, saved_edge, scored_edge
from dmseg.runs.stopping import should_stop
from dmseg.runs.store import RunStore
from dmseg.runs.written import read_weights, save_weights, write_scores
from dmseg.training.checkpoint import Checkpoints, Interrupted, State, load_weights
from dmseg.training.evaluate import Array, evaluate, save_prediction
from dmseg.training.fit import fit
from dmseg.training.graph import CudaGraph
from dmseg.training.observers import Observer, Observers, RunInfo
from dmseg.training.pictures import Gallery, Picture
from dmseg.training.precision import check_precision, describe_precision, resolve_device
from dmseg.training.random_streams import stream_seed

KEPT = "the trained weights are kept; run the same command to score it"
RESUME = "the trained weights are kept; run the same command to resume"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Scored:
    """An evaluation: scores of the cases, one row for each, their counts by case, and pictures of some of them."""

    cases: pd.DataFrame
    counts: dict[str, StoredCounts]
    pictures: list[Picture]


def execute(run: PlannedRun, observers: Callable[[PlannedRun], list[Observer]] = lambda run: []) -> bool:
    """Carries out the missing steps of a run; finished training is never repeated.

    Args:
        run: the planned run.
        observers: creates the run's observers; not called if the run is only scored again, or nothing is missing.

    Returns:
        Whether any step was missing.

    Raises:
        RunLocked: if another process is working on the run.
        Interrupted: if this process was asked to stop; its state is kept.
        UserError: if the data, the settings or the store are invalid.
    """
    store = RunStore(run.results)
    if is_complete(run):
        store.tidy(run.run_id)
        return False
    if should_stop():
        raise Interrupted("stopped before it started; run the same command to resume")
    with store.working_on(run.run_id), reporting(run.results, run.run_id, run.title) as progress:
        if is_complete(run):
            return False
        device = resolve_device(run.settings.device)
        if run.settings.threads is not None:
            torch.set_num_threads(run.settings.threads)
        if not store.is_done(run.run_id) and _score_set_aside(run, store, device) and is_complete(run):
            return True
        if store.is_done(run.run_id):
            _score_again(run, store, device)
            return True
        check_precision(run.precision, device)
        notified = Observers([progress, *observers(run)])
        interval = run.settings.checkpoint
        folder = store.checkpoints(run.run_id)
        checkpoints = Checkpoints(folder, interval.minutes, interval.steps, should_stop, run.title)
        error: BaseException | None = None
        try:
            store.write(run.run_id, partial(_train_and_score, run, device, notified, checkpoints))
            checkpoints.remove()
            store.log(run.run_id).unlink(missing_ok=True)
        except BaseException as caught:
            error = caught
            if checkpoints.training_is_finished and not isinstance(caught, Interrupted):
                caught.add_note(KEPT)
            raise
        finally:
            with suppress(OSError):  # the terminal may be gone
                notified.ended(error)
    return True


def _train_and_score(
    run: PlannedRun, device: torch.device, observers: Observers, checkpoints: Checkpoints, folder: Path
) -> None:
    """Writes all files of a run to its folder."""
    start = time.monotonic()
    begin_usage(device)
    prepared = PreparedTask(run.prepared_folder)
    write_json(folder / "config.json", _config(run))
    kept = _restore_finished(run, prepared, device, observers, checkpoints)
    if kept is not None:
        model, course = kept
        here = 0.0
    else:
        model, course = _train(run, prepared, device, observers, checkpoints)
        here = course.sessions[-1].seconds
    if should_stop():
        raise Interrupted(f"stopped after the last step: {RESUME}")
    course.write_history(folder / "history.csv")
    save_weights(folder / "weights.safetensors", model)
    predictions = folder / "predictions" if run.settings.evaluate.save_predictions else None
    scored = _score(run, model, prepared, device, predictions)
    _write_evaluation(run, scored, folder)
    seconds = sum(session.seconds for session in course.sessions)
    times = {"train_seconds": seconds, "seconds": seconds + time.monotonic() - start - here}
    usage = describe_usage(device)
    manifest = {
        **course.facts,
        "run_id": run.run_id,
        "experiment_id": run.experiment_id,
        "title": run.title,
        "phantom": run.settings.data.phantom is not None,
        "split": {"train": list(run.split.train), "validation": list(run.split.validation)},
        "precision": describe_precision(run.precision),
        **course.machine,
        **times,
        "steps": course.steps_per_epoch * course.epochs,
        "sessions": [asdict(session) for session in course.sessions],
        **{name: max(value, usage.get(name, value)) for name, value in {**usage, **course.usage}.items()},
    }
    write_json(folder / "manifest.json", manifest)
    observers.evaluated(mean_scores(scored.cases))


def _train(
    run: PlannedRun, prepared: PreparedTask, device: torch.device, observers: Observers, checkpoints: Checkpoints
) -> tuple[nn.Module, Course]:
    """Trains the network from the last checkpoint on and keeps it, so that no later error can lose it."""
    settings, method, streams = run.settings, run.method, run.streams
    warn_of_absent_raters(run)
    model = initial_model(run, prepared.n_channels).to(device)
    pretrained = pretrained_facts(run)
    check_scoring(run, model, prepared, device)
    in_memory = load_training(prepared, run.split.train, run.fusion, method.uses_raters, run.votes)
    order, rater, augmentation = map(streams, ("order", "rater", "augmentation"))
    data = place(in_memory, device)
    source = BatchSource(data, settings.labels, settings.train, order, rater, augmentation, device)
    watch = partial(_validate, run, model, prepared, device)
    observers.started(replace(_info(run, source.epochs, source.steps_per_epoch), validate=watch))
    if settings.distill is None:
        objective = method.objective(settings.loss, streams)
    else:
        objective = distill_objective(run, settings.distill, prepared, device, streams)
    # after the objective, as building a teacher draws random numbers too
    torch.manual_seed(stream_seed(settings.seed, settings.fold, "dropout"))
    optimizer = method.optimizer(model, settings.optim)
    n_steps = source.steps_per_epoch * source.epochs
    schedule = method.schedule(optimizer, settings.optim, n_steps)
    check_schedule(schedule, n_steps)
    graph = CudaGraph if device.type == "cuda" and settings.graph == "auto" else None
    reports, sessions = fit(model, source, objective, optimizer, schedule, run.precision, observers, checkpoints, graph)
    course = Course(
        source.epochs,
        source.steps_per_epoch,
        reports,
        sessions,
        objective.facts() | pretrained,
        {"versions": describe_versions(), "machine": describe_machine(device)},
        describe_usage(device),
    )
    checkpoints.finish(n_steps, model.state_dict(), asdict(course))
    return model, course


def _restore_finished(
    run: PlannedRun, prepared: PreparedTask, device: torch.device, observers: Observers, checkpoints: Checkpoints
) -> tuple[nn.Module, Course] | None:
    """Restores a network that was trained but not scored, if any; needs neither training data nor a teacher."""
    if not checkpoints.has_finished_checkpoint:
        return None
    model = untrained_network(run, prepared)

    def load(state: State) -> Course:
        course = Course.of(state.rest)
        load_weights(model, state.weights)
        return course

    course = checkpoints.restore(load, finished=True)
    if course is None:
        return None
    log.info("%s is trained already; scoring it", run.title)
    observers.started(_info(run, course.epochs, course.steps_per_epoch))
    for report in course.reports:
        observers.epoch_ended(report)
    return on_device(model, device), course


def _info(run: PlannedRun, epochs: int, steps_per_epoch: int) -> RunInfo:
    return RunInfo(run.run_id, run.experiment_id, run.title, _config(run), epochs, steps_per_epoch)


def _config(run: PlannedRun) -> dict[str, Any]:
    return {"identity": run.identity, "settings": asdict(run.settings)}


def _score(
    run: PlannedRun, model: nn.Module, prepared: PreparedTask, device: torch.device, predictions: Path | None
) -> _Scored:
    settings = run.settings.evaluate
    counts: dict[str, StoredCounts] = {}
    gallery = Gallery() if settings.pack else None

    def take(masks: CaseMasks, label: Array, slices: Intensities) -> None:
        """Stores what can no longer be computed once the probabilities are gone."""
        if should_stop():
            raise Interrupted(f"stopped during scoring: {RESUME}")
        if predictions is not None:
            save_prediction(predictions, masks.case, masks.probability)
        counts[masks.case] = count_stored(
            masks.probability,
            masks.annotations,
            label,
            n_bins=settings.bins,
            boundary=settings.boundary,
            ties=settings.ties,
            empty=settings.empty,
        )
        if gallery is not None:
            gallery.add(masks.case, slices, masks.annotations, label, masks.probability)

    predictor = run.method.predictor(model, run.streams)
    cases = evaluate(predictor, prepared, run.split.validation, run.reference, settings, device, take)
    dice = dict(zip(cases["case"], cases["dice"], strict=True))
    return _Scored(cases, counts, [] if gallery is None else gallery.chosen(dice))


class _Stopped(Exception):
    """The process was asked to stop during a validation."""


def _validate(run: PlannedRun, model: nn.Module, prepared: PreparedTask, device: torch.device) -> dict[str, float]:
    """Means of Dice, BDice and ECE over the validation cases, computed during training without affecting it.

    The training mode of every module and torch's random state are restored afterwards.
    """

    def stop(*given: object) -> None:
        if should_stop():
            raise _Stopped

    settings = replace(run.settings.evaluate, ged=False, metrics=[])
    modes = {module: module.training for module in model.modules()}
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            predictor = run.method.predictor(model, run.streams)
            cases = evaluate(predictor, prepared, run.split.validation, run.reference, settings, device, stop)
    except _Stopped:
        return {}
    finally:
        for module, training in modes.items():
            module.training = training
    return {name: float(cases[name].mean()) for name in BASIC_SCORES}


def _score_again(run: PlannedRun, store: RunStore, device: torch.device) -> None:
    """Evaluates stored weights again: for other evaluation settings, or to add predictions, counts or pictures."""
    wanted, edge = run.settings.evaluate.save_predictions, scored_edge(run)
    saved = saved_edge(run) if wanted else None
    if saved is not None and saved != edge:
        raise UserError(
            f"a run keeps one set of predictions, and its own have {saved} x {saved} pixels, while those of "
            f"evaluate.crop={run.settings.evaluate.crop:g} have {edge} x {edge}; leave evaluate.save_predictions out, "
            "or choose another folder with paths.results"
        )
    prepared = PreparedTask(run.prepared_folder)
    model = stored_network(run, prepared, store.load_weights(run.run_id), device)
    scored: list[_Scored] = []
    if wanted and saved is None:
        store.add(
            run.run_id,
            "predictions",
            lambda folder: scored.append(_score(run, model, prepared, device, folder)),
        )
    known = store.has_evaluation(run.run_id, run.evaluation_id)
    lacking = known and (
        store.lacks("counts.npz", run.run_id, run.evaluation_id)
        or (run.settings.evaluate.add_packs and store.lacks("pack.npz", run.run_id, run.evaluation_id))
    )
    if lacking or not known:
        found = scored[0] if scored else _score(run, model, prepared, device, None)
        if known:  # the stored scores stay
            store.add_to_evaluation(run.run_id, run.evaluation_id, found.counts, found.pictures)
        else:
            store.add(run.run_id, f"evaluations/{run.evaluation_id}", partial(_write_evaluation, run, found))


def _score_set_aside(run: PlannedRun, store: RunStore, device: torch.device) -> bool:
    """Restores a run that was set aside although its weights are intact; scores it where its scores were lost."""
    aside = find_intact(store, run.run_id)
    if aside is None:
        return False

    def score(folder: Path) -> None:
        prepared = PreparedTask(run.prepared_folder)
        model = stored_network(run, prepared, read_weights(aside), device)
        _write_evaluation(run, _score(run, model, prepared, device, None), folder)

    return salvage(store, run, aside, score)


def _write_evaluation(run: PlannedRun, scored: _Scored, folder: Path) -> None:
    write_scores(folder, scored.cases, run.evaluation_id, run.evaluation, scored.counts, scored.pictures)
