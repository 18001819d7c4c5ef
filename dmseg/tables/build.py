"""Numbers of a table: from annotations (Table 1), or from the per-case scores in the run store."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dmseg.data.prepared import PreparedTask
from dmseg.experiments.plan import PlannedTable
from dmseg.experiments.store import RunStore
from dmseg.labels.fusion import majority
from dmseg.metrics.agreement import rater_dice
from dmseg.stats.paired import PairedResult, compare, holm
from dmseg.tables.paper import paper_table
from dmseg.tables.spec import TableSpec

ALL = "all"
LOWER_IS_BETTER = ("ece",)


@dataclass(frozen=True)
class TableData:
    """A table ready to be rendered.

    Attributes:
        spec: what it shows.
        cells: one row a cell: ``task, task_title, metric, method, method_title, value, ...``; values in per cent.
        data: name of the data set.
        phantom: whether the data are generated.
        profile: size of the study.
        protocol: set of choices.
    """

    spec: TableSpec
    cells: pd.DataFrame
    data: str
    phantom: bool
    profile: str
    protocol: str


def agreement_cells(stores: Sequence[PreparedTask], disjoint: float) -> pd.DataFrame:
    """Cells of Table 1: per task the number of raters and the mean Dice of each rater with the majority.

    Mean over the raters of a case, then over cases. Two empty masks agree fully (Dice 1).

    Args:
        stores: prepared tasks.
        disjoint: what a rater without any overlap counts: 0, or 1 as in the released preparation script.
    """
    rows = []
    for prepared in stores:
        annotations = [prepared.annotations(case) for case in prepared.cases]
        scores = [rater_dice(item, majority(item), disjoint=disjoint).mean() for item in annotations]
        common = {"task": prepared.task.name, "task_title": prepared.task.title, "n": len(prepared.cases)}
        raters = float(max(len(case.raters) for case in prepared.cases))
        rows.append({**common, "metric": "raters", "value": raters})
        rows.append({**common, "metric": "dice", "value": 100 * float(np.mean(scores))})
    return _with_paper(pd.DataFrame(rows).assign(method="", method_title=""), 1)


def collect_cases(plan: PlannedTable, store: RunStore) -> pd.DataFrame:
    """Per-case scores of all finished runs of a table, tidy: ``task, cohort, method, run_id, case, ...``."""
    frames = [pd.DataFrame(columns=["task", "cohort", "method", "experiment_id", "run_id", "case"])]
    for (task, method), runs in plan.cells.items():
        for run in runs:
            if store.has_evaluation(run.run_id, run.evaluation_id):
                scores = store.read_cases(run.run_id, run.evaluation_id)
                named = {"task": task, "cohort": run.task.cohort, "method": method}
                frames.append(scores.assign(**named, experiment_id=run.experiment_id, run_id=run.run_id))
    return pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]


def comparison_cells(plan: PlannedTable, spec: TableSpec, cases: pd.DataFrame) -> pd.DataFrame:
    """Cells of a comparison of methods, with each method tested against the reference.

    A cell is the mean over all cases of its five folds; it stays empty until every run is there. The row "All" is the
    plain mean over the tasks; its test averages each patient over tasks first.

    Args:
        plan: the runs.
        spec: the table.
        cases: per-case scores (`collect_cases`).
    """
    rows = []
    for metric in spec.metrics:
        for task in plan.tasks:
            rows += _row(plan, spec, cases, task.name, task.title, metric)
        if len(plan.tasks) > 1:
            rows += _all_row(rows, plan, spec, cases, metric)
    return _with_paper(_with_holm(pd.DataFrame(rows)), spec.number)


def _row(
    plan: PlannedTable, spec: TableSpec, cases: pd.DataFrame, task: str, title: str, metric: str
) -> list[dict[str, object]]:
    """One row of the table: a cell for each method."""
    by_method = {column.key: _scores(plan, cases, task, column.key, metric) for column in spec.columns}
    rows = []
    for column in spec.columns:
        runs = plan.cells[task, column.key]
        scores = by_method[column.key]
        rows.append(
            {
                "task": task,
                "task_title": title,
                "metric": metric,
                "method": column.key,
                "method_title": column.title,
                "value": np.nan
                if scores is None
                else 100 * float(np.nanmean(scores))
                if scores.notna().any()
                else np.nan,
                "n": 0 if scores is None else int(scores.notna().sum()),
                "experiment_id": runs[0].experiment_id,
                "runs": " ".join(run.run_id for run in runs),
                **_tested(scores, by_method[spec.reference], metric, column.key == spec.reference),
            }
        )
    return rows


def _all_row(
    rows: list[dict[str, object]], plan: PlannedTable, spec: TableSpec, cases: pd.DataFrame, metric: str
) -> list[dict[str, object]]:
    """The mean over tasks, tested over patients."""
    patients = {column.key: _patients(plan, cases, column.key, metric) for column in spec.columns}
    found = []
    for column in spec.columns:
        own = [row["value"] for row in rows if row["metric"] == metric and row["method"] == column.key]
        scores = patients[column.key]
        found.append(
            {
                "task": ALL,
                "task_title": "All",
                "metric": metric,
                "method": column.key,
                "method_title": column.title,
                "value": float(np.mean(own)),  # type: ignore[arg-type]
                "n": 0 if scores is None else int(scores.notna().sum()),
                "experiment_id": "",
                "runs": "",
                **_tested(scores, patients[spec.reference], metric, column.key == spec.reference),
            }
        )
    return found


def _scores(plan: PlannedTable, cases: pd.DataFrame, task: str, method: str, metric: str) -> "pd.Series[float] | None":
    """Scores of one cell by case, or None while runs are missing."""
    chosen = cases[(cases["task"] == task) & (cases["method"] == method)]
    if chosen["run_id"].nunique() < len(plan.cells[task, method]):
        return None
    return chosen.set_index("case")[metric].astype(float)


def _patients(plan: PlannedTable, cases: pd.DataFrame, method: str, metric: str) -> "pd.Series[float] | None":
    """Mean over the tasks of each patient, by (cohort, case), or None while runs are missing."""
    if any(_scores(plan, cases, task.name, method, metric) is None for task in plan.tasks):
        return None
    chosen = cases[cases["method"] == method]
    return chosen.assign(score=chosen[metric].astype(float)).groupby(["cohort", "case"])["score"].mean()


def _tested(
    scores: "pd.Series[float] | None", reference: "pd.Series[float] | None", metric: str, is_reference: bool
) -> dict[str, object]:
    if scores is None or reference is None or is_reference:
        return {
            "p_value": np.nan,
            "mean_difference": np.nan,
            "effect_size": np.nan,
            "n_pairs": 0,
            "significant": False,
        }
    paired = pd.concat([scores, reference], axis=1, keys=["ours", "reference"])
    result: PairedResult = compare(
        paired["ours"].to_numpy(),
        paired["reference"].to_numpy(),
        higher_is_better=metric not in LOWER_IS_BETTER,
    )
    return {
        "p_value": result.p_value,
        "mean_difference": 100 * result.mean_difference,
        "effect_size": result.effect_size,
        "n_pairs": result.n,
        "significant": result.significant(),
    }


def _with_holm(cells: pd.DataFrame) -> pd.DataFrame:
    """Adds p-values corrected over all tests of one metric."""
    corrected = cells.groupby("metric")["p_value"].transform(lambda values: holm(values.to_numpy(dtype=float)))
    return cells.assign(p_holm=corrected)


def _with_paper(cells: pd.DataFrame, number: int) -> pd.DataFrame:
    """Adds the paper's number beside each cell that has one."""
    paper = paper_table(number)
    known = {(row.task, row.method or "", row.metric): float(str(row.value)) for row in paper.fillna("").itertuples()}
    keys = zip(cells["task"], cells["method"], cells["metric"], strict=True)
    return cells.assign(paper=[known.get(key, np.nan) for key in keys])


def write_cases(cases: pd.DataFrame, folder: Path, number: int) -> Path:
    """Writes the tidy per-case frame that a table was computed from."""
    path = folder / f"table{number}_cases.csv"
    cases.to_csv(path, index=False)
    return path
