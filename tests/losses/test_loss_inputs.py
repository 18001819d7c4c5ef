"""Inputs and settings that users of other libraries' losses bring along."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dmseg.losses import (
    AdaptiveWingLoss,
    CompatibleFocalTverskyLoss,
    CompoundLoss,
    DiceSemimetricLoss,
    FocalCrossEntropyLoss,
    JaccardMetricLoss,
    RegionLoss,
    SoftCrossEntropyLoss,
    SoftDiceLoss,
    SoftTverskyLoss,
)

REGION = {
    "dml": DiceSemimetricLoss,
    "dml2": lambda **options: DiceSemimetricLoss(2, **options),
    "jml": JaccardMetricLoss,
    "sdl": SoftDiceLoss,
    "squared": lambda **options: SoftDiceLoss(squared=True, **options),
    "stl": lambda **options: SoftTverskyLoss(0.3, 0.7, **options),
    "cftl": lambda **options: CompatibleFocalTverskyLoss(0.3, 0.7, 0.75, **options),
}
OPTIONS = (
    {},
    {"log_loss": True},
    {"classes": "present"},
    {"classes": "foreground", "reduction": "image"},
    {"reduction": "class", "smooth": 0},
)


def batch(channels, shape=(8, 8), n=2):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, channels, *shape, generator=generator)
    label = torch.randn(n, channels, *shape, generator=generator)
    return logits, label.softmax(1) if channels > 1 else label.sigmoid()


@pytest.mark.parametrize("name", REGION)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_what_is_not_a_number_is_no_best_loss(name, options, channels):
    """A network that has diverged must not have the lowest loss of all."""
    loss = REGION[name](check_values=False, **options)
    logits, label = batch(channels)
    spoiled, spoiled_label = logits.clone(), label.clone()
    spoiled[0, :, 2, 3], spoiled_label[0, :, 2, 3] = math.nan, math.nan
    assert loss(torch.full_like(logits, math.nan), label).isnan()
    assert loss(spoiled, label).isnan()
    assert loss(logits, spoiled_label).isnan()
    assert loss(logits, label).isfinite()


@pytest.mark.parametrize("name", REGION)
def test_a_background_of_a_few_voxels_counts_in_a_volume(name):
    """Which of two classes comes first makes no difference; both agree with float64."""
    loss = REGION[name](smooth=0.1)
    hard = torch.ones(1, 72, 72, 72, dtype=torch.long)
    hard.view(-1)[:3] = 0
    logits = torch.zeros(1, 2, 72, 72, 72)
    logits[:, 1] = 9
    logits[:, 0].view(-1)[:3] = 8
    expected = float(loss(logits.double(), hard))
    for input, target in ((logits, hard), (logits.flip(1), 1 - hard)):
        assert float(loss(input, target)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("size", [512, 513])
def test_small_and_large_images_are_computed_alike(size):
    """Up to 512 x 512 the background is computed from the foreground, above it by itself."""
    logits, label = batch(2, (size, 512), n=1)
    terms = {"ce": (0.25, SoftCrossEntropyLoss()), "dml1": (0.75, DiceSemimetricLoss())}
    logits.requires_grad_()
    value = CompoundLoss(terms)(logits, label)
    (gradient,) = torch.autograd.grad(value, logits)
    exact = logits.detach().double().requires_grad_()
    prob = exact.softmax(1)
    gap, both = (prob - label.double()).abs().sum((0, 2, 3)), (prob + label.double()).sum((0, 2, 3)) + 2
    expected = 0.25 * F.cross_entropy(exact, label.double()) + 0.75 * (gap / both).mean()
    (expected_gradient,) = torch.autograd.grad(expected, exact)
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-3, atol=1e-10)


@pytest.mark.parametrize("name", REGION)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 3, 0, 8), (0, 2, 4, 4, 4), (2, 1, 0, 0)])
def test_nothing_has_loss_0(name, options, shape):
    logits = torch.zeros(shape, requires_grad=True)
    value = REGION[name](**options)(logits, torch.zeros(shape[0], *shape[2:], dtype=torch.long))
    assert float(value.detach()) == 0
    value.backward()
    assert logits.grad.shape == shape


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.uint32, torch.uint64, torch.bool])
@pytest.mark.parametrize("channels", [1, 2])
def test_hard_labels_of_any_integer_type(dtype, channels):
    logits, _ = batch(channels)
    hard = torch.arange(128).reshape(2, 8, 8) % 2
    for loss in (DiceSemimetricLoss(), SoftCrossEntropyLoss(), FocalCrossEntropyLoss(2), AdaptiveWingLoss()):
        torch.testing.assert_close(loss(logits, hard.to(dtype)), loss(logits, hard), rtol=0, atol=0)


@pytest.mark.parametrize("masked", [False, True])
def test_cross_entropy_of_one_channel_is_binary(masked):
    logits, label = batch(1)
    logits[0, 0, 0, 0] = 200.0
    keep = torch.arange(8).expand(2, 8, 8) < 6 if masked else torch.ones(2, 8, 8, dtype=torch.bool)
    mask = keep if masked else None
    cross_entropy = F.binary_cross_entropy_with_logits(logits[keep[:, None]], label[keep[:, None]])
    entropy = torch.special.entr(label).add(torch.special.entr(1 - label))[keep[:, None]].mean()
    torch.testing.assert_close(SoftCrossEntropyLoss()(logits, label, mask), cross_entropy)
    torch.testing.assert_close(SoftCrossEntropyLoss(kl=True)(logits, label, mask), cross_entropy - entropy)
    torch.testing.assert_close(FocalCrossEntropyLoss(0)(logits, label, mask), cross_entropy)
    both, labels = torch.cat((torch.zeros_like(logits), logits), 1), torch.cat((1 - label, label), 1)
    for loss in (SoftCrossEntropyLoss(), SoftCrossEntropyLoss(kl=True), FocalCrossEntropyLoss(2)):
        torch.testing.assert_close(loss(logits, label, mask), loss(both, labels, mask))
        hard = (label[:, 0] > 0.5).long()
        torch.testing.assert_close(loss(logits, hard, mask), loss(both, hard, mask))


def test_settings_can_be_scheduled():
    logits, label = batch(3)
    loss = DiceSemimetricLoss()
    for setting in ({"smooth": 0.0}, {"gamma": 0.75}, {"classes": "present"}, {"reduction": "image"}):
        for name, value in setting.items():
            setattr(loss, name, value)
            assert getattr(loss, name) == value
    settings = {"smooth": 0.0, "gamma": 0.75, "classes": "present", "reduction": "image"}
    torch.testing.assert_close(loss(logits, label), DiceSemimetricLoss(**settings)(logits, label), rtol=0, atol=0)
    loss.overlap = "classical"
    torch.testing.assert_close(loss(logits, label), SoftDiceLoss(**settings)(logits, label), rtol=0, atol=0)
    for copied in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert copied.setting == loss.setting
    with pytest.raises(ValueError, match="gamma is 0; it must be more than 0"):
        loss.gamma = 0
    assert loss.gamma == 0.75


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda value: DiceSemimetricLoss(log_loss=value), "log_loss"),
        (lambda value: DiceSemimetricLoss(from_logits=value), "from_logits"),
        (lambda value: DiceSemimetricLoss(check_values=value), "check_values"),
        (lambda value: SoftDiceLoss(squared=value), "squared"),
        (lambda value: SoftCrossEntropyLoss(kl=value), "kl"),
        (lambda value: AdaptiveWingLoss(from_logits=value), "from_logits"),
        (lambda value: AdaptiveWingLoss(check_values=value), "check_values"),
        (lambda value: FocalCrossEntropyLoss(2, check_values=value), "check_values"),
    ],
)
def test_words_are_not_true(make, name):
    for value in ("false", "no", 1):
        with pytest.raises(TypeError, match=f"{name} is {value!r}; give True or False"):
            make(value)


class Masked(nn.Module):
    """A loss with a mask."""

    def forward(self, input, target, mask=None):
        return (input.softmax(1) - target).abs().mean(1)[slice(None) if mask is None else mask].mean()


class KeywordMasked(Masked):
    """A loss whose mask is a keyword behind other arguments."""

    def forward(self, input, target, scale=2.0, *, mask=None):
        return scale * super().forward(input, target, mask)


class Scaled(Masked):
    """A loss whose third argument is no mask."""

    def forward(self, input, target, scale=1.0):
        return scale * super().forward(input, target)


def test_terms_of_other_libraries():
    logits, label = batch(3)
    mask = torch.arange(8).expand(2, 8, 8) < 5
    ours = DiceSemimetricLoss()
    loss = CompoundLoss({"ce": (0.5, nn.CrossEntropyLoss()), "own": (2, Masked()), "dml": (1, ours)})
    value, parts = loss.forward_parts(logits, label)
    expected = {"ce": F.cross_entropy(logits, label), "own": Masked()(logits, label), "dml": ours(logits, label)}
    assert list(parts) == list(expected)
    torch.testing.assert_close(parts, expected)
    torch.testing.assert_close(value, 0.5 * expected["ce"] + 2 * expected["own"] + expected["dml"])
    with pytest.raises(TypeError, match=r"term 'ce' \(CrossEntropyLoss\) takes no mask; give it a parameter mask"):
        loss(logits, label, mask)
    masked = CompoundLoss({"own": (1, Masked()), "dml": (1, ours)})(logits, label, mask)
    torch.testing.assert_close(masked, Masked()(logits, label, mask) + ours(logits, label, mask))
    masked = CompoundLoss({"own": (1, KeywordMasked()), "compiled": (1, torch.compile(Masked(), backend="eager"))})
    torch.testing.assert_close(masked(logits, label, mask), 3 * Masked()(logits, label, mask))
    scaled = CompoundLoss({"scaled": (1, Scaled())})
    torch.testing.assert_close(scaled(logits, label), Masked()(logits, label))
    with pytest.raises(TypeError, match=r"term 'scaled' \(Scaled\) takes no mask"):
        scaled(logits, label, mask)
    for wrapper in (nn.DataParallel, lambda loss: torch.compile(loss, backend="eager")):
        with pytest.raises(TypeError, match=r"term 'mse' \(\w+\) takes no mask"):
            CompoundLoss({"mse": (1, wrapper(nn.MSELoss()))})(logits, label, mask)
    with pytest.raises(ValueError, match=r"term 'map' \(MSELoss\) returns shape \(2, 3, 8, 8\); give a loss that"):
        CompoundLoss({"map": (1, nn.MSELoss(reduction="none"))})(logits, label)


def test_a_term_of_weight_0_adds_nothing_even_if_it_is_infinite():
    logits, label = batch(2)
    logits[0, 0, 0, 0] = -math.inf
    loss = CompoundLoss({"ce": (0, SoftCrossEntropyLoss()), "dml": (1, DiceSemimetricLoss())})
    value, parts = loss.forward_parts(logits, label)
    assert parts["ce"].isinf()
    torch.testing.assert_close(value, DiceSemimetricLoss()(logits, label))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize(
    "loss", [DiceSemimetricLoss(), SoftCrossEntropyLoss(kl=True), FocalCrossEntropyLoss(2), AdaptiveWingLoss()]
)
def test_what_is_masked_out_reaches_neither_loss_nor_gradient(loss, channels, value):
    logits, label = batch(channels)
    keep = torch.arange(8).expand(2, 8, 8) < 5
    cropped = torch.func.grad_and_value(loss)(logits[..., :5], label[..., :5])
    spoiled, unknown = (
        torch.where(keep.unsqueeze(1), item, other) for item, other in ((logits, value), (label, 255.0))
    )
    found = torch.func.grad_and_value(loss)(spoiled, unknown, keep)
    torch.testing.assert_close(found, (F.pad(cropped[0], (0, 3)), cropped[1]))


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("loss", [AdaptiveWingLoss, DiceSemimetricLoss])
def test_masked_probabilities_have_no_gradient(loss, from_logits):
    prob, label = (item.softmax(1) for item in batch(3))
    keep = torch.arange(8).expand(2, 8, 8) < 5
    spoiled = torch.where(keep.unsqueeze(1), prob, math.nan)
    gradient = torch.func.grad(loss(from_logits=from_logits))(spoiled, label, keep)
    assert (gradient.abs().amax(1) > 0).equal(keep)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_vmap_gives_the_loss_and_gradient_of_each_image(channels):
    logits, label = batch(channels, n=4)
    terms = {"ce": SoftCrossEntropyLoss, "dml2": lambda **options: DiceSemimetricLoss(2, **options)}
    loss = CompoundLoss({name: (1, make(check_values=False)) for name, make in terms.items()})
    logits, label = logits.unsqueeze(1), label.unsqueeze(1)
    expected = [torch.func.grad_and_value(loss)(*pair) for pair in zip(logits, label, strict=True)]
    gradients, values = torch.func.vmap(torch.func.grad_and_value(loss))(logits, label)
    torch.testing.assert_close(values, torch.stack([value for _, value in expected]))
    torch.testing.assert_close(gradients, torch.stack([gradient for gradient, _ in expected]))


def test_a_forgotten_dimension_is_named():
    logits, _ = batch(8, (8,))
    reading = r"the input is read as 2 images of 8 channels; add a missing dimension with unsqueeze\(0\)"
    with pytest.raises(ValueError, match=reading):
        DiceSemimetricLoss()(logits, logits.sigmoid())
    with pytest.raises(ValueError, match=reading):
        DiceSemimetricLoss()(logits, torch.zeros(8, 8, dtype=torch.long))
    with pytest.raises(ValueError, match=r"may overlap, call the loss on each channel, input\[:, k : k \+ 1\]"):
        DiceSemimetricLoss(from_logits=False)(logits.sigmoid(), logits.sigmoid())


def test_losses_print_their_settings():
    terms = {"ce": (0.25, SoftCrossEntropyLoss(kl=True)), "region": (0.75, RegionLoss("minimum", 0.5, 0.5))}
    shown = repr(CompoundLoss(terms))
    for part in ("ce: 0.25, region: 0.75", "kl=True", "overlap='minimum'", "check_values=None"):
        assert part in shown
    assert "gamma=2.0" in repr(FocalCrossEntropyLoss(2))
    assert "omega=14.0" in repr(AdaptiveWingLoss())
