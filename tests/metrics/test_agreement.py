"""Rater agreement against torchmetrics and by hand."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.segmentation import dice_score

from dmseg.metrics.agreement import rater_dice


def make_raters(seed=0, raters=4, shape=(3, 8, 8)):
    rng = np.random.default_rng(seed)
    return (rng.random((raters, *shape)) < rng.uniform(0.2, 0.8, (raters, 1, 1, 1))).astype(np.uint8)


def theirs(first, second):
    """Dice of torchmetrics over the whole case."""
    pair = (torch.from_numpy(item.reshape(1, -1).astype(np.int64)) for item in (first, second))
    return float(dice_score(*pair, num_classes=2, include_background=False, average="micro", input_format="index")[0])


@pytest.mark.filterwarnings("ignore:dice_score metric:UserWarning")
def test_against_torchmetrics():
    raters = make_raters()
    majority = raters.sum(axis=0) >= 3
    found = rater_dice(raters, majority)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [theirs(rater, majority) for rater in raters], atol=1e-6)


def test_by_hand():
    raters = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], dtype=bool)
    majority = np.array([1, 1, 0, 0])
    np.testing.assert_allclose(rater_dice(raters, majority), [1, 2 / 3, 0, 0])
    np.testing.assert_allclose(rater_dice(raters, majority, disjoint=1.0), [1, 2 / 3, 1, 1])
    np.testing.assert_allclose(rater_dice(raters[:1], np.zeros(4)), [0])


def test_two_empty_masks_get_the_value_asked_for():
    raters = np.array([[0, 0], [0, 1]])
    np.testing.assert_array_equal(rater_dice(raters, np.zeros(2)), [1, 0])
    np.testing.assert_array_equal(rater_dice(raters, np.zeros(2), both_empty=0.0, disjoint=0.25), [0, 0.25])
    np.testing.assert_array_equal(rater_dice(raters, raters[0], both_empty=0.5), [0.5, 0])


def test_values_other_than_one_are_foreground():
    raters = make_raters(1)
    majority = raters[0]
    np.testing.assert_array_equal(rater_dice(raters * 255, majority * 255), rater_dice(raters, majority))


def test_shapes_that_do_not_fit_are_refused():
    raters = make_raters(2)
    with pytest.raises(ValueError, match=r"\(3, 8\)"):
        rater_dice(raters, raters[0, ..., 0])


def test_lists_and_tensors_of_any_float_type_are_taken():
    raters = make_raters(3)
    expected = rater_dice(raters, raters[0])
    for kind in (torch.bfloat16, torch.float16, torch.float64, torch.uint8):
        given = torch.tensor(raters).to(kind)
        given = given.requires_grad_() if kind.is_floating_point else given
        np.testing.assert_array_equal(rater_dice(given, given[0]), expected)
        np.testing.assert_array_equal(rater_dice(list(given), given[0]), expected)


def test_what_is_no_mask_is_named():
    raters = make_raters(4)
    with pytest.raises(ValueError, match=r"annotations has NaN; .* leave out raters who did not annotate the case"):
        rater_dice(np.where(raters, 1.0, np.nan), raters[0])
    with pytest.raises(TypeError, match="annotations is a list with None in it"):
        rater_dice([raters[0], None], raters[0])
    with pytest.raises(ValueError, match="annotations is a list whose items differ in shape"):
        rater_dice([raters[0], raters[1, :1]], raters[0])
