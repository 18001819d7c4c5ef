"""Folds that keep groups together, against every possible division of small data sets."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmseg.data.folds import Split, balanced_folds, consecutive_folds, inner_split
from dmseg.errors import UserError

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


@given(st.data(), SIZES, st.integers(0, 5), st.integers(0, 4))
def test_an_inner_split_keeps_groups_together(data, sizes, seed, fold):
    *groups, validation = groups_of(sizes)
    train = data.draw(st.permutations([case for group in groups for case in group]))
    inner = inner_split(Split(tuple(train), tuple(validation)), seed, fold, [*groups, validation])
    assert inner.train
    assert inner.validation
    for part in (inner.train, inner.validation):
        assert part == tuple(case for case in train if case in set(part)), "in the order of the fold"
    assert sorted(inner.train + inner.validation) == sorted(train)
    sides = [{case in inner.validation for case in group} for group in groups]
    assert all(len(side) == 1 for side in sides)
    goal, held = max(1, round(0.2 * len(train))), len(inner.validation)
    added = [held + len(group) for group, side in zip(groups, sides, strict=True) if side == {False}]
    assert all(abs(size - goal) >= abs(held - goal) for size in added), "no other group brings it closer"


@given(st.integers(1, 30), st.integers(0, 5), st.integers(0, 4))
def test_an_inner_split_without_groups_is_what_it_always_was(count, seed, fold):
    """Ids of calibrated students depend on it."""
    train = tuple(f"c{number}" for number in range(count))
    order = np.random.default_rng((seed, fold)).permutation(count)
    held = {train[k] for k in order[: max(1, round(0.2 * count))]}
    expected = tuple(case for case in train if case not in held), tuple(case for case in train if case in held)
    for groups in (None, [[case] for case in reversed(train)]):
        inner = inner_split(Split(train, ("v",)), seed, fold, groups)
        assert (inner.train, inner.validation) == expected


def test_an_inner_split_of_one_group_is_refused():
    with pytest.raises(UserError, match=r"fold 2 are all in one group of folds\.groups.*distill\.calibrate=train"):
        inner_split(Split(("a", "b"), ("c",)), 0, 2, [["a", "b"], ["c"]])
