"""The table of a sweep: one row for each combination, with the swept values, the id and the scores."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from dmseg.config.settings import Settings
from dmseg.errors import UserError
from dmseg.runs.plan import PlannedRun
from dmseg.runs.records import OPTIONAL_SCORES, SCORES
from dmseg.runs.status import run_status
from dmseg.runs.store import RunStore
from dmseg.text import printable, with_count

IDS = {"train": "run", "cv": "experiment"}
"""What a row of the table represents, by command."""
PERCENT = (*SCORES, "nsd", "lesion_f1")
UNITS = {**dict.fromkeys(PERCENT, "%"), "hd95": "mm"}


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
    def key(self) -> tuple[tuple[str, str], ...]:
        """Identifies what is computed and how it is scored: combinations with the same key are the same experiment."""
        return tuple((run.run_id, run.evaluation_id) for run in self.runs)


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        experiment: the experiment.
        status: ``done``, ``failed``, ``running``, ``not done`` or ``damaged``; for several folds with the number of
            folds that are done.
        same_as: number (from 1) of an earlier row with the same experiment, or None.
        cases: number of scored cases over all folds; 0 unless all runs are done.
        scores: mean of each available score, a fraction, and the number of cases that have it.
    """

    experiment: Experiment
    status: str
    same_as: int | None
    cases: int
    scores: Mapping[str, tuple[float, int]]


def make_rows(experiments: Sequence[Experiment]) -> list[Row]:
    """Looks up the status and scores of each experiment; equal experiments are looked up once."""
    rows: list[Row] = []
    first: dict[tuple[tuple[str, str], ...], int] = {}
    for experiment in experiments:
        number = first.setdefault(experiment.key, len(rows))
        if number < len(rows):
            known = rows[number]
            rows.append(Row(experiment, known.status, number + 1, known.cases, known.scores))
        else:
            rows.append(_row(experiment))
    return rows


def _row(experiment: Experiment) -> Row:
    try:
        status = _status(experiment.runs)
        if status != "done":
            return Row(experiment, status, None, 0, {})
        cases = pd.concat([RunStore(run.results).read_cases(run.run_id, run.evaluation_id) for run in experiment.runs])
    except UserError:  # damaged after it was computed; the next training command sets it aside
        return Row(experiment, "damaged", None, 0, {})
    names = [name for name in (*SCORES, *OPTIONAL_SCORES) if name in cases]
    scores = {name: (float(cases[name].mean()), int(cases[name].count())) for name in names}
    return Row(experiment, "done", None, len(cases), scores)


def _status(runs: Sequence[PlannedRun]) -> str:
    words = {"missing": "not done", "trained": "not scored"}
    found = [words.get(status, status) for status in map(run_status, runs)]
    if len(set(found)) == 1:
        return found[0]
    worst = next(status for status in ("running", "failed", "not done", "not scored") if status in found)
    return f"{worst}, {found.count('done')} of {len(found)} folds done"


def print_rows(rows: Sequence[Row], command: str, name: str) -> None:
    """Prints the table, scores in per cent, and the number of rows that are done."""
    phantom = [row.experiment.settings.data.phantom is not None for row in rows]
    print(f"sweep {name}{' (PHANTOM data)' if all(phantom) else ''}")
    names = [score for score in (*SCORES, *OPTIONAL_SCORES) if any(score in row.scores for row in rows)]
    keys = list(rows[0].experiment.values)
    titles = [f"{score} {UNITS[score]}" if score in UNITS else score for score in names]
    lines = [["row", *keys, IDS[command], "n", *titles, "status"]]
    for number, row in enumerate(rows, 1):
        remark = " (PHANTOM data)" if phantom[number - 1] and not all(phantom) else ""
        same = f"same as row {row.same_as}" if row.same_as else row.status
        values = [row.experiment.values[key] for key in keys]
        scores = [_score(row, score) for score in names]
        lines.append([str(number), *values, _id(row, command), str(row.cases or "-"), *scores, same + remark])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print(printable("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()))
    own = [row for row in rows if row.same_as is None]
    print(f"{sum(row.status == 'done' for row in own)} of {len(own)} {IDS[command]}s done")


def _score(row: Row, name: str) -> str:
    """Formats a mean, with its own n where fewer cases have the score."""
    mean, count = row.scores.get(name, (0.0, 0))
    if not count:
        return "-"
    shown = f"{100 * mean:.2f}" if name in PERCENT else f"{mean:.4f}"
    return with_count(shown, count, row.cases)


def _id(row: Row, command: str) -> str:
    run = row.experiment.runs[0]
    return run.run_id if command == "train" else run.experiment_id


def to_csv(rows: Sequence[Row], command: str) -> str:
    """The table as CSV, with all digits and scores as fractions; missing values are empty."""
    keys = list(rows[0].experiment.values)
    names = [*SCORES, *(score for score in OPTIONAL_SCORES if any(score in row.scores for row in rows))]
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
