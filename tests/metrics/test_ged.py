"""Generalised energy distance: against a plain double loop, by hand, and what must always hold."""

import numpy as np
import pytest

from dmseg.metrics.energy_distance import generalised_energy_distance, shared_pixels, squared_ged


def draw(n, shape=(1, 6, 7), seed=0, density=0.4):
    return np.random.default_rng(seed).random((n, *shape)) < density


def found(samples, raters):
    """Distance of masks (S, slices, H, W) and (R, slices, H, W)."""
    masks = np.concatenate([samples, raters]).swapaxes(0, 1)
    return squared_ged(shared_pixels(masks).sum(axis=0), len(samples))


def plain_distance(one, other):
    union = np.logical_or(one, other).sum()
    return 1 - np.logical_and(one, other).sum() / union if union else 0.0


def plain(samples, raters):
    def mean(first, second):
        return np.mean([[plain_distance(one, other) for other in second] for one in first])

    return 2 * mean(samples, raters) - mean(samples, samples) - mean(raters, raters)


@pytest.mark.parametrize(("n_samples", "n_raters"), [(9, 4), (20, 3), (1, 1), (5, 7)])
@pytest.mark.parametrize("density", [0.02, 0.4])
def test_against_a_plain_double_loop(n_samples, n_raters, density):
    samples, raters = draw(n_samples, (3, 6, 7), 1, density), draw(n_raters, (3, 6, 7), 2, density)
    assert found(samples, raters) == pytest.approx(plain(samples, raters), abs=1e-12)
    assert generalised_energy_distance(samples, raters) == found(samples, raters)
    image = generalised_energy_distance(samples[:, 0], raters[:, 0])
    assert image == pytest.approx(plain(samples[:, 0], raters[:, 0]), abs=1e-12)


def test_sets_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="must have the same pixels"):
        generalised_energy_distance(draw(2), draw(2, (1, 6, 8)))
    with pytest.raises(ValueError, match="there must be samples and annotations"):
        generalised_energy_distance(draw(2), draw(0))
    with pytest.raises(ValueError, match="bool"):
        generalised_energy_distance(draw(2).astype(float), draw(2))


def test_by_hand():
    """d(S, Y) is 1/2 and 1, d(Y, Y') is 1: 2 * 3/4 - 0 - 1/2."""
    sample, first, second = np.array([1, 1, 0, 0]), np.array([1, 0, 0, 0]), np.array([0, 0, 1, 0])
    shaped = [mask.astype(bool).reshape(1, 1, 2, 2) for mask in (sample, first, second)]
    assert found(shaped[0], np.concatenate(shaped[1:])) == 1.0


def test_equal_sets_are_at_distance_0_however_often_each_mask_is_drawn():
    raters = draw(4)
    assert found(raters[[2, 0, 3, 1]], raters) == pytest.approx(0, abs=1e-15)
    assert found(np.concatenate([raters] * 5), raters) == pytest.approx(0, abs=1e-15)
    assert found(raters[:1], raters) > 0.1


def test_it_is_symmetric_and_lies_between_0_and_2():
    for seed in range(40):
        sizes = np.random.default_rng(seed).integers(1, 8, 2)
        samples, raters = draw(sizes[0], seed=seed, density=0.1), draw(sizes[1], seed=100 + seed, density=0.2)
        assert -1e-12 <= found(samples, raters) <= 2
        assert found(samples, raters) == pytest.approx(found(raters, samples), abs=1e-12)
    full, corner = np.ones((1, 1, 4, 4), bool), np.zeros((1, 1, 4, 4), bool)
    assert found(full, corner) == 2.0, "disjoint, and each sure of itself"


def test_two_empty_masks_agree():
    empty, full = np.zeros((2, 1, 3, 3), bool), np.ones((2, 1, 3, 3), bool)
    assert found(empty, empty) == 0.0
    assert found(np.concatenate([empty, full]), np.concatenate([empty, full])) == 0.0
    assert found(empty, np.concatenate([empty, full])) == 0.5


def test_a_volume_has_one_iou():
    """A sample that is right in a large slice and wrong in a small one: counts are added up before they are divided."""
    sample, rater = np.zeros((2, 1, 2, 4, 4), bool)
    sample[0, 0] = rater[0, 0] = True
    rater[0, 1, 0, :2] = True
    assert found(sample, rater) == pytest.approx(2 * (1 - 16 / 18))


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (7, 9), (8, 8), (5, 13), (16, 20)])
def test_counts_of_any_number_of_pixels(shape):
    masks = draw(6, (2, *shape)).swapaxes(0, 1)
    as_numbers = masks.astype(int)
    np.testing.assert_array_equal(shared_pixels(masks), np.einsum("bmhw,bnhw->bmn", as_numbers, as_numbers))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\) bool"):
        shared_pixels(np.zeros((2, 3), bool))
    with pytest.raises(ValueError, match="float64"):
        shared_pixels(np.zeros((1, 2, 3, 3)))
    for n_samples in (0, 2):
        with pytest.raises(ValueError, match=f"{n_samples} samples among 2 masks"):
            squared_ged(np.zeros((2, 2), np.int64), n_samples)
