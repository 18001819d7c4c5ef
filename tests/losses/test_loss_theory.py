"""The paper's proposition and theorems as properties, in double precision, on single vectors."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dmseg.losses import (
    CompatibleTverskyLoss,
    DiceSemimetricLoss,
    JaccardMetricLoss,
    SoftDiceLoss,
    SoftJaccardLoss,
    SoftTverskyLoss,
)

RHO = (1 + 5**0.5) / 2
BARE = {"smooth": 0.0, "from_logits": False, "check_values": False}
DML = [DiceSemimetricLoss(variant, **BARE) for variant in (1, 2)]
JML = [JaccardMetricLoss(variant, **BARE) for variant in (1, 2)]
TOLERANCE = 1e-12
properties = settings(max_examples=80, deadline=None, derandomize=True)

entries = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1, allow_subnormal=False))


def vectors(count, values=entries):
    """`count` vectors of one length as the rows of an array."""
    return st.integers(1, 6).flatmap(lambda size: arrays(np.float64, (count, size), elements=values))


def value(loss, x, y):
    return float(loss(torch.as_tensor(x)[None, None], torch.as_tensor(y)[None, None]))


@properties
@given(vectors(2))
def test_proposition_1_dice_loss_from_the_jaccard_loss(pair):
    """The Dice loss is IoU loss / (2 - IoU loss), and so 0 exactly where the IoU loss is."""
    x, y = pair
    for dice, jaccard in zip([*DML, SoftDiceLoss(**BARE)], [*JML, SoftJaccardLoss(**BARE)], strict=True):
        iou_loss = value(jaccard, x, y)
        assert value(dice, x, y) == pytest.approx(iou_loss / (2 - iou_loss), rel=1e-9, abs=TOLERANCE)
        assert (value(dice, x, y) == 0) == (iou_loss == 0)


@properties
@given(vectors(2))
def test_theorem_1_reflexive_positive_symmetric(pair):
    x, y = pair
    for loss in DML + JML:
        assert value(loss, x, x) == 0
        assert value(loss, x, y) == pytest.approx(value(loss, y, x), rel=1e-12)
        assert 0 <= value(loss, x, y) <= 1 + TOLERANCE
        if np.abs(x - y).max() > 1e-9:
            assert value(loss, x, y) > 0


@properties
@given(vectors(3))
def test_theorem_1_triangle_relaxed_for_dice_and_full_for_jaccard(triple):
    a, b, c = triple
    for losses, rho in ((DML, RHO), (JML, 1.0)):
        for loss in losses:
            assert value(loss, a, c) <= rho * (value(loss, a, b) + value(loss, b, c)) + TOLERANCE


def test_the_triangle_needs_at_least_three_halves():
    """Appendix A's example; so the Dice losses are no metrics."""
    a, b, c = np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    for loss in DML:
        assert value(loss, a, c) / (value(loss, a, b) + value(loss, b, c)) == pytest.approx(1.5)


@properties
@given(vectors(1), st.data())
def test_theorem_2_equal_to_the_soft_dice_loss_when_a_side_is_hard(soft, data):
    soft = soft[0]
    hard = data.draw(arrays(np.float64, soft.shape, elements=st.sampled_from([0.0, 1.0])))
    for x, y in ((soft, hard), (hard, soft)):
        assume(x.sum() + y.sum() > 0)  # 0/0 in SDL's own formula
        for variants, classical in ((DML, SoftDiceLoss(**BARE)), (JML, SoftJaccardLoss(**BARE))):
            expected = value(classical, x, y)
            assert [value(loss, x, y) for loss in variants] == pytest.approx([expected] * 2, abs=TOLERANCE)


def test_theorem_2_all_three_differ_for_soft_labels():
    x, y = np.array([0.2, 0.8]), np.array([0.6, 0.5])
    classical, first, second = (value(loss, x, y) for loss in (SoftDiceLoss(**BARE), *DML))
    assert first == pytest.approx(0.7 / 2.1)
    assert second == pytest.approx(0.7 / (2 * 0.52 + 0.7))
    assert classical == pytest.approx(1 - 2 * 0.52 / 2.1)


@properties
@given(vectors(2))
def test_theorem_3_the_first_variant_is_never_larger(pair):
    x, y = pair
    for first, second in (DML, JML):
        assert value(first, x, y) <= value(second, x, y) + TOLERANCE


weights = st.floats(0.05, 2)


@properties
@given(vectors(2), weights, weights)
def test_theorem_5_tversky_reflexive_and_positive(pair, alpha, beta):
    x, y = pair
    loss = CompatibleTverskyLoss(alpha, beta, **BARE)
    assert value(loss, x, x) == 0
    assert (value(loss, x, y) > 0) == (np.abs(x - y).max() > 0) or np.abs(x - y).max() < 1e-9


@properties
@given(vectors(1), st.data(), weights, weights)
def test_theorem_6_compatible_tversky_is_tversky_when_a_side_is_hard(soft, data, alpha, beta):
    soft = soft[0]
    hard = data.draw(arrays(np.float64, soft.shape, elements=st.sampled_from([0.0, 1.0])))
    classical, compatible = (loss(alpha, beta, **BARE) for loss in (SoftTverskyLoss, CompatibleTverskyLoss))
    for x, y in ((soft, hard), (hard, soft)):
        assert value(compatible, x, y) == pytest.approx(value(classical, x, y), abs=TOLERANCE)


def test_theorem_6_they_differ_for_soft_labels():
    y = np.array([0.3, 0.8])
    assert value(CompatibleTverskyLoss(0.7, 0.3, **BARE), y, y) == 0
    assert value(SoftTverskyLoss(0.7, 0.3, **BARE), y, y) == pytest.approx(1 - 0.73 / 1.1)


GRID = np.linspace(0, 1, 1001)


@pytest.mark.parametrize("label", [0.1, 0.5, 0.8])
def test_where_the_minimum_lies(label):
    """Section 2.1: at the label for the compatible losses, at a vertex for the classical ones."""
    compatible = [*DML, *JML, CompatibleTverskyLoss(0.7, 0.3, **BARE), SoftDiceLoss(squared=True, **BARE)]
    y = np.array([label])
    for loss in compatible:
        assert GRID[np.argmin([value(loss, np.array([x]), y) for x in GRID])] == pytest.approx(label)
    for loss in (SoftDiceLoss(**BARE), SoftJaccardLoss(**BARE), SoftTverskyLoss(0.7, 0.3, **BARE)):
        assert GRID[np.argmin([value(loss, np.array([x]), y) for x in GRID])] == 1


def test_descending_the_compatible_loss_finds_a_soft_label_and_the_classical_one_hardens_it():
    generator = torch.Generator().manual_seed(0)
    label = torch.rand(1, 1, 30, generator=generator, dtype=torch.float64) * 0.8 + 0.1
    target = torch.cat((1 - label, label), 1)
    found = {}
    for loss in (DiceSemimetricLoss(), SoftDiceLoss()):
        logits = torch.zeros(1, 2, 30, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.Adam([logits], lr=0.05)
        for step in range(600):
            optimiser.param_groups[0]["lr"] = 0.05 * (1 - step / 600)
            optimiser.zero_grad()
            loss(logits, target).backward()
            optimiser.step()
        found[type(loss)] = logits.detach().softmax(1)[:, 1:]
    assert float((found[DiceSemimetricLoss] - label).abs().max()) < 0.02
    hardened = found[SoftDiceLoss]
    assert float(torch.minimum(hardened, 1 - hardened).median()) < 0.01
