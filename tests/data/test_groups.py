"""Folds that keep groups together, against every possible division of small data sets."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmseg.data.groups import balanced_folds, consecutive_folds

SIZES = st.lists(st.integers(1, 6), min_size=3, max_size=7)


def groups_of(sizes):
    return [[f"g{index}c{number}" for number in range(size)] for index, size in enumerate(sizes)]


def sizes_of(folds):
    return [sum(map(len, fold)) for fold in folds]


def squares(folds):
    return sum(size**2 for size in sizes_of(folds))


@given(SIZES, st.integers(2, 3))
def test_runs_of_groups_are_as_equal_as_any(sizes, count):
    groups = groups_of(sizes)
    folds = consecutive_folds(groups, count)
    assert [group for fold in folds for group in fold] == groups
    assert all(folds)
    assert len(folds) == count
    cuts = ((0, *inner, len(groups)) for inner in itertools.combinations(range(1, len(groups)), count - 1))
    assert squares(folds) == min(
        squares([groups[first:last] for first, last in itertools.pairwise(cut)]) for cut in cuts
    )


@settings(deadline=None)
@given(SIZES, st.integers(2, 3), st.integers(0, 2))
def test_random_folds_are_as_equal_as_any(sizes, count, seed):
    groups = groups_of(sizes)
    folds = balanced_folds(groups, count, np.random.default_rng(seed))
    assert sorted(group for fold in folds for group in fold) == groups
    assert all(folds)
    best = min(
        sum(
            sum(size for size, fold in zip(sizes, places, strict=True) if fold == number) ** 2
            for number in range(count)
        )
        for places in itertools.product(range(count), repeat=len(sizes))
    )
    assert squares(folds) == best


def test_a_data_set_of_a_real_size():
    sizes = np.random.default_rng(0).geometric(0.3, size=300).tolist()
    folds = balanced_folds(groups_of(sizes), 5, np.random.default_rng(0))
    assert max(sizes_of(folds)) - min(sizes_of(folds)) <= 1
    other = balanced_folds(groups_of(sizes), 5, np.random.default_rng(1))
    assert other != folds
    assert balanced_folds(groups_of(sizes), 5, np.random.default_rng(1)) == other


@pytest.mark.parametrize("count", [2, 5])
def test_one_group_of_nearly_all(count):
    groups = groups_of([90, 1, 1, 1, 2])
    assert max(sizes_of(consecutive_folds(groups, count))) == max(
        sizes_of(balanced_folds(groups, count, np.random.default_rng(0)))
    )
