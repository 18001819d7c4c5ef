"""Label smoothing against scipy's erosion and closed forms."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from dmseg.labels.smoothing import boundary, smooth


def one_hot(mask):
    mask = torch.as_tensor(np.asarray(mask, dtype=np.float32))[None]
    return torch.stack([1 - mask, mask], dim=1)


@pytest.mark.parametrize("kernel", [3, 5])
def test_boundary_is_what_erosion_of_either_class_removes(kernel):
    mask = np.random.default_rng(0).random((20, 24)) < 0.1
    mask = ndimage.binary_dilation(mask, iterations=3)
    structure = np.ones((kernel, kernel))
    kept = ndimage.binary_erosion(mask, structure, border_value=1) | ndimage.binary_erosion(
        ~mask, structure, border_value=1
    )
    found = boundary(one_hot(mask), torch.ones(1, 20, 24, dtype=torch.bool), kernel)[0].numpy()
    assert np.array_equal(found, ~kept)
    assert 0 < found.mean() < 1


def test_pixels_near_the_padding_are_not_boundary():
    mask = np.zeros((8, 8))
    mask[:, 4:] = 1
    valid = torch.ones(1, 8, 8, dtype=torch.bool)
    valid[:, :3] = False
    found = boundary(one_hot(mask), valid, 3)[0]
    assert not found[:4].any()
    assert found[4:, 3:5].all()
    assert found[4:].sum() == 8


def test_boundary_smoothing_of_a_binary_label_is_three_quarters():
    mask = np.zeros((6, 6))
    mask[:, 3:] = 1
    label = smooth(one_hot(mask), torch.ones(1, 6, 6, dtype=torch.bool), 0.5, kernel=3)[0, 1]
    assert torch.equal(label[0], torch.tensor([0, 0, 0.25, 0.75, 1, 1]))


def test_uniform_smoothing_touches_every_pixel():
    mask = np.zeros((4, 4))
    mask[0] = 1
    label = smooth(one_hot(mask), torch.ones(1, 4, 4, dtype=torch.bool), 0.1)
    assert torch.allclose(label[0, 1, 0], torch.full((4,), 0.95))
    assert torch.allclose(label[0, 1, 1:], torch.full((3, 4), 0.05))
    assert torch.allclose(label.sum(dim=1), torch.ones(1, 4, 4))
