"""What the methods of Table 3 cost beside plain training: a step's time and memory, and a prediction's time.

Run ``python bench/methods.py``; ``--model``, ``--size``, ``--batch``, ``--raters``, ``--precision`` and ``--device``
say for what. Rows take turns in one process; times are the least of the repeats. A step is forward, backward and
optimiser; its memory is what it holds at most beyond network, optimiser and batch. Bars: none; the ratios are stated.
"""

import argparse
import time
from collections.abc import Callable

import torch
from memory import peak_bytes
from torch import Tensor

from dmseg.config.components import bind
from dmseg.config.compose import compose_settings
from dmseg.config.settings import Settings
from dmseg.data.batches import Batch
from dmseg.data.case import Task
from dmseg.methods.base import Method

METHODS = ("plain", "mc_dropout", "multi_head", "softseg", "mrnet")


def make_batch(size: int, count: int, raters: int, device: str) -> Batch:
    """Random images and annotations."""
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(count, raters, size, size, generator=generator) > 0.5).float()
    foreground = masks.mean(1, keepdim=True)
    image = torch.randn(count, 1, size, size, generator=generator)
    keep = torch.ones(count, size, size, dtype=torch.bool)
    present = torch.ones(count, raters, dtype=torch.bool)
    values = (image, torch.cat([1 - foreground, foreground], 1), keep, masks, present)
    return Batch(*(value.to(device) for value in values))


class Row:
    """A method with its network, ready to take steps and to predict."""

    def __init__(self, settings: Settings, batch: Batch, precision: str) -> None:
        chosen = settings.method
        method: Method = bind(chosen.target, chosen.options, where="method", n_positional=0)()
        raters = tuple(map(str, range(batch.annotations[0].shape[1])))
        torch.manual_seed(0)
        self.network = method.network(settings.model, 1, Task("bench", "Bench", "bench", raters))
        self.network.to(batch.image.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.batch, self.precision = batch, precision
        self.objective = method.objective(settings.loss, _stream)
        self.optimizer = method.optimizer(self.network, settings.optim)
        self.predictor = method.predictor(self.network, _stream)

    def step(self) -> None:
        """One step of training."""
        self.network.train()
        total, _ = self.objective.losses(self.network, self.batch, self.precision)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(total)
        self.optimizer.step()

    @torch.inference_mode()
    def predict(self) -> Tensor:
        """Probabilities of the batch."""
        self.network.eval()
        return self.predictor.probability(self.batch.image)

    def megaparameters(self) -> float:
        """Trainable parameters, millions."""
        return sum(value.numel() for value in self.network.parameters()) / 1e6


def _stream(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(0)


def least_seconds(functions: dict[str, Callable[[], object]], repeats: int, device: str) -> dict[str, float]:
    """The least time of each function."""
    found = {name: float("inf") for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            found[name] = min(found[name], time.perf_counter() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="unet_resnet50")
    parser.add_argument("--profile", default="paper")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--raters", type=int, default=6)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    batch = make_batch(args.size, args.batch, args.raters, args.device)
    common = ["data=phantom", f"profile={args.profile}", f"model={args.model}", "model.weights=null"]
    rows = {name: Row(compose_settings([*common, f"method={name}"]), batch, args.precision) for name in METHODS}
    for row in rows.values():
        row.step()
    steps = least_seconds({name: row.step for name, row in rows.items()}, args.repeats, args.device)
    memory = {name: peak_bytes(row.step, args.device) for name, row in rows.items()}
    predictions = least_seconds({name: row.predict for name, row in rows.items()}, args.repeats, args.device)
    print(
        f"{args.model}, {args.batch} x {args.size} x {args.size}, {args.raters} raters, {args.precision}, {args.device}"
    )
    print(f"{'method':12} {'parameters':>12}{'step':>12}{'memory':>12}{'prediction':>12}")
    for name, row in rows.items():
        ratios = "".join(
            f"{'x' + format(found[name] / found['plain'], '.2f'):>12}" for found in (steps, memory, predictions)
        )
        print(f"{name:12} {row.megaparameters():10.1f} M{ratios}")


if __name__ == "__main__":
    main()
