"""A step copies nothing between host and device and reads nothing from it.

The device is torch's ``meta`` device, which has no values: reading one is an error, and what comes from the host is
seen as an operation on tensors of both.
"""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from tape import HOST_READS, tensors
from torch.utils._python_dispatch import TorchDispatchMode

from dmseg.config.components import bind
from dmseg.config.compose import compose_settings
from dmseg.data.batches import BatchSource
from dmseg.data.case import Task
from dmseg.data.training_slices import TrainingData
from dmseg.models.build import build_model
from dmseg.training.distill import DistillObjective, Teacher, pixel_kernel
from dmseg.training.fit import _take, _Training
from dmseg.training.optim import build_optimizer
from dmseg.training.random_streams import stream

SIZE, RATERS = 32, 3
META = torch.device("meta")


class Traffic(TorchDispatchMode):
    """Lists copies between devices and reads on the host."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        name = function._schema.name.split("::")[-1]
        devices = {value.device.type for value in tensors((args, kwargs, out)) if value.ndim or name == "_to_copy"}
        selects = name in ("index", "index_put_") and any(item.dtype == torch.bool for item in tensors(args[1]))
        if name in HOST_READS or len(devices) > 1 or selects:
            self.found.append(name)
        return out


def training_on(device, overrides, by_rater=False):
    settings = compose_settings(["model=unet_tiny", f"data.size={SIZE}", "train.batch_size=4", *overrides])
    n = 16
    images = torch.randint(0, 256, (n, 1, SIZE, SIZE), dtype=torch.uint8)
    labels = torch.randint(0, 2, (n, RATERS, SIZE, SIZE), dtype=torch.uint8)
    raters = torch.randint(0, 2, (n, RATERS, SIZE, SIZE), dtype=torch.uint8)
    present = torch.ones(n, RATERS, dtype=torch.bool)
    weights = torch.ones(n, RATERS, dtype=torch.float64)
    threshold = torch.full((n,), 1.5, dtype=torch.float64)
    cases, counts = torch.arange(4).repeat_interleave(4), torch.full((4,), RATERS)
    data = TrainingData(images, labels, cases, counts, raters, present, weights, threshold).to(device)
    streams = [stream(0, 0, name) for name in ("order", "rater", "augmentation")]
    source = BatchSource(data, settings.labels, settings.train, *streams)
    chosen = settings.method
    method = bind(chosen.target, chosen.options, where="method", n_positional=0)()
    network = method.network(settings.model, 1, Task("t", "T", "t", ("1", "2", "3")))
    network = network.to(device).train()
    named = partial(stream, 0, 0)
    if settings.distill is None:
        objective = method.objective(settings.loss, named)
    else:
        teacher = build_model(**settings.model.arguments, in_channels=1).to(device)
        kernel = pixel_kernel(settings.distill.kde)
        taught_by = Teacher(teacher, settings.distill.temperature, kernel, named("keys"))
        objective = DistillObjective(settings.distill, settings.loss, taught_by)
    # plain Adam counts its steps on the host; on a GPU it is built with capturable=True, which meta does not have
    optimizer = build_optimizer(network, settings.optim)
    return _Training(network, source, objective, optimizer, method.schedule(optimizer, settings.optim, 100))


KD = ["distill=kd", "distill.teacher.model=unet_tiny"]
MRNET = ["method=mrnet", "method.anonymous_raters=position", "profile=demo"]
QUIET = [
    [],
    ["labels=random"],
    ["labels=uniform"],
    ["labels=smoothing"],
    ["labels=svls"],
    ["labels=uniform", "labels.interpolation=rater"],
    ["labels=majority", "labels.interpolation=rater"],
    ["train.crop=0.5"],
    ["method=mc_dropout"],
    ["method=multi_head", "method.anonymous_raters=position"],
    ["method=softseg"],
    MRNET,
    [*KD, "distill.kde=null"],
]


def step(training):
    """One step of the loop without a graph."""
    training.advance(_take(training, training.source.next(), "fp32"))


@pytest.mark.parametrize("overrides", QUIET, ids=" ".join)
def test_a_step_on_the_device_alone(overrides, monkeypatch):
    for module in ("dmseg.training.objective", "dmseg.methods.mrnet"):  # meta has no autocast
        monkeypatch.setattr(f"{module}.autocast", lambda device, precision: nullcontext())
    training = training_on(META, overrides)
    step(training)
    with Traffic() as traffic:
        step(training)
        step(training)
    assert traffic.found == []


@pytest.mark.parametrize("options", [[], ["distill.kde.leave_one_out=true"], ["distill.kde.keys=image"]], ids=" ".join)
def test_the_kernel_reads_only_the_seed_of_its_keys(options, monkeypatch):
    """The seed is drawn on the host (a CPU tensor), so that reading it waits for no device."""
    monkeypatch.setattr("dmseg.labels.smoothing._reads_values", lambda values: False)  # as on a GPU
    training = training_on(torch.device("cpu"), [*KD, *options])  # meta has no random generator
    step(training)
    with Traffic() as traffic:
        step(training)
    images = 4 if "distill.kde.keys=image" in options else 1
    reads = [name for name in traffic.found if name != "lift_fresh"]
    assert reads == ["_local_scalar_dense"] * images


def test_traffic_is_seen():
    values = torch.empty(4, device=META)
    with Traffic() as traffic:
        torch.zeros(4).to(META)
        values + torch.zeros(4, device=META)
        values.copy_(torch.zeros(4))
        torch.ones(3)[torch.ones(3, dtype=torch.bool)]
        torch.tensor([1.0])
        torch.ones(()).item()
    assert traffic.found == ["_to_copy", "copy_", "index", "lift_fresh", "_local_scalar_dense"]
