"""What a loss is called with: every mistake is named, with what was given and what to give."""

import pytest
import torch

from dmseg.losses import (
    AdaptiveWingLoss,
    CompoundLoss,
    DiceSemimetricLoss,
    FocalCrossEntropyLoss,
    SoftCrossEntropyLoss,
    confusion,
    pixel_sums,
    region_loss,
)
from dmseg.losses._fused import RequiredSums

LOSSES = {
    "dml": DiceSemimetricLoss,
    "ce": SoftCrossEntropyLoss,
    "focal": lambda **options: FocalCrossEntropyLoss(2, **options),
    "wing": AdaptiveWingLoss,
    "compound": lambda **options: CompoundLoss({"dml": (1, DiceSemimetricLoss(**options))}),
}
LOGITS = torch.zeros(2, 3, 4, 5)
HARD = torch.zeros(2, 4, 5, dtype=torch.int64)
SOFT = torch.full((2, 3, 4, 5), 1 / 3)
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@every_loss
@pytest.mark.parametrize("check", [None, False, True])
@pytest.mark.parametrize(
    ("input", "target", "mask", "error", "message"),
    [
        (LOGITS.long(), HARD, None, TypeError, "input is torch.int64; give floating-point"),
        (LOGITS[0, 0], HARD[0], None, ValueError, r"input has shape \(4, 5\); give \(batch, channels"),
        (LOGITS[:, :0], SOFT[:, :0], None, ValueError, r"input has shape \(2, 0, 4, 5\)"),
        (LOGITS, HARD[:, None], None, ValueError, r"\(2, 1, 4, 5\); give shape \(2, 4, 5\) without channels"),
        (LOGITS, SOFT.long(), None, ValueError, r"hard labels \(torch.int64\) of shape \(2, 3, 4, 5\)"),
        (LOGITS, SOFT[:, :1], None, ValueError, r"shape \(2, 1, 4, 5\); give the input's shape \(2, 3, 4, 5\)"),
        (LOGITS, HARD.float(), None, ValueError, r"soft label \(torch.float32\) of shape \(2, 4, 5\)"),
        (LOGITS, HARD.cfloat(), None, TypeError, "target is torch.complex64"),
        (LOGITS, HARD, SOFT > 0, ValueError, r"mask has shape \(2, 3, 4, 5\); .* \(2, 4, 5\)"),
        (LOGITS, HARD, HARD.cfloat(), TypeError, "mask is torch.complex64"),
        (LOGITS, HARD.to("meta"), None, ValueError, "target is on meta and input on cpu"),
        (LOGITS, HARD, HARD.bool().to("meta"), ValueError, "mask is on meta and input on cpu"),
    ],
)
def test_shapes_and_dtypes_are_always_checked(loss, check, input, target, mask, error, message):
    with pytest.raises(error, match=message):
        loss(check_values=check)(input, target, mask)


def changed(tensor, value):
    tensor = tensor.clone()
    tensor[0, ..., 0, 0] = value
    return tensor


WRONG_VALUES = [
    (changed(HARD, 3), None, r"target holds 3, outside \[0, 2\]"),
    (changed(HARD, -1), None, r"target holds -1, outside \[0, 2\]"),
    (changed(SOFT, 1.5), None, r"target holds 1.5, outside \[0, 1\]"),
    (changed(SOFT, -0.5), None, r"target holds -0.5, outside \[0, 1\]"),
    (changed(SOFT, float("nan")), None, "target holds nan"),
    (changed(SOFT, 0.5), None, r"does not sum to 1 over its 3 channels \(off by up to 0.5\)"),
    (HARD, changed(HARD, 2), "mask holds values other than 0 and 1"),
    (HARD, changed(HARD.double(), 0.5), "mask holds values other than 0 and 1"),
]


@every_loss
@pytest.mark.parametrize(("target", "mask", "message"), WRONG_VALUES)
def test_values_are_checked_on_the_cpu(loss, target, mask, message):
    for check in (None, True):
        with pytest.raises(ValueError, match=message):
            loss(check_values=check)(LOGITS, target, mask)
    loss(check_values=False)(LOGITS, target, mask)


@every_loss
@pytest.mark.parametrize(("target", "mask", "message"), WRONG_VALUES[:6])
def test_values_that_are_masked_out_may_be_anything(loss, target, mask, message):
    keep = changed(torch.ones(2, 4, 5, dtype=torch.bool), False)
    assert torch.isfinite(loss()(LOGITS, target, keep))


@pytest.mark.parametrize("loss", [DiceSemimetricLoss, AdaptiveWingLoss])
def test_probabilities_are_checked_too(loss):
    with pytest.raises(ValueError, match=r"input holds 2, outside \[0, 1\]: .* from_logits=True"):
        loss(from_logits=False)(changed(SOFT, 2), HARD)


def test_one_channel_takes_classes_0_and_1_and_any_soft_label():
    loss = DiceSemimetricLoss()
    loss(LOGITS[:, :1], changed(HARD, 1))
    loss(LOGITS[:, :1], SOFT[:, :1])
    with pytest.raises(ValueError, match=r"target holds 2, outside \[0, 1\]"):
        loss(LOGITS[:, :1], changed(HARD, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_soft_labels_in_low_precision_pass(dtype):
    generator = torch.Generator().manual_seed(0)
    label = torch.randn(2, 3, 40, 40, generator=generator).softmax(1).to(dtype)
    DiceSemimetricLoss(check_values=True)(torch.zeros(2, 3, 40, 40), label)


def test_sums_that_were_not_computed_are_named():
    sums = pixel_sums(LOGITS, HARD, None, RequiredSums(product=True))
    with pytest.raises(ValueError, match="was not computed"):
        confusion(sums, "minimum")
    assert confusion(sums, "classical").tp.shape == (2, 3)
    with pytest.raises(ValueError, match="overlap is 'minimun'; it must be one of 'minimum', 'product'"):
        confusion(sums, "minimun")
    with pytest.raises(TypeError, match="setting is a str; give a RegionSetting"):
        region_loss(LOGITS, HARD, setting="minimum")


def test_an_empty_batch_has_loss_zero():
    for loss in LOSSES.values():
        assert float(loss()(LOGITS[:0], HARD[:0])) == 0
