"""NSD and HD95: against point sets, against DeepMind's surface-distance, and by what follows from their definitions."""

import importlib.util
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from dmseg.errors import UserError
from dmseg.metrics.surface import hd95, nsd

FLAT = [(1.0, 1.0), (0.7, 1.3), (2.5, 0.4)]


def blobs(seed, shape):
    """Two smooth random masks."""
    rng = np.random.default_rng(seed)
    fields = [gaussian_filter(rng.standard_normal(shape), 1.7) for _ in range(2)]
    return [field > np.quantile(field, 0.85) for field in fields]


def ellipsoid(shape, centre, radii):
    axes = zip(np.indices(shape), centre, radii, strict=True)
    return np.asarray(sum(((axis - middle) / radius) ** 2 for axis, middle, radius in axes) <= 1)


def contour_points(mask, spacing):
    """Centres of the voxels that have a neighbour along an axis outside the mask or outside the image."""
    padded, inner = np.pad(mask, 1), (slice(1, -1),) * mask.ndim
    kept = np.ones_like(mask)
    for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
        kept &= np.roll(padded, step, axis)[inner]
    return np.argwhere(mask & ~kept) * spacing


def elements(mask, spacing):
    """Contour elements of a 2-D mask: the middle between each four pixels, and the contour's length there.

    One pixel in the mask, or all but one, cut the corner: half a diagonal. Two neighbours make a straight line, two
    opposite pixels two corners.
    """
    padded, points, lengths = np.pad(mask, 1), [], []
    corner, (height, width) = math.hypot(*spacing) / 2, spacing
    for row, column in itertools.product(range(mask.shape[0] + 1), range(mask.shape[1] + 1)):
        window = padded[row : row + 2, column : column + 2]
        if not 0 < window.sum() < 4:
            continue
        if window.sum() != 2:
            length = corner
        elif window[0, 0] == window[1, 1]:
            length = 2 * corner
        else:
            length = width if window[0, 0] == window[0, 1] else height
        points.append((row * spacing[0], column * spacing[1]))
        lengths.append(length)
    return np.array(points), np.array(lengths)


def plain_nsd(one, other, spacing, tolerance):
    (points, lengths), (others, other_lengths) = elements(one, spacing), elements(other, spacing)
    distances = cdist(points, others)
    near = lengths[distances.min(axis=1) <= tolerance].sum() + other_lengths[distances.min(axis=0) <= tolerance].sum()
    return near / (lengths.sum() + other_lengths.sum())


def plain_hd95(one, other, spacing):
    distances = cdist(contour_points(one, spacing), contour_points(other, spacing))
    return max(np.percentile(distances.min(axis=axis), 95) for axis in (0, 1))


@pytest.mark.parametrize("spacing", FLAT)
@pytest.mark.parametrize("seed", range(3))
def test_slices_against_point_sets(seed, spacing):
    masks = np.array([blobs(seed + 10 * index, (23, 31)) for index in range(3)]).swapaxes(0, 1)
    tolerance = 1.234  # no distance on these grids, so that rounding cannot decide
    shares = [plain_nsd(*pair, spacing, tolerance) for pair in zip(*masks, strict=True)]
    distances = [plain_hd95(*pair, spacing) for pair in zip(*masks, strict=True)]
    assert nsd(*masks, spacing, tolerance) == pytest.approx(np.mean(shares), abs=1e-6)
    assert hd95(*masks, spacing) == pytest.approx(np.mean(distances), rel=1e-5)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.6, 0.9, 3.0)])
def test_volumes_against_point_sets(spacing):
    one, other = blobs(5, (9, 20, 22))
    row, column, between = spacing
    assert hd95(one, other, spacing) == pytest.approx(plain_hd95(one, other, (between, row, column)), rel=1e-5)


@pytest.mark.parametrize(
    ("shape", "first", "second", "spacing", "tolerance", "expected"),
    [
        ((40, 36), ((20, 17), (11, 8)), ((22, 19), (9, 10)), (0.7, 1.3), 1.5, 0.5533296543892144),
        ((40, 36), ((3, 17), (11, 8)), ((6, 19), (9, 10)), (2.0, 0.5), 2.0, 0.9049344622344866),
        ((14, 26, 22), ((7, 12, 11), (5, 8, 7)), ((6, 14, 10), (4, 9, 6)), (0.8, 1.2, 3.0), 2.0, 0.7718070258029661),
        ((14, 26, 22), ((2, 12, 11), (5, 8, 7)), ((6, 14, 10), (4, 9, 6)), (1.0, 1.0, 1.0), 1.0, 0.2810280866423317),
    ],
)
def test_nsd_against_the_reference_implementation(shape, first, second, spacing, tolerance, expected):
    """The numbers are compute_surface_dice_at_tolerance of Surface-Distance-Based-Measures 0.1 (PyPI), by DeepMind."""
    masks = [ellipsoid(shape, *item).reshape(-1, *shape[-2:]) for item in (first, second)]
    assert nsd(*masks, spacing, tolerance) == pytest.approx(expected, abs=1e-6)


def test_lengths_scale_with_the_spacing():
    one, other = blobs(1, (2, 20, 20))
    assert hd95(one, other, (2.0, 3.0)) == pytest.approx(2 * hd95(one, other, (1.0, 1.5)), rel=1e-6)
    assert nsd(one, other, (2.0, 3.0), 2.1) == pytest.approx(nsd(one, other, (1.0, 1.5), 1.05), abs=1e-6)


