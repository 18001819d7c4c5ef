"""Numbers of a table that compares methods, from the per-case scores in the run store."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pandas as pd

from dmseg.config.settings import ModelSettings
from dmseg.data.split_files import read_groups
from dmseg.errors import UserError
from dmseg.runs.plan import PlannedRun
from dmseg.stats.paired import holm
from dmseg.tables.collected import KEYS, OTHER_TIES
from dmseg.tables.columns import SCORES
from dmseg.tables.inference import (
    ALPHA,
    DEFAULT,
    UNTESTED,
    Inference,
    TaskScores,
    cell_numbers,
    comparison_numbers,
    differences,
)
from dmseg.tables.paper import paper_table
from dmseg.tables.planning import PlannedRow, PlannedTable
from dmseg.tables.spec import PAPER_DATA, TableSpec

log = logging.getLogger(__name__)

ALL = "all"
ARCHITECTURES = {"Unet": "UNet", "DeepLabV3Plus": "DeepLabV3+"}
_read_groups = lru_cache(maxsize=64)(read_groups)
"""Reads each file of groups once for the same cases."""


@dataclass(frozen=True)
class TableData:
    """A table ready to be rendered.

    Attributes:
        spec: specification of the table.
        cells: one row for each cell: ``task, task_title, metric, method, method_title, value, unit, ...``.
        data: name of the data set.
        phantom: whether the data are generated.
        profile: name of the profile (size of the study).
        protocol: name of the protocol (paper or released code).
        inference: how the cells are tested.
        ties: class of tied pixels in the majority vote; empty if it is not the same in all columns.
        disjoint: for a table of the raters' agreement, the Dice of a rater without any overlap with the majority vote.
    """

    spec: TableSpec
    cells: pd.DataFrame
    data: str
    phantom: bool
    profile: str
    protocol: str
    inference: Inference = DEFAULT
    ties: str = "background"
    disjoint: float = 0.0


def comparison_content(planned: PlannedTable, cases: pd.DataFrame, inference: Inference) -> TableData:
    """A planned table, ready to be rendered.

    Args:
        planned: its runs.
        cases: their scores (`dmseg.tables.collected.collect_cases`).
        inference: how cells are tested.
    """
    settings = planned.settings
    ties = {runs[0].settings.evaluate.ties for row in planned.rows for runs in row.runs.values()}
    return TableData(
        planned.spec,
        comparison_cells(planned, cases, inference),
        ", ".join(dict.fromkeys(row.data for row in planned.rows)),
        planned.phantom,
        settings.profile,
        settings.protocol,
        inference,
        ties.pop() if len(ties) == 1 else "",
    )


def comparison_cells(plan: PlannedTable, cases: pd.DataFrame, inference: Inference = DEFAULT) -> pd.DataFrame:
    """Cells of a comparison of methods, each column tested against the reference.

    A cell is the mean over seeds of the mean over the cases of all folds. A seed counts once all of its folds are
    done; a cell without such a seed is empty. A row over several tasks is the unweighted mean over the tasks, under the
    seeds that count in all of them. The test takes the difference for each case and task that both columns have under
    every common seed, averages it over seeds and over the tasks of each patient, and compares patients. The intervals
    are those of `dmseg.stats.cross_validation`.

    Args:
        plan: the runs.
        cases: per-case scores (`collect_cases`).
        inference: how cells are tested and marked.
    """
    scores = _Scores(plan, cases)
    rows = [
        row
        for table_row in table_rows(plan)
        for metric in table_row.metrics
        for row in _row_cells(plan.spec, table_row, metric, scores, inference)
    ]
    cells = pd.DataFrame(rows)
    names = {"model_title": cells["model"], "task_title": cells["data_set"] + "/" + cells["task"]}
    for title, name in names.items():  # several networks, or several rows, may have the same title
        several = name.groupby(cells[title]).transform("nunique") > 1
        cells = cells.assign(**{title: cells[title].where(~several, cells[title] + " (" + name + ")")})
    p_holm = cells.groupby("metric")["p_value"].transform(lambda values: holm(values.to_numpy(dtype=float)))
    criterion = p_holm if inference.holm else cells["p_value"]
    cells = cells.assign(p_holm=p_holm, significant=cells.pop("test_better").astype(bool) & (criterion < ALPHA))
    marks = {"mark": _marks(cells, plan.spec, "significant"), "diff_mark": _marks(cells, plan.spec, "diff_better")}
    return with_paper(cells.assign(**marks), plan.spec.paper)


@dataclass(frozen=True)
class TableRow:
    """One printed row of a table, for all metrics.

    Attributes:
        task: name in files: a task, ``all`` for the mean over the tasks of a data set, or the data set if only this
            mean is shown.
        title: printed title.
        rows: the planned rows whose mean it shows.
    """

    task: str
    title: str
    rows: tuple[PlannedRow, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Scores that are shown."""
        return self.rows[0].block.metrics

    @property
    def paper_task(self) -> str:
        """Its name among the paper's numbers; empty if the data are neither the paper's nor a phantom of them."""
        first = self.rows[0]
        return "" if not first.is_papers else first.block.data if first.block.pooled else self.task


