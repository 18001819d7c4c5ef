"""Fusion strategies against hand-worked examples and properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dmseg.errors import UserError
from dmseg.labels.fusion import FusionWarning, each_rater, fuse, majority, uniform, weighted

annotations = st.integers(1, 7).flatmap(lambda raters: hnp.arrays(np.uint8, (raters, 3, 4), elements=st.integers(0, 1)))


@pytest.mark.parametrize(
    ("votes", "raters", "expected"),
    [
        (1, 1, 1),
        (1, 2, 0),
        (2, 2, 1),
        (2, 3, 1),
        (1, 3, 0),
        (2, 4, 0),
        (3, 4, 1),
        (3, 5, 1),
        (3, 6, 0),
        (4, 6, 1),
        (4, 7, 1),
    ],
)
def test_majority_needs_more_than_half(votes, raters, expected):
    given_votes = np.zeros((raters, 1, 1), dtype=np.uint8)
    given_votes[:votes] = 1
    assert majority(given_votes)[0, 0] == expected


@pytest.mark.parametrize("raters", range(1, 8))
def test_only_ties_of_a_majority_depend_on_the_rule(raters):
    given_votes = np.tri(raters + 1, raters, k=-1, dtype=np.uint8).T  # column v has v votes
    share = given_votes.mean(axis=0)
    assert np.array_equal(majority(given_votes, ties="background"), share > 0.5)
    assert np.array_equal(majority(given_votes, ties="foreground"), share >= 0.5)
    assert np.array_equal(majority(given_votes), majority(given_votes, ties="background"))


def test_majority_refuses_another_rule_for_ties():
    with pytest.raises(UserError, match="ties is 'random', but must be background or foreground"):
        majority(np.ones((2, 1, 1), dtype=np.uint8), ties="random")


def test_uniform_is_the_mean():
    given_votes = np.array([[[0, 1]], [[0, 1]], [[1, 1]]], dtype=np.uint8)
    assert uniform(given_votes) == pytest.approx(np.array([[1 / 3, 1.0]]))
    assert uniform(given_votes).dtype == np.float32


def test_weighted_by_hand():
    # Majority is pixels 0-1. Rater 0 agrees (Dice 1), rater 1 marks 0-2 (Dice 4/5), rater 2 marks 0 (Dice 2/3).
    given_votes = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]], dtype=np.uint8)
    weights = np.array([1, 4 / 5, 2 / 3])
    expected = weights @ given_votes / weights.sum()
    assert weighted(given_votes) == pytest.approx(expected, abs=1e-6)


def test_weights_are_of_the_whole_case():
    rng = np.random.default_rng(0)
    volume = (rng.random((3, 2, 5, 5)) < 0.5).astype(np.uint8)
    flat = weighted(volume.reshape(3, -1)).reshape(2, 5, 5)
    assert np.array_equal(weighted(volume), flat)
    assert not np.allclose(weighted(volume)[0], weighted(volume[:, 0]))


def test_disjoint_rater_weighs_nothing_or_one():
    given_votes = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=np.uint8)
    assert weighted(given_votes) == pytest.approx([1, 1, 0])
    assert weighted(given_votes, disjoint_weight=1.0) == pytest.approx([2 / 3, 2 / 3, 1 / 3])


def test_no_weights_fall_back_to_uniform_and_say_so():
    given_votes = np.eye(3, dtype=np.uint8)  # no two raters agree: the majority is empty, and nobody is
    with pytest.warns(FusionWarning, match="using equal weights"):
        label = weighted(given_votes)
    assert label == pytest.approx(uniform(given_votes))


def test_empty_raters_agree_with_an_empty_majority():
    given_votes = np.array([[0, 0], [0, 0], [1, 0]], dtype=np.uint8)
    assert weighted(given_votes) == pytest.approx([0, 0])


@given(annotations)
def test_every_label_lies_between_the_raters(votes):
    for label in (majority(votes), uniform(votes)):
        assert np.all(label >= votes.min(axis=0))
        assert np.all(label <= votes.max(axis=0))
    assert np.array_equal(majority(votes), (uniform(votes) > 0.5).astype(np.uint8))
    assert np.array_equal(each_rater(votes), votes)


@given(annotations)
@pytest.mark.filterwarnings("ignore::dmseg.labels.fusion.FusionWarning")
def test_order_of_raters_does_not_matter(votes):
    for strategy in (majority, uniform, weighted):
        assert strategy(votes[::-1]) == pytest.approx(strategy(votes), abs=1e-6)


def test_a_fusion_that_changes_its_argument_changes_a_copy():
    def careless(annotations, raters):
        annotations[1:] |= annotations[0]
        return annotations.mean(0)

    votes = np.array([[1, 0], [0, 0]], dtype=np.uint8)
    assert fuse(careless, votes, ["a", "b"]).tolist() == [1, 0]
    assert votes.tolist() == [[1, 0], [0, 0]]
