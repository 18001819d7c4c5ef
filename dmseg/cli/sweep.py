"""Sweeps, ``dmseg train -m`` and ``dmseg cv -m``: every combination of the values given for some keys."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence

from dmseg.cli.commands import notify, run_all, set_up_logging
from dmseg.cli.expand import Grid, expand
from dmseg.cli.sweep_table import Experiment, make_rows, print_rows, to_csv
from dmseg.cli.words import take_words
from dmseg.config.compose import compose_settings
from dmseg.config.settings import Settings
from dmseg.data.prepared import PreparedTask
from dmseg.errors import UserError, cut
from dmseg.files.atomic import write_whole
from dmseg.report.tracking.update import update_table
from dmseg.runs.plan import PlannedRun, evaluation_passes, plan_folds, plan_run
from dmseg.runs.sources import prepare_task
from dmseg.runs.store import RunStore
from dmseg.tables.content import common_folder

Plan = Callable[[Settings, PreparedTask], Sequence[PlannedRun]]

MANY = 1000
"""Above this number of combinations, a message warns that planning takes time."""


def train(argv: Sequence[str]) -> int:
    """Trains one run for each combination, and prints and writes their scores."""
    return _sweep("train", argv, lambda settings, prepared: [plan_run(settings, prepared)])


def cv(argv: Sequence[str]) -> int:
    """Trains all folds of each combination, and prints and writes their pooled scores."""
    return _sweep("cv", argv, plan_folds)


def _sweep(command: str, argv: Sequence[str], plan: Plan) -> int:
    """Plans every combination before the first run starts, runs what is missing, and writes the table.

    Returns:
        The exit status: 0 if all runs are done.

    Raises:
        UserError: if the name of the sweep or any combination is wrong.
    """
    set_up_logging()
    given, overrides = take_words(argv, ("name",))
    name = given.get("name")
    if name is not None and not re.fullmatch(r"\w[\w.-]{0,99}", name, re.ASCII):
        raise UserError(f"name is '{cut(name)}', but must consist of at most 100 letters, digits, '-', '_' or '.'")
    grid = expand(overrides)
    if command == "cv" and "fold" in grid.keys:
        raise UserError("cv trains all folds of each combination; leave fold out, or use train -m")
    name = name or _digest(command, grid)
    _announce(grid)
    experiments = _plan_all(grid, plan)
    try:
        return _run_all(experiments)
    finally:  # also after an interruption
        _report(command, name, experiments)


def _report(command: str, name: str, experiments: Sequence[Experiment]) -> None:
    """Prints and writes the table of a sweep."""
    rows = make_rows(experiments)
    print_rows(rows, command, name)
    folders = list(dict.fromkeys(experiment.settings.paths.results for experiment in experiments))
    folder = common_folder(folders)
    if len(folders) > 1:
        notify(f"results are in {', '.join(folders)}; the table of the sweep is written to {folder}")
    path = folder / "sweeps" / f"{name}.csv"
    write_whole(path, to_csv(rows, command))
    notify(f"written: {path}")
    update_table(path, experiments[0].settings)


def _digest(command: str, grid: Grid) -> str:
    """A short name for a sweep, independent of the order of overrides and values and of where it runs."""
    choices = sorted(sorted(choice) for choice in grid.choices)
    where = ("workers=", "launcher=", "launcher.", "threads=", "device=")
    chosen = [choice for choice in choices if not choice[0].lstrip("+").startswith(where)]
    return hashlib.sha256(json.dumps([command, chosen]).encode()).hexdigest()[:8]


def _announce(grid: Grid) -> None:
    """Prints the number of combinations, before any is planned."""
    if not grid.keys:
        notify("no key has several values; the sweep is a single combination")
        return
    counts = " x ".join(f"{len(grid.choices[place])} {key}" for key, place in grid.keys.items())
    remark = "; planning them takes minutes" if len(grid) > MANY else ""
    notify(f"combinations: {len(grid)} ({counts}){remark}")


def _plan_all(grid: Grid, plan: Plan) -> list[Experiment]:
    """Composes and plans all combinations; shared data are prepared once.

    Raises:
        UserError: if a combination is wrong, or if the combinations differ in their launcher.
    """
    prepared: dict[str, PreparedTask] = {}
    experiments = []
    for combination in grid.combinations():
        try:
            settings = compose_settings(combination.overrides)
            source = repr((settings.data, settings.paths, settings.task))
            if source not in prepared:
                prepared[source] = prepare_task(settings.data, settings.paths, settings.task, notify, settings.workers)
            experiments.append(Experiment(combination.values, tuple(plan(settings, prepared[source]))))
        except UserError as error:
            values = " ".join(f"{key}={value}" for key, value in combination.values.items())
            raise UserError(f"{error}\nin the combination {values}" if values else str(error)) from None
    first = experiments[0].settings.launcher
    if any(experiment.settings.launcher != first for experiment in experiments):
        raise UserError("all runs of a sweep share one launcher; give workers and launcher one value each")
    if len({experiment.settings.paths.results for experiment in experiments}) > 1 and any(
        "paths.results" in experiment.values for experiment in experiments
    ):
        raise UserError("the runs of a sweep and its table are in one results folder; give paths.results one value")
    return experiments


def _run_all(experiments: Sequence[Experiment]) -> int:
    """Runs what is missing; runs that are scored in several ways are trained first, then scored again."""
    runs = [run for experiment in experiments for run in experiment.runs]
    keeping_first = sorted(runs, key=lambda run: not run.settings.evaluate.save_predictions)
    status = 0
    for number, part in enumerate(evaluation_passes(keeping_first)):
        trained = part if number == 0 else [run for run in part if RunStore(run.results).is_done(run.run_id)]
        if trained:
            status = max(status, run_all(trained, experiments[0].settings))
    return status
