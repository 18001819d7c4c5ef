"""Optimiser groups and the poly schedule against closed forms."""

import dataclasses

import pytest
import torch

from dmseg.config.compose import compose_settings
from dmseg.models.build import build_model
from dmseg.training.optim import build_optimizer, build_schedule, poly_factor

OPTIM = compose_settings([]).optim


def model():
    return build_model(**compose_settings(["model=unet_tiny"]).model.arguments, in_channels=1)


def test_poly_is_the_closed_form():
    for iteration in range(50):
        assert poly_factor(iteration, 50, 0.9) == pytest.approx((1 - iteration / 50) ** 0.9)


def test_warm_up_rises_linearly_and_then_decays_over_the_rest():
    factors = [poly_factor(iteration, 1000, 0.9, warmup=0.01) for iteration in range(1000)]
    assert factors[0] == 1e-4
    assert factors[5] == pytest.approx(0.5)
    assert factors[10] == 1.0
    assert factors[505] == pytest.approx(0.5**0.9)


def test_the_paper_has_one_rate_and_one_decay():
    groups = build_optimizer(model(), OPTIM).param_groups
    assert {(group["lr"], group["weight_decay"], group["momentum"]) for group in groups} == {(0.01, 0.0005, 0.9)}


def test_the_release_has_ten_times_in_the_decoder_and_no_decay_on_vectors():
    released = compose_settings(["protocol=release"]).optim
    network = model()
    optimizer = build_optimizer(network, released)
    by_parameter = {id(value): group for group in optimizer.param_groups for value in group["params"]}
    assert len(by_parameter) == len(list(network.parameters()))
    for name, value in network.named_parameters():
        group = by_parameter[id(value)]
        assert group["lr"] == pytest.approx(0.01 if name.startswith("encoder.") else 0.1)
        assert group["weight_decay"] == (0.0005 if value.ndim > 1 else 0)


def test_the_schedule_moves_all_groups():
    optimizer = build_optimizer(model(), dataclasses.replace(OPTIM, decoder_lr_factor=10.0))
    schedule = build_schedule(optimizer, OPTIM, total=4)
    rates = []
    for _ in range(4):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    expected = [(1 - step / 4) ** 0.9 for step in range(4)]
    assert [rate[0] for rate in rates] == pytest.approx([0.01 * factor for factor in expected])
    assert [rate[-1] for rate in rates] == pytest.approx([0.1 * factor for factor in expected])
    assert torch.isfinite(torch.tensor(rates)).all()
