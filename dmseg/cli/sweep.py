"""Sweeps, ``dmseg train -m`` and ``dmseg cv -m``: all combinations of values of some keys, and a table of scores."""

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from dmseg.cli.commands import run_all
from dmseg.cli.expand import Grid, expand
from dmseg.cli.messages import notify, set_up_logging
from dmseg.cli.words import take_words
from dmseg.config.compose import compose_settings
from dmseg.config.overrides import unused_overrides
from dmseg.config.settings import Settings
from dmseg.data.prepared import PreparedTask
from dmseg.errors import UserError, cut
from dmseg.files.atomic import write_whole
from dmseg.files.names import folder_of_all
from dmseg.report.tracking.update import update_table
from dmseg.runs.plan import PlannedRun, evaluation_passes, plan_folds, plan_run
from dmseg.runs.records import BASIC_SCORES, mean_scores
from dmseg.runs.run_scores import read_scores
from dmseg.runs.sources import prepare_task
from dmseg.runs.status import run_status
from dmseg.runs.store import RunStore
from dmseg.text import number_text, printable, unit_text, with_count

Plan = Callable[[Settings, PreparedTask], Sequence[PlannedRun]]

MANY = 1000
"""Above this number of combinations, a message warns that planning takes time."""
IDS = {"train": "run", "cv": "experiment"}
"""What a row of the table represents, by command."""
STATUS_WORDS = {"missing": "not done", "trained": "not scored"}
"""Words for a run's status that differ from those of `run_status`."""


