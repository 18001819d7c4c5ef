"""Keys drawn from a batch, and which pixels are recalibrated."""

import pytest
import torch

from dmseg.calibration import Keys, PixelKernel, draw_keys, kernel_estimate, recalibrate
from dmseg.labels.smoothing import boundary

N_IMAGES, SIZE = 3, 24


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(n_classes=2, seed=0):
    """Predictions, one-hot labels of discs (all of one class in the last image), and a mask with padding."""
    generator = stream(seed)
    rows = torch.arange(SIZE)
    distance = (rows[:, None] - 12) ** 2 + (rows[None] - 11) ** 2
    hard = torch.stack([(distance < 40 - 12 * k) * (1 + (k % (n_classes - 1))) for k in range(N_IMAGES)])
    hard[-1] = 0
    one_hot = torch.nn.functional.one_hot(hard, n_classes).movedim(-1, 1).float()
    prob = (2 * one_hot + 1.5 * torch.randn(one_hot.shape, generator=generator)).softmax(1)
    mask = torch.ones(hard.shape, dtype=torch.bool)
    mask[:, :, :4] = False
    return prob, one_hot, mask


def test_as_many_keys_of_each_class_and_none_in_the_padding():
    _, one_hot, mask = batch()
    hard = one_hot.argmax(1).flatten()
    index, counted = draw_keys(hard, mask.flatten(), 2, 31, True, stream())
    keys = index[counted]
    assert [int((hard[keys] == k).sum()) for k in (0, 1)] == [16, 16]
    assert len(set(keys.tolist())) == 32
    assert bool(mask.flatten()[keys].all())


def test_a_class_with_fewer_pixels_gives_all_and_an_absent_one_none():
    hard = torch.zeros(100, dtype=torch.long)
    hard[:3] = 1
    index, counted = draw_keys(hard, torch.ones(100, dtype=torch.bool), 3, 20, True, stream())
    assert torch.bincount(hard[index[counted]]).tolist() == [10, 3]


def test_keys_as_the_pixels_come():
    hard = (torch.arange(4000) % 10 == 0).long()
    index, counted = draw_keys(hard, torch.ones(4000, dtype=torch.bool), 2, 1000, False, stream())
    assert bool(counted.all())
    assert len(set(index.tolist())) == 1000
    assert 60 < int(hard[index].sum()) < 140


def test_draws_follow_the_stream():
    hard, keep = torch.arange(500) % 2, torch.ones(500, dtype=torch.bool)
    generator = stream()
    state = generator.get_state()
    first, second = (draw_keys(hard, keep, 2, 20, True, generator)[0] for _ in range(2))
    assert first.tolist() != second.tolist()
    generator.set_state(state)
    assert draw_keys(hard, keep, 2, 20, True, generator)[0].tolist() == first.tolist()


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("keys", ["batch", "image"])
def test_only_misclassified_and_boundary_pixels_change(n_classes, keys):
    prob, one_hot, mask = batch(n_classes)
    out = recalibrate(prob, one_hot, mask, PixelKernel(1e-2, 200, keys), stream())
    hard = one_hot.argmax(1)
    chosen = mask & ((prob.argmax(1) != hard) | boundary(one_hot, mask, 3))
    changed = (out != prob).any(1)
    assert 0.1 < float(chosen.float().mean()) < 0.9
    assert not bool((changed & ~chosen).any())
    assert float(changed[chosen].float().mean()) > 0.95
    torch.testing.assert_close(out.sum(1), torch.ones_like(out[:, 0]))


def test_all_pixels_as_keys_give_the_estimate_from_all():
    """Each image by itself; the last has one class, so its estimate is that class."""
    prob, one_hot, mask = batch()
    out = recalibrate(prob, one_hot, mask, PixelKernel(1e-2, 2 * SIZE * SIZE, "image"), stream())
    for found, p, y, keep in zip(out, prob, one_hot, mask, strict=True):
        rows, labels = p[:, keep].T, y[:, keep].T
        expected = kernel_estimate(rows, Keys(rows, labels), 1e-2)
        changed = (rows != found[:, keep].T).any(1)
        torch.testing.assert_close(found[:, keep].T[changed], expected[changed], rtol=0, atol=3e-4)
    misclassified = mask[2] & (prob[2, 1] > 0.5)
    assert float(out[2, 0][misclassified].min()) == 1


