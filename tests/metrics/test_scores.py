"""Scores against plain numpy, torchmetrics, the reference implementation's numbers and closed forms."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from one_case import count_one
from torchmetrics.functional.classification import multiclass_calibration_error
from torchmetrics.segmentation import DiceScore

from dmseg.errors import UserError
from dmseg.metrics.histogram import count_batch
from dmseg.metrics.levels import BDICE_LEVELS
from dmseg.metrics.scores import bdice, case_scores, dice, ece, level_dice

DATA = Path(os.environ.get("DMSEG_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
GOLDEN = DATA.parent / "golden"

EMPTY = {"skip": np.nan, "one": 1.0, "zero": 0.0}


def make_volume(seed, n=3, size=24):
    """Blurry probabilities and votes of four raters that overlap in part."""
    rng = np.random.default_rng(seed)
    probability = rng.random((n, size, size), dtype=np.float32)
    votes = np.clip(np.round(4 * probability + rng.normal(0, 1.2, probability.shape)), 0, 4)
    return tuple(
        torch.from_numpy(item)
        for item in (probability, (votes >= 3).astype(np.uint8), votes.astype(np.float32) / np.float32(4))
    )


def plain_dice(first, second, empty=np.nan):
    size = first.sum() + second.sum()
    return empty if size == 0 else 2 * np.logical_and(first, second).sum() / size


def counts_of(probability, majority, reference=None):
    p, m = torch.tensor(probability, dtype=torch.float32), torch.tensor(majority, dtype=torch.uint8)
    return count_one(p, m, m.float() if reference is None else torch.tensor(reference, dtype=torch.float32))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("empty", EMPTY)
def test_scores_of_a_volume_against_numpy(seed, empty):
    volume = make_volume(seed)
    p, m, r = (item.numpy() for item in volume)
    p = np.minimum(p, 0.85)  # nothing is predicted at 0.9
    found = case_scores(count_one(torch.from_numpy(p), *volume[1:]), empty)
    levels = [plain_dice(p >= np.float32(t), r >= np.float32(t), EMPTY[empty]) for t in BDICE_LEVELS]
    assert found["dice"] == pytest.approx(plain_dice(p >= 0.5, m == 1), abs=1e-12)
    assert found["bdice"] == pytest.approx(np.mean(levels), abs=1e-12)
    assert found["precision"] == pytest.approx(m[p >= 0.5].mean(), abs=1e-12)
    assert found["recall"] == pytest.approx((p >= 0.5)[m == 1].mean(), abs=1e-12)
    assert [found[key] for key in ("n_pixels", "n_foreground", "n_predicted")] == [p.size, m.sum(), (p >= 0.5).sum()]
    assert found["n_levels"] == 9


def test_dice_of_a_case_is_that_of_torchmetrics_over_its_slices():
    probability, majority, reference = make_volume(3)
    metric = DiceScore(num_classes=2, include_background=False, aggregation_level="global", input_format="index")
    metric.update((probability >= 0.5).long(), majority.long())
    assert dice(count_one(probability, majority, reference)) == pytest.approx(float(metric.compute()), abs=1e-6)


def test_ece_is_that_of_torchmetrics():
    probability, majority, reference = make_volume(4)
    both = torch.stack([1 - probability, probability], dim=1)
    theirs = multiclass_calibration_error(both, majority.long(), num_classes=2, n_bins=10, norm="l1")
    assert ece(count_one(probability, majority, reference)) == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the reference implementation's numbers are not here")
def test_ece_is_that_of_the_reference_implementation():
    arrays = np.load(GOLDEN / "reference_values.npz")
    entries = json.loads((GOLDEN / "reference_values.json").read_text())
    binary = [entry for entry in entries if entry["kind"] == "ece" and arrays[f"{entry['key']}_prob"].shape[1] == 2]
    assert len(binary) == 2
    for entry in binary:
        p = torch.from_numpy(arrays[f"{entry['key']}_prob"][:, 1])
        m = torch.from_numpy(arrays[f"{entry['key']}_label"]).to(torch.uint8)
        images = count_batch(p, m, m.float(), torch.arange(len(p)), len(p), n_bins=entry["bins"])
        # the reference adds up in float32
        assert 100 * ece(images[0] + images[1]) == pytest.approx(entry["pooled_percent"], abs=2e-4)
        assert 100 * np.mean([ece(item) for item in images]) == pytest.approx(entry["per_image_percent"], abs=2e-4)


def test_ece_by_hand():
    # Bin 0.9: confidences 0.95 and 0.95, one right. Bin 0.6: confidence 0.65, right. (|1.9 - 1| + |0.65 - 1|) / 3
    counts = counts_of([0.95, 0.05, 0.65], [1, 1, 1])
    assert ece(counts) == pytest.approx((0.9 + 0.35) / 3, abs=1e-6)


@pytest.mark.parametrize("empty", EMPTY)
def test_empty_masks(empty):
    value = EMPTY[empty]
    nothing = counts_of([0.0, 0.2], [0, 0], [0.0, 0.0])
    np.testing.assert_equal(dice(nothing, empty), value)
    assert dice(counts_of([0.0, 0.9], [0, 0]), empty) == 0.0
    assert dice(counts_of([0.0, 0.2], [0, 1]), empty) == 0.0
    # levels 0.1, 0.2: the prediction alone; the seven others: both empty
    rest = 7 * value if empty != "skip" else 0
    assert bdice(nothing, empty) == pytest.approx(rest / (9 if empty != "skip" else 2))
    assert case_scores(nothing, empty)["n_levels"] == (2 if empty == "skip" else 9)
    blank = counts_of([0.0, 0.0], [0, 0])
    np.testing.assert_equal(bdice(blank, empty), value)
    assert case_scores(blank, empty)["n_levels"] == (0 if empty == "skip" else 9)


def test_precision_recall_and_ece_without_anything_to_divide_by():
    scores = case_scores(counts_of([0.0, 0.2], [0, 0]))
    assert np.isnan(scores["precision"])
    assert np.isnan(scores["recall"])
    none = count_batch(*(item[:0] for item in make_volume(0)), torch.zeros(0, dtype=torch.int64), 1)[0]
    assert np.isnan(ece(none))
    assert np.isnan(dice(none))


def test_the_level_of_dice_is_one_half_whatever_the_levels():
    probability, majority, reference = make_volume(6)
    nine = count_one(probability, majority, reference)
    three = count_one(probability, majority, reference, levels=(0.3, 0.5, 0.95))
    assert dice(three) == dice(nine) > 0
    assert level_dice(three)[:2].tolist() == level_dice(nine)[[2, 4]].tolist()


def test_an_unknown_rule_is_refused():
    with pytest.raises(UserError, match="'nan'"):
        dice(count_one(*make_volume(7)), "nan")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.floats(0, 1, width=32), st.integers(0, 7)), min_size=1, max_size=12),
    st.sampled_from(list(EMPTY)),
)
def test_scores_stay_in_the_unit_interval(pixels, empty):
    p, votes = (np.array(item) for item in zip(*pixels, strict=True))
    scores = case_scores(counts_of(p, votes >= 4, votes.astype(np.float32) / np.float32(7)), empty)
    for key in ("dice", "bdice", "ece", "precision", "recall"):
        assert np.isnan(scores[key]) or 0 <= scores[key] <= 1


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=12), st.sampled_from(list(EMPTY)))
def test_bdice_is_dice_for_hard_predictions_and_labels(pixels, empty):
    counts = counts_of(*zip(*pixels, strict=True))
    np.testing.assert_allclose(bdice(counts, empty), dice(counts, empty), rtol=1e-14)