def test_both_masks_and_both_axes_are_alike():
    one, other = blobs(2, (3, 18, 25))
    for spacing in ((0.7, 1.3), (0.7, 1.3, 2.9)):
        turned = spacing[1], spacing[0], *spacing[2:]
        for metric in (lambda a, b, s: nsd(a, b, s, 1.234), hd95):
            value = metric(one, other, spacing)
            assert metric(other, one, spacing) == pytest.approx(value, rel=1e-6)
            assert metric(one.swapaxes(1, 2), other.swapaxes(1, 2), turned) == pytest.approx(value, rel=1e-5)


def test_a_shifted_square():
    one, other = np.zeros((2, 1, 30, 30), dtype=bool)
    one[0, 5:15, 5:15] = other[0, 5:15, 8:18] = True
    assert hd95(one, other, (1.0, 2.0)) == pytest.approx(6.0)
    assert nsd(one, other, (1.0, 2.0), 6.0) == 1
    assert nsd(one, one, (1.0, 2.0), 0.0) == 1
    assert hd95(one, one, (1.0, 2.0)) == 0


def test_a_mask_that_fills_the_slice_has_a_contour():
    full = np.ones((1, 12, 12), dtype=bool)
    middle = np.zeros_like(full)
    middle[0, 4:8, 4:8] = True
    assert hd95(full, full, (1.0, 1.0)) == 0
    assert hd95(full, middle, (1.0, 1.0)) == pytest.approx(plain_hd95(full[0], middle[0], (1.0, 1.0)))


def test_empty_masks():
    nothing, something = np.zeros((2, 2, 6, 8), dtype=bool)
    something[1, 2:4, 2:4] = True  # the first slice stays empty
    diagonal = math.hypot(6 * 0.5, 8 * 2.0)
    flat = (0.5, 2.0)
    assert math.isnan(nsd(nothing, nothing, flat, 1.0))
    assert math.isnan(hd95(nothing, nothing, flat))
    for rule, best, worst in (("skip", None, 0.0), ("one", 0.5, 0.5), ("zero", 0.0, 0.0)):
        assert nsd(something, something, flat, 1.0, rule) == (1.0 if best is None else 0.5 + best)
        assert nsd(nothing, something, flat, 1.0, rule) == worst
    assert hd95(something, nothing, flat) == pytest.approx(diagonal)
    assert hd95(nothing, something, flat, "one") == pytest.approx(diagonal / 2)
    assert hd95(nothing, something, flat, "zero") == pytest.approx(diagonal)
    assert hd95(nothing, something, (*flat, 3.0)) == pytest.approx(math.hypot(diagonal, 2 * 3.0))
    assert hd95(nothing, nothing, (*flat, 3.0), "zero") == pytest.approx(math.hypot(diagonal, 2 * 3.0))
    assert hd95(nothing, nothing, flat, "one") == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spacing": (1.0,)}, "expected two or three numbers"),
        ({"spacing": (1.0, 0.0)}, "above 0"),
        ({"spacing": (1.0, math.nan)}, "above 0"),
        ({"tolerance": -1.0}, "tolerance is -1"),
        ({"tolerance": math.inf}, "tolerance is inf"),
        ({"empty": "none"}, "must be skip, one or zero"),
        ({"reference": np.ones((1, 4, 5), bool)}, r"must have the same shape \(S, H, W\)"),
        ({"predicted": np.ones((4, 4), bool), "reference": np.ones((4, 4), bool)}, r"\(S, H, W\); give mask\[None\]"),
        ({"predicted": np.full((1, 4, 4), 0.7)}, "predicted has the value 0.7, .* threshold the probability first"),
        ({"reference": np.full((1, 4, 4), 255)}, "reference has the value 255, .* give reference != 0"),
        ({"predicted": np.ones((0, 4, 4), bool), "reference": np.ones((0, 4, 4), bool)}, "which has no pixels"),
        ({"spacing": 1.0}, r"spacing is 1.0, but must be two numbers, \(row, column\)"),
        ({"spacing": "11"}, "spacing is '11'; expected two or three numbers"),
        ({"spacing": None}, "spacing is None; expected"),
        ({"spacing": (1.0, "1")}, "expected two or three numbers"),
        ({"tolerance": None}, "tolerance is None, but must be a finite number"),
        ({"tolerance": "2"}, "tolerance is '2'"),
    ],
)
def test_what_does_not_fit_is_refused(change, words):
    masks = {"predicted": np.ones((1, 4, 4), bool), "reference": np.ones((1, 4, 4), bool)}
    with pytest.raises(UserError, match=words):
        nsd(**({**masks, "spacing": (1.0, 1.0), "tolerance": 1.0} | change))


def test_tensors_and_numbers_are_taken():
    one, other = np.random.default_rng(5).random((2, 2, 9, 8)) < 0.4
    expected = nsd(one, other, (1.0, 2.0), 1.0), hd95(one, other, (1.0, 2.0))
    for convert in (torch.from_numpy, np.uint8, np.float64, list):
        pair = convert(one), convert(other)
        assert nsd(*pair, np.array([1, 2]), np.float32(1)) == expected[0]
        assert hd95(*pair, torch.tensor([1.0, 2.0])) == expected[1]


def test_without_monai_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    mask = np.ones((1, 4, 4), bool)
    with pytest.raises(UserError, match=r"pip install 'dmseg\[surface\]'"):
        hd95(mask, mask, (1.0, 1.0))
