"""Paired tests against scipy, exhaustive enumeration, closed forms and hand-worked corrections."""

import warnings
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dmseg.errors import UserError
from dmseg.stats.paired import (
    PairedResult,
    bootstrap_p_value,
    compare,
    holm,
    least_p_value,
    rank_biserial,
    sign_flip_p_value,
)

TESTS = ("wilcoxon", "permutation", "bootstrap")


def make_pairs(seed=0, n=40, shift=0.1):
    rng = np.random.default_rng(seed)
    reference = rng.uniform(0.3, 0.9, n)
    return reference + rng.normal(shift, 0.2, n), reference


@pytest.mark.parametrize("zero_method", ["wilcox", "pratt", "zsplit"])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [1, 9, 13, 14, 40, 50, 51, 80])
def test_wilcoxon_is_that_of_scipy(zero_method, ties, n):
    ours, reference = make_pairs(n=n)
    if ties:
        ours, reference = np.round(ours * 8) / 8, np.round(reference * 8) / 8
    expected = stats.wilcoxon(ours, reference, zero_method=zero_method)
    found = compare(ours, reference, zero_method=zero_method)
    assert (found.statistic, found.p_value) == pytest.approx((expected.statistic, expected.pvalue), abs=1e-14)
    assert found.mean_difference == pytest.approx(ours.mean() - reference.mean(), abs=1e-14)


@pytest.mark.parametrize("test", ["wilcoxon", "permutation"])
def test_five_pairs_never_give_less_than_one_in_sixteen(test):
    """All five differences of one sign are two of 2^5 equally likely sign patterns."""
    found = compare([0.9, 0.8, 0.7, 0.95, 0.6], [0.1, 0.2, 0.3, 0.15, 0.25], test=test)
    assert found.p_value == pytest.approx(2 / 2**5, abs=1e-15)
    assert found.better
    assert not found.significant()
    assert found.effect_size == 1.0


@pytest.mark.parametrize("test", TESTS)
def test_a_clear_difference_is_significant_in_its_direction_only(test):
    ours, reference = make_pairs(n=60, shift=0.2)
    up, down = compare(ours, reference, test=test), compare(reference, ours, test=test)
    assert up.significant()
    assert not down.better
    assert down.p_value < 0.05
    assert not down.significant()
    errors = compare(reference, ours, test=test, higher_is_better=False)
    assert errors.significant()
    assert errors.mean_difference == -up.mean_difference < 0
    assert not up.significant(alpha=up.p_value)
    assert (up.n, up.n_dropped) == (60, 0)


def test_a_mean_raised_by_one_case_is_not_better_where_ranks_say_worse():
    difference = np.array([*np.linspace(-0.02, -0.01, 30), 3.0])
    found = compare(difference, np.zeros(31))
    assert found.mean_difference > 0 > found.effect_size
    assert found.p_value < 0.05
    assert not found.significant()


@pytest.mark.parametrize("test", TESTS)
def test_missing_values_drop_the_pair(test):
    ours, reference = make_pairs(n=20)
    ours[[1, 4]], reference[[4, 7]] = np.nan, np.nan
    kept = [case for case in range(20) if case not in (1, 4, 7)]
    found, expected = compare(ours, reference, test=test), compare(ours[kept], reference[kept], test=test)
    assert found == PairedResult(**{**vars(expected), "n_dropped": 3})
    assert found.n == 17


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("zero_method", ["wilcox", "pratt", "zsplit"])
@pytest.mark.parametrize("n", [1, 5, 60])
def test_no_difference_at_all(test, zero_method, n):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compare(np.full(n, 0.7), np.full(n, 0.7), test=test, zero_method=zero_method)
    assert (found.p_value, found.statistic, found.mean_difference, found.effect_size) == (1.0, 0.0, 0.0, 0.0)
    assert not found.better


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("ours", [[], [np.nan, 0.5]])
def test_no_pairs_at_all(test, ours):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compare(ours, [0.5, np.nan][: len(ours)], test=test)
    assert (found.n, found.n_dropped) == (0, len(ours))
    assert np.isnan([found.p_value, found.statistic, found.mean_difference, found.effect_size]).all()
    assert not found.significant()


