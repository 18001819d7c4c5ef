"""Half precision, extreme logits, empty and full masks, and that nothing waits for the device."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dmseg.losses import (
    AdaptiveWingLoss,
    CompatibleFocalTverskyLoss,
    CompoundLoss,
    DiceSemimetricLoss,
    FocalCrossEntropyLoss,
    JaccardMetricLoss,
    SoftCrossEntropyLoss,
    SoftDiceLoss,
    SoftFocalTverskyLoss,
)

FREE = {"check_values": False}
LOSSES = {
    "sdl": SoftDiceLoss(**FREE),
    "sdl-l2": SoftDiceLoss(squared=True, smooth=0, **FREE),
    "focal-stl": SoftFocalTverskyLoss(0.7, 0.3, 0.5, smooth=0, **FREE),
    "dml1": DiceSemimetricLoss(smooth=0, **FREE),
    "dml2-image": DiceSemimetricLoss(2, reduction="image", smooth=0, **FREE),
    "jml1-class": JaccardMetricLoss(1, reduction="class", classes="present", **FREE),
    "jml2-log": JaccardMetricLoss(2, log_loss=True, class_weights=(1.0, 2.0, 1.0), smooth=0, **FREE),
    "cftl": CompatibleFocalTverskyLoss(0.7, 0.3, 0.75, classes="foreground", smooth=0, **FREE),
    "ce": SoftCrossEntropyLoss(**FREE),
    "kl": SoftCrossEntropyLoss(kl=True, **FREE),
    "focal-ce": FocalCrossEntropyLoss(0.5, **FREE),
    "wing": AdaptiveWingLoss(**FREE),
    "compound": CompoundLoss(
        {"kl": (0.25, SoftCrossEntropyLoss(kl=True, **FREE)), "dml1": (0.75, DiceSemimetricLoss(**FREE))}
    ),
}


def losses(channels):
    """The losses that take so many channels."""
    for name, loss in LOSSES.items():
        if (channels > 1 or name not in ("ce", "kl", "focal-ce", "compound")) and (channels == 3 or name != "jml2-log"):
            yield name, loss


def value_and_gradient(loss, logits, target, mask=None):
    logits = logits.detach().requires_grad_()
    value = loss(logits, target, mask)
    value.backward()
    return value.detach(), logits.grad


def extreme_logits(dtype=torch.float32):
    """(4, 3, 6): all zero, all sure, sure of the wrong thing, mixed."""
    logits = torch.zeros(4, 3, 6, dtype=dtype)
    logits[1, 0], logits[2, 2] = 1e4, -1e4
    logits[3] = torch.tensor([1e4, -1e4, 0.0, 30.0, -200.0, 1.0], dtype=dtype)
    logits[3, 1:] *= -1
    return logits


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("kind", ["soft", "empty", "full", "hard"])
@pytest.mark.parametrize("masked", ["nothing", "everything", "one image"])
def test_finite_whatever_the_logits_labels_and_masks(channels, kind, masked):
    logits = extreme_logits()[:, :channels]
    label = torch.zeros(4, 3, 6)
    if kind == "soft":
        label = torch.full((4, 3, 6), 1 / channels if channels > 1 else 0.3)
    else:
        label[:, -1 if kind == "full" else 0] = 1
    target = label[:, :channels] if kind != "hard" else torch.randint(0, 2, (4, 6), generator=torch.Generator())
    mask = None if masked == "nothing" else torch.zeros(4, 6, dtype=torch.bool)
    if masked == "one image":
        mask[1:] = True
    for name, loss in losses(channels):
        value, gradient = value_and_gradient(loss, logits, target, mask)
        assert torch.isfinite(value), name
        assert torch.isfinite(gradient).all(), name
        if masked == "everything":
            assert float(value) == 0, name
            assert not gradient.any(), name


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_what_is_masked_out_has_no_influence(channels):
    """Not even not-a-number labels, ignored classes and infinite logits; and its gradient is 0."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, channels, 5, 4, generator=generator)
    soft = torch.rand(3, 1, 5, 4, generator=generator)
    soft = soft if channels == 1 else torch.randn(3, channels, 5, 4, generator=generator).softmax(1)
    hard = torch.randint(0, 2, (3, 5, 4), generator=generator)
    mask = torch.ones(3, 5, 4, dtype=torch.bool)
    mask[..., -1] = False
    spoiled, spoiled_soft, spoiled_hard = logits.clone(), soft.clone(), hard.clone()
    spoiled[..., -1], spoiled_soft[..., -1], spoiled_hard[..., -1] = 77.0, float("nan"), 255
    for name, loss in losses(channels):
        for clean, spoiled_label in ((soft, spoiled_soft), (hard, spoiled_hard)):
            cropped = value_and_gradient(loss, logits[..., :-1], clean[..., :-1])
            for keep in (mask, mask.float(), mask.long()):
                value, gradient = value_and_gradient(loss, spoiled, spoiled_label, keep)
                torch.testing.assert_close(value, cropped[0], msg=name)
                torch.testing.assert_close(gradient[..., :-1], cropped[1], msg=name)
                assert not gradient[..., -1].any(), name


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype, channels):
    """512 x 512 sums overflow float16 (largest number 65504); the gradient comes back in the input's dtype."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, channels, 512, 512, generator=generator).to(dtype)
    target = torch.randint(0, max(channels, 2), (1, 512, 512), generator=generator, dtype=torch.uint8)
    for name, loss in losses(channels):
        exact, exact_gradient = value_and_gradient(loss, logits.double(), target)
        for autocast in (False, True):
            with torch.autocast("cpu", dtype=dtype, enabled=autocast):
                value, gradient = value_and_gradient(loss, logits, target)
            assert value.dtype == torch.float32, name
            assert gradient.dtype == dtype, name
            assert float(value) == pytest.approx(float(exact), rel=2e-5), name
            error = (gradient.double() - exact_gradient).abs().max() / exact_gradient.abs().max()
            assert float(error) < 0.01 or dtype == torch.float16, name  # float16 has no room for 1e-8


def test_float64_stays_float64():
    assert DiceSemimetricLoss()(torch.zeros(1, 2, 3).double(), torch.zeros(1, 3).long()).dtype == torch.float64


@pytest.mark.parametrize("channels", [2, 3])
def test_large_volumes_are_summed_exactly_enough(channels):
    """A foreground of 1000 voxels among 2^24; float32 against float64, value and gradient."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, channels, 2**22, generator=generator)
    logits[:, 0] += 12
    target = torch.zeros(1, 2**22, dtype=torch.uint8)
    target[:, :1000] = 1
    loss = DiceSemimetricLoss(smooth=1e-3, check_values=False)
    value, gradient = value_and_gradient(loss, logits, target)
    exact, exact_gradient = value_and_gradient(loss, logits.double(), target)
    assert float(value) == pytest.approx(float(exact), rel=1e-5)
    torch.testing.assert_close(gradient.double(), exact_gradient, rtol=1e-3, atol=1e-10)


