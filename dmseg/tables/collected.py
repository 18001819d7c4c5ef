"""The scores of a table's runs, case by case, from their stored files."""

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from dmseg.activity import track
from dmseg.metrics.named import COUNT_METRICS
from dmseg.runs.plan import PlannedRun
from dmseg.runs.records import cases_frame
from dmseg.runs.seal import DamagedError
from dmseg.runs.store import RunStore
from dmseg.tables.planning import PlannedTable

log = logging.getLogger(__name__)

KEYS = ("data", "model", "task", "method")
"""Columns that identify a cell in the frame of per-case scores."""
OTHER_TIES = "dice_other_ties"
"""Dice under the other rule for ties: a metric, and a column of the cells."""


Texts = dict[tuple[str, str, str], str | None]
"""The ``cases.csv`` of runs that were read, by results folder, id of the run, and id of the evaluation."""


def collect_cases(plan: PlannedTable, texts: Texts | None = None) -> pd.DataFrame:
    """Per-case scores of all finished runs of a table in tidy form: ``data, task, method, seed, fold, case, ...``.

    Damaged runs are reported in the log and left out.

    Args:
        plan: the table.
        texts: what was read for other tables of the same command, so that a run that several tables share is read and
            checked once; added to.
    """
    texts = {} if texts is None else texts
    columns = [*KEYS, "cohort", "seed", "fold", "experiment_id", "run_id", "case"]
    frames = [pd.DataFrame(columns=columns).astype({"seed": np.int64, "fold": np.int64})]
    for row in track(plan.rows, "reading scores", len(plan.rows), "rows"):
        for method, runs in row.cells.items():
            named = dict(zip(KEYS, (*row.key, method), strict=True)) | {"cohort": row.task.cohort}
            found = [(run, text) for run in runs if (text := _known(run, texts)) is not None]
            if found:
                scores = _with_counts(_frame(found), [run for run, _ in found], row.block.metrics)
                frames.append(scores.assign(**named))
    cases = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    return cases.assign(**{name: np.nan for name in plan.spec.metrics if name not in cases})


def _frame(texts: Sequence[tuple[PlannedRun, str]]) -> pd.DataFrame:
    """Scores of some runs from their ``cases.csv``; texts with the same columns are parsed together."""
    by_header: dict[str, list[tuple[PlannedRun, str]]] = {}
    for run, text in texts:
        header, _, body = text.partition("\n")
        by_header.setdefault(header, []).append((run, body.rstrip("\n")))
    frames = []
    for header, group in by_header.items():
        runs, bodies = [run for run, _ in group], [body for _, body in group]
        counts = [body.count("\n") + 1 if body else 0 for body in bodies]  # ids of cases have no line breaks
        frame = cases_frame("\n".join([header, *(body for body in bodies if body), ""]))
        columns: dict[str, list[Any]] = {
            "seed": [run.settings.seed for run in runs],
            "fold": [run.settings.fold for run in runs],
            "experiment_id": [run.experiment_id for run in runs],
            "run_id": [run.run_id for run in runs],
        }
        frames.append(frame.assign(**{name: np.repeat(values, counts) for name, values in columns.items()}))
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


def _with_counts(scores: pd.DataFrame, runs: Sequence[PlannedRun], metrics: Sequence[str]) -> pd.DataFrame:
    """Adds the metrics of a cell that are computed from counts.

    A mean over some of a seed's runs would be over other cases, so all of them need counts.
    """
    names = _from_counts(metrics, scores)
    if not names:
        return scores
    cases = {run_id: list(values) for run_id, values in scores.groupby("run_id", sort=False)["case"]}
    counted = [(run, _counted(run, cases[run.run_id], names)) for run in runs if run.run_id in cases]
    lacking = {run.settings.seed for run, values in counted if values is None}
    kept = {run.run_id: values for run, values in counted if values is not None and run.settings.seed not in lacking}
    if not kept:
        return scores
    found = {name: np.full(len(scores), np.nan) for name in names}
    for run_id, rows in scores.groupby("run_id", sort=False).indices.items():
        for name, values in kept.get(str(run_id), {}).items():
            found[name][rows] = values
    return scores.assign(**found)


def _from_counts(metrics: Sequence[str], scores: pd.DataFrame) -> list[str]:
    """Metrics of a cell that are computed from counts; where raters are even, Dice under both rules for ties."""
    even = "dice" in metrics and "n_raters" in scores and bool((scores["n_raters"] % 2 == 0).any())
    return [name for name in COUNT_METRICS if name in metrics or (name == OTHER_TIES and even)]


def _counted(run: PlannedRun, cases: Sequence[str], names: Sequence[str]) -> dict[str, list[float]] | None:
    """Metrics computed from a run's counts, in the order of its cases; None if it has none, or they are damaged."""
    try:
        counts = RunStore(run.results).read_counts(run.run_id, run.evaluation_id)
    except DamagedError as error:
        log.warning("the counts of run %s are left out: %s", run.run_id, str(error).splitlines()[0])
        return None
    if counts is None:
        return None
    return {name: [COUNT_METRICS[name](counts[case]) for case in cases] for name in names}


def _known(run: PlannedRun, texts: Texts) -> str | None:
    key = str(run.results), run.run_id, run.evaluation_id
    if key not in texts:
        texts[key] = _scores_of(run)
    return texts[key]


def _scores_of(run: PlannedRun) -> str | None:
    """The ``cases.csv`` of a run; None if the run is not finished, lacks this evaluation, or is damaged."""
    store = RunStore(run.results)
    if not os.path.lexists(store.folder(run.run_id)):
        return None
    try:
        return store.sound_cases(run.run_id, run.evaluation_id)
    except DamagedError as error:
        log.warning("run %s is left out: %s", run.run_id, str(error).splitlines()[0])
        return None
