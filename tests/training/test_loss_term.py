"""Loss terms that are not dmseg's: the mask where a loss takes one, else no padding; never a padded pixel."""

import math
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from dmseg.config import components
from dmseg.config.compose import compose_settings
from dmseg.config.settings import LossSettings, LossTerm
from dmseg.data.batches import Batch
from dmseg.errors import UserError
from dmseg.losses import CompoundLoss, DiceSemimetricLoss, SoftCrossEntropyLoss
from dmseg.methods.multi_head import HeadsObjective
from dmseg.training.distill import DistillObjective, Teacher
from dmseg.training.loss_term import OutsideTerm, build_term
from dmseg.training.objective import LabelObjective, build_loss

SOURCE = '''
import torch
from torch import nn


class Masked(nn.Module):
    """Mean squared error of the probabilities over the kept pixels; writes its calls down."""

    def __init__(self, power: float = 2.0) -> None:
        super().__init__()
        self.power, self.masks = power, []
        self.register_buffer("one", torch.ones(1))

    def forward(self, input, target, *, mask):
        self.masks.append(mask)
        error = (input.softmax(1) - target).abs() ** self.power * self.one
        return (error * mask.unsqueeze(1)).sum() / mask.sum() / 2


class Careless(nn.Module):
    def forward(self, input, target, mask=None):
        return (input.softmax(1) - target).square().mean()


class Roughness(nn.Module):
    """Mean over images of the difference of neighbouring columns: depends on where pixels are."""

    def forward(self, input, target):
        error = input.softmax(1) - target
        return error.diff(dim=-1).abs().flatten(1).mean(1).mean()


class Largest(nn.Module):
    """Neither a set of pixels nor a mean over images."""

    def forward(self, input, target):
        return (input.softmax(1) - target).diff(dim=-1).square().sum().sqrt()


class Learned(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, input, target):
        return self.scale * input.mean()


class Detached(nn.Module):
    def forward(self, input, target):
        return input.detach().mean()


class Number(nn.Module):
    def forward(self, input, target):
        return 1.0


class Endless(nn.Module):
    def forward(self, input, target):
        return input.mean() / 0


class Probabilities(nn.Module):
    from_logits = False

    def forward(self, input, target):
        return (input - target).square().mean()
'''


@pytest.fixture(scope="module", autouse=True)
def module(tmp_path_factory):
    """A module of a user's own."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_losses.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(components, "MODULES", {"own_losses"})
        patch.syspath_prepend(folder)
        yield
    sys.modules.pop("own_losses", None)


def batch(padding=True, seed=0):
    """Logits (3, 2, 12, 10), soft label, and a mask that leaves another rectangle of each image."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 2, 12, 10, generator=generator)
    target = torch.randn(3, 2, 12, 10, generator=generator).softmax(1)
    mask = torch.ones(3, 12, 10, dtype=torch.bool)
    if padding:
        mask[0, :, :4] = mask[1, 7:] = mask[1, :, 8:] = False
    return logits, target, mask


def term(target, **options):
    return build_term(LossTerm(1.0, target, options), "loss.terms.x")


def mse(logits, target, mask):
    """By hand: over the kept pixels of the whole batch."""
    return torch.stack([(logits[:, c][mask] - target[:, c][mask]).square() for c in range(2)]).mean()


def roughness(logits, target, mask):
    """By hand: image by image, column by column, of kept pixels only."""
    error, values = logits.softmax(1) - target, []
    for image, keep in zip(error, mask, strict=True):
        steps = [
            abs(float(image[c, i, j + 1] - image[c, i, j]))
            for c in range(2)
            for i in range(12)
            for j in range(9)
            if keep[i, j] and keep[i, j + 1]
        ]
        values.append(sum(steps) / len(steps))
    return torch.tensor(sum(values) / len(values))


@pytest.mark.parametrize(
    ("name", "way", "expected"),
    [
        ("torch.nn.MSELoss", "pixels", mse),
        ("own_losses.Roughness", "images", roughness),
        (
            "own_losses.Masked",
            "mask",
            lambda logits, target, mask: mse(logits.softmax(1), target, mask),
        ),
        (
            "torch.nn.CrossEntropyLoss",
            "pixels",
            lambda logits, target, mask: -(target * logits.log_softmax(1)).sum(1)[mask].mean(),
        ),
    ],
)
@pytest.mark.parametrize("padding", [True, False])
def test_padding_is_removed_in_the_way_that_fits_the_loss(name, way, expected, padding):
    loss = term(name)
    logits, target, mask = batch(padding)
    assert isinstance(loss, OutsideTerm)
    assert loss.padding == way
    torch.testing.assert_close(loss(logits, target, mask), expected(logits, target, mask))
    if not padding:
        torch.testing.assert_close(loss(logits, target), expected(logits, target, mask))


