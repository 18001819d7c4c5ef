"""The scores of a table's runs, case by case, from their stored files."""

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dmseg.activity import track
from dmseg.errors import first_line
from dmseg.metrics.named import COUNT_METRICS, count_scores
from dmseg.runs.plan import PlannedRun
from dmseg.runs.records import cases_frame
from dmseg.runs.seal import DamagedError
from dmseg.runs.store import RunStore
from dmseg.tables.planning import PlannedRow, PlannedTable

log = logging.getLogger(__name__)

KEYS = ("data", "model", "task", "method")
"""Columns that identify a cell in the frame of per-case scores."""
OTHER_TIES = "dice_other_ties"
"""Dice under the other rule for ties: a metric, and a column of the cells."""
_Cell = tuple[PlannedRow, str]
"""A row of a table and the method of one of its cells."""
Texts = dict[tuple[str, str, str], str | None]
"""The ``cases.csv`` of each run that was read, by results folder, run id and evaluation id."""


def collect_cases(plan: PlannedTable, texts: Texts | None = None) -> pd.DataFrame:
    """Per-case scores of all finished runs of a table in tidy form: ``data, task, method, seed, fold, case, ...``.

    Damaged runs are reported in the log and left out.

    Args:
        plan: the table.
        texts: scores that were read for other tables of the same command, to which new ones are added. A run that
            several tables share is thus read and checked once.
    """
    texts = {} if texts is None else texts
    cells = [(row, method) for row in plan.rows for method in row.runs]
    found = [
        (cell, [(run, text) for run in cell[0].runs[cell[1]] if (text := _scores_of(run, texts)) is not None])
        for cell in track(cells, "reading scores", len(cells), "cells")
    ]
    columns = [*KEYS, "cohort", "seed", "fold", "experiment_id", "run_id", "case"]
    none = pd.DataFrame(columns=columns).astype({"seed": np.int64, "fold": np.int64})
    cases = pd.concat([none, *frames], ignore_index=True) if (frames := _frames(found)) else none
    counted: dict[str, npt.NDArray[np.float64]] = {}  # NaN in cells without counts
    start = 0
    for (row, _), texts_of_cell in found:  # in the order of their scores
        stop = start + sum(text.rstrip("\n").count("\n") for _, text in texts_of_cell)
        own = _cell_from_counts(cases.iloc[start:stop], [run for run, _ in texts_of_cell], row.block.metrics)
        for name, values in own.items():
            counted.setdefault(name, np.full(len(cases), np.nan))[start:stop] = values
        start = stop
    cases = cases.assign(**counted)
    return cases.assign(**{name: np.nan for name in plan.spec.metrics if name not in cases})


def _scores_of(run: PlannedRun, texts: Texts) -> str | None:
    """The ``cases.csv`` of a run, read once; None if the run is not finished, lacks this evaluation, or is damaged."""
    key = str(run.results), run.run_id, run.evaluation_id
    if key in texts:
        return texts[key]
    texts[key] = None
    store = RunStore(run.results)
    try:
        if os.path.lexists(store.folder(run.run_id)):
            texts[key] = store.sound_cases(run.run_id, run.evaluation_id)
    except DamagedError as error:
        log.warning("run %s is left out: %s", run.run_id, first_line(error))
    return texts[key]


def _frames(found: Sequence[tuple[_Cell, Sequence[tuple[PlannedRun, str]]]]) -> list[pd.DataFrame]:
    """Scores of all cells, from the ``cases.csv`` of their runs, with columns that name cell and run.

    Neighbours with the same columns are parsed together.
    """
    parts: list[tuple[str, list[tuple[_Cell, PlannedRun, str]]]] = []
    for cell, texts in found:
        by_header: dict[str, list[tuple[_Cell, PlannedRun, str]]] = {}
        for run, text in texts:
            header, _, body = text.partition("\n")
            by_header.setdefault(header, []).append((cell, run, body.rstrip("\n")))
        for header, part in by_header.items():
            if parts and parts[-1][0] == header:
                parts[-1][1].extend(part)
            else:
                parts.append((header, part))
    frames = []
    for header, part in parts:
        frame = cases_frame("\n".join([header, *(body for _, _, body in part if body), ""]))
        counts = [body.count("\n") + 1 if body else 0 for _, _, body in part]  # ids of cases have no line breaks
        columns: dict[str, list[Any]] = {
            "seed": [run.settings.seed for _, run, _ in part],
            "fold": [run.settings.fold for _, run, _ in part],
            "experiment_id": [run.experiment_id for _, run, _ in part],
            "run_id": [run.run_id for _, run, _ in part],
            "cohort": [row.task.cohort for (row, _), _, _ in part],
            "method": [method for (_, method), _, _ in part],
            **{name: [row.key[index] for (row, _), _, _ in part] for index, name in enumerate(KEYS[:3])},
        }
        frames.append(frame.assign(**{name: np.repeat(values, counts) for name, values in columns.items()}))
    return frames


def _cell_from_counts(
    scores: pd.DataFrame, runs: Sequence[PlannedRun], metrics: Sequence[str]
) -> dict[str, npt.NDArray[np.float64]]:
    """The metrics of a cell that are computed from counts, in the order of its scores.

    Where a case has an even number of raters, these include Dice under the other rule for ties. A seed counts only if
    all of its runs have counts; otherwise the means of two seeds could be over different cases.
    """
    even = "dice" in metrics and "n_raters" in scores and bool((scores["n_raters"] % 2 == 0).any())
    names = [name for name in COUNT_METRICS if name in metrics or (name == OTHER_TIES and even)]
    if not names:
        return {}
    cases = {run_id: list(values) for run_id, values in scores.groupby("run_id", sort=False)["case"]}
    counted: dict[str, dict[str, list[float]]] = {}  # by run; the values are in the order of its cases
    lacking = set()
    for run in runs:
        if run.run_id not in cases:
            continue
        counts = None
        try:
            counts = RunStore(run.results).read_counts(run.run_id, run.evaluation_id)
        except DamagedError as error:
            log.warning("the counts of run %s are left out: %s", run.run_id, first_line(error))
        if counts is None:
            lacking.add(run.settings.seed)
        else:
            counted[run.run_id] = count_scores(counts, cases[run.run_id], names)
    complete = [run.run_id for run in runs if run.settings.seed not in lacking]
    kept = {run_id: counted[run_id] for run_id in complete if run_id in counted}
    if not kept:
        return {}
    found = {name: np.full(len(scores), np.nan) for name in names}
    for run_id, rows in scores.groupby("run_id", sort=False).indices.items():
        for name, values in kept.get(str(run_id), {}).items():
            found[name][rows] = values
    return found
