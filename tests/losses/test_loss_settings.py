"""What losses are made of and called with in other people's programs: arrays, tensors, mappings, lists of outputs."""

from collections import OrderedDict

import numpy as np
import pytest
import torch

from dmseg.losses import (
    AdaptiveWingLoss,
    CompatibleTverskyLoss,
    CompoundLoss,
    DiceSemimetricLoss,
    FocalCrossEntropyLoss,
    RegionSetting,
    SoftCrossEntropyLoss,
)

LOGITS = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
HARD = torch.arange(40).reshape(2, 4, 5) % 3
SOFT = torch.full((2, 3, 4, 5), 1 / 3)
LOSSES = {
    "dml": DiceSemimetricLoss(),
    "ce": SoftCrossEntropyLoss(),
    "focal": FocalCrossEntropyLoss(2),
    "wing": AdaptiveWingLoss(),
    "compound": CompoundLoss({"dml": (1, DiceSemimetricLoss())}),
}


@pytest.mark.parametrize(
    "weights",
    [
        (1, 2, 4),
        {0: 1, 1: 2, 2: 4},
        {2: 4.0, 0: 1.0, 1: 2.0},
        OrderedDict([(np.int64(1), np.float32(2)), (0, 1), (2, torch.tensor(4.0))]),
        torch.tensor([1, 2, 4]),
        torch.tensor([1.0, 2.0, 4.0], dtype=torch.float16),
        torch.tensor([1.0, 2.0, 4.0], requires_grad=True),
        np.array([1.0, 2.0, 4.0]),
        [torch.tensor(1.0), np.float64(2), 4],
        (2**k for k in range(3)),
        dict(zip("abc", (1, 2, 4), strict=True)).values(),
    ],
)
def test_class_weights_in_any_form_count_by_class(weights):
    """Three one-class losses, weighted by hand."""
    setting = RegionSetting(class_weights=weights)
    assert setting.class_weights == (1.0, 2.0, 4.0)
    assert hash(setting) == hash(RegionSetting(class_weights=[1, 2, 4]))
    prob = LOGITS.softmax(1)
    expected = 0.0
    for index, weight in enumerate((1, 2, 4)):
        single = DiceSemimetricLoss(from_logits=False)(prob[:, index : index + 1], (index == HARD).float()[:, None])
        expected += weight * float(single) / 3
    assert float(DiceSemimetricLoss(class_weights=setting.class_weights)(LOGITS, HARD)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([], ValueError, r"class_weights is \[\]; give one number per channel"),
        ({}, ValueError, r"class_weights is \[\]"),
        ([0, 0.0], ValueError, r"class_weights is \[0.0, 0.0\]; .* not all of them 0"),
        ([1, float("nan")], ValueError, "a class weight is nan; it must be at least 0"),
        ([1, float("inf")], ValueError, "a class weight is inf; it must be finite"),
        (torch.tensor([1.0, -2.0]), ValueError, "a class weight is -2; it must be at least 0"),
        ({0: 1, 2: 1}, ValueError, r"the keys \[0, 2\]; name every class by its index"),
        ({1: 1, 2: 1}, ValueError, r"the keys \[1, 2\]; name every class by its index"),
        ({"background": 1, "foreground": 2}, TypeError, r"the keys \['background', 'foreground'\]; give class indices"),
        ({0.0: 1, 1.0: 2}, TypeError, "give class indices"),
        (2.0, TypeError, "class_weights is 2.0; give one number per channel"),
        (torch.tensor(2.0), TypeError, "class_weights is a torch.Tensor; give one number per channel"),
        (np.float32(2), TypeError, "class_weights is a numpy.float32; give one number per channel"),
        ("12", TypeError, "class_weights is '12'; give one number per channel"),
        (["1", "2"], TypeError, "a class weight is '1'; give a number"),
        ({1, 2}, TypeError, "class_weights is {1, 2}; give one number per channel"),
        (torch.ones(2, 2), TypeError, "class_weights is a torch.Tensor; give one number per channel"),
        ([1, None], TypeError, "a class weight is None; give a number"),
        (object(), TypeError, "class_weights is an object; give one number per channel"),
    ],
)
def test_class_weights_that_cannot_be_used(weights, error, message):
    with pytest.raises(error, match=message):
        DiceSemimetricLoss(class_weights=weights)


def test_class_weights_must_count_for_the_foreground():
    with pytest.raises(ValueError, match="but only the foreground counts"):
        DiceSemimetricLoss(class_weights=[1, 0, 0], classes="foreground")
    DiceSemimetricLoss(class_weights=[1], classes="foreground")(LOGITS[:, :1], HARD > 0)


