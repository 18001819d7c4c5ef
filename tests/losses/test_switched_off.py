"""Classes that an infinite or huge negative logit switches off: 0 log 0 is 0, as in torch's hard cross-entropy."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from dmseg.losses import CompoundLoss, DiceSemimetricLoss, FocalCrossEntropyLoss, SoftCrossEntropyLoss, SoftDiceLoss

INF = float("inf")
LOSSES = {
    "ce": SoftCrossEntropyLoss(),
    "kl": SoftCrossEntropyLoss(kl=True),
    "focal-0": FocalCrossEntropyLoss(0),
    "compound": CompoundLoss({"ce": (1, SoftCrossEntropyLoss()), "dml": (1e-30, DiceSemimetricLoss())}),
}


def batch(channels, off, value, dtype=torch.float32):
    """Logits (3, C, 4, 5) with one class switched off, and hard labels of the other classes."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, channels, 4, 5, generator=generator).to(dtype)
    logits[:, off] = value
    others = torch.tensor([k for k in range(channels) if k != off])
    return logits, others[torch.randint(0, channels - 1, (3, 4, 5), generator=generator)]


def value_and_gradient(loss, logits, *rest):
    logits = logits.detach().requires_grad_()
    value = loss(logits, *rest)
    return value.detach(), torch.autograd.grad(value, logits)[0]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("channels", "off"), [(2, 0), (2, 1), (3, 0), (3, 2), (5, 1)])
def test_value_and_gradient_are_those_of_torch(name, channels, off, dtype):
    for value in (-INF, torch.finfo(dtype).min, -65504.0, -200.0):
        logits, target = batch(channels, off, value, dtype)
        expected = value_and_gradient(lambda z, y: F.cross_entropy(z.float(), y), logits, target)
        for label in (target, F.one_hot(target, channels).movedim(-1, 1).float()):
            found = value_and_gradient(LOSSES[name], logits, label)
            assert torch.isfinite(found[1]).all()
            torch.testing.assert_close(found, expected, msg=f"{value}")


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("loss", [*list(LOSSES.values())[:2], FocalCrossEntropyLoss(2), FocalCrossEntropyLoss(0.5)])
def test_soft_labels_see_the_other_classes_alone(channels, masked, loss):
    """Where its label is 0, a class that is switched off might as well not be there."""
    logits, _ = batch(channels, channels - 1, -INF)
    label = torch.randn(3, channels - 1, 4, 5, generator=torch.Generator().manual_seed(1)).softmax(1)
    mask = (torch.arange(5) < 4).expand(3, 4, 5) if masked else None
    value, gradient = value_and_gradient(loss, logits, torch.cat([label, torch.zeros(3, 1, 4, 5)], 1), mask)
    others = value_and_gradient(loss, logits[:, :-1], label, mask)
    torch.testing.assert_close((value, gradient[:, :-1]), others)
    assert not gradient[:, -1].any()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("channels", "off"), [(2, 0), (2, 1), (3, 1)])
@pytest.mark.parametrize("share", [1e-6, 0.5, 1.0])
def test_a_label_on_a_class_that_is_switched_off_costs_infinitely_much(name, channels, off, share):
    """As in torch; the gradient stays p - y, there and everywhere else."""
    logits, target = batch(channels, off, -INF)
    label = F.one_hot(target, channels).movedim(-1, 1).float()
    label[0, :, 0, 0] *= 1 - share
    label[0, off, 0, 0] = share
    value, gradient = value_and_gradient(LOSSES[name], logits, label)
    assert float(value) == INF
    torch.testing.assert_close(gradient, (logits.softmax(1) - label) / target.numel())


@pytest.mark.parametrize("loss", [SoftDiceLoss(), DiceSemimetricLoss(), DiceSemimetricLoss(2, reduction="image")])
def test_region_losses_take_the_probability_0(loss):
    for channels, off in itertools.product((2, 3), (0, 1)):
        logits, target = batch(channels, off, -INF)
        far = logits.clamp_min(-1000)
        torch.testing.assert_close(value_and_gradient(loss, logits, target), value_and_gradient(loss, far, target))


@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_what_is_not_a_number_is_not_hidden(channels, name):
    logits, target = batch(channels, 1, -INF)
    label = F.one_hot(target, channels).movedim(-1, 1).float()
    spoiled, spoiled_label = logits.clone(), label.clone()
    spoiled[0, :, 0, 0], spoiled_label[0, :, 0, 0] = float("nan"), float("nan")
    assert LOSSES[name](spoiled, target).isnan()
    unchecked = {
        "ce": SoftCrossEntropyLoss(check_values=False),
        "kl": SoftCrossEntropyLoss(kl=True, check_values=False),
        "focal-0": FocalCrossEntropyLoss(0, check_values=False),
    }
    if name in unchecked:
        assert unchecked[name](logits, spoiled_label).isnan()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_it_is_the_same(backend):
    loss = CompoundLoss({"ce": (0.25, SoftCrossEntropyLoss()), "dml": (0.75, DiceSemimetricLoss())})
    logits, target = batch(3, 1, -INF)
    compiled = torch.compile(loss, backend=backend, fullgraph=True)
    torch.testing.assert_close(
        value_and_gradient(compiled, logits, target), value_and_gradient(loss, logits, target), rtol=1e-6, atol=1e-7
    )
