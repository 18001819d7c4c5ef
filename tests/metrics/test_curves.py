"""Curves over the cases of an evaluation, against the definitions written out on the pixels."""

import numpy as np
import pytest

from dmseg.metrics.counting import count_stored
from dmseg.metrics.curves import dice_over_thresholds, reliability
from dmseg.metrics.histogram import BDICE_LEVELS


@pytest.fixture
def cases():
    """Probabilities, masks of three raters and the mean of the masks, for four cases; the last has empty masks."""
    rng = np.random.default_rng(0)
    found = []
    for empty in (False, False, False, True):
        raters = (rng.random((3, 1, 9, 11)) < 0.4) & (not empty)
        found.append((rng.random((1, 9, 11), dtype=np.float32), raters, raters.mean(axis=0, dtype=np.float32)))
    return found


def counted(cases, empty="skip"):
    return [
        count_stored(values, raters, label, 10, 2, ties="background", empty=empty) for values, raters, label in cases
    ]


def test_reliability_is_that_of_all_pixels(cases):
    values = np.concatenate([case[0].ravel() for case in cases])
    votes = np.concatenate([(2 * case[1].sum(axis=0) > 3).ravel() for case in cases])
    mean, share, pixels = reliability(counted(cases))
    index = np.minimum((values * 10).astype(int), 9)
    assert pixels == np.bincount(index).tolist()
    for place, bin_index in enumerate(np.unique(index)):
        assert mean[place] == pytest.approx(values[index == bin_index].mean())
        assert share[place] == pytest.approx(votes[index == bin_index].mean())


@pytest.mark.parametrize(("empty", "value"), [("skip", np.nan), ("one", 1.0), ("zero", 0.0)])
def test_dice_over_thresholds_is_the_mean_over_cases(cases, empty, value):
    cases = [
        *cases,
        (np.full((1, 4, 4), 0.05, np.float32), np.zeros((3, 1, 4, 4), bool), np.zeros((1, 4, 4), np.float32)),
    ]
    levels, dice = dice_over_thresholds(counted(cases, empty))
    assert levels == list(BDICE_LEVELS)
    for level, found in zip(levels, dice, strict=True):
        expected = []
        for values, _, label in cases:
            predicted, actual = values >= np.float32(level), label >= np.float32(level)
            size = predicted.sum() + actual.sum()
            expected.append(2 * (predicted & actual).sum() / size if size else value)
        assert found == pytest.approx(np.nanmean(expected))
