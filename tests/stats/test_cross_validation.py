"""Intervals of cross-validated networks: against the general formulas, and whether they hold what they promise."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from dmseg.stats.cross_validation import (
    Shares,
    fold_interval,
    largest_fold,
    narrowed,
    same_splits_interval,
    task_interval,
)

SIZES = (9, 7, 8, 12, 5)


def folds_of(rng, sizes=SIZES, seeds=1, case=5.0, network=1.1, rest=6.0, split=0.0, mean=0.0):
    """Differences of cases: what their case, network, fold and chance make of them."""
    return [
        mean
        + rng.normal(0, split)
        + rng.normal(0, case, n)
        + rng.normal(0, network, (seeds, 1))
        + rng.normal(0, rest, (seeds, n))
        for n in sizes
    ]


def cluster_robust(folds):
    """Intercept of least squares, and its cluster-robust variance with the usual correction, written generally."""
    y = np.concatenate([np.asarray(fold).mean(0) for fold in folds])
    group = np.repeat(np.arange(len(folds)), [np.shape(fold)[1] for fold in folds])
    x = np.ones((len(y), 1))
    bread = np.linalg.inv(x.T @ x)
    beta = bread @ x.T @ y
    scores = [x[group == g].T @ (y - x @ beta)[group == g] for g in range(len(folds))]
    meat = sum(np.outer(score, score) for score in scores)
    n_groups, n, k = len(folds), *x.shape
    correction = n_groups / (n_groups - 1) * (n - 1) / (n - k)
    return float(beta[0]), float((correction * bread @ meat @ bread)[0, 0])


@pytest.mark.parametrize("seeds", [1, 3])
def test_folds_are_clusters_of_a_regression(seeds):
    folds = folds_of(np.random.default_rng(0), seeds=seeds, mean=2)
    found = fold_interval(folds)
    mean, variance = cluster_robust(folds)
    assert found.mean == pytest.approx(mean, rel=1e-12)
    assert found.variance == pytest.approx(variance, rel=1e-12)
    low, high = stats.t.interval(0.95, len(folds) - 1, mean, math.sqrt(variance))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert fold_interval(folds, 0.5).high < found.high


def test_equal_folds_give_the_t_test_of_their_means():
    folds = folds_of(np.random.default_rng(1), sizes=(6,) * 5, mean=1)
    means = [fold.mean() for fold in folds]
    expected = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    found = fold_interval(folds)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_one_value_a_case_may_be_given_plainly():
    folds = folds_of(np.random.default_rng(2))
    assert fold_interval([fold[0] for fold in folds]) == fold_interval(folds)
    assert fold_interval([*folds, [], np.empty((1, 0))]) == fold_interval(folds)


def test_fewer_than_three_folds_have_no_interval():
    found = fold_interval([[1.0, 2.0], [3.0]])
    assert found.mean == 2
    assert math.isnan(found.low)
    assert math.isnan(task_interval([[[[1.0], [2.0]]]]).high)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: fold_interval([]), "there are no values"),
        (lambda: fold_interval([[1.0], [math.nan], [2.0]]), "not finite"),
        (lambda: fold_interval([[1.0], [2.0], [3.0]], 95), "confidence is 95"),
        (lambda: same_splits_interval([[1.0, 2.0]]), "two or more seeds"),
        (lambda: same_splits_interval([np.ones((2, 1))]), "two cases"),
        (lambda: same_splits_interval([np.ones((2, 3)), np.ones((3, 3))]), "the same two or more seeds"),
        (lambda: task_interval([[[[1.0]] * 3, [[1.0]] * 4]]), "different numbers of folds"),
        (lambda: task_interval([]), "there are no values; give at least one cohort"),
        (lambda: task_interval([[]]), "there are no values; give at least one cohort"),
        (lambda: fold_interval([[1.0], [2.0]], 95), "confidence is 95"),
        (lambda: fold_interval([1.0, 2.0, 3.0]), r"folds\[0\] has shape \(\); give the values of its cases"),
        (lambda: fold_interval([[1.0], np.ones((1, 2, 3))]), r"folds\[1\] has shape \(1, 2, 3\)"),
        (lambda: narrowed(Shares(1, 0, 0, 0), 0, 3), "n_seeds is 0 and more 3"),
    ],
)
def test_what_cannot_be_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_folds_are_lists_of_arrays_tensors_or_series():
    folds = folds_of(np.random.default_rng(3), seeds=2)
    expected = fold_interval(folds)
    for kind in (torch.tensor, pd.DataFrame, np.ndarray.tolist):
        found = fold_interval(map(kind, folds))
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    cases = pd.DataFrame({"fold": [1, 1, 2, 3, 3], "dice": [0.1, 0.2, 0.4, 0.3, 0.5]}).groupby("fold")["dice"]
    by_fold = dict(iter(cases))
    assert fold_interval(list(by_fold.values())) == fold_interval([[0.1, 0.2], [0.4], [0.3, 0.5]])
    for call in (fold_interval, same_splits_interval, task_interval):
        with pytest.raises(TypeError, match="is a dict; give a list of its values"):
            call(by_fold)  # the keys are numbers, too
    with pytest.raises(TypeError, match=r"folds\[0\] is a tuple that cannot be converted"):
        fold_interval(cases)


def test_the_share_of_the_largest_fold():
    assert largest_fold([[0.0]] * 4 + [[0.0] * 4]) == 0.5


def test_a_mean_over_tasks():
    rng = np.random.default_rng(3)
    one, two = folds_of(rng), folds_of(rng, mean=4)
    alone = task_interval([[one]])
    expected = fold_interval(one)
    assert (alone.mean, alone.variance, alone.degrees) == (
        pytest.approx(expected.mean),
        pytest.approx(expected.variance),
        4,
    )
    twice = task_interval([[one, one]])  # the same task again says nothing new
    assert (twice.low, twice.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    apart = task_interval([[one], [two]])
    other = fold_interval(two)
    assert apart.mean == pytest.approx((expected.mean + other.mean) / 2)
    assert apart.variance == pytest.approx((expected.variance + other.variance) / 4)
    assert 4 <= apart.degrees <= 8
    opposed = task_interval([[one, [-fold for fold in one]]])  # shared patients may cancel out
    assert opposed.variance == pytest.approx(0, abs=1e-12)


def test_tasks_of_a_cohort_that_lack_a_fold():
    rng = np.random.default_rng(4)
    one, two = folds_of(rng), folds_of(rng)
    lacking = task_interval([[one, [*two[:4], []]]])
    share = np.array([fold.size for fold in two[:4]]) / sum(fold.size for fold in two[:4])
    scores = np.zeros(5)
    for folds, weight in ((one, np.array(SIZES) / sum(SIZES)), (two[:4], share)):
        means = np.array([fold.mean() for fold in folds])
        scores[: len(means)] += weight * (means - weight @ means) / 2
    assert lacking.variance == pytest.approx(5 / 4 * scores @ scores)


def test_mean_squares_of_a_balanced_table():
    """One fold, against the textbook's two-way analysis of variance without replication, summed in loops."""
    table = folds_of(np.random.default_rng(5), sizes=(6,), seeds=4)[0]
    seeds, cases = table.shape
    grand = table.mean()
    between = {
        "cases": sum(seeds * (table[:, c].mean() - grand) ** 2 for c in range(cases)) / (cases - 1),
        "networks": sum(cases * (table[s].mean() - grand) ** 2 for s in range(seeds)) / (seeds - 1),
        "rest": sum(
            (table[s, c] - table[s].mean() - table[:, c].mean() + grand) ** 2
            for s, c in itertools.product(range(seeds), range(cases))
        )
        / ((cases - 1) * (seeds - 1)),
    }
    found, shares = same_splits_interval([table])
    total = between["cases"] + between["networks"] - between["rest"]
    expected = max(total, between["cases"], between["networks"]) / table.size
    assert found.variance == pytest.approx(expected)
    assert found.mean == pytest.approx(grand)
    parts = {name: max(between[name] - between["rest"], 0) for name in ("cases", "networks")} | {
        "rest": between["rest"]
    }
    for name, part in parts.items():
        assert getattr(shares, name) == pytest.approx(part / sum(parts.values()))
    assert shares.split == 0


