"""Counts against plain definitions, pixel by pixel, and their algebra."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from one_case import count_one

from dmseg.errors import UserError
from dmseg.metrics import histogram
from dmseg.metrics.histogram import CaseCounts, count_batch
from dmseg.metrics.levels import BDICE_LEVELS


def make_batch(seed, n=4, height=9, width=7, raters=5):
    rng = np.random.default_rng(seed)
    probability = rng.random((n, height, width), dtype=np.float32)
    probability[0, 0, :5] = [0.0, 1.0, 0.5, 0.1, 0.9]
    votes = rng.integers(0, raters + 1, (n, height, width))
    reference = votes.astype(np.float32) / np.float32(raters)
    majority = (votes >= raters // 2 + 1).astype(np.uint8)
    return tuple(torch.from_numpy(item) for item in (probability, majority, reference))


def count_slowly(probability, majority, reference, levels=BDICE_LEVELS, n_bins=10):
    """The definitions, one pixel at a time."""
    levels = [np.float32(level) for level in levels]
    edges = [np.float32(k / n_bins) for k in range(n_bins)]
    joint, bins = np.zeros((2, len(levels) + 1, len(levels) + 1), np.int64), np.zeros((n_bins, 3))
    for p, m, r in zip(*(item.numpy().ravel() for item in (probability, majority, reference)), strict=True):
        joint[int(m), sum(r >= level for level in levels), sum(p >= level for level in levels)] += 1
        confidence = max(p, np.float32(1) - p)
        bins[max(k for k in range(n_bins) if edges[k] <= confidence)] += [1, confidence, (p >= 0.5) == bool(m)]
    return joint, bins


def assert_same(found, joint, bins):
    np.testing.assert_array_equal(found.joint, joint)
    np.testing.assert_array_equal(found.bins, bins)


@pytest.mark.parametrize(("levels", "n_bins"), [(BDICE_LEVELS, 10), ((0.1, 0.3, 0.5, 0.7, 0.9), 15), ((0.5,), 1)])
def test_counts_are_those_of_the_definitions(levels, n_bins):
    images = make_batch(0)
    cases = torch.tensor([2, 0, 2, 1])
    found = count_batch(*images, cases, 4, levels, n_bins)
    assert len(found) == 4
    for case, counts in enumerate(found):
        assert_same(counts, *count_slowly(*(item[cases == case] for item in images), levels, n_bins))
        assert counts.joint.dtype == np.int64
        assert counts.bins.dtype == np.float64
    assert found[3].joint.sum() == 0


@pytest.mark.parametrize("steps", [2, 5, 10, 11, 15, 20, 100, 255, 256])
def test_levels_are_compared_in_float32_however_they_are_spaced(steps):
    levels = np.arange(1, steps, dtype=np.float64) / steps
    for shift in (0, 1e-7, 1e-3, -1e-7, -1e-3):
        thresholds = np.float32(levels + shift * (levels < 0.9))
        near = [np.nextafter(thresholds, np.float32(end)) for end in (0, 1)]
        values = np.concatenate([thresholds, *near, np.float32([0, 1, 1e-45]), np.nextafter(np.float32([1]), 0)])
        expected = np.searchsorted(thresholds, values, side="right")
        np.testing.assert_array_equal(histogram.levels_reached(values, thresholds), expected)


@pytest.mark.parametrize("n_bins", [1, 10, 15])
@pytest.mark.parametrize("masked", [False, True])
def test_both_implementations_agree(monkeypatch, n_bins, masked):
    images = make_batch(1, n=6)
    cases = torch.tensor([0, 0, 1, 2, 1, 0])
    valid = torch.rand(images[0].shape, generator=torch.Generator().manual_seed(0)) < 0.7 if masked else None
    with_numpy = count_batch(*images, cases, 3, n_bins=n_bins, valid=valid)
    monkeypatch.setattr(histogram, "_sum_with_numpy", histogram._sum_with_torch)
    for found, expected in zip(count_batch(*images, cases, 3, n_bins=n_bins, valid=valid), with_numpy, strict=True):
        assert_same(found, expected.joint, expected.bins)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_same_counts():
    images, cases = make_batch(2, n=6), torch.tensor([0, 0, 1, 2, 1, 0])
    on_gpu = count_batch(*(item.cuda() for item in images), cases.cuda(), 3)
    for found, expected in zip(on_gpu, count_batch(*images, cases, 3), strict=True):
        assert_same(found, expected.joint, expected.bins)


@pytest.mark.parametrize("raters", [3, 5, 6, 7, 10])
def test_a_value_on_a_level_reaches_it(raters):
    """k of R raters reach the level t exactly if k >= t R, in whole numbers."""
    votes = np.arange(raters + 1)
    values = torch.from_numpy(votes.astype(np.float32) / np.float32(raters))
    joint = count_one(values, values >= 0.5, values).joint.sum(axis=0)
    expected = [sum(10 * int(vote) >= tenth * raters for tenth in range(1, 10)) for vote in votes]
    np.testing.assert_array_equal(joint, np.bincount(np.array(expected) * 11, minlength=100).reshape(10, 10))


def test_confidences_on_an_edge_are_in_the_upper_bin_and_one_in_the_last():
    probability = torch.tensor([0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 0.0])
    bins = count_one(probability, torch.ones(7, dtype=torch.bool), probability).bins
    assert bins[:, 0].tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 3]
    assert bins[:, 2].tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 2]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), cut=st.integers(0, 6), block=st.sampled_from([1, 10, 20, 10_000]))
def test_counts_add_up_over_batches_and_do_not_depend_on_their_cut(seed, cut, block):
    images, cases = make_batch(seed, n=6), torch.tensor([0, 1, 1, 0, 2, 1])
    whole = count_batch(*images, cases, 3)
    before, histogram.CPU_PIXELS = histogram.CPU_PIXELS, block
    try:
        first = count_batch(*(item[:cut] for item in images), cases[:cut], 3)
        second = count_batch(*(item[cut:] for item in images), cases[cut:], 3)
    finally:
        histogram.CPU_PIXELS = before
    for one, other, both in zip(first, second, whole, strict=True):
        assert_same(one + other, both.joint, both.bins)


def test_invalid_pixels_do_not_count():
    probability, majority, reference = (item[0] for item in make_batch(3))
    valid = torch.zeros(probability.shape, dtype=torch.bool)
    valid[2:5, 1:] = True
    found = count_one(probability, majority, reference, valid=valid)
    part = count_one(probability[2:5, 1:], majority[2:5, 1:], reference[2:5, 1:])
    assert_same(found, part.joint, part.bins)


def test_majority_may_be_any_non_zero_byte_and_need_not_be_contiguous():
    probability, majority, reference = make_batch(4)
    plain = count_one(probability, majority, reference)
    other = count_one(*(item.transpose(0, 2) for item in (probability, majority * 255, reference)))
    assert_same(other, plain.joint, plain.bins)


@pytest.mark.parametrize("bad", [float("nan"), -0.01, 1.01])
@pytest.mark.parametrize("which", [0, 2])
def test_values_outside_the_unit_interval_are_refused(bad, which):
    images = make_batch(5)
    images[which][1, 2, 3] = bad
    with pytest.raises(UserError, match=r"ranges from .* but must be in \[0, 1\]"):
        count_one(*images)


@pytest.mark.parametrize("levels", [(), (0.1, 0.9), (0.5, 0.3), (0.0, 0.5), (0.5, 1.5), (0.5, 0.5)])
def test_unusable_levels_are_refused(levels):
    with pytest.raises(UserError, match="ascending"):
        count_one(*make_batch(6), levels=levels)


@pytest.mark.parametrize("n_bins", [0, 101])
def test_unusable_bins_are_refused(n_bins):
    with pytest.raises(UserError, match=str(n_bins)):
        count_one(*make_batch(6), n_bins=n_bins)


def test_too_many_levels_are_refused():
    with pytest.raises(UserError, match="255"):
        count_one(*make_batch(6), levels=[k / 256 for k in range(1, 256)])


def test_tensors_that_do_not_fit_are_refused():
    probability, majority, reference = make_batch(7)
    cases = torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ValueError, match="shapes differ"):
        count_batch(probability, majority[:, 1:], reference, cases, 1)
    with pytest.raises(ValueError, match="shapes differ"):
        count_batch(probability, majority, reference, cases[1:], 1)
    with pytest.raises(ValueError, match="float32"):
        count_batch(probability.double(), majority, reference, cases, 1)
    with pytest.raises(ValueError, match="bool or uint8"):
        count_batch(probability, majority.long(), reference, cases, 1)
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        count_batch(probability, majority, reference, cases + 1, 1)


def test_counts_over_other_levels_or_bins_cannot_be_added():
    images = make_batch(8)
    counts: CaseCounts = count_one(*images)
    with pytest.raises(ValueError, match="cannot add"):
        counts + count_one(*images, n_bins=15)
    with pytest.raises(ValueError, match="cannot add"):
        counts + count_one(*images, levels=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.95))


@pytest.mark.parametrize("junk", [np.nan, np.inf, -1.0, 255.0])
@pytest.mark.filterwarnings("error")
def test_values_of_pixels_that_do_not_count_have_no_effect(junk):
    probability, majority, reference = make_batch(9)
    valid = torch.rand(probability.shape, generator=torch.Generator().manual_seed(0)) < 0.7
    spoilt = [item.masked_fill(~valid, junk) for item in (probability, reference)]
    found = count_one(spoilt[0], majority, spoilt[1], valid=valid)
    assert_same(found, *count_slowly(*(item[valid] for item in (probability, majority, reference))))
    with pytest.raises(UserError, match="must be in"):
        count_one(spoilt[0], majority, reference, valid=valid | True)
