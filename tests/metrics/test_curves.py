"""Curves from counts against the arrays they were counted from."""

from dataclasses import replace

import numpy as np
import pytest

from dmseg.metrics.counting import count_stored
from dmseg.metrics.curves import level_dice, mean_level_dice, reliability

LEVELS = np.arange(1, 10) / 10


def case(seed, empty=False, rule="skip"):
    rng = np.random.default_rng(seed)
    raters = (rng.random((4, 2, 9, 7)) < 0.4) & (not empty)
    reference = raters.mean(axis=0).astype(np.float32)
    probability = rng.random((2, 9, 7), dtype=np.float32) * (0.35 if empty else 1)
    return probability, raters, reference, count_stored(probability, raters, reference, empty=rule)


def direct_dice(probability, reference, level, rule):
    predicted, actual = probability >= np.float32(level), reference >= np.float32(level)
    total = predicted.sum() + actual.sum()
    return 2 * (predicted & actual).sum() / total if total else {"skip": np.nan, "one": 1.0, "zero": 0.0}[rule]


@pytest.mark.parametrize("rule", ["skip", "one", "zero"])
@pytest.mark.parametrize("empty", [False, True])
def test_level_dice_thresholds_both_sides(rule, empty):
    probability, _, reference, counts = case(3, empty, rule)
    expected = [direct_dice(probability, reference, level, rule) for level in LEVELS]
    np.testing.assert_allclose(level_dice(counts), expected)


def test_the_mean_over_cases_leaves_out_skipped_levels():
    every = [case(1), case(2, empty=True)]
    expected = np.nanmean([[direct_dice(p, r, level, "skip") for level in LEVELS] for p, _, r, _ in every], axis=0)
    np.testing.assert_allclose(mean_level_dice(counts for *_, counts in every), expected)
    assert mean_level_dice([]) is None
    alone = mean_level_dice([case(2, empty=True)[-1]])
    np.testing.assert_array_equal(np.isnan(alone), [False, False, False, *[True] * 6])


def test_reliability_bins_the_pixels_of_all_cases():
    every = [case(seed) for seed in range(3)]
    probability = np.concatenate([p.ravel() for p, *_ in every])
    majority = np.concatenate([(raters.sum(axis=0) > 2).ravel() for _, raters, _, _ in every])
    found = reliability(counts for *_, counts in every)
    edges = (np.arange(11) / 10).astype(np.float32)
    for index in range(10):
        inside = (probability >= edges[index]) & (probability < edges[index + 1])
        assert found.pixels[index] == inside.sum()
        np.testing.assert_allclose(found.probability[index], probability[inside].mean(dtype=np.float64), rtol=1e-6)
        np.testing.assert_allclose(found.frequency[index], majority[inside].mean())
    assert reliability([]) is None
    low = reliability([case(2, empty=True)[-1]])
    assert np.isnan(low.frequency[5:]).all()
    assert low.frequency[0] == 0


def test_what_is_no_list_of_cases_with_the_same_bins_is_refused():
    _, _, _, counts = case(1)
    with pytest.raises(TypeError, match=r"cases is the counts of one case; give a list, \[counts\]"):
        reliability(counts)
    with pytest.raises(ValueError, match="cases have 10 and 5 bins; give counts with the same n_bins"):
        reliability([counts, replace(counts, bins=5)])
