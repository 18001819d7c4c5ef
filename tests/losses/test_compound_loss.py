"""Weighted sums: their value, their parts, and that cross-entropy and region losses share one softmax."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dmseg.losses import (
    AdaptiveWingLoss,
    CompoundLoss,
    DiceSemimetricLoss,
    JaccardMetricLoss,
    SoftCrossEntropyLoss,
    SoftDiceLoss,
)

TERMS = {
    "ce": (0.25, SoftCrossEntropyLoss()),
    "kl": (0.5, SoftCrossEntropyLoss(kl=True)),
    "dml1": (0.75, DiceSemimetricLoss(classes="present")),
    "jml2": (0.3, JaccardMetricLoss(2, reduction="image")),
    "l2": (0.2, SoftDiceLoss(squared=True)),
    "wing": (0.01, AdaptiveWingLoss()),
}


def batch(channels):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, channels, 4, 5, generator=generator)
    target = torch.randn(2, channels, 4, 5, generator=generator).softmax(1)
    return logits.requires_grad_(), target, torch.rand(2, 4, 5, generator=generator) > 0.3


class Counted(TorchDispatchMode):
    """Counts calls of the expensive operators."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("channels", [2, 3])
def test_value_gradient_and_parts(channels):
    logits, target, mask = batch(channels)
    total, parts = CompoundLoss(TERMS).forward_parts(logits, target, mask)
    assert list(parts) == list(TERMS)
    separate = {name: loss(logits, target, mask) for name, (_, loss) in TERMS.items()}
    for name, value in separate.items():
        torch.testing.assert_close(parts[name], value.detach())
        assert not parts[name].requires_grad
    expected = sum(weight * separate[name] for name, (weight, _) in TERMS.items())
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(CompoundLoss(TERMS)(logits, target, mask), total)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (total, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("channels", "softmax"), [(2, "sigmoid"), (3, "_log_softmax")])
def test_cross_entropy_and_region_losses_share_one_softmax(channels, softmax):
    logits, target, mask = batch(channels)
    loss = CompoundLoss({name: TERMS[name] for name in ("ce", "kl", "dml1", "jml2", "l2")})
    with Counted() as counted:
        loss(logits, target, mask).backward()
    assert counted.calls.count(softmax) == 1
    assert sum(name in ("sigmoid", "_softmax", "_log_softmax") for name in counted.calls) == 1


def test_any_module_may_be_a_term():
    class Energy(nn.Module):
        def forward(self, input, target, mask=None):
            return input.square().mean()

    logits, target, mask = batch(2)
    total, parts = CompoundLoss({"energy": (2, Energy())}).forward_parts(logits, target, mask)
    assert float(total.detach()) == pytest.approx(2 * float(parts["energy"]))


def test_probabilities_may_be_shared_too():
    logits, target, mask = batch(2)
    terms = {
        "dml1": (1.0, DiceSemimetricLoss(from_logits=False)),
        "l2": (1, SoftDiceLoss(squared=True, from_logits=False)),
    }
    value = CompoundLoss(terms)(logits.softmax(1), target, mask)
    gradient = torch.autograd.grad(value, logits)[0]
    same = CompoundLoss({"dml1": (1.0, DiceSemimetricLoss()), "l2": (1, SoftDiceLoss(squared=True))})
    torch.testing.assert_close(gradient, torch.autograd.grad(same(logits, target, mask), logits)[0])


def test_the_strictest_check_of_values_counts():
    logits, target, _ = batch(2)
    loose, strict = DiceSemimetricLoss(check_values=False), DiceSemimetricLoss(check_values=True)
    CompoundLoss({"a": (1, loose), "b": (1, loose)})(logits, target + 1)
    for other in (strict, DiceSemimetricLoss()):
        with pytest.raises(ValueError, match="outside"):
            CompoundLoss({"a": (1, loose), "b": (1, other)})(logits, target + 1)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({}, "at least one term"),
        ({"ce": (-1, SoftCrossEntropyLoss())}, "weight of 'ce' is -1"),
        ({"ce": (1, SoftCrossEntropyLoss()), "dml": (1, DiceSemimetricLoss(from_logits=False))}, "from_logits differs"),
    ],
)
def test_wrong_terms_are_named(terms, message):
    with pytest.raises(ValueError, match=message):
        CompoundLoss(terms)