@pytest.mark.parametrize("number", [torch.tensor, np.float64, np.array, lambda value: torch.tensor([value])])
def test_numbers_may_be_tensors_or_arrays(number):
    made = CompatibleTverskyLoss(number(0.3), number(0.7), gamma=number(2.0), smooth=number(0.5))
    plain = CompatibleTverskyLoss(0.3, 0.7, gamma=2.0, smooth=0.5)
    torch.testing.assert_close(made(LOGITS, HARD), plain(LOGITS, HARD))
    assert all(type(getattr(made.setting, name)) is float for name in ("alpha", "beta", "gamma", "smooth"))
    assert FocalCrossEntropyLoss(number(2.0)).gamma == 2.0
    assert CompoundLoss({"ce": (number(0.5), LOSSES["ce"])}).weights == {"ce": 0.5}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: CompatibleTverskyLoss("0.3", 0.7), TypeError, "alpha is '0.3'; give a number"),
        (lambda: CompatibleTverskyLoss(0.3, None), TypeError, "beta is None; give a number"),
        (lambda: CompatibleTverskyLoss(torch.ones(2), 0.7), TypeError, "alpha is a torch.Tensor; give a number"),
        (lambda: CompatibleTverskyLoss(float("inf"), 0.7), ValueError, "alpha is inf; it must be finite"),
        (
            lambda: CompatibleTverskyLoss(torch.tensor(0.3, requires_grad=True), 1),
            TypeError,
            "alpha requires a gradient, .* detach it",
        ),
        (lambda: DiceSemimetricLoss(gamma=[2]), TypeError, "gamma is a list; give a number"),
        (lambda: DiceSemimetricLoss(smooth=float("inf")), ValueError, "smooth is inf; it must be finite"),
        (lambda: FocalCrossEntropyLoss(float("nan")), ValueError, "gamma is nan; it must be at least 0"),
        (lambda: AdaptiveWingLoss(omega="14"), TypeError, "omega is '14'; give a number"),
    ],
)
def test_settings_that_are_no_numbers(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize(
    ("input", "message"),
    [
        ([LOGITS, LOGITS[..., ::2, ::2]], "input is a list; .* call the loss on each output"),
        ((LOGITS,), "input is a tuple; .* call the loss on each output"),
        (
            OrderedDict(out=LOGITS, aux=LOGITS),
            "a collections.OrderedDict; give one of its tensors .'out', 'aux'",
        ),
        (LOGITS.numpy(), r"input is a numpy.ndarray; give a tensor: torch.from_numpy\(input\)"),
        (None, "input is None; give one tensor"),
    ],
)
def test_outputs_that_are_no_tensor_are_named(loss, input, message):
    with pytest.raises(TypeError, match=message):
        loss(input, HARD)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize(
    ("target", "mask", "message"),
    [
        (HARD.numpy(), None, r"target is a numpy.ndarray; give a tensor: torch.from_numpy\(target\)"),
        (HARD.tolist(), None, "target is a list; give a tensor"),
        (None, None, "target is None; give a tensor"),
        (HARD, (HARD > 0).numpy(), r"mask is a numpy.ndarray; give a tensor: torch.from_numpy\(mask\)"),
        (HARD, [True], "mask is a list; give a tensor"),
    ],
)
def test_targets_and_masks_that_are_no_tensor_are_named(loss, target, mask, message):
    with pytest.raises(TypeError, match=message):
        loss(LOGITS, target, mask)


@pytest.mark.parametrize("excess", [1e-7, 2.5e-7, -1.2e-7])
def test_labels_that_are_off_by_rounding_pass(excess):
    """A weighted mean of raters or a resampled label may be a hair outside [0, 1]."""
    label = (
        torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1).expand(2, 2, 4, 5) + torch.tensor([-excess, excess])[:, None, None]
    )
    logits = LOGITS[:, :2]
    for loss in (*LOSSES.values(), SoftCrossEntropyLoss(kl=True)):
        torch.testing.assert_close(loss(logits, label), loss(logits, label.round()), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"target holds 1.0001, outside \[0, 1\]"):
        LOSSES["dml"](logits[:, :1], torch.full((2, 1, 4, 5), 1.0001))


@pytest.mark.parametrize("name", ["dml.1", "keys", "values", "training", "weights", "forward", ""])
def test_terms_of_any_name(name):
    total, parts = CompoundLoss({name: (0.5, LOSSES["dml"]), "ce": (1, LOSSES["ce"])}).forward_parts(LOGITS, HARD)
    assert list(parts) == [name, "ce"]
    torch.testing.assert_close(total, 0.5 * parts[name] + parts["ce"])


def test_parameters_of_terms_are_found():
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, input, target, mask=None):
            return self.scale * input.square().mean()

    assert len(list(CompoundLoss({"a.b": (1, Scaled())}).parameters())) == 1


@pytest.mark.parametrize(
    ("terms", "error", "message"),
    [
        ([(1.0, LOSSES["dml"])], TypeError, "terms is a list; give a mapping from names"),
        ({"dml": LOSSES["dml"]}, TypeError, r"term 'dml' is a dmseg.*DiceSemimetricLoss; give \(weight, loss\)"),
        (
            {"dml": (LOSSES["dml"], 1.0)},
            TypeError,
            r"is a tuple of a .*Loss, a float; give \(weight, loss\)",
        ),
        ({"dml": (1.0, DiceSemimetricLoss)}, TypeError, "the loss a torch.nn.Module"),
        ({"dml": ("1", LOSSES["dml"])}, TypeError, "the weight of 'dml' is '1'; give a number"),
        ({"dml": (torch.nn.Parameter(torch.ones(())), LOSSES["dml"])}, TypeError, "'dml' requires a gradient"),
        ({"dml": (float("inf"), LOSSES["dml"])}, ValueError, "the weight of 'dml' is inf; it must be finite"),
        ({"dml": (0, LOSSES["dml"])}, ValueError, "all weights are 0"),
    ],
)
def test_wrong_terms(terms, error, message):
    with pytest.raises(error, match=message):
        CompoundLoss(terms)


def test_a_compound_of_probabilities_says_so():
    inner = CompoundLoss({"dml": (1, DiceSemimetricLoss(from_logits=False))})
    with pytest.raises(ValueError, match="from_logits differs"):
        CompoundLoss({"inner": (1, inner), "ce": (1, SoftCrossEntropyLoss())})
    CompoundLoss({"inner": (1, inner), "wing": (1, AdaptiveWingLoss(from_logits=False))})(SOFT, HARD)
