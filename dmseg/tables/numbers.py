"""Numbers of a table: from annotations (Table 1), or from the per-case scores in the run store."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dmseg.config.settings import ModelSettings
from dmseg.data.prepared import PreparedTask
from dmseg.labels.fusion import majority
from dmseg.metrics.agreement import rater_dice
from dmseg.metrics.named import COUNT_METRICS
from dmseg.runs.plan import PlannedRun
from dmseg.runs.seal import DamagedError
from dmseg.runs.store import RunStore
from dmseg.stats.paired import compare, holm
from dmseg.tables.columns import SCORES
from dmseg.tables.paper import paper_table
from dmseg.tables.planning import PlannedRow, PlannedTable
from dmseg.tables.spec import PAPER_DATA, TableSpec

log = logging.getLogger(__name__)

ALL = "all"
KEYS = ("data", "model", "task", "method")
"""Columns that identify a cell in the frame of per-case scores."""
ARCHITECTURES = {"Unet": "UNet", "DeepLabV3Plus": "DeepLabV3+"}
UNTESTED: dict[str, object] = {
    "p_value": np.nan, "mean_difference": np.nan, "mean_difference_tasks": np.nan, "effect_size": np.nan,
    "n_pairs": 0, "n_value_pairs": 0, "n_dropped": 0, "significant": False,
}  # fmt: skip
"""Values of a cell that is not tested."""
OTHER_TIES = "dice_other_ties"
"""Dice under the other rule for ties: a metric, and a column of the cells."""
TaskScores = Sequence["pd.Series[float]"]
"""One series for each task, indexed by (cohort, case)."""


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
        ties: what a tie is in the majority vote.
    """

    spec: TableSpec
    cells: pd.DataFrame
    data: str
    phantom: bool
    profile: str
    protocol: str
    ties: str = "background"


def agreement_cells(stores: Sequence[PreparedTask], disjoint: float) -> pd.DataFrame:
    """Cells of Table 1: for each task the number of raters and the mean Dice between a rater and the majority.

    The mean is over the raters of a case, then over cases. Two empty masks have a Dice of 1.

    Args:
        stores: prepared tasks.
        disjoint: Dice of a rater without any overlap: 0, or 1 as in the released preparation script.
    """
    rows = []
    for prepared in stores:
        annotations = [prepared.annotations(case) for case in prepared.cases]
        scores = [rater_dice(item, majority(item), disjoint=disjoint).mean() for item in annotations]
        common = {"task": prepared.task.name, "task_title": prepared.task.title, "n": len(prepared.cases)}
        raters = float(max(len(case.raters) for case in prepared.cases))
        rows.append({**common, "metric": "raters", "value": raters, "unit": SCORES["raters"].unit})
        dice = SCORES["dice"].factor * float(np.mean(scores))
        rows.append({**common, "metric": "dice", "value": dice, "unit": SCORES["dice"].unit})
    cells = pd.DataFrame(rows).assign(method="", method_title="", paper_model="")
    return _with_paper(cells.assign(paper_task=cells["task"]), 1)


def collect_cases(plan: PlannedTable) -> pd.DataFrame:
    """Per-case scores of all finished runs of a table in tidy form: ``data, model, task, method, run_id, case, ...``.

    Damaged runs are reported in the log and left out.
    """
    frames = [pd.DataFrame(columns=[*KEYS, "cohort", "experiment_id", "run_id", "case"])]
    for row in plan.rows:
        for method, runs in row.cells.items():
            named = dict(zip(KEYS, (*row.key, method), strict=True)) | {"cohort": row.task.cohort}
            found = [(run, scores) for run in runs if (scores := _scores_of(run)) is not None]
            names = _from_counts(row.block.metrics, [scores for _, scores in found])
            counted = [_counted(run, scores, names) for run, scores in found]
            # a mean over some of a cell's runs would be over other cases, so all of them need counts
            whole = all(values is not None for values in counted)
            for (run, scores), values in zip(found, counted, strict=True):
                own = scores.assign(**values) if whole and values is not None else scores
                frames.append(own.assign(**named, experiment_id=run.experiment_id, run_id=run.run_id))
    cases = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    return cases.assign(**{name: np.nan for name in plan.spec.metrics if name not in cases})


