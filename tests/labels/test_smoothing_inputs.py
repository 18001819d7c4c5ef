"""What the functions for smoothing accept, volumes and single channels included, and what they refuse."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from dmseg.labels.smoothing import boundary, smooth, svls

RNG = np.random.default_rng(3)
CLASSES = torch.as_tensor(RNG.integers(0, 3, (2, 7, 9)))
ONE_HOT = torch.nn.functional.one_hot(CLASSES, 3).movedim(-1, 1)
LABEL = ONE_HOT.float()
MASK = torch.as_tensor(RNG.random((2, 7, 9)) < 0.9)
ALL = torch.ones(2, 7, 9, dtype=torch.bool)
INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int32, torch.int64)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_and_bool_give_a_soft_float_label(dtype):
    for change in (svls, lambda label: smooth(label, None, 0.2), lambda label: smooth(label, MASK, 0.2, 3)):
        found = change(ONE_HOT.to(dtype))
        assert found.dtype == torch.float32
        assert torch.equal(found, change(LABEL))
        assert ((found > 0) & (found < 1)).any()
    assert torch.equal(boundary(ONE_HOT.to(dtype), MASK), boundary(LABEL, MASK))


@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_keep_their_dtype(dtype):
    for change in (svls, lambda label: smooth(label, MASK, 0.2, 3)):
        found = change(LABEL.to(dtype))
        assert found.dtype == dtype
        assert torch.allclose(found.float(), change(LABEL), rtol=0, atol=5e-3)


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
def test_a_mask_of_any_dtype_is_that_of_bools(dtype):
    assert torch.equal(smooth(LABEL, MASK.to(dtype), 0.2, 3), smooth(LABEL, MASK, 0.2, 3))
    assert torch.equal(boundary(LABEL, MASK.to(dtype)), boundary(LABEL, MASK))
    assert not torch.equal(boundary(LABEL, MASK), boundary(LABEL, ALL))


def test_no_mask_uses_all_pixels():
    assert torch.equal(boundary(LABEL), boundary(LABEL, ALL))
    assert torch.equal(smooth(LABEL, None, 0.2, 3), smooth(LABEL, ALL, 0.2, 3))


def test_values_outside_the_mask_do_not_matter():
    odd = torch.where(MASK.unsqueeze(1), LABEL, 0.0)
    assert torch.equal(boundary(odd, MASK), boundary(LABEL, MASK))
    odd = torch.where(MASK.unsqueeze(1), LABEL, 255.0)
    assert torch.equal(boundary(odd, MASK), boundary(LABEL, MASK))


@pytest.mark.parametrize("kernel", [None, 3, 5])
def test_one_channel_is_the_foreground_of_two_classes(kernel):
    foreground = torch.as_tensor(ndimage.gaussian_filter(RNG.random((2, 20, 20)), (0, 2, 2)) > 0.5)[:, None].float()
    both = torch.cat([1 - foreground, foreground], dim=1)
    assert torch.equal(smooth(foreground, None, 0.2, kernel), smooth(both, None, 0.2, kernel)[:, 1:])
    assert torch.equal(boundary(foreground), boundary(both))
    assert 0 < boundary(foreground).float().mean() < 0.9
    assert torch.equal(svls(foreground), svls(both)[:, 1:])
    assert smooth(foreground, None, 0.2).unique() == pytest.approx([0.1, 0.9])


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_the_boundary_of_a_volume_is_what_erosion_removes(kernel):
    volume = ndimage.gaussian_filter(RNG.random((12, 14, 16)), 2) > 0.5
    structure = np.ones((kernel,) * 3)
    kept = ndimage.binary_erosion(volume, structure, border_value=1)
    kept |= ndimage.binary_erosion(~volume, structure, border_value=1)
    label = torch.as_tensor(np.stack([~volume, volume])[None])
    assert np.array_equal(boundary(label, None, kernel)[0].numpy(), ~kept)
    assert kernel == 1 or 0 < kept.mean() < 1
    smoothed = smooth(label, None, 0.5, kernel)[0, 1].numpy()
    assert smoothed == pytest.approx(np.where(kept, volume, np.where(volume, 0.75, 0.25)))


@pytest.mark.parametrize(("sigma", "kernel"), [(1.0, 3), (0.6, 5)])
def test_svls_of_a_volume_is_scipys_convolution(sigma, kernel):
    volume = RNG.random((6, 9, 8)) < 0.4
    line = np.arange(kernel) - kernel // 2
    square = sum(np.square(axis) for axis in np.meshgrid(line, line, line))
    weights = np.where(square == 0, 0, np.exp(-square / (2 * sigma**2)))
    weights = weights / weights.sum() / 2 + np.where(square == 0, 0.5, 0)
    found = svls(torch.as_tensor(np.stack([~volume, volume])[None]), sigma, kernel)[0]
    smoothed = ndimage.convolve(volume.astype(float), weights, mode="nearest")
    assert found.numpy() == pytest.approx(np.stack([1 - smoothed, smoothed]), abs=1e-6)


@pytest.mark.parametrize("sigma", [1e-200, 1e200])
def test_sigma_of_any_size_gives_a_distribution(sigma):
    assert torch.allclose(svls(LABEL, sigma).sum(1), torch.ones(2, 7, 9))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: svls(LABEL, kernel=1), "kernel is 1, but must be odd and at least 3"),
        (lambda: svls(LABEL, kernel=4), "kernel is 4, but must be odd"),
        (lambda: smooth(LABEL, None, 0.1, 4), "kernel is 4, but must be odd and at least 1"),
        (lambda: boundary(LABEL, None, 0), "kernel is 0"),
        (lambda: boundary(LABEL, None, -3), "kernel is -3"),
        (lambda: svls(LABEL, sigma=0), "sigma is 0, but must be above 0 and finite"),
        (lambda: svls(LABEL, sigma=float("nan")), "sigma is nan"),
        (lambda: smooth(LABEL, None, 2.0), r"epsilon is 2\.0, but must lie between 0 and 1"),
        (lambda: smooth(LABEL, None, -1), "epsilon is -1"),
        (lambda: smooth(LABEL, None, float("nan")), "epsilon is nan"),
        (lambda: smooth(CLASSES, None, 0.1), r"one_hot has shape \(2, 7, 9\); give \(batch, .*one_hot\(classes, C\)"),
        (lambda: svls(LABEL[:, :0]), r"label has shape \(2, 0, 7, 9\)"),
        (lambda: boundary(LABEL[..., :0]), r"one_hot has shape \(2, 3, 7, 0\)"),
        (lambda: smooth(LABEL, MASK[:, None], 0.1), r"mask has shape \(2, 1, 7, 9\); give .* = \(2, 7, 9\)"),
        (lambda: boundary(LABEL, MASK * 255), "mask holds values other than 0 and 1"),
        (lambda: boundary(LABEL, MASK.to("meta")), "mask is on meta and the label on cpu"),
        (lambda: svls(LABEL * 255), r"label holds 255, outside \[0, 1\]; give a one-hot or soft label"),
        (lambda: svls(ONE_HOT * 255), "label holds 255"),
        (lambda: svls(-LABEL), "label holds -1"),
        (lambda: smooth(LABEL * float("nan"), None, 0.1), "one_hot holds nan"),
        (
            lambda: smooth(LABEL[:, 1:], None, 0.1),
            "one_hot does not sum to 1 over its 2 channels, but to 0; give all classes",
        ),
        (lambda: boundary(torch.randn(1, 4, 5, 5).sigmoid()), "does not sum to 1 over its 4 channels"),
    ],
)
def test_wrong_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: svls(ONE_HOT.numpy()), r"label is a numpy\.ndarray; give a tensor: torch\.from_numpy\(label\)"),
        (lambda: smooth(None, None, 0.1), "one_hot is None; give a tensor"),
        (lambda: boundary(LABEL, MASK.numpy()), r"mask is a numpy\.ndarray; give a tensor: torch\.from_numpy\(mask\)"),
        (lambda: boundary(LABEL, MASK.to(torch.complex64)), r"mask is torch\.complex64"),
        (lambda: svls(LABEL.to(torch.complex64)), r"label is torch\.complex64"),
        (lambda: svls(LABEL, kernel=3.0), r"kernel is 3\.0; give an odd whole number"),
        (lambda: smooth(LABEL, None, 0.1, True), "kernel is True"),
        (lambda: svls(LABEL, "1"), "sigma is '1'; give a number above 0"),
        (lambda: smooth(LABEL, None, None), "epsilon is None; give a number from 0 to 1"),
    ],
)
def test_wrong_types_are_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_numbers_of_numpy_are_numbers():
    assert torch.equal(svls(LABEL, np.float64(1), np.int64(3)), svls(LABEL))
    assert torch.equal(smooth(LABEL, None, np.float64(0.2), np.int32(3)), smooth(LABEL, None, 0.2, 3))


def test_an_empty_batch_stays_empty():
    assert svls(LABEL[:0]).shape == smooth(LABEL[:0], MASK[:0], 0.1, 3).shape == (0, 3, 7, 9)


@pytest.mark.filterwarnings("error")
def test_labels_with_a_gradient_keep_it():
    label = LABEL.clone().requires_grad_()
    svls(label)
    smooth(label, MASK, 0.2).sum().backward()
    assert label.grad is not None
    assert torch.allclose(label.grad, torch.tensor(0.8))
