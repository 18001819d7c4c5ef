"""Closed-form gradients: against finite differences, against autograd through the probabilities, and where p = y."""

from functools import partial

import pytest
import torch

from dmseg.losses import (
    AdaptiveWingLoss,
    CompatibleFocalTverskyLoss,
    CompatibleTverskyLoss,
    CompoundLoss,
    DiceSemimetricLoss,
    FocalCrossEntropyLoss,
    JaccardMetricLoss,
    SoftCrossEntropyLoss,
    SoftDiceLoss,
    SoftFocalTverskyLoss,
    SoftJaccardLoss,
    SoftTverskyLoss,
)

REGION = {
    "sdl": (SoftDiceLoss, {}),
    "sdl-l2": (SoftDiceLoss, {"squared": True}),
    "sjl": (SoftJaccardLoss, {}),
    "sjl-l2": (SoftJaccardLoss, {"squared": True}),
    "stl": (SoftTverskyLoss, {"alpha": 0.7, "beta": 0.3}),
    "focal-stl": (SoftFocalTverskyLoss, {"alpha": 0.7, "beta": 0.3, "gamma": 0.75}),
    "dml1": (DiceSemimetricLoss, {"variant": 1}),
    "dml2": (DiceSemimetricLoss, {"variant": 2}),
    "jml1": (JaccardMetricLoss, {"variant": 1}),
    "jml2": (JaccardMetricLoss, {"variant": 2}),
    "ctl": (CompatibleTverskyLoss, {"alpha": 0.7, "beta": 0.3}),
    "cftl": (CompatibleFocalTverskyLoss, {"alpha": 0.7, "beta": 0.3, "gamma": 2.5}),
    "log": (DiceSemimetricLoss, {"log_loss": True, "gamma": 1.5}),
}
PIXELWISE = {
    "ce": SoftCrossEntropyLoss,
    "kl": lambda: SoftCrossEntropyLoss(kl=True),
    "focal-ce": lambda: FocalCrossEntropyLoss(2.0),
    "focal-ce-half": lambda: FocalCrossEntropyLoss(0.5),
    "wing": AdaptiveWingLoss,
    "ce+dml1+jml2-l2": lambda: CompoundLoss(
        {
            "ce": (0.25, SoftCrossEntropyLoss(kl=True)),
            "dml1": (0.75, DiceSemimetricLoss(reduction="image")),
            "jml2": (0.5, JaccardMetricLoss(2)),
            "l2": (0.1, SoftDiceLoss(squared=True)),
        }
    ),
}


