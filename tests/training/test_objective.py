"""The seam between the fit loop and a method: an objective's state is kept, and numbers are those of the plain loss."""

import pytest
import torch

from dmseg.config.compose import compose_settings
from dmseg.data.batches import Batch
from dmseg.metrics.levels import BDICE_LEVELS
from dmseg.models.build import build_model
from dmseg.training.fit import _Training, fit
from dmseg.training.objective import LabelObjective, Objective, build_loss, forward
from dmseg.training.observers import Observers
from dmseg.training.optim import build_optimizer, build_schedule
from dmseg.training.predictor import Predictor

SETTINGS = compose_settings(["model=unet_tiny"])


def batch(generator):
    image = torch.rand(2, 1, 32, 32, generator=generator) * 2 - 1
    foreground = torch.rand(2, 1, 32, 32, generator=generator)
    return Batch(image, torch.cat([1 - foreground, foreground], 1), torch.ones(2, 32, 32, dtype=torch.bool))


class Source:
    """Random batches from one stream."""

    steps_per_epoch, epochs = 2, 3

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)

    def next(self):
        return batch(self.generator)

    def state(self):
        return {"generator": self.generator.get_state()}

    def load_state(self, state):
        self.generator.set_state(state["generator"])


class Noisy(Objective):
    """The plain loss times a number drawn from a stream of its own."""

    def __init__(self):
        self.plain = LabelObjective(build_loss(SETTINGS.loss))
        self.stream = torch.Generator().manual_seed(1)

    def losses(self, network, batch, precision):
        total, parts = self.plain.losses(network, batch, precision)
        return total * torch.rand((), generator=self.stream), parts

    def state(self):
        return {"stream": self.stream.get_state()}

    def load_state(self, state):
        self.stream.set_state(state["stream"])


class StopAt:
    """A checkpointer in memory that interrupts once."""

    def __init__(self, step):
        self.step, self.kept = step, None

    def restore(self, use):
        return None if self.kept is None else use(self.kept)

    def after_step(self, steps, state):
        if steps == self.step and self.kept is None:
            found = state()
            self.kept = type(found)({k: v.clone() for k, v in found.weights.items()}, found.rest)
            raise InterruptedError


def network():
    torch.manual_seed(0)
    return build_model(**SETTINGS.model.arguments, in_channels=1)


def train(checkpointer=None, model=None):
    model = network() if model is None else model
    optimizer = build_optimizer(model, SETTINGS.optim)
    schedule = build_schedule(optimizer, SETTINGS.optim, Source.steps_per_epoch * Source.epochs)
    fit(model, Source(), Noisy(), optimizer, schedule, "fp32", Observers(), checkpointer)
    return model.state_dict()


@pytest.mark.parametrize("step", [1, 3, 4])
def test_an_interrupted_objective_goes_on_with_its_own_stream(step):
    expected = train()
    checkpointer = StopAt(step)
    with pytest.raises(InterruptedError):
        train(checkpointer)
    resumed = train(checkpointer)
    assert all(torch.equal(resumed[name], value) for name, value in expected.items())


def test_a_checkpoint_without_an_objective_is_that_of_a_plain_one():
    model = network()
    optimizer = build_optimizer(model, SETTINGS.optim)
    plain = LabelObjective(build_loss(SETTINGS.loss))
    training = _Training(model, Source(), plain, optimizer, build_schedule(optimizer, SETTINGS.optim, 6))
    state = training.state()
    assert state.rest["objective"] == {}
    training._load(type(state)(state.weights, {k: v for k, v in state.rest.items() if k != "objective"}))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_plain_losses_are_those_of_the_logits(precision):
    model, item = network(), batch(torch.Generator().manual_seed(2))
    loss = build_loss(SETTINGS.loss)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        logits = model(item.image.contiguous(memory_format=torch.channels_last))
    expected = loss(logits.float(), item.target, item.mask)
    total, parts = LabelObjective(loss).losses(model, item, precision)
    assert torch.equal(total, expected)
    assert set(parts) == {"ce", "region"}
    assert forward(model, item.image, precision).dtype is (torch.bfloat16 if precision == "bf16" else torch.float32)


def test_a_predictor_gives_the_softmax_and_its_level_sets():
    model, image = network(), torch.rand(3, 1, 32, 32)
    predictor = Predictor(model)
    probability = predictor.probability(image)
    assert torch.equal(probability, torch.softmax(model.eval()(image), 1)[:, 1])
    samples = predictor.samples(image)
    assert samples.shape == (3, len(BDICE_LEVELS), 32, 32)
    assert torch.equal(samples[:, 4], probability >= 0.5)
