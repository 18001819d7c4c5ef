"""Steps as a graph: the same numbers as plain steps, and plain steps where the graph would freeze something."""

import copy
import logging

import pytest
import torch
from tape import TapeGraph

from dmseg.config.compose import compose_settings
from dmseg.data.batches import BatchSource
from dmseg.data.training_slices import TrainingData
from dmseg.models.build import build_model
from dmseg.training import graph as graph_module
from dmseg.training.fit import _take, can_be_graphed, fit
from dmseg.training.objective import LabelObjective, build_loss
from dmseg.training.observers import Observers
from dmseg.training.optim import build_schedule
from dmseg.training.random_streams import stream

SETTINGS = compose_settings(
    ["model=unet_tiny", "data.size=32", "train.batch_size=4", "train.epochs=4", "labels=random"]
)
SIZE, STEPS = 32, 12


class Losses(Observers):
    def __init__(self):
        super().__init__()
        self.found = []

    def epoch_ended(self, report):
        self.found.append(report)


class Static(LabelObjective):
    """The plain loss, which may read a number on the host that changes from step to step."""

    def __init__(self, frozen=False):
        super().__init__(build_loss(SETTINGS.loss))
        self.frozen, self.count = frozen, 0

    def losses(self, network, batch, precision):
        total, parts = super().losses(network, batch, precision)
        self.count += 1
        return (total * (3.0 if self.count % 2 else 1.0) if self.frozen else total), parts


class Reading(Static):
    def losses(self, network, batch, precision):
        total, parts = super().losses(network, batch, precision)
        return total * float(batch.target.mean() > -1), parts


def source():
    generator = torch.Generator().manual_seed(0)
    images = (torch.rand(12, 1, SIZE, SIZE, generator=generator) * 255).to(torch.uint8)
    labels = (torch.rand(12, 3, SIZE, SIZE, generator=generator) > 0.5).to(torch.uint8)
    cases = torch.arange(6).repeat_interleave(2)
    data = TrainingData(images, labels, cases, torch.full((6,), 3))
    streams = [stream(0, 0, name) for name in ("order", "rater", "augmentation")]
    return BatchSource(data, SETTINGS.labels, SETTINGS.train, *streams)


def train(objective, graph=None, checkpointer=None, fused=True):
    torch.manual_seed(0)
    model = build_model(**SETTINGS.model.arguments, in_channels=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4, fused=fused)
    schedule = build_schedule(optimizer, SETTINGS.optim, STEPS)
    losses = Losses()
    fit(model, source(), objective, optimizer, schedule, "fp32", losses, checkpointer, graph and (lambda: graph))
    return model.state_dict(), losses.found


def largest_difference(one, other):
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def test_replays_give_the_numbers_of_plain_steps():
    plain, plain_losses = train(Static())
    graph = TapeGraph()
    found, losses = train(Static(), graph)
    assert graph.replays == STEPS - graph_module.WARM_UP
    assert largest_difference(found, plain) == 0
    assert losses == plain_losses


def test_a_graphed_training_resumes_with_the_same_numbers():
    class StopOnce:
        kept = None

        def restore(self, use):
            return None if self.kept is None else use(copy.deepcopy(self.kept))

        def after_step(self, steps, state):
            if steps == 7 and self.kept is None:
                StopOnce.kept = copy.deepcopy(state())
                raise InterruptedError

    expected, losses = train(Static(), TapeGraph())
    with pytest.raises(InterruptedError):
        train(Static(), TapeGraph(), StopOnce())
    rates = [group["lr"] for group in StopOnce.kept.rest["optimizer"]["param_groups"]]
    assert all(type(rate) is float for rate in rates)
    resumed, again = train(Static(), TapeGraph(), StopOnce())
    assert largest_difference(resumed, expected) == 0
    assert again == losses
    on_cpu, _ = train(Static(), None, StopOnce(), fused=False)  # another implementation continues from it
    assert largest_difference(on_cpu, expected) < 1e-4


@pytest.mark.parametrize(("objective", "words"), [(Static(frozen=True), "differs"), (Reading(), "_local_scalar_dense")])
def test_a_step_that_cannot_be_recorded_stays_plain(objective, words, caplog):
    expected, _ = train(copy.deepcopy(objective))
    with caplog.at_level(logging.WARNING):
        found, _ = train(copy.deepcopy(objective), TapeGraph())
    (record,) = [item for item in caplog.records if item.name == graph_module.__name__]
    assert words in record.getMessage()
    if isinstance(objective, Reading):
        assert largest_difference(found, expected) == 0


def test_a_frozen_learning_rate_is_found(caplog, monkeypatch):
    constant = torch.tensor(0.05)

    def frozen(training, batch, precision):
        rates = [group["lr"] for group in training.optimizer.param_groups]
        for group in training.optimizer.param_groups:
            group["lr"] = constant
        found = take(training, batch, precision)
        for group, rate in zip(training.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        return found

    take = _take
    recording = TapeGraph()
    record = recording.record

    def record_frozen(function):
        with monkeypatch.context() as patch:
            patch.setattr("dmseg.training.fit._take", frozen)
            record(function)

    recording.record = record_frozen
    train(Static(), recording)
    assert "in the weights by" in caplog.text


def test_which_trainings_can_be_graphed():
    model = build_model(**SETTINGS.model.arguments, in_channels=1)
    fused = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    assert can_be_graphed(model, source(), Static(), fused)
    assert not can_be_graphed(model, source(), Static(), torch.optim.SGD(model.parameters(), lr=0.1))
    dropping = torch.nn.Sequential(model, torch.nn.Dropout2d(0.5))
    assert not can_be_graphed(dropping, source(), Static(), fused)
    away = source()
    away.is_resident = False
    assert not can_be_graphed(model, away, Static(), fused)
