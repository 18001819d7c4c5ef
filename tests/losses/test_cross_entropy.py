"""Cross-entropy, KL, focal cross-entropy and adaptive wing against torch, MONAI and the written-out formula."""

import math

import monai.losses
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dmseg.losses import AdaptiveWingLoss, FocalCrossEntropyLoss, SoftCrossEntropyLoss


def batch(channels, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(3, channels, 5, 4, generator=generator, dtype=torch.float64)
    soft = torch.randn(3, channels, 5, 4, generator=generator, dtype=torch.float64).softmax(1)
    hard = torch.randint(0, channels, (3, 5, 4), generator=generator)
    mask = torch.rand(3, 5, 4, generator=generator) > 0.4
    return logits, soft, hard, mask


@pytest.mark.parametrize("channels", [2, 3, 6])
def test_cross_entropy_is_that_of_torch(channels):
    logits, soft, hard, mask = batch(channels)
    loss = SoftCrossEntropyLoss()
    torch.testing.assert_close(loss(logits, soft), F.cross_entropy(logits, soft))
    torch.testing.assert_close(loss(logits, hard), F.cross_entropy(logits, hard))
    ignored = hard.masked_fill(~mask, -100)
    torch.testing.assert_close(loss(logits, ignored, mask), F.cross_entropy(logits, ignored))
    kept = F.cross_entropy(logits, soft, reduction="none")[mask].mean()
    torch.testing.assert_close(loss(logits, soft, mask), kept)


@pytest.mark.parametrize("channels", [2, 3, 6])
def test_kl_is_that_of_torch_and_has_the_gradient_of_cross_entropy(channels):
    logits, soft, hard, mask = batch(channels)
    divergence = F.kl_div(logits.log_softmax(1), soft, reduction="none").sum(1)
    loss = SoftCrossEntropyLoss(kl=True)
    torch.testing.assert_close(loss(logits, soft), divergence.mean())
    torch.testing.assert_close(loss(logits, soft, mask), divergence[mask].mean())
    torch.testing.assert_close(loss(logits, hard, mask), SoftCrossEntropyLoss()(logits, hard, mask))
    assert float(loss(logits, logits.softmax(1))) == pytest.approx(0, abs=1e-12)
    logits.requires_grad_()
    gradients = [torch.autograd.grad(SoftCrossEntropyLoss(kl)(logits, soft, mask), logits)[0] for kl in (True, False)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("logit", [1e4, -1e4, 90.0, -90.0])
@pytest.mark.parametrize("channels", [2, 3])
def test_cross_entropy_of_sure_predictions_is_linear(logit, channels):
    logits = torch.zeros(1, channels, 1)
    logits[:, 1] = logit
    for target, expected in ((1, max(-logit, 0)), (0, max(logit, 0))):
        value = SoftCrossEntropyLoss()(logits, torch.full((1, 1), target))
        assert float(value) == pytest.approx(expected, rel=1e-6, abs=math.log(channels) + 1e-6)


@pytest.mark.parametrize("pixels", [1, 31, 32, 33, 1000])
def test_cross_entropy_of_undecided_predictions_is_that_of_torch(pixels):
    generator = torch.Generator().manual_seed(0)
    logits = 0.01 * torch.randn(2, 2, pixels, generator=generator)
    soft = torch.randn(2, 2, pixels, generator=generator).softmax(1)
    expected = float(F.cross_entropy(logits.double(), soft.double()))
    assert float(SoftCrossEntropyLoss()(logits, soft)) == pytest.approx(expected, rel=3e-7)


@pytest.mark.parametrize("gamma", [1.0, 2.0, 3.5])
def test_focal_cross_entropy_is_that_of_monai(gamma):
    logits, _, hard, _ = batch(3)
    one_hot = F.one_hot(hard, 3).movedim(-1, 1).double()
    theirs = monai.losses.FocalLoss(gamma=gamma, use_softmax=True, reduction="none")(logits, one_hot).sum(1).mean()
    assert float(FocalCrossEntropyLoss(gamma)(logits, hard)) == pytest.approx(float(theirs), rel=1e-6)


def test_focal_cross_entropy_without_focus_is_cross_entropy():
    logits, soft, hard, mask = batch(4)
    for target in (soft, hard):
        expected = SoftCrossEntropyLoss()(logits, target, mask)
        torch.testing.assert_close(FocalCrossEntropyLoss(0)(logits, target, mask), expected)
    with pytest.raises(ValueError, match="gamma is -1"):
        FocalCrossEntropyLoss(-1)


def wing(x, y, theta=0.5, alpha=2.1, omega=14.0, eps=1.0):
    """ivadomed's AdapWingLoss for one pixel."""
    gap, power, ratio = abs(x - y), alpha - y, theta / eps
    slope = omega / (1 + ratio**power) * power * ratio ** (power - 1) / eps
    if gap < theta:
        return omega * math.log(1 + (gap / eps) ** power)
    return slope * gap - (theta * slope - omega * math.log(1 + ratio**power))


def test_adaptive_wing_is_that_of_ivadomed():
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 2, 1, 30))
    for constants in ({}, {"theta": 0.3, "alpha": 2.5, "omega": 8.0, "epsilon": 0.7}):
        expected = [wing(*pair, *constants.values()) for pair in zip(x.flat, y.flat, strict=True)]
        for reduction, reduce in (("mean", np.mean), ("sum", np.sum)):
            loss = AdaptiveWingLoss(**constants, reduction=reduction, from_logits=False)
            assert float(loss(torch.as_tensor(x), torch.as_tensor(y))) == pytest.approx(reduce(expected), rel=1e-12)


def test_adaptive_wing_of_two_channels_is_that_of_the_foreground():
    logits, soft, _, mask = batch(2)
    for reduction in ("mean", "sum"):
        loss = AdaptiveWingLoss(reduction=reduction)
        foreground = loss(logits[:, 1:] - logits[:, :1], soft[:, 1:], mask)
        torch.testing.assert_close(loss(logits, soft, mask), foreground)
        kept = [wing(x, y) for x, y in zip(logits.softmax(1)[:, 1][mask], soft[:, 1][mask], strict=True)]
        assert float(foreground) == pytest.approx(float(sum(kept)) / (len(kept) if reduction == "mean" else 1))


def test_adaptive_wing_is_smooth_where_the_line_begins():
    x = torch.tensor([0.2 + 0.5 - 1e-9, 0.2 + 0.5 + 1e-9], dtype=torch.float64).reshape(2, 1, 1).requires_grad_()
    loss = AdaptiveWingLoss(from_logits=False)
    values = [loss(pixel[None], torch.full((1, 1, 1), 0.2, dtype=torch.float64)) for pixel in x]
    assert float(values[0].detach()) == pytest.approx(float(values[1].detach()), abs=1e-7)
    slopes = torch.autograd.grad(sum(values), x)[0].flatten().tolist()
    assert slopes[0] == pytest.approx(slopes[1], abs=1e-6)


@pytest.mark.parametrize("options", [{"alpha": 2.0}, {"theta": 0}, {"omega": -1}, {"epsilon": 0}, {"reduction": "max"}])
def test_adaptive_wing_names_wrong_settings(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
        AdaptiveWingLoss(**options)