def _from_counts(metrics: Sequence[str], scores: Sequence[pd.DataFrame]) -> list[str]:
    """Metrics of a cell that are computed from counts; where raters are even, Dice under both rules for ties."""
    even = "dice" in metrics and any("n_raters" in item and (item["n_raters"] % 2 == 0).any() for item in scores)
    return [name for name in COUNT_METRICS if name in metrics or (name == OTHER_TIES and even)]


def _counted(run: PlannedRun, scores: pd.DataFrame, names: Sequence[str]) -> dict[str, list[float]] | None:
    """Metrics computed from a run's counts, in the order of its cases; None if it has none, or they are damaged."""
    if not names:
        return {}
    try:
        counts = RunStore(run.results).read_counts(run.run_id, run.evaluation_id)
    except DamagedError as error:
        log.warning("the counts of run %s are left out: %s", run.run_id, str(error).splitlines()[0])
        return None
    if counts is None:
        return None
    return {name: [COUNT_METRICS[name](counts[case]) for case in scores["case"]] for name in names}


def _scores_of(run: PlannedRun) -> pd.DataFrame | None:
    """Scores of a run's cases; None if the run is not finished, lacks this evaluation, or is damaged."""
    store = RunStore(run.results)
    if not os.path.lexists(store.folder(run.run_id)):
        return None
    try:
        if damage := store.damage(run.run_id):
            raise DamagedError(damage[0])
        if not store.has_evaluation(run.run_id, run.evaluation_id):
            return None
        return store.read_cases(run.run_id, run.evaluation_id)
    except DamagedError as error:
        log.warning("run %s is left out: %s", run.run_id, str(error).splitlines()[0])
        return None


def comparison_cells(plan: PlannedTable, cases: pd.DataFrame) -> pd.DataFrame:
    """Cells of a comparison of methods, each column tested against the reference.

    A cell is the mean over the cases of its runs, and empty until all of them are finished. A row over several tasks is
    the unweighted mean over the tasks. Its test takes the difference for each case and task that both columns have,
    averages it over the tasks of each patient, and compares patients (`_tested`).

    Args:
        plan: the runs.
        cases: per-case scores (`collect_cases`).
    """
    scores = _Scores(plan, cases)
    rows = [
        row for line in lines(plan) for metric in line.metrics for row in _line_cells(plan.spec, line, metric, scores)
    ]
    cells = _with_distinct_titles(pd.DataFrame(rows))
    p_holm = cells.groupby("metric")["p_value"].transform(lambda values: holm(values.to_numpy(dtype=float)))
    cells = cells.assign(p_holm=p_holm, mark=_marks(cells, plan.spec))
    return _with_paper(cells, plan.spec.paper)


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
        if first.data != first.block.data and first.settings.data.phantom is None:
            return ""
        return first.block.data if first.block.pooled else self.task


def lines(plan: PlannedTable) -> list[TableRow]:
    """The printed rows: one for each task and one for all, or only one for all tasks of a data set."""
    blocks: dict[tuple[str, str], list[PlannedRow]] = {}
    for row in plan.rows:
        blocks.setdefault((row.data, row.model), []).append(row)
    found = []
    for rows in blocks.values():
        first = rows[0]
        if first.block.pooled:
            if first.data == first.block.data or first.settings.data.phantom is not None:
                title = PAPER_DATA[first.block.data]
            else:
                title = first.task.title if len(rows) == 1 else first.data
            found.append(TableRow(first.data, _title(first, title), tuple(rows)))
            continue
        found += [TableRow(row.task.name, _title(row, row.task.title), (row,)) for row in rows]
        if len(rows) > 1:
            found.append(TableRow(ALL, "All", tuple(rows)))
    return found


