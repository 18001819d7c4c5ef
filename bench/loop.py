"""What the training loop adds to a bare step (forward, loss, backward, optimiser), on the CPU.

Run ``python bench/loop.py``. Bare step and step of the loop take turns in one process, each on a new batch, and times
are those of the thread, medians of the repeats. Goal: the loop's own work (batches, losses, schedule) takes at most
3 % of a bare step. Further rows: the bare step with fused SGD and with bfloat16 autocast (``precision=auto``).
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from dmseg.config.compose import compose_settings
from dmseg.data.batches import Batch, BatchSource
from dmseg.data.training_slices import TrainingData
from dmseg.methods.base import Method
from dmseg.training.fit import _step, _Training
from dmseg.training.objective import Objective
from dmseg.training.optim import build_schedule
from dmseg.training.random_streams import stream

GOAL = 0.03


def make_training(model: str, size: int, fused: bool = False) -> _Training:
    """A plain training on random data, with uniform soft labels."""
    settings = compose_settings([f"model={model}", f"data.size={size}", "model.weights=null", "labels=uniform"])
    generator = torch.Generator().manual_seed(0)
    images = (torch.rand(64, 1, size, size, generator=generator) * 255).to(torch.uint8)
    labels = torch.rand(64, 1, size, size, generator=generator)
    data = TrainingData(images, labels, torch.arange(64) // 4, torch.ones(16, dtype=torch.long))
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
    """Processor time of a call, of this thread."""
    start = time.thread_time()
    function()
    return time.thread_time() - start


def measure(model: str, size: int, repeats: int) -> None:
    """Prints the rows of one network."""
    plain, fused = make_training(model, size), make_training(model, size, fused=True)
    found: dict[str, list[float]] = {}
    for repeat in range(repeats + 1):
        batch = plain.source.next()
        times = {
            "bare step": seconds(partial(bare_step, plain, plain.objective, batch, "fp32")),
            "step of the loop": seconds(partial(_step, plain, "fp32")),
            "of it: next batch": seconds(plain.source.next),
            "of it: losses, schedule": seconds(partial(plain.advance, torch.zeros(3))),
            "bare, fused SGD": seconds(partial(bare_step, fused, fused.objective, batch, "fp32")),
            "bare, bf16": seconds(partial(bare_step, fused, fused.objective, batch, "bf16")),
        }
        if repeat:  # the first warms up
            for name, value in times.items():
                found.setdefault(name, []).append(value)
    middle = {name: statistics.median(values) for name, values in found.items()}
    own = middle["of it: next batch"] + middle["of it: losses, schedule"]
    print(f"{model}, 8 x {size} x {size}")
    for name, value in middle.items():
        print(f"  {name:24s} {1e3 * value:9.2f} ms {value / middle['bare step']:7.3f}")
    print(f"  the loop's own work      {own / middle['bare step']:20.3f} (goal {GOAL})")


def main() -> None:
    """Prints all rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=60, help="of the small network; the large one has a tenth")
    options = parser.parse_args()
    torch.set_num_threads(1)
    measure("unet_tiny", 48, options.repeats)
    measure("unet_resnet18", 256, max(3, options.repeats // 10))


if __name__ == "__main__":
    main()
