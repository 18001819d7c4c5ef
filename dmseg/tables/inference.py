"""Comparing columns of a table: a test over cases, and intervals that also account for the noise of training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from dmseg.stats.cross_validation import (
    Interval,
    fold_interval,
    largest_fold,
    narrowed,
    same_splits_interval,
    task_interval,
)
from dmseg.stats.paired import ZeroMethod, compare, least_p_value
from dmseg.tables.columns import Score

NAN = math.nan
ALPHA = 0.05
MORE_SEEDS = 3
"""Number of additional seeds that `narrowed_by` refers to."""

UNTESTED: dict[str, object] = {
    "p_value": NAN, "least_p_value": NAN, "mean_difference": NAN, "mean_difference_tasks": NAN, "effect_size": NAN,
    "n_pairs": 0, "n_value_pairs": 0, "n_dropped": 0, "test_better": False, "n_seeds_compared": 0,
    "sign_agreement": NAN, "diff_ci_low": NAN, "diff_ci_high": NAN, "diff_better": False, "largest_fold": NAN,
    "diff_same_splits_low": NAN, "diff_same_splits_high": NAN, "share_cases": NAN, "share_networks": NAN,
    "share_split": NAN, "share_rest": NAN, "narrowed_by": NAN,
}  # fmt: skip
"""Values of a cell that is not tested."""


@dataclass(frozen=True)
class Inference:
    """How the cells of a table are tested.

    Attributes:
        test: the test over cases.
        zero_method: how the Wilcoxon test treats pairs that do not differ.
        holm: whether cells are marked by the p-value after Holm's correction for all tests of a score in the table.
    """

    test: Literal["wilcoxon", "permutation"] = "wilcoxon"
    zero_method: ZeroMethod = "wilcox"
    holm: bool = False


DEFAULT = Inference()


@dataclass(frozen=True)
class TaskScores:
    """Scores of a column, or differences of two columns, for the cases of one task.

    Attributes:
        values: one row for each case, indexed by (cohort, case), and one column for each seed; NaN where there is none.
        folds: the fold that validates each case, in the same order.
        groups: the group of each case (``folds.groups``), whose cases count as one in a test; empty if every case is on
            its own.
    """

    values: pd.DataFrame
    folds: "pd.Series[int]"
    groups: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def means(self) -> "pd.Series[float]":
        """Mean of each case over the seeds that have a value."""
        return self.values.mean(axis=1)

    @cached_property
    def complete_means(self) -> "pd.Series[float]":
        """Mean of each case over seeds; NaN unless every seed has a value."""
        return self.values.mean(axis=1, skipna=False)

    @cached_property
    def by_fold(self) -> dict[int, npt.NDArray[np.float64]]:
        """The values (S, n_f) of each fold; only cases that every seed has a value for."""
        values, folds = self.values.to_numpy(dtype=np.float64), self.folds.to_numpy()
        complete = np.isfinite(values).all(axis=1)
        return {int(fold): values[complete & (folds == fold)].T for fold in np.unique(folds[complete])}


def by_patient(tasks: Sequence["pd.Series[float]"]) -> "pd.Series[float]":
    """Mean of each patient over the tasks that have a value; NaN if none has."""
    if len(tasks) == 1 and tasks[0].index.is_unique and tasks[0].index.is_monotonic_increasing:
        return tasks[0]
    return pd.concat(list(tasks)).groupby(level=[0, 1]).mean()


def by_group(values: "pd.Series[float]", groups: Mapping[str, str]) -> "pd.Series[float]":
    """Mean of each group over its cases that have a value; the values themselves if there are no groups."""
    if not groups:
        return values
    cohorts, cases = (values.index.get_level_values(level) for level in (0, 1))
    return values.groupby([cohorts, cases.map(groups)]).mean()


def seed_means(tasks: Sequence[TaskScores]) -> "pd.Series[float]":
    """For each seed the mean over tasks of the means over cases; NaN if a task has no value."""
    means = [task.values.mean() for task in tasks]
    return means[0] if len(means) == 1 else pd.concat(means, axis=1).mean(axis=1, skipna=False)


def cell_numbers(tasks: Sequence[TaskScores] | None, score: Score) -> dict[str, object]:
    """The number of a cell, how much it is based on, and its interval, in the unit of the table.

    Args:
        tasks: scores of each task of the row under the seeds that count; None if there are none.
        score: the score.
    """
    if tasks is None:
        return {"value": NAN, "n": 0, "n_values": 0, "n_seeds": 0, "sd_seeds": NAN, "ci_low": NAN, "ci_high": NAN}
    means = score.factor * seed_means(tasks)
    found = interval(tasks)
    return {
        "value": float(means.mean()),
        "n": int(by_patient([task.means for task in tasks]).count()),
        "n_values": sum(int(task.means.count()) for task in tasks),
        "n_seeds": len(means),
        "sd_seeds": float(means.std(ddof=1)),
        "ci_low": score.factor * found.low,
        "ci_high": score.factor * found.high,
    }


def differences(ours: Sequence[TaskScores], other: Sequence[TaskScores], score: Score) -> list[TaskScores] | None:
    """Differences of two columns, ours - other, for each task, under the seeds that both have; None if there are none.

    A score that counts by its absolute value (a bias) is first multiplied by the sign of its column's mean, so that
    the mean of the differences is that of the absolute means.
    """
    common = [seed for seed in ours[0].values.columns if seed in other[0].values.columns]
    if not common:
        return None
    columns: list[list[pd.DataFrame]] = []
    for tasks in (ours, other):
        means = seed_means(tasks) if score.absolute else None
        negative = means is not None and means[means.index.isin(common)].mean() < 0
        chosen = [task.values if list(task.values) == common else task.values[common] for task in tasks]
        columns.append([-1.0 * values for values in chosen] if negative else chosen)
    found = []
    for one, two, mine, others in zip(*columns, ours, other, strict=True):
        values, folds = one - two, mine.folds
        if not one.index.equals(two.index):  # the difference also has the cases that only one column has
            folds = folds.combine_first(others.folds).astype(int).reindex(values.index)
        found.append(TaskScores(values, folds, {**others.groups, **mine.groups}))
    return found


def comparison_numbers(tasks: Sequence[TaskScores], score: Score, inference: Inference) -> dict[str, object]:
    """The test over cases and the intervals of a difference, in the unit of the table.

    Args:
        tasks: the differences of each task of the row (`differences`).
        score: the score, which determines the better side.
        inference: the test.
    """
    complete = [task.complete_means for task in tasks]
    groups = [by_group(values, task.groups) for values, task in zip(complete, tasks, strict=True)]
    patients = by_patient(groups).to_numpy()
    options = {"test": inference.test, "zero_method": inference.zero_method}
    result = compare(patients, np.zeros_like(patients), higher_is_better=not score.lower_is_better, **options)  # type: ignore[arg-type]
    over_tasks = float(np.mean([item.mean() for item in complete]))
    n_pairs = sum(int(item.count()) for item in complete)
    n_seeds = tasks[0].values.shape[1]
    numbers = UNTESTED | {
        "p_value": result.p_value,
        "least_p_value": least_p_value(patients, **options),  # type: ignore[arg-type]
        "mean_difference": score.factor * result.mean_difference,
        "mean_difference_tasks": score.factor * over_tasks,
        "effect_size": result.effect_size,
        "n_pairs": result.n,
        "n_value_pairs": n_pairs,
        "n_dropped": sum(map(len, complete)) - n_pairs,
        "test_better": result.better and result.mean_difference * over_tasks > 0,
        "n_seeds_compared": n_seeds,
    }
    folds = [list(task.by_fold.values()) for task in tasks]
    if not all(folds):  # a task has no case that every seed has a value for
        return numbers
    found = interval(tasks)
    of_seeds = np.mean([np.concatenate(of_task, axis=1).mean(axis=1) for of_task in folds], axis=0)
    numbers |= {
        "sign_agreement": float(np.mean(np.sign(of_seeds) == np.sign(found.mean))),
        "diff_ci_low": score.factor * found.low,
        "diff_ci_high": score.factor * found.high,
        "diff_better": found.high < 0 if score.lower_is_better else found.low > 0,
        "largest_fold": max(map(largest_fold, folds)),
    }
    if len(tasks) > 1 or n_seeds < 2 or min(table.shape[1] for table in folds[0]) < 2:
        return numbers
    same, shares = same_splits_interval(folds[0])
    return numbers | {
        "diff_same_splits_low": score.factor * same.low,
        "diff_same_splits_high": score.factor * same.high,
        **{f"share_{name}": value for name, value in vars(shares).items()},
        "narrowed_by": narrowed(shares, n_seeds, MORE_SEEDS),
    }


def interval(tasks: Sequence[TaskScores]) -> Interval:
    """The interval of a row's mean with folds as clusters; tasks of one cohort share their folds.

    Its ends are NaN if a task has no case that every seed has a value for, a cohort has too few folds, or a patient is
    in different folds in two tasks of a cohort, as it can be if they have different cases.
    """
    tables = [task.by_fold for task in tasks]
    if not all(tables):
        return Interval(NAN, NAN, NAN, NAN, NAN)
    if len(tables) == 1:
        return fold_interval(list(tables[0].values()))
    if (pd.concat([task.folds for task in tasks]).groupby(level=[0, 1]).nunique() > 1).any():
        return Interval(NAN, NAN, NAN, NAN, NAN)
    cohorts: dict[str, list[dict[int, npt.NDArray[np.float64]]]] = {}
    for task, table in zip(tasks, tables, strict=True):
        cohorts.setdefault(str(task.values.index[0][0]), []).append(table)
    none = np.empty((1, 0))
    return task_interval(
        [
            [[table.get(fold, none) for fold in sorted(set().union(*of_cohort))] for table in of_cohort]
            for of_cohort in cohorts.values()
        ]
    )