def _title(row: PlannedRow, title: str) -> str:
    """A title that names the paper's data sets which the data stand for, and marks phantoms."""
    if row.settings.data.phantom is not None:
        return f"{title} (phantom)"
    return title if row.data == row.block.data else f"{title} (for {', '.join(row.stands_for)})"


class _Scores:
    """Per-case scores by cell."""

    def __init__(self, plan: PlannedTable, cases: pd.DataFrame) -> None:
        self._groups = dict(iter(cases.groupby(list(KEYS)))) if len(cases) else {}

    def of_case(self, row: PlannedRow, method: str, metric: str) -> "pd.Series[float] | None":
        """Scores of one cell, indexed by (cohort, case); None while runs are missing."""
        chosen = self._groups.get((*row.key, method))
        if chosen is None or chosen["run_id"].nunique() < len(row.cells[method]):
            return None
        return chosen.set_index(["cohort", "case"])[metric].astype(float)

    def of_line(self, line: TableRow, method: str, metric: str) -> TaskScores | None:
        """Scores for each task of a printed row; None while runs are missing."""
        found = [self.of_case(row, method, metric) for row in line.rows]
        return None if any(scores is None for scores in found) else [scores for scores in found if scores is not None]

    def mean_other_ties(self, line: TableRow, method: str) -> float:
        """Mean Dice of a printed row under the other rule for ties; NaN without an even number of raters, or counts."""
        chosen = [self._groups.get((*row.key, method)) for row in line.rows]
        tasks, even = [], False
        for row, item in zip(line.rows, chosen, strict=True):
            scores = self.of_case(row, method, "dice")
            if item is None or scores is None or not {"n_raters", OTHER_TIES} <= set(item):
                return float("nan")
            tied = (item["n_raters"] % 2 == 0).to_numpy()  # elsewhere both rules are the same
            other = np.where(tied, item[OTHER_TIES].to_numpy(dtype=float), scores.to_numpy())
            tasks.append(pd.Series(other).mean())
            even = even or bool(tied.any())
        return SCORES["dice"].factor * float(np.mean(tasks)) if even else float("nan")


def _line_cells(spec: TableSpec, line: TableRow, metric: str, scores: _Scores) -> list[dict[str, object]]:
    """The cells of one printed row for one metric."""
    methods = [column for column in spec.columns if column.key in line.rows[0].cells]
    by_method = {column.key: scores.of_line(line, column.key, metric) for column in methods}
    first = line.rows[0]
    common = {
        "data_set": first.data, "task": line.task, "task_title": line.title, "paper_task": line.paper_task,
        "model": first.model, "model_title": network_title(first.settings.model),
        "paper_model": first.paper_model, "metric": metric, "unit": SCORES[metric].unit, "n_tasks": len(line.rows),
    }  # fmt: skip
    return [
        {
            **common,
            "method": column.key,
            "method_title": column.title,
            **_mean(by_method[column.key], metric),
            **_ids(line, column.key),
            **_tested(spec, by_method, column.key, metric),
            OTHER_TIES: scores.mean_other_ties(line, column.key) if metric == "dice" else np.nan,
        }
        for column in methods
    ]


def _by_patient(tasks: TaskScores) -> "pd.Series[float]":
    """Mean of each patient over the tasks that have a value; NaN if none has."""
    return pd.concat(list(tasks)).groupby(level=[0, 1]).mean()


def _mean(tasks: TaskScores | None, metric: str) -> dict[str, object]:
    """The mean over tasks of the means over cases, and the numbers of patients and of (case, task) values."""
    if tasks is None:
        return {"value": np.nan, "n": 0, "n_values": 0}
    means = [SCORES[metric].factor * float(scores.mean()) for scores in tasks]  # NaN if no case has a value
    n_values = sum(int(scores.count()) for scores in tasks)
    return {"value": float(np.mean(means)), "n": int(_by_patient(tasks).count()), "n_values": n_values}