@pytest.mark.parametrize(
    "name", ["torch.nn.MSELoss", "own_losses.Roughness", "own_losses.Masked", "torch.nn.BCEWithLogitsLoss"]
)
def test_padded_pixels_change_neither_value_nor_gradient(name):
    loss = term(name)
    logits, target, mask = batch()
    padding = ~mask.unsqueeze(1)
    found = []
    for shift in (0, 50):
        given = (logits + shift * padding).requires_grad_()
        value = loss(given, torch.where(padding & (shift > 0), 1 - target, target), mask)
        found.append((value.detach(), torch.autograd.grad(value, given)[0]))
    torch.testing.assert_close(found[0], found[1])
    assert not (found[0][1] * padding).any()
    assert found[0][1].any()


def test_nothing_but_padding_has_loss_zero_and_a_gradient():
    logits, target, mask = batch()
    for name in ("torch.nn.MSELoss", "own_losses.Roughness"):
        given = logits.clone().requires_grad_()
        value = term(name)(given, target, torch.zeros_like(mask))
        assert value == 0
        assert not torch.autograd.grad(value, given)[0].any()
    roughly = term("own_losses.Roughness")
    mask[2] = False
    torch.testing.assert_close(roughly(logits, target, mask), roughly(logits[:2], target[:2], mask[:2]))


def test_the_mask_is_handed_over_by_its_name():
    loss = term("own_losses.Masked", power=3)
    logits, target, mask = batch()
    loss(logits, target, mask)
    assert loss.loss.masks[-1] is mask
    loss(logits, target)
    assert loss.loss.masks[-1].all()
    assert loss.loss.power == 3


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("own_losses.Careless", {}, "counts pixels where its mask is false"),
        (
            "own_losses.Largest",
            {},
            "has no mask, and is neither a function of the set of pixels nor a mean over images",
        ),
        ("own_losses.Learned", {}, "has parameters, which would not be trained"),
        ("own_losses.Detached", {}, "cannot be differentiated"),
        ("own_losses.Number", {}, "returns a float, but must return a tensor with one number"),
        ("own_losses.Endless", {}, r"is -?inf for random logits"),
        ("own_losses.Probabilities", {}, r"loss\.terms\.x\.from_logits is false, but networks give logits"),
        ("torch.nn.MSELoss", {"reduction": "none"}, r"returns shape \(2, 2, 32, 32\), but must return one number"),
        ("torch.nn.NLLLoss", {}, "cannot be called with logits and probabilities"),
        ("torch.nn.MSELoss", {"power": 2}, "the options of 'loss.terms.x' do not fit torch.nn.MSELoss"),
        ("torch.nn.Module", {}, "cannot be called with logits and probabilities"),
        ("own_losses.Nothing", {}, "there is no component 'own_losses.Nothing'"),
        ("dmseg.losses.SoftCrossEntropyLoss", {"smooth": 1}, "the options of 'loss.terms.x' do not fit"),
        ("dmseg.losses.SoftDiceLoss", {"from_logits": False}, r"loss\.terms\.x\.from_logits is false"),
    ],
)
def test_a_loss_that_cannot_be_used_is_refused_before_training(name, options, message):
    with pytest.raises(UserError, match=message) as caught:
        term(name, **options)
    assert "loss.terms.x" in str(caught.value) or name in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_trying_a_loss_draws_no_random_numbers():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    term("torch.nn.MSELoss")
    assert torch.equal(torch.rand(3), expected)


def settings(*overrides):
    return compose_settings(["+loss.terms.mse={_target_: torch.nn.MSELoss, weight: 2}", *overrides])


def test_the_sum_has_every_term_with_its_weight():
    logits, target, mask = batch()
    total, parts = build_loss(settings().loss).forward_parts(logits, target, mask)
    ce, region = SoftCrossEntropyLoss()(logits, target, mask), DiceSemimetricLoss()(logits, target, mask)
    expected = {"ce": ce, "region": region, "mse": mse(logits, target, mask)}
    torch.testing.assert_close(parts, expected)
    torch.testing.assert_close(total, 0.25 * ce + 0.75 * region + 2 * expected["mse"])


def test_dmsegs_terms_alone_keep_their_bits():
    logits, target, mask = batch()
    loss = compose_settings([]).loss
    one = CompoundLoss({"ce": (0.25, SoftCrossEntropyLoss()), "region": (0.75, DiceSemimetricLoss())})
    assert torch.equal(build_loss(loss)(logits, target, mask), one(logits, target, mask))
    reversed_terms = LossSettings("x", dict(reversed(loss.terms.items())))
    assert torch.equal(build_loss(reversed_terms)(logits, target, mask), one(logits, target, mask))


