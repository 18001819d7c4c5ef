"""Confidence intervals for means of cross-validated, repeatedly trained networks.

Two networks trained by the same command with another seed differ, and a test over cases does not see that noise. The
interval of `fold_interval` does: it treats the folds as clusters, as each fold has its own networks, and is valid
with a single seed. With two or more seeds, `same_splits_interval` says how much of the variance comes from cases,
networks and the split. The derivation and the simulations behind both are in ``docs/explanation/statistics.md``.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit  # quantiles of the t distribution; importing scipy.stats is slow

from dmseg.errors import kind_of, shown
from dmseg.stats._check import as_numbers

Array = npt.NDArray[np.float64]

LEAST_FOLDS = 3
"""Minimum number of folds with cases for `fold_interval`."""
LARGEST_SHARE = 0.4
"""Folds with a larger share of the cases make the interval too narrow: with 1, 1, 1, 1, 5 cases 8-12 % lie outside."""


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval.

    Attributes:
        mean: the mean.
        low: lower end; NaN where there is no interval.
        high: upper end; NaN where there is no interval.
        variance: estimated variance of the mean.
        degrees: degrees of freedom of the t distribution.
    """

    mean: float
    low: float
    high: float
    variance: float
    degrees: float


@dataclass(frozen=True)
class Shares:
    """Shares of the variance of a mean, from 0 to 1; they add up to 1 unless the variance is 0.

    Attributes:
        cases: by the choice of cases.
        networks: by retraining.
        split: by the split into folds: what the folds as clusters show beyond the other three.
        rest: by what differs from case to case and run to run.
    """

    cases: float
    networks: float
    split: float
    rest: float


def fold_interval(folds: Iterable[npt.ArrayLike], confidence: float = 0.95) -> Interval:
    """Interval of the mean over cases, with folds as clusters.

    With d_f the mean of fold f and w_f its share of the cases, the mean is d = sum w_f d_f, its variance
    V = F / (F - 1) sum w_f^2 (d_f - d)^2, and the interval d +- t_{F-1} sqrt(V). This is the cluster-robust variance of
    an intercept (CR1).

    Args:
        folds: for each fold the values of its cases, (n_f,), or those of each seed, (S, n_f). Folds without cases are
            left out.
        confidence: of the interval, in (0, 1).

    Returns:
        The interval; its ends are NaN with fewer than `LEAST_FOLDS` folds.

    Raises:
        TypeError: if `folds` is not a list, or a fold is not an array of numbers.
        ValueError: if there are no values, some are not finite, a fold has another shape, or `confidence` is out of
            range.
    """
    _check_confidence(confidence)
    means, weights = _fold_means(_tables(folds))
    mean = float(weights @ means)
    n_folds = len(means)
    if n_folds < LEAST_FOLDS:
        return Interval(mean, math.nan, math.nan, math.nan, n_folds - 1)
    variance = n_folds / (n_folds - 1) * float(np.sum((weights * (means - mean)) ** 2))
    return _interval(mean, variance, n_folds - 1, confidence)


def task_interval(cohorts: Iterable[Iterable[Iterable[npt.ArrayLike]]], confidence: float = 0.95) -> Interval:
    """Interval of the plain mean over tasks, of which those of one cohort share patients and folds.

    With u_f = sum over the cohort's tasks of w_tf (d_tf - d_t) / T, a cohort's variance is
    V_c = F / (F - 1) sum_f u_f^2. Cohorts are independent: V = sum V_c, with V^2 / sum (V_c^2 / (F_c - 1)) degrees of
    freedom.

    Args:
        cohorts: for each cohort its tasks, for each task its folds as for `fold_interval`. Tasks of one cohort have the
            same folds in the same order; a fold without cases is empty.
        confidence: of the interval, in (0, 1).

    Returns:
        The interval; its ends are NaN if a cohort has fewer than `LEAST_FOLDS` folds.

    Raises:
        TypeError: as for `fold_interval`.
        ValueError: as for `fold_interval`, or if tasks of a cohort have different numbers of folds.
    """
    _check_confidence(confidence)
    tables = [[_tables(folds) for folds in _items("cohort", tasks)] for tasks in _items("cohorts", cohorts)]
    n_tasks = sum(map(len, tables))
    if not all(tables) or not n_tasks:
        raise ValueError("there are no values; give at least one cohort, and each cohort at least one task")
    means, variances, degrees = [], [], []
    for tasks in tables:
        if len({len(folds) for folds in tasks}) > 1:
            raise ValueError("tasks of one cohort have different numbers of folds; give empty folds where one has none")
        scores = np.zeros(len(tasks[0]))
        for folds in tasks:
            filled = np.array([fold.size > 0 for fold in folds])
            fold_means, weights = _fold_means(folds)
            mean = float(weights @ fold_means)
            scores[filled] += weights * (fold_means - mean) / n_tasks
            means.append(mean)
        n_folds = int(np.sum([any(folds[index].size > 0 for folds in tasks) for index in range(len(scores))]))
        if n_folds < LEAST_FOLDS:
            return Interval(float(np.mean(means)), math.nan, math.nan, math.nan, n_folds - 1)
        variances.append(n_folds / (n_folds - 1) * float(scores @ scores))
        degrees.append(n_folds - 1)
    total = sum(variances)
    spread = sum(one**2 / freedom for one, freedom in zip(variances, degrees, strict=True))
    return _interval(float(np.mean(means)), total, total**2 / spread if spread else sum(degrees), confidence)