def test_a_key_left_out_is_estimated_from_the_others():
    prob, one_hot, mask = batch()
    settings = PixelKernel(1e-2, 2 * mask.numel(), "batch", leave_one_out=True)
    out = recalibrate(prob, one_hot, mask, settings, stream())
    rows, labels = (item.movedim(1, -1)[mask] for item in (prob, one_hot))
    expected = kernel_estimate(rows, Keys(rows, labels), 1e-2, torch.arange(len(rows)))
    found = out.movedim(1, -1)[mask]
    changed = (found != rows).any(1)
    torch.testing.assert_close(found[changed], expected[changed], rtol=0, atol=1e-6)


def test_nothing_in_the_padding_matters():
    prob, one_hot, mask = batch()
    other = torch.where(mask.unsqueeze(1), prob, prob.flip(1))
    labels = torch.where(mask.unsqueeze(1), one_hot, one_hot.flip(1))
    keep = mask.unsqueeze(1).expand_as(prob)
    one, two = (
        recalibrate(p, y, mask, PixelKernel(1e-2, 100), stream()) for p, y in ((prob, one_hot), (other, labels))
    )
    inside = keep & ~boundary(one_hot, mask, 5).unsqueeze(1)
    torch.testing.assert_close(one[inside], two[inside])


def test_a_batch_without_a_pixel_stays():
    prob, one_hot, mask = batch()
    out = recalibrate(prob, one_hot, torch.zeros_like(mask), PixelKernel(), stream())
    assert torch.equal(out, prob)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_volumes_of_one_slice_are_images(n_classes):
    prob, one_hot, mask = batch(n_classes)
    flat = recalibrate(prob, one_hot, mask, PixelKernel(1e-2, 200), stream())
    for axis in (2, 3):
        volumes = (prob.unsqueeze(axis), one_hot.unsqueeze(axis), mask.unsqueeze(axis - 1))
        found = recalibrate(*volumes, PixelKernel(1e-2, 200), stream())
        torch.testing.assert_close(found, flat.unsqueeze(axis), rtol=0, atol=0)


def test_volumes_with_as_many_slices_as_classes():
    prob, one_hot, mask = (torch.stack([item, item.flip(0)], item.ndim - 2) for item in batch())
    hard = one_hot.argmax(1)
    out = recalibrate(prob, one_hot, mask, PixelKernel(1e-2, 200), stream())
    chosen = mask & ((prob.argmax(1) != hard) | boundary(one_hot, mask, 3))
    changed = (out != prob).any(1)
    assert not bool((changed & ~chosen).any())
    assert float(changed[chosen].float().mean()) > 0.95


@pytest.mark.parametrize("keys", ["batch", "image"])
def test_no_images(keys):
    prob, one_hot, mask = (item[:0] for item in batch())
    assert recalibrate(prob, one_hot, mask, PixelKernel(keys=keys), stream()).shape == prob.shape


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda p, y, m, s: recalibrate(p, y, None, *s), TypeError, "mask is None; give a tensor"),
        (lambda p, y, m, s: recalibrate(p, y, m.byte(), *s), TypeError, "mask is torch.uint8; give bool"),
        (lambda p, y, m, s: recalibrate(p, y, m[:, None], *s), ValueError, r"mask has shape \(3, 1, 24, 24\); give"),
        (lambda p, y, m, s: recalibrate(p, y.argmax(1), m, *s), ValueError, r"target has shape \(3, 24, 24\); give a"),
        (lambda p, y, m, s: recalibrate(p[:, 1:], y[:, 1:], m, *s), ValueError, r"one channel p, torch\.cat"),
        (lambda p, y, m, s: recalibrate(p.long(), y, m, *s), TypeError, "prob is torch.int64"),
        (lambda p, y, m, s: PixelKernel(keys="images"), ValueError, "keys is 'images', but must be batch or image"),
        (lambda p, y, m, s: PixelKernel(bandwidth=0), ValueError, "bandwidth is 0"),
        (lambda p, y, m, s: PixelKernel(n_key=0), ValueError, "n_key is 0"),
        (lambda p, y, m, s: PixelKernel(n_key=1.5), ValueError, r"n_key is 1\.5, but must be a whole number"),
        (lambda p, y, m, s: PixelKernel(boundary=2), ValueError, "boundary is 2, but must be an odd whole number"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call(*batch(), (PixelKernel(), stream()))