def _ids(line: TableRow, method: str) -> dict[str, str]:
    """Experiment and runs of a cell; empty for a row over several tasks, which has several experiments."""
    if len(line.rows) > 1:
        return {"experiment_id": "", "runs": ""}
    runs = line.rows[0].cells[method]
    return {"experiment_id": runs[0].experiment_id, "runs": " ".join(run.run_id for run in runs)}


def _with_distinct_titles(cells: pd.DataFrame) -> pd.DataFrame:
    """Adds the name to titles that several networks, or several rows, have in common."""
    names = {"model_title": cells["model"], "task_title": cells["data_set"] + "/" + cells["task"]}
    for title, name in names.items():
        several = name.groupby(cells[title]).transform("nunique") > 1
        cells = cells.assign(**{title: cells[title].where(~several, cells[title] + " (" + name + ")")})
    return cells


def network_title(model: ModelSettings) -> str:
    """Printed name of a network, such as ``UNet resnet18``."""
    return f"{ARCHITECTURES.get(model.architecture, model.architecture)} {model.encoder}"


def _tested(spec: TableSpec, by_method: Mapping[str, TaskScores | None], method: str, metric: str) -> dict[str, object]:
    """Tests whether a column is better than the reference, or the reference better than it if `reference_is_ours`.

    Only (case, task) pairs with a value in both columns count. ``mean_difference`` is over patients, like the test;
    ``mean_difference_tasks`` is over tasks, like the printed mean. A cell is significant only if both agree in sign.
    """
    scores, reference = by_method[method], by_method.get(spec.reference)
    if scores is None or reference is None or method == spec.reference:
        return UNTESTED
    if SCORES[metric].signed:
        scores, reference = [item.abs() for item in scores], [item.abs() for item in reference]
    better, worse = (reference, scores) if spec.reference_is_ours else (scores, reference)
    differences = [ours - other for ours, other in zip(better, worse, strict=True)]  # NaN if one has no value
    patients = _by_patient(differences).to_numpy()
    score = SCORES[metric]
    result = compare(patients, np.zeros_like(patients), higher_is_better=not score.lower_is_better)
    over_tasks = float(np.mean([item.mean() for item in differences]))
    n_pairs = sum(int(item.count()) for item in differences)
    return {
        "p_value": result.p_value,
        "mean_difference": score.factor * result.mean_difference,
        "mean_difference_tasks": score.factor * over_tasks,
        "effect_size": result.effect_size,
        "n_pairs": result.n,
        "n_value_pairs": n_pairs,
        "n_dropped": sum(map(len, differences)) - n_pairs,
        "significant": result.significant() and result.mean_difference * over_tasks > 0,
    }


def _marks(cells: pd.DataFrame, spec: TableSpec) -> "pd.Series[str]":
    """``better`` and ``worse`` for the cells that tables mark."""
    significant = cells["significant"].astype(bool)
    if not spec.reference_is_ours:
        return significant.map({True: "better", False: ""})
    others = cells["method"] != spec.reference
    beats_all = (
        (significant | ~others)
        .groupby([cells[name] for name in ("data_set", "model", "task", "metric")])
        .transform("all")
    )
    return (significant & others).map({True: "worse", False: ""}).mask(~others & beats_all, "better")


def _with_paper(cells: pd.DataFrame, number: int | None) -> pd.DataFrame:
    """Adds the paper's number to each cell that has one."""
    paper = [] if number is None else paper_table(number).itertuples()
    known = {(row.task, row.backbone, row.method, row.metric): float(str(row.value)) for row in paper}
    keys = zip(cells["paper_task"], cells["paper_model"], cells["method"], cells["metric"], strict=True)
    return cells.assign(paper=[known.get(key, np.nan) for key in keys]).drop(columns=["paper_task", "paper_model"])