def test_shares_find_where_the_variance_comes_from():
    """Averaged over many data sets, the parts are those that the values were made of."""
    rng = np.random.default_rng(6)
    sizes, seeds, case, network, rest, split = (10,) * 5, 3, 4.0, 2.0, 3.0, 1.5
    variance, clustered = [], []
    for _ in range(1500):
        folds = folds_of(rng, sizes, seeds, case, network, rest, split)
        variance.append(same_splits_interval(folds)[0].variance)
        clustered.append(fold_interval(folds).variance)
    same = case**2 / 50 + network**2 / 15 + rest**2 / 150
    assert np.mean(variance) == pytest.approx(same, rel=0.05)
    assert np.mean(clustered) == pytest.approx(same + split**2 / 5, rel=0.05)


def test_more_seeds_narrow_what_networks_make_wide():
    folds = folds_of(np.random.default_rng(7), sizes=(40,) * 5, seeds=2, case=1, network=3, rest=1)
    _, shares = same_splits_interval(folds)
    assert shares.networks > 0.5
    assert 0 < narrowed(shares, 2, 1) < narrowed(shares, 2, 6) < 1
    assert narrowed(shares, 2, 10**9) == pytest.approx(1 - math.sqrt(1 - shares.networks - shares.rest), rel=1e-3)


@pytest.mark.parametrize("network", [0.3, 1.1, 2.4])
@pytest.mark.parametrize(("n_cases", "seeds"), [(35, 1), (420, 1), (35, 3), (420, 3)])
def test_without_a_difference_one_interval_in_twenty_excludes_zero(n_cases, seeds, network):
    """1,000 tables: the intervals reject 3 to 7 %; Wilcoxon's test over cases far more where noise is large."""
    rng = np.random.default_rng([n_cases, seeds, int(10 * network)])
    rejected = over_cases = 0
    for _ in range(1000):
        folds = folds_of(rng, (n_cases // 5,) * 5, seeds, network=network)
        found = fold_interval(folds)
        rejected += found.low > 0 or found.high < 0
        if network == 2.4:
            over_cases += stats.wilcoxon(np.concatenate([fold.mean(0) for fold in folds])).pvalue < 0.05
    assert 30 <= rejected <= 70
    if network == 2.4 and n_cases == 420:
        assert over_cases > 300


def test_tasks_that_share_patients_keep_the_promise():
    rng = np.random.default_rng(8)
    rejected = 0
    for _ in range(1000):
        cohorts = []
        for n_tasks, n_cases in ((1, 39), (1, 34), (3, 28), (2, 55)):
            shared = folds_of(rng, [n_cases // 5] * 5, network=0, rest=0)
            cohorts.append(
                [
                    [own + common for own, common in zip(folds_of(rng, [n_cases // 5] * 5), shared, strict=True)]
                    for _ in range(n_tasks)
                ]
            )
        found = task_interval(cohorts)
        rejected += found.low > 0 or found.high < 0
    assert 30 <= rejected <= 70
