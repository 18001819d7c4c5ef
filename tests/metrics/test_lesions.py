"""Lesion-wise F1: by hand, and against components found by a search from pixel to pixel."""

import itertools
import math

import numpy as np
import pytest
import torch

from dmseg.errors import UserError
from dmseg.metrics.lesions import lesion_f1


def picture(*slices):
    """Masks (S, H, W) drawn as text."""
    return np.array([[[character == "#" for character in row] for row in rows.split()] for rows in slices])


def components(mask, volume):
    """Sets of the voxels that belong together, by depth-first search."""
    left, found = set(map(tuple, np.argwhere(mask))), []
    steps = list(itertools.product((-1, 0, 1) if volume else (0,), (-1, 0, 1), (-1, 0, 1)))
    while left:
        stack, own = [left.pop()], set()
        while stack:
            voxel = stack.pop()
            own.add(voxel)
            near = {tuple(a + b for a, b in zip(voxel, step, strict=True)) for step in steps} & left
            left -= near
            stack += near
        found.append(own)
    return found


def plain(predicted, reference, volume):
    marked, truth = (set(map(tuple, np.argwhere(mask))) for mask in (predicted, reference))
    hits = sum(bool(lesion & marked) for lesion in components(reference, volume))
    missed = len(components(reference, volume)) - hits
    false = sum(not lesion & truth for lesion in components(predicted, volume))
    return 2 * hits / (2 * hits + missed + false)


@pytest.mark.parametrize("volume", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_random_lesions(seed, volume):
    rng = np.random.default_rng(seed)
    predicted, reference = rng.random((2, 4, 15, 12)) < rng.uniform(0.02, 0.15)
    assert lesion_f1(predicted, reference, volume) == pytest.approx(plain(predicted, reference, volume))


def test_by_hand():
    reference = picture("##...## ......# ....... ###....")  # three lesions, the first and second found
    predicted = picture("#....#. ....... ....... ....##.")  # one predicted lesion is false
    assert lesion_f1(predicted, reference, False) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert lesion_f1(reference, reference, False) == 1


def test_pixels_that_touch_at_a_corner_are_one_lesion():
    diagonal, end = picture("#.. .#. ..#"), picture("#.. ... ...")
    assert lesion_f1(end, diagonal, False) == 1
    apart = picture("#.. ... ..#")
    assert lesion_f1(end, apart, False) == pytest.approx(2 / 3)


def test_one_lesion_through_several_slices():
    reference, predicted = picture("#. ..", "#. ..", ".# .."), picture("#. ..", ".. ..", ".. ..")
    assert lesion_f1(predicted, reference, True) == 1
    assert lesion_f1(predicted, reference, False) == pytest.approx(2 / (2 + 2))


def test_one_large_prediction_may_find_several_lesions():
    assert lesion_f1(picture("#####"), picture("#.#.#"), False) == 1


def test_empty_masks():
    nothing, something = picture(".. .."), picture("#. ..")
    assert [lesion_f1(nothing, nothing, True, rule) for rule in ("one", "zero")] == [1, 0]
    assert math.isnan(lesion_f1(nothing, nothing, True))
    for rule in ("skip", "one", "zero"):
        assert lesion_f1(nothing, something, True, rule) == lesion_f1(something, nothing, True, rule) == 0


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match=r"must have the same shape \(S, H, W\)"):
        lesion_f1(np.ones((2, 3, 3), bool), np.ones((1, 3, 3), bool), True)
    with pytest.raises(UserError, match="empty is 'none'"):
        lesion_f1(picture("#"), picture("#"), True, "none")
    with pytest.raises(UserError, match=r"predicted has the value 0\.2, .* threshold the probability first"):
        lesion_f1(np.full((1, 3, 3), 0.2), picture("#.. ... ..#"), True)
    with pytest.raises(UserError, match="volume is 'no', but must be True or False"):
        lesion_f1(picture("#"), picture("#"), "no")


def test_tensors_and_numbers_are_taken():
    one, other = picture("##...## ......# ....... ###...."), picture("#....#. ....... ....... ....##.")
    for convert in (torch.from_numpy, np.uint8, np.float64):
        assert lesion_f1(convert(other), convert(one), np.False_) == lesion_f1(other, one, False)
