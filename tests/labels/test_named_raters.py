"""Fusions that know the raters' names: one rater, weights by rater, and fusions of one's own."""

from functools import partial

import numpy as np
import pytest

from dmseg.errors import UserError
from dmseg.labels.fusion import (
    NoLabelError,
    declared_votes,
    fuse,
    majority,
    naming_raters,
    one_rater,
    rater_weights,
    uniform,
    weighted,
)
from dmseg.labels.trial import gives_soft_labels, try_fusion

MASKS = (np.random.default_rng(0).random((3, 4, 5)) < 0.5).astype(np.uint8)
NAMES = ("anna", "ben", "cleo")


def test_the_masks_of_one_rater():
    for index, name in enumerate(NAMES):
        label = fuse(partial(one_rater, rater=name), MASKS, NAMES)
        assert np.array_equal(label, MASKS[index])
        assert label.dtype == np.uint8
    without_ben = fuse(partial(one_rater, rater="cleo"), MASKS[[0, 2]], ("anna", "cleo"))
    assert np.array_equal(without_ben, MASKS[2])
    with pytest.raises(NoLabelError, match="rater ben did not annotate it"):
        fuse(partial(one_rater, rater="ben"), MASKS[[0, 2]], ("anna", "cleo"))
    assert np.array_equal(fuse(partial(one_rater, rater=2), MASKS, ("1", "2", "3")), MASKS[1]), "a name may be a number"


def test_weights_are_divided_by_those_of_the_raters_present():
    fusion = partial(rater_weights, weights={"cleo": 3, "anna": 1})
    assert fuse(fusion, MASKS, NAMES) == pytest.approx(np.average(MASKS, axis=0, weights=[1, 0, 3]))
    assert fuse(fusion, MASKS[1:], NAMES[1:]) == pytest.approx(MASKS[2])
    with pytest.raises(NoLabelError, match=r"none of its raters \(ben\) has a weight"):
        fuse(fusion, MASKS[1:2], NAMES[1:2])
    equal = partial(rater_weights, weights=dict.fromkeys(NAMES, 0.3))
    assert fuse(equal, MASKS, NAMES) == pytest.approx(uniform(MASKS))
    huge = partial(rater_weights, weights=dict.fromkeys(NAMES, 1e308))
    assert fuse(huge, MASKS, NAMES) == pytest.approx(uniform(MASKS))


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), True, "two", None])
def test_weights_that_are_none_are_refused(weight):
    with pytest.raises(UserError, match=r"weights\.ben is .*, but must be a number above 0; leave out raters"):
        rater_weights(MASKS, NAMES, weights={"anna": 1, "ben": weight})
    with pytest.raises(UserError, match="weights is 3, but must be weights of raters by name"):
        rater_weights(MASKS, NAMES, weights=3)  # type: ignore[arg-type]


def test_declared_votes_reproduce_the_labels():
    for fusion in (partial(one_rater, rater="ben"), partial(rater_weights, weights={"anna": 2, "cleo": 1})):
        votes = declared_votes(fusion)
        assert votes is not None
        assert fuse(votes, MASKS, NAMES).fuse(MASKS) == pytest.approx(fuse(fusion, MASKS, NAMES))
    for ties in ("background", "foreground"):
        votes = declared_votes(partial(majority, ties=ties))
        assert votes is not None
        assert np.array_equal(fuse(votes, MASKS[:2], NAMES[:2]).fuse(MASKS[:2]), majority(MASKS[:2], ties))


def test_ties_decide_which_majority_weights_compare_with():
    masks = np.array([[1, 1, 0, 0], [0, 1, 1, 1]], dtype=np.uint8)
    above = np.array([2 / 3, 1 / 2])  # Dice with pixel 1
    level = np.array([2 * 2 / (2 + 4), 2 * 3 / (3 + 4)])  # with all four
    assert weighted(masks) == pytest.approx(np.average(masks, axis=0, weights=above))
    assert weighted(masks, ties="foreground") == pytest.approx(np.average(masks, axis=0, weights=level))


def test_the_kind_is_known_before_the_names_are():
    assert not gives_soft_labels(partial(one_rater, rater=None))
    assert gives_soft_labels(partial(rater_weights, weights=None))


@pytest.mark.parametrize(
    ("fusion", "message"),
    [
        (partial(one_rater, rater="dora"), "labels.rater names 'dora', but the task's raters are anna, ben, cleo"),
        (partial(one_rater, rater=None), "labels.rater is not set; the task's raters are anna, ben, cleo"),
        (partial(rater_weights, weights={"anna": 1, "dora": 2}), "labels.weights names 'dora', but the task's raters"),
        (partial(rater_weights, weights={}), "labels.weights is not set; the task's raters are anna, ben, cleo"),
        (partial(rater_weights, weights={"anna": 0}), "labels: weights.anna is 0, but must be a number above 0"),
        (partial(majority, ties="both"), "labels: ties is 'both', but must be background or foreground"),
    ],
)
def test_planning_refuses_names_that_the_task_does_not_have(fusion, message):
    with pytest.raises(UserError) as caught:
        try_fusion(fusion, 3, "labels", raters=NAMES)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value).splitlines()) == 1


def test_fusions_of_ones_own_get_names_only_if_they_ask():
    def asks(annotations, raters):
        return annotations[0 if raters is None else raters.index("cleo")]

    def option(annotations, raters=3):
        return annotations[:raters].mean(axis=0)

    def anything(annotations, **options):
        assert not options
        return annotations[0]

    assert np.array_equal(fuse(asks, MASKS, NAMES), MASKS[2])
    assert fuse(partial(option, raters=2), MASKS, NAMES) == pytest.approx(MASKS[:2].mean(axis=0))
    assert np.array_equal(fuse(anything, MASKS, NAMES), MASKS[0])
    assert np.array_equal(fuse(np.asarray, MASKS, NAMES), MASKS)

    declared = naming_raters("experts")(lambda annotations, experts=(): annotations[0])
    try_fusion(partial(declared, experts=["anna"]), 3, "labels", raters=NAMES)
    with pytest.raises(UserError, match=r"labels\.experts names 'dora'"):
        try_fusion(partial(declared, experts=["anna", "dora"]), 3, "labels", raters=NAMES)