@dataclass(frozen=True)
class Experiment:
    """A combination and its runs.

    Attributes:
        values: the value of each swept key.
        runs: its runs: one, or one for each fold.
    """

    values: Mapping[str, str]
    runs: tuple[PlannedRun, ...]

    @property
    def settings(self) -> Settings:
        """Settings of its first run."""
        return self.runs[0].settings

    @property
    def key(self) -> tuple[object, ...]:
        """Identifies what is computed, how it is scored and what is shown: equal keys are the same experiment."""
        return (*((run.run_id, run.evaluation_id) for run in self.runs), tuple(self.settings.evaluate.metrics))


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        experiment: the experiment.
        status: ``done``, ``failed``, ``running``, ``not done``, ``not scored`` or ``damaged``; if folds differ, with
            the number of folds that are done.
        same_as: number (from 1) of an earlier row with the same experiment, or None.
        cases: number of scored cases over all folds; 0 unless all runs are done.
        scores: mean of each available score, as it is stored, and the number of cases that have it.
    """

    experiment: Experiment
    status: str
    same_as: int | None
    cases: int
    scores: Mapping[str, tuple[float, int]]


def train(argv: Sequence[str]) -> int:
    """Trains one run for each combination, and prints and writes their scores."""
    return _sweep("train", argv, lambda settings, prepared: [plan_run(settings, prepared)])


def cv(argv: Sequence[str]) -> int:
    """Trains all folds of each combination, and prints and writes their pooled scores."""
    return _sweep("cv", argv, plan_folds)


def make_rows(experiments: Sequence[Experiment]) -> list[Row]:
    """Looks up the status and scores of each experiment; equal experiments are looked up once."""
    rows: list[Row] = []
    first: dict[tuple[object, ...], int] = {}
    for experiment in experiments:
        number = first.setdefault(experiment.key, len(rows))
        if number < len(rows):
            known = rows[number]
            rows.append(Row(experiment, known.status, number + 1, known.cases, known.scores))
            continue
        n_cases, scores = 0, {}
        try:
            found = [STATUS_WORDS.get(status, status) for status in map(run_status, experiment.runs)]
            status = found[0]
            if len(set(found)) > 1:
                worst = next(word for word in ("running", "failed", "not done", "not scored") if word in found)
                status = f"{worst}, {found.count('done')} of {len(found)} folds done"
            if status == "done":
                cases = pd.concat(list(map(read_scores, experiment.runs)))
                scores = {name: (mean, int(cases[name].count())) for name, mean in mean_scores(cases).items()}
                n_cases = len(cases)
        except UserError:  # damaged after it was computed; the next training command sets it aside
            status = "damaged"
        rows.append(Row(experiment, status, None, n_cases, scores))
    return rows


def print_rows(rows: Sequence[Row], command: str, name: str) -> None:
    """Prints the table and the number of rows that are done."""
    phantom = [row.experiment.settings.data.phantom is not None for row in rows]
    print(f"sweep {name}{' (PHANTOM data)' if all(phantom) else ''}")
    names = list(dict.fromkeys(score for row in rows for score in row.scores))
    keys = list(rows[0].experiment.values)
    titles = [f"{score}{unit_text(score)}" for score in names]
    lines = [["row", *keys, IDS[command], "n", *titles, "status"]]
    for number, row in enumerate(rows, 1):
        remark = " (PHANTOM data)" if phantom[number - 1] and not all(phantom) else ""
        same = f"same as row {row.same_as}" if row.same_as else row.status
        values = [row.experiment.values[key] for key in keys]
        scores = []
        for score in names:  # a mean, with its own n where fewer cases have the score
            mean, count = row.scores.get(score, (0.0, 0))
            scores.append(with_count(number_text(score, mean), count, row.cases) if count else "-")
        lines.append([str(number), *values, _id(row, command), str(row.cases or "-"), *scores, same + remark])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print(printable("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()))
    own = [row for row in rows if row.same_as is None]
    print(f"{sum(row.status == 'done' for row in own)} of {len(own)} {IDS[command]}s done")


def to_csv(rows: Sequence[Row], command: str) -> str:
    """The table as CSV, with all digits and scores as they are stored; missing values are empty."""
    keys = list(rows[0].experiment.values)
    names = list(dict.fromkeys((*BASIC_SCORES, *(score for row in rows for score in row.scores))))
    per_score = [column for name in names for column in (name, f"{name}_n")]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*keys, f"{IDS[command]}_id", "evaluation_id", "status", "same_as_row", "phantom", "n", *per_score])
    for row in rows:
        run = row.experiment.runs[0]
        scores = [item for name in names for item in row.scores.get(name, ("", ""))]
        phantom = str(run.settings.data.phantom is not None).lower()
        fixed = [_id(row, command), run.evaluation_id, row.status, row.same_as or "", phantom, row.cases or ""]
        writer.writerow([*(row.experiment.values[key] for key in keys), *fixed, *scores])
    return file.getvalue()


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
    if name == "null":
        name = None
    if name is not None and not re.fullmatch(r"\w[\w.-]{0,99}", name, re.ASCII):
        raise UserError(f"name is '{cut(name)}', but must consist of at most 100 letters, digits, '-', '_' or '.'")
    grid = expand(overrides)
    if command == "cv" and "fold" in grid.keys:
        raise UserError("cv trains all folds of each combination; leave fold out, or use train -m")
    if name is None:  # a digest, independent of the order of overrides and values and of where the sweep runs
        choices = sorted(sorted(choice) for choice in grid.choices)
        where = ("workers=", "launcher=", "launcher.", "threads=", "device=")
        chosen = [choice for choice in choices if not choice[0].lstrip("+").startswith(where)]
        name = hashlib.sha256(json.dumps([command, chosen]).encode()).hexdigest()[:8]
    if grid.keys:
        counts = " x ".join(f"{len(grid.choices[place])} {key}" for key, place in grid.keys.items())
        remark = "; planning them takes minutes" if len(grid) > MANY else ""
        notify(f"combinations: {len(grid)} ({counts}){remark}")
    else:
        notify("no key has several values; the sweep is a single combination")
    experiments = _plan_all(grid, plan)
    try:  # runs that are scored in several ways are trained first, then scored again
        status = 0
        runs = [run for experiment in experiments for run in experiment.runs]
        keeping_first = sorted(runs, key=lambda run: not run.settings.evaluate.save_predictions)
        for number, part in enumerate(evaluation_passes(keeping_first)):
            trained = part if number == 0 else [run for run in part if RunStore(run.results).is_done(run.run_id)]
            if trained:
                status = max(status, run_all(trained, experiments[0].settings))
        return status
    finally:  # also after an interruption
        _report(command, name, experiments)


def _plan_all(grid: Grid, plan: Plan) -> list[Experiment]:
    """Composes and plans all combinations; shared data are prepared once.

    Raises:
        UserError: if a combination is wrong, or if the combinations differ in their launcher.
    """
    prepared: dict[str, PreparedTask] = {}
    experiments = []
    said: dict[str, None] = {}
    for combination in grid.combinations():
        try:
            settings = compose_settings(combination.overrides)
            said |= dict.fromkeys(unused_overrides(combination.overrides, settings.method))
            source = repr((settings.data, settings.paths, settings.task))
            if source not in prepared:
                prepared[source] = prepare_task(settings, notify)
            experiments.append(Experiment(combination.values, tuple(plan(settings, prepared[source]))))
        except UserError as error:
            values = " ".join(f"{key}={value}" for key, value in combination.values.items())
            raise UserError(f"{error}\nin the combination {values}" if values else str(error)) from None
    for line in said:
        notify(line)
    first = experiments[0].settings.launcher
    if any(experiment.settings.launcher != first for experiment in experiments):
        raise UserError("all runs of a sweep share one launcher; give workers and launcher one value each")
    if len({experiment.settings.paths.results for experiment in experiments}) > 1 and any(
        "paths.results" in experiment.values for experiment in experiments
    ):
        raise UserError("the runs of a sweep and its table are in one results folder; give paths.results one value")
    return experiments


def _report(command: str, name: str, experiments: Sequence[Experiment]) -> None:
    """Prints and writes the table of a sweep."""
    rows = make_rows(experiments)
    print_rows(rows, command, name)
    folders = list(dict.fromkeys(experiment.settings.paths.results for experiment in experiments))
    folder = folder_of_all(folders)
    if len(folders) > 1:
        notify(f"results are in {', '.join(folders)}; the table of the sweep is written to {folder}")
    path = folder / "sweeps" / f"{name}.csv"
    write_whole(path, to_csv(rows, command))
    notify(f"written: {path}")
    update_table(path, experiments[0].settings)


def _id(row: Row, command: str) -> str:
    run = row.experiment.runs[0]
    return run.run_id if command == "train" else run.experiment_id
