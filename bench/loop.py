"""What the training loop adds to a bare step (forward, loss, backward, optimiser), on the CPU.

Run ``python bench/loop.py``. A bare step and an epoch of the loop's own work (batches, losses, schedule) take turns in
one process with one thread. Times are medians of the thread's CPU time; the loop's own work is measured for a whole
epoch and divided by its steps, as several batches are made at once. Epochs of the small network have 3 steps, as in the
demo. Goal: 3 % of a bare step. Further rows: the bare step with fused SGD and, on CPUs with instructions for it, with
bfloat16 autocast.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from rows import Row, report

from dmseg.config.compose import compose_settings
from dmseg.data.batches import Batch, BatchSource
from dmseg.data.training_slices import TrainingData
from dmseg.methods.base import Method
from dmseg.training.fit import _Training
from dmseg.training.objective import Objective
from dmseg.training.optim import build_schedule
from dmseg.training.precision import cpu_flags
from dmseg.training.random_streams import stream

GOAL = 0.03
BF16_FLAGS = {"amx_bf16", "avx512_bf16"}
"""Without these instructions, a step in bfloat16 takes about ten times as long as in float32."""


def make_training(model: str, size: int, slices: int, fused: bool = False) -> _Training:
    """Plain training on random data, with uniform soft labels."""
    settings = compose_settings([f"model={model}", f"data.size={size}", "model.weights=null", "labels=uniform"])
    generator = torch.Generator().manual_seed(0)
    images = (torch.rand(slices, 1, size, size, generator=generator) * 255).to(torch.uint8)
    labels = torch.rand(slices, 1, size, size, generator=generator)
    data = TrainingData(images, labels, torch.arange(slices) // 4, torch.ones(slices // 4, dtype=torch.long))
    order, rater, augmentation = (stream(0, 0, name) for name in ("order", "rater", "augmentation"))
    source = BatchSource(data, settings.labels, settings.train, order, rater, augmentation)
    method = Method()
    torch.manual_seed(0)
    network = method.network(settings.model, 1, None).train()  # type: ignore[arg-type]
    network.to(memory_format=torch.channels_last)
    optimizer = method.optimizer(network, settings.optim)
    if fused:
        for group in optimizer.param_groups:
            group["fused"] = True
    objective = method.objective(settings.loss, partial(stream, 0, 0))
    return _Training(network, source, objective, optimizer, build_schedule(optimizer, settings.optim, 10**6))


def bare_step(training: _Training, objective: Objective, batch: Batch, precision: str) -> None:
    """Forward, loss, backward, optimiser, and nothing else."""
    total, _ = objective.losses(training.model, batch, precision)
    training.optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(total)
    training.optimizer.step()


def seconds(function: Callable[[], object]) -> float:
    """CPU time that a call takes in this thread."""
    start = time.thread_time()
    function()
    return time.thread_time() - start


def own_work(training: _Training) -> None:
    """What the loop does in an epoch besides its steps."""
    for _ in range(training.source.steps_per_epoch):
        training.source.next()
        training.advance(torch.zeros(3))


def measure(model: str, size: int, slices: int, repeats: int) -> None:
    """Reports the rows of one network."""
    plain, fused = make_training(model, size, slices), make_training(model, size, slices, fused=True)
    found: dict[str, list[float]] = {}
    for repeat in range(repeats + 1):
        batch = plain.source.next()
        times = {
            "bare": seconds(partial(bare_step, plain, plain.objective, batch, "fp32")),
            "own work": seconds(partial(own_work, plain)) / plain.source.steps_per_epoch,
            "fused": seconds(partial(bare_step, fused, fused.objective, batch, "fp32")),
        }
        if cpu_flags() & BF16_FLAGS:
            times["bf16"] = seconds(partial(bare_step, fused, fused.objective, batch, "bf16"))
        if repeat:  # the first warms up
            for name, value in times.items():
                found.setdefault(name, []).append(value)
    middle = {name: statistics.median(values) for name, values in found.items()}
    what, peer = f"{model}, 8 x {size} x {size}", "bare step"
    report(Row(f"loop: own work, {what}", middle["own work"] / middle["bare"], GOAL, peer))
    report(Row(f"loop: fused SGD, {what}", middle["fused"] / middle["bare"], None, peer))
    if "bf16" in middle:
        report(Row(f"loop: bf16 autocast, {what}", middle["bf16"] / middle["bare"], None, peer))


def main() -> None:
    torch.set_num_threads(1)
    measure("unet_tiny", 48, 24, 60)
    measure("unet_resnet18", 256, 64, 3)


if __name__ == "__main__":
    main()