def test_weight_zero_switches_a_term_off_and_builds_nothing():
    off = settings("loss.terms.mse.weight=0", "loss.terms.mse._target_=torch.nn.NoSuchLoss").loss
    logits, target, mask = batch()
    _, parts = build_loss(off).forward_parts(logits, target, mask)
    assert set(parts) == {"ce", "region"}
    alone = settings("loss.terms.ce.weight=0", "loss.terms.region.weight=0").loss
    assert set(build_loss(alone).forward_parts(logits, target, mask)[1]) == {"mse"}
    with pytest.raises(UserError, match=r"loss\.terms has no term with a weight above 0"):
        build_loss(off.with_weights({}))


class Pointwise(nn.Module):
    def __init__(self, scale, channels=2):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.channels = channels

    def forward(self, image):
        return torch.cat([image * self.scale * (-1) ** c for c in range(self.channels)], 1)


def test_a_network_is_trained_with_a_third_term():
    logits, target, mask = batch()
    item = Batch(logits[:, :1], target, mask)
    total, parts = LabelObjective(build_loss(settings().loss)).losses(network := Pointwise(1.5), item, "fp32")
    total.backward()
    assert set(parts) == {"ce", "region", "mse"}
    assert network.scale.grad is not None
    assert not parts["mse"].requires_grad


@pytest.mark.parametrize("temperature", [1, 2])
def test_in_distillation_another_term_stands_on_the_labels_side_only(temperature):
    chosen = settings("distill=kd", "distill.kde=null", f"distill.temperature={temperature}")
    logits, target, mask = batch()
    teacher = Teacher(Pointwise(0.3), temperature, None, torch.Generator())
    student, item = Pointwise(1.5), Batch(logits[:, :1], target, mask)
    weights = chosen.distill.weights(chosen.loss)
    assert weights["label_mse"] == 0.5 * 2
    total, parts = DistillObjective(chosen.distill, chosen.loss, teacher).losses(student, item, "fp32")
    without = compose_settings(["distill=kd", "distill.kde=null", f"distill.temperature={temperature}"])
    base, known = DistillObjective(without.distill, without.loss, teacher).losses(student, item, "fp32")
    expected = mse(student(item.image), target, mask).detach()
    assert set(parts) == {*known, "label_mse"}
    torch.testing.assert_close(parts["label_mse"], expected)
    torch.testing.assert_close(total, base + weights["label_mse"] * expected)


def test_distillation_shares_the_weight_of_what_is_off_with_another_term_too():
    chosen = settings("distill=kd", "distill.teacher_region=false", "distill.renormalise=true")
    weights = chosen.distill.weights(chosen.loss)
    assert sum(weights.values()) == pytest.approx(0.5 * 3 + 0.5 * 1)
    assert weights["label_mse"] / weights["label_ce"] == pytest.approx(8)


def test_a_teachers_region_loss_without_classes_is_used_as_it_is():
    chosen = compose_settings(["distill=kd", "distill.kde=null"])
    region = LossTerm(0.75, "torch.nn.MSELoss")
    loss = LossSettings("x", chosen.loss.terms | {"region": region})
    logits, target, mask = batch()
    student, item = Pointwise(1.5), Batch(logits[:, :1], target, mask)
    teacher = Teacher(Pointwise(0.3), 1.0, None, torch.Generator())
    _, parts = DistillObjective(chosen.distill, loss, teacher).losses(student, item, "fp32")
    torch.testing.assert_close(
        parts["teacher_region"], mse(student(item.image), Pointwise(0.3)(item.image).softmax(1), mask).detach()
    )


def test_each_head_has_a_third_term_for_the_cases_of_its_rater():
    logits, _, mask = batch()
    raters = functional.one_hot(torch.arange(2), 2).repeat(2, 1)[:3].float()[:, :, None, None].expand(3, 2, 12, 10)
    present = torch.tensor([[True, False], [True, True], [True, False]])
    item = Batch(logits[:, :1], torch.cat([1 - raters[:, :1], raters[:, :1]], 1), mask, raters, present)
    _, parts = HeadsObjective(build_loss(settings().loss)).losses(Pointwise(1.5, 4), item, "fp32")
    heads = Pointwise(1.5, 4)(item.image).reshape(3, 2, 2, 12, 10)
    each = [
        mse(heads[:, r], torch.stack([1 - raters[:, r], raters[:, r]], 1), mask & present[:, r, None, None])
        for r in range(2)
    ]
    shares = (0.5, 0.5)
    assert math.isclose(
        float(parts["mse"]), sum(s * float(v.detach()) for s, v in zip(shares, each, strict=True)), rel_tol=1e-5
    )
