"""MRNet's conditions, losses and predictions."""

import dataclasses

import pytest
import torch
from torch.nn import functional

from dmseg.config.compose import compose_settings
from dmseg.data.batches import Batch
from dmseg.errors import UserError
from dmseg.methods.mrnet import MRNetMethod, MRNetObjective, draw_conditions
from dmseg.training.optim import build_adam

PRESENT = torch.tensor([[True, True, False, True], [True, False, False, True]])


def stream():
    return torch.Generator().manual_seed(7)


def settings(*more):
    return compose_settings(["data=phantom", "profile=demo", "method=mrnet", "task=prostate-1", *more])


def method(*more):
    return MRNetMethod(**settings(*more).method.options)


@pytest.fixture
def network(phantom_task):
    torch.manual_seed(0)
    return method().network(settings().model, 1, phantom_task)


@pytest.fixture
def phantom_task():
    from dmseg.data.case import Task

    return Task("made-up", "Made up", "made-up", ("a", "b", "c", "d"))


def batch(present=None):
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(2, 4, 32, 32, generator=generator) > 0.5).float()
    there = torch.ones(2, 4, dtype=torch.bool) if present is None else present
    mask = torch.ones(2, 32, 32, dtype=torch.bool)
    mask[:, :, 20:] = False
    image = torch.randn(2, 1, 32, 32, generator=generator)
    return Batch(image, torch.zeros(2, 2, 32, 32), mask, masks * there[..., None, None], there)


def test_conditions_are_shared_out_among_the_raters_who_are_there():
    present = PRESENT.repeat(500, 1)
    mean, mixed, single = draw_conditions(present, stream())
    for weights in (mean, mixed, single):
        torch.testing.assert_close(weights.sum(1), torch.ones(len(present)))
        assert weights[~present].eq(0).all()
    torch.testing.assert_close(mean[:2], torch.tensor([[1 / 3, 1 / 3, 0, 1 / 3], [1 / 2, 0, 0, 1 / 2]]))
    assert single[present].unique().tolist() == [0, 1]
    often = single[::2].mean(0)
    assert often[present[0]].sub(1 / 3).abs().max() < 0.08, "each rater in turn"
    ratio = (mixed[1::2, 0] / mixed[1::2, 3]).unique()
    expected = torch.tensor(sorted({a / b for a in range(1, 11) for b in range(1, 11)}))
    assert all((expected - value).abs().min() < 1e-5 for value in ratio), "whole numbers from 1 to 10"
    assert len(ratio) > 40
    assert not torch.equal(mixed[0], mixed[2]), "drawn for each image"


def test_losses_by_hand(network):
    data, stream_of_test = batch(), stream()
    objective = MRNetObjective(0.3, stream())
    network.eval()
    total, parts = objective.losses(network, data, "fp32")
    conditions = draw_conditions(data.present, stream_of_test)
    answers = network(data.image, conditions)

    def entropy(logits, target):
        return functional.binary_cross_entropy(logits.sigmoid()[..., :20], target[..., :20])

    targets = [(weights[..., None, None] * data.raters).sum(1, keepdim=True).clamp(0, 1) for weights in conditions]
    mean, mixed, single = (entropy(a.coarse, t) for a, t in zip(answers, targets, strict=True))
    final = [entropy(a.final, t) for a, t in zip(answers, targets, strict=True)]
    raters = sum(entropy(answer.raters, data.raters) for answer in answers) / 3
    kept = answers[0].coarse.sigmoid() * data.mask[:, None]
    consistency = network.reconstruction.distance(data.image, kept, targets[0])
    host = 0.7 * (3 * mean + 2 * mixed + single) / 6 + 0.3 * consistency
    torch.testing.assert_close(total, host + raters + (3 * final[0] + 2 * final[1] + final[2]) / 6)
    assert set(parts) == {"coarse", "consistency", "raters", "final"}


def test_what_an_absent_rater_would_have_said_has_no_effect(network):
    network.eval()
    data = batch(PRESENT)
    changed = data.raters.clone()
    changed[~PRESENT] = 1
    first, second = (
        MRNetObjective(0.3, stream()).losses(network, dataclasses.replace(data, raters=raters), "fp32")[0]
        for raters in (data.raters, changed)
    )
    assert first == second


def test_without_consistency_the_gradients_are_those_of_the_other_losses(network):
    network.eval()
    total, parts = MRNetObjective(0.0, stream()).losses(network, batch(), "fp32")
    torch.testing.assert_close(total.detach(), parts["coarse"] + parts["raters"] + parts["final"])
    assert parts["consistency"] == 0


def test_conditions_go_on_where_a_checkpoint_left_them(network):
    first, second = MRNetObjective(0.3, stream()), MRNetObjective(0.3, torch.Generator())
    network.eval()
    first.losses(network, batch(), "fp32")
    second.load_state(first.state())
    later = [objective.losses(network, batch(), "fp32")[0].item() for objective in (first, second)]
    assert later[0] == later[1]


def test_the_prediction_is_that_under_equal_weights(network, phantom_task):
    predictor = method().predictor(network, lambda name: stream())
    image = batch().image
    with torch.inference_mode():
        (expected,) = network(image, [torch.full((2, 4), 1 / 4)])
        torch.testing.assert_close(predictor.probability(image), expected.final.sigmoid()[:, 0])
        (second,) = network(image, [torch.eye(4)[1].expand(2, 4)])
        samples = predictor.samples(image)
        assert torch.equal(samples[:, 1], second.final[:, 0] >= 0)
    assert (samples.shape, samples.dtype) == ((2, 4, 32, 32), torch.bool)


def test_adam_has_the_published_rates(network):
    paper = compose_settings(["data=qubiq", "method=mrnet"]).method.options
    group = build_adam(network, paper["adam"]).param_groups[0]
    assert (group["lr"], group["weight_decay"], len(group["params"])) == (1e-4, 5e-4, len(list(network.parameters())))
    assert paper["widths"]["encoder"] == [64, 128, 256, 512, 512]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("method.consistency=1", "method.consistency is 1"),
        ("method.widths.encoder=[4,4]", "method.widths.encoder has 2 numbers"),
        ("+method.widths.more=3", "method.widths has .*more, but must have bottleneck, encoder"),
        ("method.adam.lr=0", "lr must be above 0"),
        ("+method.adam.beta=1", "method.adam has lr, weight_decay, beta, but must have lr and weight_decay"),
    ],
)
def test_wrong_options_are_named(override, words, network):
    with pytest.raises(UserError, match=words):
        method(override).optimizer(network, settings().optim)