def same_splits_interval(folds: Iterable[npt.ArrayLike], confidence: float = 0.95) -> tuple[Interval, Shares]:
    """Interval of the mean over cases for the same splits, and where its variance comes from.

    Within folds, cases and networks are crossed: mean squares of both and of the rest, pooled over folds, each divided
    by the number of values, add up to v_cases + v_networks - v_rest (not below the larger of the first two), with
    Satterthwaite's degrees of freedom. Unequal folds count by the harmonic mean of their sizes.

    Args:
        folds: for each fold the values of its cases under each seed, (S, n_f), of the same S >= 2.
        confidence: of the interval, in (0, 1).

    Returns:
        The interval, and the shares of the variance of the mean; estimates below 0 count as 0. The split's share is 0
        where there are fewer than `LEAST_FOLDS` folds.

    Raises:
        TypeError: as for `fold_interval`.
        ValueError: as for `fold_interval`, or if a fold has fewer than two seeds or cases.
    """
    _check_confidence(confidence)
    tables = [table for table in _tables(folds) if table.size]
    seeds = set(map(len, tables))
    if len(seeds) != 1 or min(seeds) < 2:
        raise ValueError("every fold needs the values of its cases under the same two or more seeds, (S, n_f)")
    if min(table.shape[1] for table in tables) < 2:
        raise ValueError("every fold needs at least two cases")
    n_seeds, n_folds = seeds.pop(), len(tables)
    sizes = np.array([table.shape[1] for table in tables])
    squares, freedom = np.zeros(3), np.zeros(3)
    for table in tables:
        mean, by_case, by_seed = table.mean(), table.mean(0), table.mean(1)
        rest = table - by_case - by_seed[:, None] + mean
        n_cases = table.shape[1]
        squares += (
            n_seeds * np.sum((by_case - mean) ** 2),
            n_cases * np.sum((by_seed - mean) ** 2),
            np.sum(rest**2),
        )
        freedom += n_cases - 1, n_seeds - 1, (n_cases - 1) * (n_seeds - 1)
    n_values = n_folds * n_seeds * n_folds / np.sum(1 / sizes)
    parts = squares / freedom / n_values  # cases, networks, rest
    variance = float(parts[0] + parts[1] - parts[2])  # but at least the larger of the first two
    larger = int(np.argmax(parts[:2]))
    if variance <= parts[larger]:
        variance, degrees = float(parts[larger]), float(freedom[larger])
    else:
        # Satterthwaite's degrees of freedom
        degrees = float(variance**2 / np.sum(parts**2 / freedom))
    means, weights = _fold_means(tables)
    clustered = fold_interval(tables, confidence).variance
    split = max(clustered - variance, 0.0) if n_folds >= LEAST_FOLDS else 0.0
    amounts = np.maximum([parts[0] - parts[2], parts[1] - parts[2], split, parts[2]], 0)
    shares = amounts / amounts.sum() if amounts.sum() else amounts
    return _interval(float(weights @ means), variance, degrees, confidence), Shares(*map(float, shares))


def narrowed(shares: Shares, n_seeds: int, more: int) -> float:
    """Fraction of the width of an interval that further seeds would remove.

    Args:
        shares: of the variance, under `n_seeds`.
        n_seeds: seeds behind it, at least 1.
        more: further seeds, at least 0.

    Raises:
        ValueError: if a number of seeds is out of range.
    """
    if n_seeds < 1 or more < 0:
        raise ValueError(f"n_seeds is {n_seeds} and more {more}; give at least 1 seed, and 0 or more further ones")
    trained = shares.networks + shares.rest
    return 1 - math.sqrt(1 - trained + trained * n_seeds / (n_seeds + more))


def largest_fold(folds: Iterable[npt.ArrayLike]) -> float:
    """Share of the cases that the largest fold has; above `LARGEST_SHARE` the interval is too narrow."""
    return float(_fold_means(_tables(folds))[1].max())


def _items(name: str, values: object) -> list[Any]:
    """The items of a list, but not the keys of a mapping."""
    if isinstance(values, Mapping | str) or not isinstance(values, Iterable):
        advice = "a list of its values" if isinstance(values, Mapping) else "a list"
        raise TypeError(f"{name} is {kind_of(values)}; give {advice}")
    return list(values)


def _tables(folds: object) -> list[Array]:
    """The values of each fold, (S, n_f)."""
    tables = []
    for index, fold in enumerate(_items("folds", folds)):
        table = as_numbers(f"folds[{index}]", fold)
        if table.ndim not in (1, 2):
            raise ValueError(
                f"folds[{index}] has shape {table.shape}; give the values of its cases, (n_f,), or those of each seed, "
                "(S, n_f)"
            )
        if not np.isfinite(table).all():
            raise ValueError(f"folds[{index}] has values that are not finite; leave out cases that have none")
        tables.append(np.atleast_2d(table))
    return tables


def _fold_means(tables: Sequence[Array]) -> tuple[Array, Array]:
    """Mean of each fold that has cases, and its share of the cases."""
    filled = [table for table in tables if table.size]
    if not filled:
        raise ValueError("there are no values")
    sizes = np.array([table.shape[1] for table in filled], np.float64)
    return np.array([table.mean() for table in filled]), sizes / sizes.sum()


def _check_confidence(confidence: object) -> None:
    if not isinstance(confidence, float | np.floating) or not 0 < confidence < 1:
        raise ValueError(f"confidence is {shown(confidence)}; give a number between 0 and 1")


def _interval(mean: float, variance: float, degrees: float, confidence: float) -> Interval:
    half = float(stdtrit(degrees, (1 + confidence) / 2)) * math.sqrt(variance)
    return Interval(mean, mean - half, mean + half, variance, degrees)