@pytest.mark.parametrize("test", TESTS)
def test_one_pair_proves_nothing(test):
    assert compare([0.9], [0.1], test=test).p_value == 1.0


def enumerate_swaps(difference):
    """p over all 2^n swaps, in whole numbers."""
    observed = abs(sum(difference))
    sums = [
        abs(sum(s * d for s, d in zip(signs, difference, strict=True)))
        for signs in product((-1, 1), repeat=len(difference))
    ]
    return sum(value >= observed for value in sums) / len(sums)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.integers(-9, 9), min_size=1, max_size=8))
def test_permutation_is_exhaustive_for_few_pairs(difference):
    found = sign_flip_p_value(np.array(difference) / 10)
    assert found == pytest.approx(enumerate_swaps(difference), abs=1e-15)


def test_random_permutation_comes_near_the_exhaustive_one():
    difference = np.array([3, -1, 4, 1, -5, 9, 2, 6, -5, 3])
    exact = enumerate_swaps(difference.tolist())
    sampled = sign_flip_p_value(difference / 10, n_resamples=1000, seed=1)
    assert sampled != exact
    assert sampled == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 1000))
    assert sign_flip_p_value(np.full(40, 0.1), n_resamples=999) == 1 / 1000


def test_bootstrap_agrees_with_its_interval_and_with_the_t_test():
    decided = []
    for seed in range(30):
        ours, reference = make_pairs(seed, n=80, shift=0.05)
        found = compare(ours, reference, test="bootstrap", n_resamples=4000, seed=seed)
        resamples = np.random.default_rng(100 + seed).choice(ours - reference, size=(4000, 80))
        low, high = np.quantile(resamples.mean(axis=1), [0.025, 0.975])
        if abs(found.p_value - 0.05) > 0.015:  # two sets of resamples
            assert (found.p_value < 0.05) == (low > 0 or high < 0)
            decided.append(found.p_value < 0.05)
        assert found.p_value == pytest.approx(stats.ttest_rel(ours, reference).pvalue, abs=0.05)
    assert 0 < sum(decided) < len(decided)


def test_bootstrap_is_two_sided_and_never_zero():
    difference = np.linspace(0.1, 0.2, 30)
    assert bootstrap_p_value(difference, n_resamples=999) == 2 / 1000 == bootstrap_p_value(-difference, n_resamples=999)
    assert bootstrap_p_value(np.array([0.1, -0.1] * 20)) > 0.9


def test_resamples_depend_on_the_seed_alone():
    ours, reference = make_pairs(n=30, shift=0.03)
    for test in ("permutation", "bootstrap"):
        p_values = [compare(ours, reference, test=test, seed=seed).p_value for seed in (3, 3, 4)]
        assert p_values[0] == p_values[1] != p_values[2]


def test_rank_biserial_by_hand():
    # |differences| 1, 2, 2, 5 have ranks 1, 2.5, 2.5, 4: (1 - 2.5 + 2.5 + 4) / 10
    assert rank_biserial(np.array([0.1, -0.2, 0.2, 0.5, 0.0])) == pytest.approx(0.5)


def test_rank_biserial_from_the_rank_sums_of_scipy():
    ours, reference = make_pairs(n=25)
    above = stats.wilcoxon(ours, reference, alternative="greater").statistic
    assert rank_biserial(ours - reference) == pytest.approx(2 * above / (25 * 26 / 2) - 1, abs=1e-14)


def test_holm_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04, times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04 -> never falling: 0.06
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.01, np.nan, 0.6, 0.7]), [0.03, np.nan, 1.0, 1.0])
    assert holm([]).size == 0
    assert np.isnan(holm([np.nan])).all()