def table_rows(plan: PlannedTable) -> list[TableRow]:
    """The printed rows: one for each task and one for all, or only one for all tasks of a data set."""
    blocks: dict[tuple[str, str], list[PlannedRow]] = {}
    for row in plan.rows:
        blocks.setdefault((row.data, row.model), []).append(row)
    found = []
    for rows in blocks.values():
        first = rows[0]
        if first.block.pooled:
            if first.is_papers:
                title = PAPER_DATA[first.block.data]
            else:
                title = first.task.title if len(rows) == 1 else first.data
            found.append(TableRow(first.data, _title(first, title), tuple(rows)))
            continue
        found += [TableRow(row.task.name, _title(row, row.task.title), (row,)) for row in rows]
        if len(rows) > 1:
            found.append(TableRow(ALL, "All", tuple(rows)))
    return found


def network_title(model: ModelSettings) -> str:
    """Printed name of a network, such as ``UNet resnet18``."""
    return f"{ARCHITECTURES.get(model.architecture, model.architecture)} {model.encoder}"


def _title(row: PlannedRow, title: str) -> str:
    """A title that names the paper's data sets which the data stand for, and marks phantoms."""
    if row.settings.data.phantom is not None:
        return f"{title} (phantom)"
    return title if row.data == row.block.data else f"{title} (for {', '.join(row.stands_for)})"


@dataclass(frozen=True)
class _Cell:
    """Scores of one cell under the seeds that have all of their runs.

    Attributes:
        scores: one row for each case of each run.
        places: the row of each case, indexed by (cohort, case), under each seed; -1 where there is none.
        folds: the fold that validates each case.
        groups: the group of each case; empty without ``folds.groups``, or if its file is not here.
    """

    scores: pd.DataFrame
    places: pd.DataFrame
    folds: "pd.Series[int]"
    groups: Mapping[str, str]

    def by_seed(self, values: "pd.Series[float]") -> pd.DataFrame:
        """Values of the rows of `scores` as a table with one row for each case, and one column for each seed."""
        rows = self.places.to_numpy()
        found = np.where(rows < 0, np.nan, values.to_numpy(dtype=np.float64, na_value=np.nan)[rows])
        return pd.DataFrame(found, self.places.index, self.places.columns, copy=False)


class _Scores:
    """Per-case scores by cell."""

    def __init__(self, plan: PlannedTable, cases: pd.DataFrame) -> None:
        self._groups = dict(iter(cases.groupby(list(KEYS)))) if len(cases) else {}
        self._counted: dict[tuple[str, ...], _Cell | None] = {}
        self._known: dict[tuple[str, ...], TaskScores] = {}

    def of_cell(self, row: PlannedRow, method: str, metric: str) -> TaskScores | None:
        """Scores of one cell under each seed whose folds are all done; None if there is no such seed."""
        key = (*row.key, method)
        if key not in self._counted:
            self._counted[key] = self._complete_seeds(key, row.runs[method])
        chosen = self._counted[key]
        if chosen is None:
            return None
        if (*key, metric) not in self._known:
            self._known[(*key, metric)] = TaskScores(chosen.by_seed(chosen.scores[metric]), chosen.folds, chosen.groups)
        return self._known[(*key, metric)]

    def _complete_seeds(self, key: tuple[str, ...], runs: Sequence[PlannedRun]) -> _Cell | None:
        """Scores of a cell's runs, only of seeds that have all of theirs."""
        chosen = self._groups.get(key)
        if chosen is None:
            return None
        found = set(chosen["run_id"])
        missing = {run.settings.seed for run in runs if run.run_id not in found}
        counted = {run.run_id: run.settings for run in runs if run.settings.seed not in missing}
        kept = chosen if found <= counted.keys() else chosen[chosen["run_id"].isin(counted)]
        if kept.empty:
            return None
        settings = [counted[run_id] for run_id in kept["run_id"]]
        index = pd.MultiIndex.from_arrays([kept["cohort"], kept["case"], [item.seed for item in settings]])
        places = pd.Series(np.arange(len(kept)), index.set_names("seed", level=2)).unstack("seed", fill_value=-1)
        first = places.where(places >= 0, len(kept)).min(axis=1)
        folds = np.array([item.fold for item in settings])[first]
        groups: dict[str, str] = {}  # by case
        if (file := runs[0].settings.folds.groups) is not None:
            split = runs[0].split
            try:
                known = _read_groups(file, tuple(sorted({*split.train, *split.validation})))
                groups = {case: group for group, cases in known.items() for case in cases}
            except UserError as error:
                log.warning("tests are over cases, as their groups are unknown: %s", error)
        return _Cell(kept, places, pd.Series(folds, places.index, name="fold"), groups)

    def of_row(self, table_row: TableRow, method: str, metric: str) -> list[TaskScores] | None:
        """Scores for each task of a printed row, under the seeds that count and have a value in all of its tasks."""
        found = [scores for row in table_row.rows if (scores := self.of_cell(row, method, metric)) is not None]
        if len(found) < len(table_row.rows):
            return None
        common = [
            seed
            for seed in found[0].values
            if all(seed in item.values and item.values[seed].notna().any() for item in found)
        ]
        if not common:
            return None
        return [
            scores if list(scores.values) == common else replace(scores, values=scores.values[common])
            for scores in found
        ]

    def mean_other_ties(self, table_row: TableRow, method: str, tasks: Sequence[TaskScores] | None) -> float:
        """Mean Dice of a printed row under the other rule for ties; NaN without an even number of raters, or counts.

        Args:
            table_row: the row.
            method: key of the column.
            tasks: the column's Dice for each task (`of_row`), under the seeds that count.
        """
        means, even = [], False
        for row, own in zip(table_row.rows, tasks or (), strict=False):
            chosen = self._counted[(*row.key, method)]
            if chosen is None or not {"n_raters", OTHER_TIES} <= set(chosen.scores):
                return float("nan")
            tied = chosen.scores["n_raters"] % 2 == 0  # elsewhere both rules are the same
            other = chosen.by_seed(chosen.scores["dice"].where(~tied, chosen.scores[OTHER_TIES]))
            means.append(float(other[list(own.values)].mean().mean()))
            even = even or bool(tied.any())
        return SCORES["dice"].factor * float(np.mean(means)) if even else float("nan")


