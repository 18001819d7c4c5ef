"""Metrics computed from stored counts against torchmetrics, scipy, and their definitions pixel by pixel."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from one_case import count_one
from scipy import integrate, ndimage
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from dmseg.errors import UserError
from dmseg.labels.smoothing import boundary
from dmseg.metrics import stored_counts as metrics
from dmseg.metrics.agreement import rater_dice
from dmseg.metrics.counting import count_stored, equal_mass_edges
from dmseg.metrics.levels import BDICE_LEVELS, binned_ece
from dmseg.metrics.named import COUNT_METRICS
from dmseg.metrics.scores import dice, ece

N_BINS = (1, 7, 10, 15, 100)


class Sample:
    """A random case, and its majority votes under both rules for ties."""

    def __init__(self, seed, n_raters=4, shape=(3, 21, 34), n_bins=10, confident=True, **options):
        rng = np.random.default_rng(seed)
        field = ndimage.gaussian_filter(rng.normal(size=shape), (0, 2, 2)) * 8
        self.raters = np.stack([field + rng.normal(scale=0.4, size=shape) > 0.8 for _ in range(n_raters)])
        logits = (field - 0.6) * (6 if confident else 1)
        self.p = torch.sigmoid(torch.from_numpy(logits.astype(np.float32))).numpy()
        self.p[0, 0, :12] = np.float32([0, 1, 0.5, 0.3, 0.7, 0.1, 0.9, 0.2, 0.8, 0.4, 0.6, 2**-30])
        self.reference = self.raters.mean(axis=0).astype(np.float32)
        self.counts = count_stored(self.p, self.raters, self.reference, n_bins, **options)
        marked = self.raters.sum(axis=0)
        self.majority = {"background": 2 * marked > n_raters, "foreground": 2 * marked >= n_raters}

    def under(self, ties):
        return replace(self.counts, ties=ties), self.majority[ties]


@pytest.fixture(params=["background", "foreground"])
def ties(request):
    return request.param


def top_label(p, y):
    """Confidence of the top label, and whether it is right."""
    chosen = p >= np.float32(0.5)
    return np.maximum(p, 1 - p), chosen == y


def binned(confidence, correct, n_bins):
    """Weights and gaps of equal bins, one after the other."""
    edges = [np.float32(k / n_bins) for k in range(n_bins)]
    found = []
    for k, low in enumerate(edges):
        inside = confidence >= low
        if k + 1 < n_bins:
            inside &= confidence < edges[k + 1]
        if inside.any():
            gap = confidence[inside].astype(float).mean() - correct[inside].mean()
            found.append((inside.mean(), abs(gap)))
    return np.array(found)


def ece_of(confidence, correct, n_bins):
    weights, gaps = binned(confidence, correct, n_bins).T
    return weights @ gaps


def top_label_ece(counts):
    total = counts.cells.sum(axis=0), counts.foreground(counts.cells), counts.sums.sum(axis=0)
    return binned_ece(*metrics._top_label(counts, *total))


def dice_of(first, second, empty=np.nan):
    total = first.sum() + second.sum()
    return 2 * (first & second).sum() / total if total else empty


@pytest.mark.parametrize("n_bins", N_BINS)
@pytest.mark.parametrize("seed", range(3))
def test_plain_scores_are_those_of_the_batch_counts(seed, n_bins, ties):
    sample = Sample(seed, n_bins=n_bins)
    counts, y = sample.under(ties)
    plain = count_one(sample.p, y, sample.reference, n_bins=n_bins)
    assert metrics.majority_dice(counts) == dice(plain)
    assert top_label_ece(counts) == pytest.approx(ece(plain), abs=1e-7)
    np.testing.assert_array_equal(counts.foreground(counts.joint), plain.joint[1])
    np.testing.assert_array_equal(counts.joint.sum(axis=0), plain.joint.sum(axis=0))


@pytest.mark.parametrize("n_bins", N_BINS)
@pytest.mark.parametrize("seed", range(3))
def test_calibration_errors(seed, n_bins, ties):
    sample = Sample(seed, n_bins=n_bins, confident=seed > 0)
    counts, y = sample.under(ties)
    p = sample.p
    assert metrics.classwise_ece(counts) == pytest.approx(
        (ece_of(p, y, n_bins) + ece_of(1 - p, ~y, n_bins)) / 2, abs=1e-7
    )
    assert metrics.mce(counts) == pytest.approx(binned(*top_label(p, y), n_bins)[:, 1].max(), abs=1e-6)
    raters = [ece_of(*top_label(p, mask), n_bins) for mask in sample.raters]
    assert metrics.rater_ece(counts) == pytest.approx(np.mean(raters), abs=1e-7)


@pytest.mark.parametrize("n_bins", [7, 10, 15])
def test_calibration_errors_of_torchmetrics(n_bins, ties):
    sample = Sample(5, n_bins=n_bins)
    sample.p[:] = np.random.default_rng(6).uniform(0.001, 0.999, sample.p.shape)  # no value at an edge of a bin
    counts = count_stored(sample.p, sample.raters, sample.reference, n_bins, ties=ties)
    y = torch.from_numpy(sample.majority[ties].ravel()).int()
    p = torch.from_numpy(sample.p.ravel())
    both = torch.stack([1 - p, p], dim=1)
    assert top_label_ece(counts) == pytest.approx(float(multiclass_calibration_error(both, y, 2, n_bins)), abs=1e-6)
    assert metrics.mce(counts) == pytest.approx(
        float(multiclass_calibration_error(both, y, 2, n_bins, norm="max")), abs=1e-5
    )
    classes = [binary_calibration_error(*pair, n_bins=n_bins, norm="l1") for pair in ((p, y), (1 - p, 1 - y))]
    assert metrics.classwise_ece(counts) == pytest.approx(float(sum(classes)) / 2, abs=1e-6)


@pytest.mark.parametrize("n_bins", N_BINS)
def test_adaptive_error_of_distinct_values_splits_the_sorted_pixels(n_bins, ties):
    sample = Sample(8, shape=(2, 35, 40))
    rng = np.random.default_rng(9)
    values = rng.permutation(np.linspace(0.001, 0.999, sample.p.size)).astype(np.float32).reshape(sample.p.shape)
    counts = count_stored(values, sample.raters, sample.reference, n_bins, ties=ties)
    order = np.argsort(values.ravel())
    parts = np.array_split(order, n_bins) if values.size % n_bins == 0 else np.split(
        order, [k * values.size // n_bins for k in range(1, n_bins)]
    )  # fmt: skip
    y = sample.majority[ties].ravel()
    gaps = [len(part) * abs(values.ravel()[part].astype(float).mean() - y[part].mean()) for part in parts]
    assert metrics.ace(counts) == pytest.approx(sum(gaps) / values.size, abs=1e-7)
    mirrored = count_stored(1 - values, ~sample.raters, 1 - sample.reference, n_bins, ties=_other(ties))
    assert metrics.ace(mirrored) == pytest.approx(metrics.ace(counts), abs=2 / values.size * n_bins)


def _other(ties):
    return "foreground" if ties == "background" else "background"


def test_equal_probabilities_stay_in_one_bin_of_equal_mass():
    values = np.float32([[[0.0] * 6 + [0.25] * 2 + [0.75, 1.0]]])
    np.testing.assert_array_equal(equal_mass_edges(values, 5), np.float32([0, 0, 0.25, 0.75]))
    masks = np.array([[[[0] * 7 + [1] * 3]]], dtype=bool)
    counts = count_stored(values, masks, masks[0].astype(np.float32), 5)
    np.testing.assert_array_equal(counts.adaptive.sum(axis=0), [0, 0, 6, 2, 2])
    assert metrics.ace(counts) == pytest.approx((abs(0.5 - 1) + abs(1.75 - 2)) / 10)


def test_brier_and_log_loss(ties):
    counts, y = Sample(3).under(ties)
    p = Sample(3).p.astype(np.float64)
    assert metrics.brier(counts) == pytest.approx(np.mean((p - y) ** 2), rel=1e-12)
    clipped = torch.from_numpy(np.clip(p, 2.0**-23, 1 - 2.0**-23))
    expected = torch.nn.functional.binary_cross_entropy(clipped, torch.from_numpy(y.astype(np.float64)))
    assert metrics.nll(counts) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("width", [1, 2, 5, 40])
def test_boundary_error(width, ties):
    sample = Sample(4, boundary=width)
    counts, y = sample.under(ties)
    size = (1, 2 * width + 1, 2 * width + 1)
    band = ndimage.maximum_filter(y, size, mode="nearest") & ~ndimage.minimum_filter(y, size, mode="nearest")
    confidence, correct = top_label(sample.p, y)
    assert counts.band[metrics.TIES[ties]].sum() == band.sum() > 0
    assert metrics.boundary_ece(counts) == pytest.approx(ece_of(confidence[band], correct[band], 10), abs=1e-7)
    one_hot = torch.from_numpy(np.stack([~y, y], axis=1).astype(np.float32))
    found = boundary(one_hot, torch.ones(y.shape, dtype=torch.bool), 2 * width + 1)
    np.testing.assert_array_equal(found.numpy(), band)
    assert counts.band_sums[metrics.TIES[ties]].sum() == pytest.approx(sample.p[band].sum(dtype=float), rel=1e-12)


@pytest.mark.parametrize("n_raters", [1, 2, 4, 7])
def test_volumes(n_raters):
    sample = Sample(11, n_raters)
    volumes, predicted = sample.raters.sum(axis=(1, 2, 3)), float(sample.p.astype(float).sum())
    assert metrics.volume_bias(sample.counts) == pytest.approx(predicted / volumes.mean() - 1, rel=1e-9)
    high = max(volumes.max(), predicted) + 1

    def squared(x):
        return (np.mean(volumes <= x) - (x >= predicted)) ** 2

    expected, _ = integrate.quad(squared, 0, high, points=sorted({*volumes, predicted}), limit=200)
    assert metrics.volume_crps(sample.counts) == pytest.approx(expected / volumes.mean(), rel=1e-6)


@pytest.mark.parametrize("n_raters", [2, 3, 6])
def test_dice_with_and_between_raters(n_raters, ties):
    sample = Sample(12, n_raters)
    counts, y = sample.under(ties)
    predicted = sample.p >= np.float32(0.5)
    assert metrics.dice_of_raters(counts) == pytest.approx(np.mean([dice_of(predicted, r) for r in sample.raters]))
    pairs = [dice_of(a, b) for i, a in enumerate(sample.raters) for b in sample.raters[:i]]
    assert metrics.dice_between_raters(counts) == pytest.approx(np.mean(pairs))
    assert metrics.dice_raters_majority(counts) == pytest.approx(rater_dice(sample.raters, y).mean())
    assert metrics.dice_by_slice(counts) == pytest.approx(
        np.nanmean([dice_of(*pair) for pair in zip(predicted, y, strict=True)])
    )
    assert metrics.dice_other_ties(counts) == pytest.approx(dice_of(predicted, sample.majority[_other(ties)]))


def test_kappa_by_its_definition():
    sample = Sample(13, 5)
    table = np.stack([(~sample.raters).sum(axis=0).ravel(), sample.raters.sum(axis=0).ravel()], axis=1).astype(float)
    agreement = ((table**2).sum(axis=1) - 5) / 20
    chance = ((table.sum(axis=0) / table.sum()) ** 2).sum()
    assert metrics.fleiss_kappa(sample.counts) == pytest.approx((agreement.mean() - chance) / (1 - chance))
    # Fleiss' kappa of two raters who agree as often as chance is 0
    masks = np.array([[0, 0, 1, 1], [0, 1, 0, 1]], dtype=bool).reshape(2, 1, 1, 4)
    counts = count_stored(np.zeros((1, 1, 4), np.float32), masks, masks[0].astype(np.float32))
    assert metrics.fleiss_kappa(counts) == pytest.approx(0)


@pytest.mark.parametrize("empty", ["skip", "one", "zero"])
def test_empty_masks(empty):
    masks = np.zeros((2, 3, 5, 6), dtype=bool)
    counts = count_stored(np.zeros((3, 5, 6), np.float32), masks, np.zeros((3, 5, 6), np.float32), empty=empty)
    values = {name: function(counts) for name, function in COUNT_METRICS.items()}
    both_empty = {"skip": np.nan, "one": 1.0, "zero": 0.0}[empty]
    for name in ("dice_raters", "dice_slices", "dice_other_ties", "agreement_dice", "agreement_majority"):
        assert values.pop(name) == pytest.approx(both_empty, nan_ok=True)
    for name in ("volume_bias", "volume_crps", "agreement_kappa", "ece_boundary"):
        assert np.isnan(values.pop(name))
    assert values.pop("nll") == pytest.approx(2.0**-23, rel=1e-6)
    assert set(values.values()) == {0.0}


def test_slices_add_up_and_do_not_mix():
    sample = Sample(14)
    parts = [count_stored(p[None], r[:, None], t[None]) for p, r, t in
             zip(sample.p, sample.raters.swapaxes(0, 1), sample.reference, strict=True)]  # fmt: skip
    for name in set(metrics.ARRAYS) - {"slices", "adaptive", "adaptive_sums"}:
        whole, summed = getattr(sample.counts, name), sum(getattr(part, name) for part in parts)
        np.testing.assert_allclose(whole, summed, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(sample.counts.slices, np.concatenate([part.slices for part in parts]))


def test_levels_are_unions_of_cells():
    assert set(np.float32(BDICE_LEVELS)) <= set(metrics.probability_cuts(7, BDICE_LEVELS))
    cuts = metrics.probability_cuts(10, [])
    for edge in np.float32([0.1, 0.3, 0.7, 0.9]):  # a cut is the smallest p whose 1 - p lies below the edge
        cut = next(cut for cut in cuts if np.float32(1) - cut < edge)
        below = np.nextafter(cut, np.float32(0))
        assert np.float32(1) - cut < edge <= np.float32(1) - below


@pytest.mark.parametrize("wrong", ["shape", "dtype", "raters"])
def test_arguments_that_do_not_fit(wrong):
    sample = Sample(15)
    arguments = {
        "shape": (sample.p[:2], sample.raters, sample.reference),
        "dtype": (sample.p.astype(float), sample.raters, sample.reference),
        "raters": (sample.p, sample.raters[:0], sample.reference),
    }[wrong]
    with pytest.raises(ValueError, match="probability"):
        count_stored(*arguments)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (
            {"probability": lambda s: 8 * s.p - 4},
            UserError,
            "probability ranges from -4 to 4, but must be in .* sigmoid",
        ),
        ({"probability": lambda s: np.where(s.p > 0.9, np.float32("nan"), s.p)}, UserError, "not a number"),
        ({"reference": lambda s: 255 * s.reference}, UserError, "reference ranges from 0 to 255"),
        ({"reference": lambda s: s.reference[:, 1:]}, ValueError, "differ in their pixels; give"),
        ({"probability": lambda s: s.p[0]}, ValueError, r"shape \(21, 34\) .* give slices \(S, H, W\), x\[None\]"),
        ({"annotations": lambda s: s.raters[0]}, ValueError, r"raters and slices \(R, S, H, W\)"),
        ({"annotations": lambda s: s.raters.astype(int)}, ValueError, "annotations is int64, but must be bool"),
        ({"annotations": lambda s: list(s.raters)}, TypeError, "annotations is a list, but must be a numpy array"),
        ({"n_bins": lambda s: 0}, UserError, "bins is 0, but must be a whole number from 1 to 100"),
        ({"n_bins": lambda s: 100_000}, UserError, "bins is 100000"),
        ({"boundary": lambda s: -1}, UserError, "boundary is -1, but must be a whole number of pixels, at least 1"),
        ({"boundary": lambda s: 1.5}, UserError, "boundary is 1.5"),
        ({"levels": lambda s: [0.9, 0.5]}, UserError, "ascending"),
        ({"levels": lambda s: "high"}, UserError, "levels are 'high', but must be a list"),
        ({"ties": lambda s: "up"}, UserError, "ties is 'up', but must be background or foreground"),
        ({"empty": lambda s: "1"}, UserError, "empty is '1', but must be skip, one or zero"),
    ],
)
def test_values_and_settings_that_do_not_fit(change, error, words):
    sample = Sample(15)
    arguments = {"probability": sample.p, "annotations": sample.raters, "reference": sample.reference}
    with pytest.raises(error, match=words):
        count_stored(**arguments | {key: value(sample) for key, value in change.items()})


def test_negative_zero_and_one_are_probabilities():
    masks, p = np.ones((1, 1, 1, 2), bool), np.float32([[[-0.0, 1.0]]])
    assert metrics.brier(count_stored(p, masks, p)) == 0.5