@pytest.mark.parametrize("name", ["test", "zero_method"])
def test_unknown_choices_are_refused(name):
    with pytest.raises(UserError, match=f"{name} is 'best'"):
        compare([0.1], [0.2], **{name: "best"})


@pytest.mark.parametrize(("ours", "reference"), [([0.1, 0.2], [0.1]), ([[0.1]], [[0.2]])])
def test_values_that_are_no_pairs_are_refused(ours, reference):
    with pytest.raises(ValueError, match="vectors"):
        compare(ours, reference)


def test_lists_tensors_and_series_are_taken_and_missing_values_left_out():
    ours, reference = make_pairs(n=12)
    ours[3] = np.nan
    expected = compare(ours, reference)
    listed = [None if np.isnan(value) else value for value in ours]
    for one, two in ((listed, list(reference)), (torch.tensor(ours, requires_grad=True), torch.tensor(reference))):
        assert compare(one, two) == expected
    assert compare(torch.tensor([1.0, 3.0]).bfloat16(), [0.0, 1.0]) == compare([1.0, 3.0], [0.0, 1.0])
    cases = [f"case-{number}" for number in range(12)]
    series, other = pd.Series(ours, cases), pd.Series(reference, cases)
    assert compare(series, other) == compare(series, reference) == compare(ours, other) == expected
    with pytest.raises(ValueError, match=r"different indexes, .* reference\.reindex\(ours\.index\)"):
        compare(series, other[::-1])
    assert compare(series, other[::-1].reindex(series.index)) == expected
    difference = ours - reference
    for test in (rank_biserial, sign_flip_p_value, bootstrap_p_value, least_p_value):
        expected = test(np.delete(difference, 3))
        assert test(difference) == test(list(difference)) == test(pd.Series(difference, cases)) == expected


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: compare([1.0, np.inf], [0.5, 0.5], test="permutation"), ValueError, r"ours\[1\] is inf; give NaN"),
        (lambda: compare([1.0, 2.0], [0.5, 0.5]).significant(None), ValueError, "alpha is None; give a number between"),
        (lambda: compare([np.inf, 1.0], [np.inf, 0.5]), ValueError, r"ours\[0\] is inf"),
        (lambda: sign_flip_p_value([1.0, -np.inf]), ValueError, r"difference\[1\] is -inf"),
        (lambda: bootstrap_p_value([[1.0, 2.0]]), ValueError, r"difference has shape \(1, 2\)"),
        (lambda: compare({"a": 1}, {"a": 2}), TypeError, "ours is a dict that cannot be converted"),
        (lambda: compare([1.0], ["x"]), TypeError, "reference is a list .* text"),
        (lambda: compare(["1", "2"], [1.0, 2.0]), TypeError, "ours is a list .* text"),
        (lambda: compare(np.array([1j, 2]), [1.0, 2.0]), TypeError, "complex"),
        (lambda: compare(np.array([1, 2], "M8[D]"), [1.0, 2.0]), TypeError, "times"),
        (lambda: compare(np.ma.masked_array([1.0, 9.0], [0, 1]), [1.0, 2.0]), TypeError, "ours is a masked array"),
        (lambda: compare([1.0], [2.0], higher_is_better="false"), TypeError, "higher_is_better is 'false'; give True"),
        (
            lambda: compare([1, 2], [3, 5], test="bootstrap", n_resamples=0),
            ValueError,
            "n_resamples is 0; give a whole",
        ),
        (lambda: sign_flip_p_value([1.0], 1e3), ValueError, r"n_resamples is 1000\.0"),
        (lambda: compare([1.0], [2.0]).significant(5), ValueError, "alpha is 5; give a number between 0 and 1"),
        (lambda: holm(0.01), ValueError, r"p_values is 0\.01; give a vector"),
        (lambda: holm([[0.01, 0.2]]), ValueError, "give a vector"),
        (lambda: holm([5, 0.01]), ValueError, r"in \[0, 1\]"),
    ],
)
def test_what_would_give_a_wrong_p_value_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