def _row_cells(
    spec: TableSpec, table_row: TableRow, metric: str, scores: _Scores, inference: Inference
) -> list[dict[str, object]]:
    """The cells of one printed row for one metric, each tested against the reference."""
    methods = [column for column in spec.columns if column.key in table_row.rows[0].runs]
    by_method = {column.key: scores.of_row(table_row, column.key, metric) for column in methods}
    first, score = table_row.rows[0], SCORES[metric]
    common = {
        "data_set": first.data, "task": table_row.task, "task_title": table_row.title,
        "paper_task": table_row.paper_task, "model": first.model, "model_title": network_title(first.settings.model),
        "paper_model": first.paper_model, "metric": metric, "unit": score.unit, "n_tasks": len(table_row.rows),
    }  # fmt: skip
    cells = []
    for column in methods:
        own, runs = by_method[column.key], first.runs[column.key]
        named = runs if len(table_row.rows) == 1 else ()  # a row over several tasks names no runs
        reference, comparison = by_method.get(spec.reference), UNTESTED
        if own is not None and reference is not None and column.key != spec.reference:
            better, worse = (reference, own) if spec.reference_is_ours else (own, reference)
            if (found := differences(better, worse, score)) is not None:
                comparison = comparison_numbers(found, score, inference)
        cells.append(
            {
                **common,
                "method": column.key,
                "method_title": column.title,
                **cell_numbers(own, score),
                "n_seeds_planned": len({run.settings.seed for run in runs}),
                "experiment_id": " ".join(dict.fromkeys(run.experiment_id for run in named)),
                "runs": " ".join(run.run_id for run in named),
                **comparison,
                OTHER_TIES: scores.mean_other_ties(table_row, column.key, own) if metric == "dice" else np.nan,
            }
        )
    return cells


def _marks(cells: pd.DataFrame, spec: TableSpec, criterion: str) -> "pd.Series[str]":
    """``better`` and ``worse`` for the cells that tables mark because a criterion holds for their comparison."""
    holds = cells[criterion].astype(bool)
    if not spec.reference_is_ours:
        return holds.map({True: "better", False: ""})
    others = cells["method"] != spec.reference
    row = [cells[name] for name in ("data_set", "model", "task", "metric")]
    beats_all = (holds | ~others).groupby(row).transform("all")
    return (holds & others).map({True: "worse", False: ""}).mask(~others & beats_all, "better")


def with_paper(cells: pd.DataFrame, number: int | None) -> pd.DataFrame:
    """Adds the paper's number to each cell that has one."""
    paper = [] if number is None else paper_table(number).itertuples()
    known = {(row.task, row.backbone, row.method, row.metric): float(str(row.value)) for row in paper}
    keys = zip(cells["paper_task"], cells["paper_model"], cells["method"], cells["metric"], strict=True)
    return cells.assign(paper=[known.get(key, np.nan) for key in keys]).drop(columns=["paper_task", "paper_model"])