def batch(channels, seed=0, soft=True):
    """Logits (2, C, 3, 1) in float64, a label, and a mask."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, channels, 3, 1, generator=generator, dtype=torch.float64)
    if not soft:
        label = torch.randint(0, max(channels, 2), (2, 3, 1), generator=generator)
    elif channels == 1:
        label = torch.rand(2, 1, 3, 1, generator=generator, dtype=torch.float64)
    else:
        label = torch.randn(2, channels, 3, 1, generator=generator, dtype=torch.float64).softmax(1)
    return logits.requires_grad_(), label, torch.rand(2, 3, 1, generator=generator) > 0.3


def predicted(logits):
    """Probabilities, to the last bit those of the losses."""
    if logits.shape[1] == 2:
        foreground = torch.sigmoid(logits[:, 1:] - logits[:, :1])
        return torch.cat((1 - foreground, foreground), 1)
    return torch.sigmoid(logits) if logits.shape[1] == 1 else logits.log_softmax(1).exp()


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("name", REGION)
def test_gradcheck_of_region_losses(name, channels, soft):
    logits, label, mask = batch(channels, soft=soft)
    loss, options = REGION[name]
    for reduction, classes in (("batch", "all"), ("image", "foreground"), ("class", "present")):
        module = loss(**options, reduction=reduction, classes=classes, check_values=False)
        assert torch.autograd.gradcheck(lambda z, call=module: call(z, label, mask), (logits,))
    assert torch.autograd.gradcheck(lambda z: module(z, label), (logits,))


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("name", PIXELWISE)
def test_gradcheck_of_pixelwise_and_compound_losses(name, channels, soft):
    logits, label, mask = batch(channels, soft=soft)
    for keep in (mask, None):
        assert torch.autograd.gradcheck(lambda z, keep=keep: PIXELWISE[name]()(z, label, keep), (logits,))


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("name", REGION)
def test_closed_form_equals_autograd_through_the_probabilities(name, channels):
    """The two paths share no gradient code; one pixel of an image has p = y, where the slope of abs is 0."""
    logits, label, _ = batch(channels, seed=1)
    mask = torch.tensor([[True, True, False], [True, False, True]]).unsqueeze(2)
    prob = predicted(logits)
    label[:, :, 0] = prob[:, :, 0].detach()
    loss, options = REGION[name]
    closed = loss(**options)(logits, label, mask)
    plain = loss(**options, from_logits=False)(prob, label, mask)
    torch.testing.assert_close(closed, plain)
    (expected,) = torch.autograd.grad(plain, logits)
    torch.testing.assert_close(torch.autograd.grad(closed, logits)[0], expected)


def test_value_and_gradient_at_the_label():
    """Tversky losses with alpha != beta have a kink there, and what is left of their gradient is (alpha - beta) / 2."""
    logits, _, _ = batch(3)
    label = predicted(logits.detach())
    for name in ("dml1", "dml2", "jml1", "jml2", "cftl", "ctl"):
        loss, options = REGION[name]
        value = loss(**options)(logits, label)
        assert float(value.detach()) == 0
        gradient = torch.autograd.grad(value, logits)[0]
        assert bool(gradient.any()) == (name == "ctl"), name


def test_a_target_that_requires_a_gradient_is_refused_with_logits_only():
    logits, label, _ = batch(2)
    label.requires_grad_()
    with pytest.raises(ValueError, match=r"target.detach\(\)"):
        DiceSemimetricLoss()(logits, label)
    loss = DiceSemimetricLoss(from_logits=False, check_values=False)
    assert torch.autograd.gradcheck(lambda y: loss(logits.detach().softmax(1), y), (label,))


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_the_second_derivative_is_right(channels, masked):
    logits, label, mask = batch(channels)
    losses = [loss(**options) for loss, options in REGION.values()]
    losses += [PIXELWISE[name]() for name in ("ce", "kl", "focal-ce", "ce+dml1+jml2-l2") if channels > 1]
    for loss in losses:
        assert torch.autograd.gradgradcheck(partial(loss, target=label, mask=mask if masked else None), (logits,)), loss


@pytest.mark.parametrize("channels", [2, 3])
def test_a_gradient_penalty_is_that_of_torch(channels):
    """Cross-entropy alone, whose gradient does not depend on a sum: the penalty must not vanish silently."""
    logits, label, _ = batch(channels)

    def penalty(loss):
        (gradient,) = torch.autograd.grad(loss(logits, label), logits, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), logits)[0]

    expected = penalty(torch.nn.functional.cross_entropy)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(penalty(SoftCrossEntropyLoss()), expected)


def test_function_transforms_give_the_same_gradient():
    logits, label, mask = batch(3)
    loss = PIXELWISE["ce+dml1+jml2-l2"]()
    (expected,) = torch.autograd.grad(loss(logits, label, mask), logits)
    torch.testing.assert_close(torch.func.grad(lambda z: loss(z, label, mask))(logits.detach()), expected)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_pixel_that_is_exactly_right_has_finite_second_derivatives(channels):
    """They are those of a pixel that is nearly right."""
    losses = (AdaptiveWingLoss(), DiceSemimetricLoss(), SoftCrossEntropyLoss(), FocalCrossEntropyLoss(2))
    for loss in losses:
        found = []
        for size in (15.0, 60.0):  # float32 has 1 for the sigmoid of 60
            logits = torch.zeros(1, channels, 4)
            logits[0, -1] = torch.tensor([-1.0, 1.0, 2.0, size])
            hard = torch.full((1, 4), max(channels - 1, 1))
            gradient = torch.func.grad(loss)
            found.append(torch.func.grad(lambda item, hard=hard, of=gradient: of(item, hard).square().sum())(logits))
        torch.testing.assert_close(*found, rtol=1e-3, atol=1e-5)