def test_two_empty_sides_have_loss_zero_and_one_has_loss_one():
    empty, full = torch.zeros(1, 1, 4), torch.ones(1, 1, 4)
    loss = DiceSemimetricLoss(smooth=0, from_logits=False)
    assert [float(loss(x, y)) for x in (empty, full) for y in (empty, full)] == [0, 1, 1, 0]


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_channels_last_and_strided_inputs(channels):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, channels, 6, 5, generator=generator)
    target = torch.randint(0, 2, (2, 6, 10), generator=generator)[..., ::2]
    for name, loss in losses(channels):
        value, gradient = value_and_gradient(loss, logits, target)
        other, other_gradient = value_and_gradient(loss, logits.to(memory_format=torch.channels_last), target)
        torch.testing.assert_close(other, value, msg=name)
        torch.testing.assert_close(other_gradient, gradient, msg=name)


class NoHostSync(TorchDispatchMode):
    """Raises where a value of a tensor would be needed by the host, or a shape would depend on it."""

    FORBIDDEN = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "masked_select", "equal", "_to_copy.device")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in self.FORBIDDEN:
            raise AssertionError(f"{name} waits for the device")
        if name == "index" and any(index.dtype == torch.bool for index in args[1] if index is not None):
            raise AssertionError("indexing with a mask waits for the device")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_nothing_waits_for_the_device(channels):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, channels, 6, 5, generator=generator)
    soft = torch.ones(2, channels, 6, 5) / max(channels, 1)
    hard = torch.randint(0, 2, (2, 6, 5), generator=generator)
    mask = torch.rand(2, 6, 5, generator=generator) > 0.5
    for _, loss in losses(channels):
        for target in (soft, hard):
            for keep in (mask, None):
                with NoHostSync():
                    value_and_gradient(loss, logits, target, keep)
    with NoHostSync(), pytest.raises(AssertionError, match="waits"):
        DiceSemimetricLoss(check_values=True)(logits, soft)


def test_values_are_never_read_on_a_device_by_default():
    """The meta device has no values to read."""
    logits = torch.zeros(2, 2, 6, 5, device="meta", requires_grad=True)
    target = torch.zeros(2, 6, 5, dtype=torch.int64, device="meta")
    for loss in (DiceSemimetricLoss(), SoftCrossEntropyLoss()):
        loss(logits, target).backward()
        assert logits.grad.shape == logits.shape


@pytest.mark.parametrize("channels", [2, 3])
def test_compiles_into_one_graph(channels):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, channels, 9, 8, generator=generator)
    target = torch.randn(2, channels, 9, 8, generator=generator).softmax(1)
    mask = torch.rand(2, 9, 8, generator=generator) > 0.2
    terms = {"kl": (0.25, SoftCrossEntropyLoss(kl=True)), "dml1": (0.75, DiceSemimetricLoss())}
    loss = CompoundLoss({**terms, "cftl": (0.5, CompatibleFocalTverskyLoss(0.7, 0.3, 2.0, classes="present"))})
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    expected = value_and_gradient(loss, logits, target, mask)
    for ours, plain in zip(value_and_gradient(compiled, logits, target, mask), expected, strict=True):
        torch.testing.assert_close(ours, plain)
