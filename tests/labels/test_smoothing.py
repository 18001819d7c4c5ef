"""Label smoothing against scipy's erosion and closed forms."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from dmseg.labels.smoothing import boundary, smooth, svls


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


def gaussian_weights(sigma, kernel):
    """Weights of the paper: a Gaussian, its centre replaced by the sum of the others, divided by the sum of all."""
    line = np.arange(kernel) - kernel // 2
    weights = np.exp(-(line[:, None] ** 2 + line**2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    weights /= weights.sum()
    weights[kernel // 2, kernel // 2] = weights.sum() - weights[kernel // 2, kernel // 2]
    return weights / weights.sum()


@pytest.mark.parametrize(("sigma", "kernel"), [(1.0, 3), (0.5, 3), (2.0, 5), (1.5, 7)])
def test_svls_is_scipys_convolution(sigma, kernel):
    masks = np.random.default_rng(5).random((3, 14, 11)) < 0.4
    label = torch.cat([one_hot(mask) for mask in masks])
    found = svls(label, sigma, kernel)
    for mask, smoothed in zip(masks, found, strict=True):
        expected = ndimage.convolve(mask.astype(float), gaussian_weights(sigma, kernel), mode="nearest")
        assert np.allclose(smoothed[1], expected, rtol=0, atol=1e-6)
        assert np.allclose(smoothed[0], 1 - expected, rtol=0, atol=1e-6)
    assert found.dtype == torch.float32


def test_svls_at_a_straight_contour_by_hand():
    mask = np.zeros((6, 6))
    mask[:, 3:] = 1
    side = np.exp(-0.5)
    corner = np.exp(-1.0)
    across = (side + 2 * corner) / (4 * side + 4 * corner) / 2
    expected = torch.tensor([0, 0, across, 1 - across, 1, 1]).float()
    label = svls(one_hot(mask))[0, 1]
    for row in label:
        assert torch.allclose(row, expected, rtol=0, atol=1e-6)
    assert torch.equal(label[:, [0, 1, 4, 5]], torch.tensor([0.0, 0, 1, 1]).expand(6, 4)), "far pixels are unchanged"


def test_svls_of_the_mean_is_the_mean_of_svls_and_of_any_classes():
    rng = np.random.default_rng(6)
    raters = torch.cat([one_hot(rng.random((9, 9)) < 0.5) for _ in range(4)])
    assert torch.allclose(svls(raters.mean(0, keepdim=True)), svls(raters).mean(0, keepdim=True), atol=1e-6)
    four = torch.nn.functional.one_hot(torch.as_tensor(rng.integers(0, 4, (2, 9, 9))), 4).permute(0, 3, 1, 2).float()
    smoothed = svls(four)
    assert torch.allclose(smoothed.sum(dim=1), torch.ones(2, 9, 9))


def test_a_narrow_gaussian_weighs_the_nearest_neighbours_only():
    mask = np.zeros((5, 5))
    mask[2, 2] = 1
    label = svls(one_hot(mask), sigma=0.01)[0, 1]
    assert torch.allclose(label[2], torch.tensor([0, 0.125, 0.5, 0.125, 0]))
    assert label[1, 1] == 0
