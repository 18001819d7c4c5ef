"""STAPLE against SimpleITK's filter, a plain EM over single pixels, and properties."""

import warnings

import numpy as np
import pytest
from scipy import ndimage

from dmseg.errors import UserError
from dmseg.labels.fusion import FusionWarning, majority, staple
from dmseg.labels.staple_em import estimate, staple_posterior, vote_patterns


def outlines(n_raters, size=40, seed=0):
    """Masks of several raters who disagree at the contour of the same blobs."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(size, size)), 4)
    own = ndimage.gaussian_filter(rng.normal(size=(n_raters, size, size)), (0, 2, 2))
    return (field + 0.3 * own > 0.03).astype(np.uint8)


def plain_em(votes, n_classes, iterations, prior=None):
    """The formulas of Warfield et al. (2004), pixel by pixel and rater by rater."""
    flat = votes.reshape(len(votes), -1)
    raters, pixels = flat.shape
    posterior = np.array([[np.mean(flat[:, i] == s) for s in range(n_classes)] for i in range(pixels)])
    gamma = posterior.mean(axis=0) if prior is None else np.array(prior)
    for _ in range(iterations):
        theta = np.zeros((raters, n_classes, n_classes))
        for rater in range(raters):
            for pixel in range(pixels):
                theta[rater, flat[rater, pixel]] += posterior[pixel]
            theta[rater] /= posterior.sum(axis=0)
        for pixel in range(pixels):
            product = gamma.copy()
            for rater in range(raters):
                product *= theta[rater, flat[rater, pixel]]
            posterior[pixel] = product / product.sum()
    return posterior.T.reshape(n_classes, *votes.shape[1:]), theta


@pytest.mark.parametrize("n_raters", [2, 3, 4, 7])
def test_it_is_that_of_simpleitk(n_raters):
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
    masks = outlines(n_raters)
    reference = sitk.STAPLEImageFilter()
    reference.SetForegroundValue(1)
    expected = sitk.GetArrayFromImage(reference.Execute([sitk.GetImageFromArray(mask) for mask in masks]))
    found = staple_posterior(masks)
    assert found.converged
    assert np.allclose(found.posterior[1], expected, rtol=0, atol=1e-9)
    assert np.allclose(found.confusion[:, 1, 1], reference.GetSensitivity(), rtol=0, atol=1e-9)
    assert np.allclose(found.confusion[:, 0, 0], reference.GetSpecificity(), rtol=0, atol=1e-9)
    assert np.allclose(staple(masks), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("n_classes", "prior"), [(2, None), (2, (0.7, 0.3)), (3, None), (4, (0.4, 0.3, 0.2, 0.1))])
def test_it_is_that_of_a_plain_em(n_classes, prior):
    rng = np.random.default_rng(1)
    truth = rng.integers(0, n_classes, (8, 9))
    wrong = rng.random((5, 8, 9)) < np.array([0.05, 0.1, 0.2, 0.3, 0.4])[:, None, None]
    votes = np.where(wrong, rng.integers(0, n_classes, (5, 8, 9)), truth)
    expected, theta = plain_em(votes, n_classes, 6, prior)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = staple_posterior(votes, n_classes, prior, max_iterations=6)
    assert found.iterations == 6
    assert np.allclose(found.posterior, expected, rtol=0, atol=1e-12)
    assert np.allclose(found.confusion, theta, rtol=0, atol=1e-12)
    assert np.allclose(found.posterior.sum(axis=0), 1)


def test_binary_is_the_case_of_two_classes_with_any_names():
    masks = outlines(4)
    binary, among_four = staple_posterior(masks), staple_posterior(masks * 3, 4)
    assert np.allclose(among_four.posterior[3], binary.posterior[1], rtol=0, atol=1e-12)
    assert among_four.posterior[1:3].max() < 1e-100


def test_a_good_rater_outvotes_two_who_guess():
    rng = np.random.default_rng(2)
    truth = np.zeros((60, 60), dtype=np.uint8)
    truth[20:45, 15:40] = 1
    noisy = [np.where(rng.random(truth.shape) < 0.3, 1 - truth, truth) for _ in range(3)]
    votes = np.stack([np.where(rng.random(truth.shape) < 0.01, 1 - truth, truth), *noisy])
    right = (staple(votes, threshold=0.5) == truth).mean()
    assert right > 0.96 > 0.94 > (majority(votes) == truth).mean()


BLANK = np.zeros((6, 6), dtype=np.uint8)
SQUARE = BLANK.copy()
SQUARE[2:5, 1:4] = 1


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([BLANK, BLANK, BLANK], BLANK),
        ([BLANK + 1, BLANK + 1], BLANK + 1),
        ([SQUARE], SQUARE),
        ([BLANK], BLANK),
        ([SQUARE, SQUARE, SQUARE], SQUARE),
        ([SQUARE, SQUARE, SQUARE, BLANK], SQUARE),
        ([SQUARE, SQUARE, BLANK + 1], SQUARE),
        ([SQUARE, BLANK], SQUARE / 2),
    ],
    ids=["all-empty", "all-full", "one", "one-empty", "agree", "an-empty-one", "a-full-one", "two-with-an-empty-one"],
)
def test_degenerate_votes_have_sensible_labels(votes, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        label = staple(np.stack(votes))
        assert np.allclose(label, expected, rtol=0, atol=2e-3)
        agree = len({vote.tobytes() for vote in votes}) == 1
        for prior in (1e-9, 0.01, 0.9):
            label = staple(np.stack(votes), prior=prior)
            assert np.isfinite(label).all()
            assert not agree or np.array_equal(label, expected), "no prior outweighs raters who all agree"


def test_it_stops_at_the_tolerance_and_says_when_it_has_not():
    masks = outlines(3)
    exact = staple_posterior(masks, tolerance=1e-12)
    for tolerance in (1e-2, 1e-4, 1e-7):
        found = staple_posterior(masks, tolerance=tolerance)
        assert found.converged
        assert found.change <= tolerance
        before = staple_posterior(masks, tolerance=tolerance, max_iterations=found.iterations - 1)
        assert not before.converged
        assert before.change > tolerance
        assert np.abs(found.posterior - exact.posterior).max() < 2000 * tolerance
    with pytest.warns(FusionWarning, match=r"STAPLE has not converged in 3 iterations \(changes of \d\.\de-\d+ in"):
        assert np.isfinite(staple(masks, max_iterations=3)).all()


def test_an_ambiguous_pixel_follows_the_prior():
    masks = np.stack([SQUARE, BLANK])
    rising = [staple(masks, prior=prior)[3, 2] for prior in (0.01, 0.05, 0.1, 0.2)]
    assert all(np.diff(rising) > 0)
    share = masks.mean()
    assert np.array_equal(staple(masks, prior=share), staple(masks))


def test_the_threshold_makes_a_hard_label():
    masks = outlines(4)
    soft, hard = staple(masks), staple(masks, threshold=0.5)
    assert (soft.dtype, hard.dtype) == (np.float32, np.uint8)
    assert np.array_equal(hard, soft >= 0.5)
    assert 0 < hard.mean() < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": 0}, "prior is 0, but must lie between 0 and 1, or be None"),
        ({"prior": "much"}, "prior is 'much'"),
        ({"threshold": 0}, "threshold is 0, but must be above 0 and at most 1, or None"),
        ({"threshold": True}, "threshold is True"),
        ({"tolerance": 0.0}, "tolerance is 0.0, but must lie between 0 and 1"),
        ({"max_iterations": 1}, "max_iterations is 1, but must be a whole number of at least 2"),
        ({"max_iterations": 2.5}, "max_iterations is 2.5"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        staple(outlines(2), **options)


def test_a_prior_may_be_in_float32():
    votes = np.random.default_rng(0).integers(0, 4, (3, 9, 9))
    prior = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    assert abs(prior.astype(np.float64).sum() - 1) > 1e-9
    expected = staple_posterior(votes, 4, [0.1, 0.2, 0.3, 0.4]).posterior
    np.testing.assert_allclose(staple_posterior(votes, 4, prior).posterior, expected, atol=1e-5)


def test_wrong_votes_are_refused():
    for votes, n_classes in ((np.full((2, 3), 2), 2), (np.full((2, 3), -1), 2), (np.ones((2, 3)), 2)):
        with pytest.raises(ValueError, match="votes must be whole numbers from 0 to 1"):
            vote_patterns(votes, n_classes)
    for shape in ((0, 3), (2, 0), ()):
        with pytest.raises(ValueError, match="at least one rater and one pixel"):
            vote_patterns(np.zeros(shape, dtype=np.uint8))
    for prior in ((0.5, 0.6), (1.0,), (-0.5, 1.5)):
        with pytest.raises(ValueError, match="prior must be 2 probabilities that sum to 1"):
            staple_posterior(outlines(2), prior=prior)


def test_patterns_are_those_of_single_pixels():
    votes = np.random.default_rng(3).integers(0, 3, (6, 7, 8))
    patterns, counts, index = vote_patterns(votes, 3)
    assert np.array_equal(np.moveaxis(patterns[index], -1, 0), votes)
    assert len(np.unique(patterns, axis=0)) == len(patterns)
    assert np.array_equal(counts, np.bincount(index.ravel()))
    many = np.random.default_rng(4).integers(0, 2, (100, 5, 5), dtype=np.uint8)
    assert np.array_equal(np.moveaxis((lambda found: found[0][found[2]])(vote_patterns(many)), -1, 0), many)


def test_large_volumes_are_counted_exactly():
    """A float32 counter stops at 2**24. The same votes many times over have the same solution."""
    small = outlines(2, size=32)
    patterns, counts, index = vote_patterns(small)
    label = staple(np.tile(small.reshape(2, -1), (1, 2**15)), max_iterations=1000)
    assert label.shape == (2**25,)
    assert np.allclose(label.reshape(2**15, -1)[[0, -1]], staple(small).ravel(), rtol=0, atol=1e-6)
    posterior = estimate(patterns, counts * 2**40)[0]
    assert np.allclose(posterior[:, 1][index], staple(small), rtol=0, atol=1e-6)


def test_the_order_of_raters_and_pixels_does_not_matter():
    masks = outlines(5)
    assert np.allclose(staple(masks[::-1]), staple(masks), rtol=0, atol=1e-6)
    assert np.allclose(staple(masks[:, ::-1]), staple(masks)[::-1], rtol=0, atol=1e-6)
