"""The methods that plain training is compared with: what each one's definition says, by small examples."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from dmseg.config.compose import compose_settings
from dmseg.data.batches import Batch
from dmseg.errors import UserError
from dmseg.losses import AdaptiveWingLoss
from dmseg.models.softseg_activation import normalized_relu
from dmseg.runs.execute import execute
from dmseg.runs.plan import plan_run
from dmseg.runs.sources import prepare_task
from dmseg.runs.store import RunStore
from dmseg.training.checkpoint import Interrupted

METHODS = ("mc_dropout", "multi_head", "mrnet", "softseg")
POSITION = "method.anonymous_raters=position"
WIDTHS = {"bottleneck": 16, "encoder": "[4,8,12,16,16]", "context": 12, "detail": 4, "perception": 4}
SMALL = [f"method.widths.{name}={value}" for name, value in WIDTHS.items()]
OPTIONS = {"multi_head": [POSITION], "mrnet": [POSITION, *SMALL, "method.adam.lr=0.005"]}


def planned(overrides):
    settings = compose_settings(overrides)
    return plan_run(settings, prepare_task(settings))


def made(run):
    torch.manual_seed(0)
    return run.method.network(run.settings.model, 1, run.task)


def streams(name):
    return torch.Generator().manual_seed(7)


def batch(raters=4, present=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    masks = (torch.rand(2, raters, 32, 32, generator=generator) > 0.5).float()
    there = torch.ones(2, raters, dtype=torch.bool) if present is None else torch.tensor(present)
    foreground = masks.mean(1, keepdim=True)
    image = torch.randn(2, 1, 32, 32, generator=generator)
    target = torch.cat([1 - foreground, foreground], 1)
    return Batch(image, target, torch.ones(2, 32, 32, dtype=torch.bool), masks, there)


@pytest.fixture
def run_of(small_run):
    return lambda name, *more: planned([*small_run, f"method={name}", *more])


def test_multi_head_each_rater_reaches_its_own_head_and_the_trunk_alone(run_of):
    run = run_of("multi_head", "method.anonymous_raters=position")
    network = made(run)
    assert network.segmentation_head[0].out_channels == 8
    objective = run.method.objective(run.settings.loss, streams)
    only = [[False, False, True, False]] * 2
    loss, _ = objective.losses(network.train(), batch(present=only), "fp32")
    loss.backward()
    by_head = network.segmentation_head[0].weight.grad.abs().flatten(1).sum(1).reshape(4, 2).sum(1)
    assert by_head[2] > 0
    assert by_head[[0, 1, 3]].eq(0).all()
    assert next(network.encoder.parameters()).grad.abs().sum() > 0


def test_multi_head_is_the_mean_of_single_losses_and_skips_absent_raters(run_of):
    run = run_of("multi_head", "method.anonymous_raters=position")
    network = made(run).eval()
    objective = run.method.objective(run.settings.loss, streams)
    present = [[True, True, False, True], [True, False, False, True]]
    data = batch(present=present)
    total, parts = objective.losses(network, data, "fp32")
    expected = []
    for rater in (0, 1, 3):
        alone = torch.zeros(2, 4, dtype=torch.bool)
        alone[:, rater] = data.present[:, rater]
        expected.append(objective.losses(network, dataclasses.replace(data, present=alone), "fp32")[0])
    torch.testing.assert_close(total, torch.stack(expected).mean())
    changed = data.raters.clone()
    changed[:, 2] = 1 - changed[:, 2]
    changed[1, 1] = 1 - changed[1, 1]
    torch.testing.assert_close(objective.losses(network, dataclasses.replace(data, raters=changed), "fp32")[0], total)
    assert set(parts) == {"ce", "region"}


def test_multi_head_predicts_the_mean_of_its_heads(run_of):
    run = run_of("multi_head", "method.anonymous_raters=position")
    network = made(run)
    predictor = run.method.predictor(network, streams)
    image = batch().image
    with torch.inference_mode():
        logits = network(image)
        expected = torch.stack([logits[:, 2 * k : 2 * k + 2].softmax(1)[:, 1] for k in range(4)]).mean(0)
        torch.testing.assert_close(predictor.probability(image), expected)
        assert predictor.samples(image).shape == (2, 4, 32, 32)


@pytest.mark.parametrize("method", ["multi_head", "mrnet"])
def test_anonymous_raters_are_an_error_that_explains(method, small_run):
    with pytest.raises(
        UserError, match=r"raters of task 'nodule' are anonymous[\s\S]*method.anonymous_raters=position"
    ):
        planned([*small_run, f"method={method}"])


def test_dropout_passes_differ_and_rate_0_does_not(run_of):
    image = batch().image
    for rate, equal in ((0.0, True), (0.5, False)):
        run = run_of("mc_dropout", f"method.rate={rate}", "method.passes=4")
        network = made(run)
        predictor = run.method.predictor(network, streams)
        with torch.inference_mode():
            plain = network(image).softmax(1)[:, 1]
            first, second = predictor.probability(image), predictor.probability(image)
        assert torch.equal(first, second), "the thinned networks are drawn once"
        assert torch.allclose(first, plain, atol=1e-6) is equal


def test_dropout_is_the_mean_of_its_passes(run_of):
    run = run_of("mc_dropout", "method.rate=0.5", "method.passes=3")
    predictor = run.method.predictor(made(run), streams)
    image = batch().image
    with torch.inference_mode():
        passes = torch.stack(list(predictor._passes(image)))
        torch.testing.assert_close(predictor.probability(image), passes.mean(0))
        assert torch.equal(predictor.samples(image), (passes >= 0.5).movedim(0, 1))
        for values, seed in zip(passes, predictor._seeds, strict=True):
            stream = torch.Generator().manual_seed(seed)
            for dropout in predictor._dropouts:
                dropout.stream = stream
            torch.testing.assert_close(predictor.network(image).softmax(1)[:, 1], values)
    assert passes.var(0).max() > 0


def test_normalised_relu_without_any_positive_logit():
    logits = torch.tensor([[[[-1.0, -2.0], [-3.0, 0.0]]], [[[1.0, -2.0], [4.0, 2.0]]]], requires_grad=True)
    value = normalized_relu(logits)
    assert value[0].eq(0).all()
    torch.testing.assert_close(value[1, 0], torch.tensor([[0.25, 0.0], [1.0, 0.5]]))
    value.sum().backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[0].eq(1).all(), "that of the identity"


def test_softseg_that_predicts_nothing_learns_where_it_should():
    logits = torch.full((1, 1, 2, 2), -1.0, requires_grad=True)
    label = torch.tensor([[[[0.0, 1.0], [0.5, 0.0]]]])
    AdaptiveWingLoss(from_logits=False)(normalized_relu(logits), label).backward()
    assert logits.grad.lt(0).tolist() == label.gt(0).tolist()
    assert logits.grad[label == 0].eq(0).all()


def test_softseg_is_the_adaptive_wing_loss_of_the_activation(run_of):
    run = run_of("softseg")
    assert run.settings.labels.name == "uniform"
    network, data = made(run).eval(), batch()
    loss, _ = run.method.objective(run.settings.loss, streams).losses(network, data, "fp32")
    wing = AdaptiveWingLoss(0.5, 2.1, 14.0, 1.0, reduction="mean", from_logits=False)
    torch.testing.assert_close(loss, wing(normalized_relu(network(data.image)), data.target[:, 1:]))


def test_adaptive_wing_by_hand():
    # Wang et al., ICCV 2019, theta 0.5, alpha 2.1, omega 14, epsilon 1: y = 0.2, x = 0.5 lies in the curved part
    wing = AdaptiveWingLoss(0.5, 2.1, 14.0, 1.0, reduction="sum", from_logits=False)
    x = torch.tensor([[[[0.5]]]], dtype=torch.float64, requires_grad=True)
    value = wing(x, torch.tensor([[[[0.2]]]], dtype=torch.float64))
    power = 2.1 - 0.2
    assert value.item() == pytest.approx(14 * np.log(1 + 0.3**power))
    value.backward()
    assert x.grad.item() == pytest.approx(14 * power * 0.3 ** (power - 1) / (1 + 0.3**power))
    # x = 0.9 lies in the straight part
    slope = 14 / (1 + 0.5**power) * power * 0.5 ** (power - 1)
    straight = slope * 0.7 - (0.5 * slope - 14 * np.log(1 + 0.5**power))
    far = wing(torch.tensor([[[[0.9]]]], dtype=torch.float64), torch.tensor([[[[0.2]]]], dtype=torch.float64))
    assert far.item() == pytest.approx(straight)


def test_ours_is_table_2_and_fixed_for_each_task(small_run):
    assert planned([*small_run, "method=ours"]).run_id == planned([*small_run, "labels=weighted"]).run_id
    assert compose_settings(["method=ours", "task=brain-tumor-2"]).labels.name == "uniform"
    assert compose_settings(["method=ours", "task=brain-tumor-1"]).labels.name == "weighted"
    assert compose_settings(["method=ours", "labels=majority", "task=brain-tumor-1"]).labels.name == "majority"


def test_sgds_options_do_not_name_runs_that_adam_trains(small_run):
    def ids(method, *more):
        return planned([*small_run, f"method={method}", *more]).run_id

    assert ids("softseg") == ids("softseg", "optim.lr=0.5", "optim.decoder_lr_factor=10")
    assert ids("softseg") != ids("softseg", "optim.poly_power=1")
    assert ids("softseg") != ids("softseg", "method.adam.lr=0.5")
    assert ids("plain") != ids("plain", "optim.lr=0.5")


@pytest.mark.parametrize(
    ("method", "kind", "rates"),
    [
        ("multi_head", torch.optim.SGD, (0.01, 0.0005)),
        ("softseg", torch.optim.Adam, (0.001, 0.0)),
        ("mrnet", torch.optim.Adam, (0.0001, 0.0005)),
    ],
)
def test_who_trains_with_which_optimiser(method, kind, rates, run_of):
    run = run_of(method, *(item for item in OPTIONS.get(method, []) if "adam" not in item))
    optimizer = run.method.optimizer(made(run), run.settings.optim)
    assert type(optimizer) is kind
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]) == rates


def test_a_method_is_not_distilled(small_run):
    with pytest.raises(UserError, match="method=softseg cannot be distilled"):
        planned([*small_run, "method=softseg", "distill=kd", "distill.teacher.model=unet_tiny"])


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupted_method_ends_in_the_same_weights(method, small_run, tmp_path, monkeypatch):
    more = [f"method={method}", "device=cpu", "train.epochs=3", *OPTIONS.get(method, [])]
    whole, halved = (planned([*small_run, *more, f"paths.results='{tmp_path / name}'"]) for name in ("whole", "halved"))
    execute(whole)
    asked = iter([False, False, True])
    monkeypatch.setattr("dmseg.runs.execute.should_stop", lambda: next(asked, False))
    with pytest.raises(Interrupted):
        execute(halved)
    execute(halved)
    for name in ("weights.safetensors", "cases.csv"):
        first, second = ((RunStore(run.results).folder(run.run_id) / name).read_bytes() for run in (whole, halved))
        assert first == second, name


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_discs(method, small_run):
    more = [
        f"train.min_steps={80 if method == 'mrnet' else 150}",
        "optim.decoder_lr_factor=10",
        *OPTIONS.get(method, []),
    ]
    run = planned([*small_run, f"method={method}", *more])
    execute(run)
    cases = pd.read_csv(RunStore(run.results).folder(run.run_id) / "cases.csv")
    assert cases["dice"].mean() > 0.6
    assert cases["bdice"].mean() > 0.6
