"""The family against the paper's equations, written out with numpy, and its reductions against plain loops."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dmseg.losses import (
    CompatibleFocalTverskyLoss,
    CompatibleTverskyLoss,
    DiceSemimetricLoss,
    JaccardMetricLoss,
    RegionLoss,
    RegionSetting,
    SoftDiceLoss,
    SoftFocalTverskyLoss,
    SoftJaccardLoss,
    SoftTverskyLoss,
    region_loss,
)

A, B, G = 0.7, 0.3, 1.7


def norm(values):
    return np.abs(values).sum()


def tversky(x, y):
    return 1 - (x * y).sum() / (A * norm(x) + B * norm(y) + (1 - A - B) * (x * y).sum())


def compatible_tversky(x, y):
    twice = norm(x + y) - norm(x - y)
    return 1 - twice / (2 * A * norm(x) + 2 * B * norm(y) + (1 - A - B) * twice)


def jml1(x, y):
    return 1 - (norm(x + y) - norm(x - y)) / (norm(x + y) + norm(x - y))


EQUATIONS = {
    "Eq. 1": (SoftDiceLoss, {}, lambda x, y: 1 - 2 * (x * y).sum() / (norm(x) + norm(y))),
    "Eq. 2": (SoftJaccardLoss, {}, lambda x, y: 1 - (x * y).sum() / (norm(x) + norm(y) - (x * y).sum())),
    "Eq. 1, L2": (SoftDiceLoss, {"squared": True}, lambda x, y: 1 - 2 * x @ y / (x @ x + y @ y)),
    "Eq. 2, L2": (SoftJaccardLoss, {"squared": True}, lambda x, y: 1 - x @ y / (x @ x + y @ y - x @ y)),
    "Eq. 3, 1": (JaccardMetricLoss, {"variant": 1}, jml1),
    "Eq. 3, 2": (JaccardMetricLoss, {"variant": 2}, lambda x, y: 1 - x @ y / (x @ y + norm(x - y))),
    "Eq. 4, 1": (DiceSemimetricLoss, {"variant": 1}, lambda x, y: norm(x - y) / norm(x + y)),
    "Eq. 4, 2": (DiceSemimetricLoss, {"variant": 2}, lambda x, y: 1 - 2 * x @ y / (2 * x @ y + norm(x - y))),
    "Eq. 21": (SoftTverskyLoss, {"alpha": A, "beta": B}, tversky),
    "Eq. 21^g": (SoftFocalTverskyLoss, {"alpha": A, "beta": B, "gamma": G}, lambda x, y: tversky(x, y) ** G),
    "Eq. 23": (CompatibleTverskyLoss, {"alpha": A, "beta": B}, compatible_tversky),
    "Eq. 29": (
        CompatibleFocalTverskyLoss,
        {"alpha": A, "beta": B, "gamma": G},
        lambda x, y: compatible_tversky(x, y) ** G,
    ),
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_equation(name):
    loss, options, equation = EQUATIONS[name]
    rng = np.random.default_rng(0)
    for _ in range(5):
        x, y = rng.uniform(0.05, 0.95, (2, 7))
        ours = loss(**options, smooth=0, from_logits=False)(tensor(x), tensor(y))
        assert float(ours) == pytest.approx(equation(x, y), rel=1e-12)


def tensor(values):
    """A vector as one image of one class."""
    return torch.as_tensor(values)[None, None]


def test_smooth_is_twice_as_much_in_the_usual_form_of_dice():
    x, y = np.array([0.2, 0.9, 0.4]), np.array([0.0, 1.0, 0.7])
    usual = 1 - (2 * (x * y).sum() + 2 * 0.3) / (x.sum() + y.sum() + 2 * 0.3)
    assert float(SoftDiceLoss(smooth=0.3, from_logits=False)(tensor(x), tensor(y))) == pytest.approx(usual, rel=1e-12)


def test_alpha_weighs_false_positives():
    """Two false positives and one false negative beside one hit: score 1 / (1 + 2 alpha + beta)."""
    x, y = tensor([1.0, 1.0, 1.0, 0.0]), tensor([1.0, 0.0, 0.0, 1.0])
    for loss in (SoftTverskyLoss, CompatibleTverskyLoss):
        value = loss(alpha=0.9, beta=0.2, smooth=0, from_logits=False)(x, y)
        assert float(value) == pytest.approx(1 - 1 / (1 + 2 * 0.9 + 0.2))


COUNTS = {
    "minimum": lambda x, y: (np.minimum(x, y), np.maximum(x - y, 0), np.maximum(y - x, 0)),
    "product": lambda x, y: (x * y, np.maximum(x - y, 0), np.maximum(y - x, 0)),
    "classical": lambda x, y: (x * y, x * (1 - y), (1 - x) * y),
    "squared": lambda x, y: (x * y, (x - y) ** 2 / 2, (x - y) ** 2 / 2),
}


def by_loops(x, y, keep, setting):
    """The family with loops over images and classes: x and y (B, C, P), keep (B, P)."""

    def one(image, c):
        pick = (slice(None), c) if image is None else (slice(image, image + 1), c)
        kept = keep if image is None else keep[image : image + 1]
        p, q = x[pick][kept], y[pick][kept]
        if setting.classes == "present" and not (q > 0.01).any():
            return None
        if setting.classes == "foreground" and c == 0 and x.shape[1] > 1:
            return None
        tp, fp, fn = (count.sum() for count in COUNTS[setting.overlap](p, q))
        whole = tp + setting.alpha * fp + setting.beta * fn + setting.smooth
        score = (tp + setting.smooth) / whole if whole else 1.0
        loss = (-np.log(score) if setting.log_loss else 1 - score) ** setting.gamma
        return loss * (setting.class_weights[c] if setting.class_weights else 1)

    def mean(values):
        kept = [value for value in values if value is not None]
        return sum(kept) / len(kept) if kept else None

    images, classes = range(x.shape[0]), range(x.shape[1])
    if setting.reduction == "batch":
        result = mean(one(None, c) for c in classes)
    elif setting.reduction == "image":
        result = mean(mean(one(b, c) for c in classes) for b in images)
    else:
        result = mean(mean(one(b, c) for b in images) for c in classes)
    return result or 0.0


@st.composite
def region_settings(draw):
    log_loss = draw(st.booleans())  # -log(0) is infinite, so with a smooth score
    return RegionSetting(
        overlap=draw(st.sampled_from(sorted(COUNTS))),
        alpha=draw(st.sampled_from([0.3, 0.5, 1.0])),
        beta=draw(st.sampled_from([0.0, 0.5, 1.0])),
        gamma=draw(st.sampled_from([0.75, 1.0, 2.0])),
        smooth=draw(st.sampled_from([1e-3, 1.0] if log_loss else [0.0, 1e-3, 1.0])),
        reduction=draw(st.sampled_from(["batch", "image", "class"])),
        classes=draw(st.sampled_from(["all", "present", "foreground"])),
        log_loss=log_loss,
    )


def hard_and_soft_labels(rng, channels, size):
    """Soft labels (3, C, size) some of which are one-hot, classes missing here and there."""
    shown = max(channels, 2)
    hard = rng.integers(0, shown - (channels > 2), (3, size))
    label = np.eye(shown)[hard].transpose(0, 2, 1)
    label[0] = rng.dirichlet(np.ones(shown), size).T
    return label[:, -channels:], hard


@settings(max_examples=100, deadline=None, derandomize=True)
@given(region_settings(), st.sampled_from([1, 2, 4]), st.sampled_from(["none", "some", "image"]), st.integers(0, 10**6))
def test_reductions_classes_and_masks_agree_with_loops(setting, channels, masked, seed):
    rng = np.random.default_rng(seed)
    label, _ = hard_and_soft_labels(rng, channels, 9)
    logits = rng.normal(size=(3, channels, 9)) * 2
    keep = rng.random((3, 9)) < (1 if masked == "none" else 0.6)
    keep[1] &= masked != "image"
    odds = np.exp(logits)
    prob = odds / (1 + odds) if channels == 1 else odds / odds.sum(1, keepdims=True)
    mask = None if masked == "none" else torch.as_tensor(keep)
    expected = by_loops(prob, label, keep, setting)
    for given_input, from_logits in ((logits, True), (prob, False)):
        ours = region_loss(torch.as_tensor(given_input), torch.as_tensor(label), mask, setting, from_logits=from_logits)
        assert float(ours) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("reduction", ["batch", "image", "class"])
@pytest.mark.parametrize("channels", [2, 3])
def test_class_weights(reduction, channels):
    rng = np.random.default_rng(1)
    label, _ = hard_and_soft_labels(rng, channels, 6)
    prob = rng.dirichlet(np.ones(channels), (3, 6)).transpose(0, 2, 1)
    setting = RegionSetting(reduction=reduction, class_weights=(0.5, 2.0, 0.0)[:channels])
    expected = by_loops(prob, label, np.ones((3, 6), bool), setting)
    ours = region_loss(torch.as_tensor(prob).log(), torch.as_tensor(label), setting=setting)
    assert float(ours) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.int32])
@pytest.mark.parametrize("overlap", sorted(COUNTS))
def test_hard_labels_are_one_hot_soft_labels(channels, dtype, overlap):
    generator = torch.Generator().manual_seed(2)
    hard = torch.randint(0, max(channels, 2), (2, 3, 4, 5), generator=generator)
    one_hot = torch.nn.functional.one_hot(hard, max(channels, 2)).movedim(-1, 1)[:, -channels:].double()
    logits = torch.randn(2, channels, 3, 4, 5, generator=generator, dtype=torch.float64)
    for classes in ("all", "present", "foreground"):
        setting = RegionSetting(overlap=overlap, classes=classes)
        expected = region_loss(logits, one_hot, setting=setting)
        torch.testing.assert_close(region_loss(logits, hard.to(dtype), setting=setting), expected)
    if channels < 3:
        torch.testing.assert_close(region_loss(logits, hard.bool()), region_loss(logits, hard))


def test_the_named_losses_spell_their_options_out():
    """A configuration is checked against the signature, and every option must reach the setting."""
    for loss in (SoftDiceLoss, SoftTverskyLoss, DiceSemimetricLoss, CompatibleFocalTverskyLoss):
        names = inspect.signature(loss).parameters
        assert {"gamma", "smooth", "reduction", "classes", "from_logits", "check_values", "class_weights"} <= set(names)
        assert names["smooth"].default == inspect.signature(RegionLoss).parameters["smooth"].default
        assert not any(parameter.kind is parameter.VAR_KEYWORD for parameter in names.values())
    loss = CompatibleFocalTverskyLoss(0.7, 0.3, 2, smooth=0.1, reduction="image", classes="present", log_loss=True)
    assert loss.setting == RegionSetting("minimum", 0.7, 0.3, 2, 0.1, "image", "present", True, None)
    assert "smooth=0.1" in repr(loss)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smooth": -1}, "smooth is -1"),
        ({"gamma": 0}, "gamma is 0"),
        ({"gamma": float("nan")}, "gamma is nan"),
        ({"reduction": "mean"}, "'batch', 'image', 'class'"),
        ({"classes": "some"}, "'foreground'"),
        ({"class_weights": (1, -1)}, "class weight is -1"),
        ({"variant": 3}, "variant is 3"),
    ],
)
def test_wrong_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        DiceSemimetricLoss(**options)


def test_wrong_weights_of_the_counts_are_named():
    with pytest.raises(ValueError, match=r"alpha is -0\.1"):
        CompatibleTverskyLoss(-0.1, 0.3)
    with pytest.raises(ValueError, match=r"alpha \+ beta is 0"):
        CompatibleTverskyLoss(0, 0)
    with pytest.raises(ValueError, match="overlap is 'union'"):
        RegionLoss("union", 1, 1)
    with pytest.raises(ValueError, match="class_weights has 3 entries for 2 channels"):
        DiceSemimetricLoss(class_weights=(1, 2, 3))(torch.zeros(1, 2, 4), torch.zeros(1, 4, dtype=torch.int64))
