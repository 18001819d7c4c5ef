"""The cost of the methods of Table 3 relative to plain training: time and memory of a step, and time of a prediction.

Run ``python bench/methods.py``; ``--model``, ``--size``, ``--batch``, ``--raters``, ``--precision`` and ``--device``
set what is measured. Rows take turns in one process; times are minima over repeats. A step is forward, backward and
optimiser; its memory is the peak beyond network, optimiser and batch. The ratios have no goals.
"""

import argparse

import torch
from rows import Row, least, peak_bytes, report, turns
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


class Trained:
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


def _stream(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="unet_resnet18")
    parser.add_argument("--profile", default="paper")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--raters", type=int, default=6)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    batch = make_batch(args.size, args.batch, args.raters, args.device)
    common = ["data=phantom", f"profile={args.profile}", f"model={args.model}", "model.weights=null"]
    rows = {name: Trained(compose_settings([*common, f"method={name}"]), batch, args.precision) for name in METHODS}
    synchronise = torch.cuda.synchronize if args.device.startswith("cuda") else None
    measured: dict[str, dict[str, float]] = {
        "step": least(turns({name: row.step for name, row in rows.items()}, args.repeats, synchronise)),
        "memory of a step": {name: peak_bytes(row.step, args.device) for name, row in rows.items()},
        "prediction": least(turns({name: row.predict for name, row in rows.items()}, args.repeats, synchronise)),
    }
    where = f"{args.model}, {args.batch} x {args.size} x {args.size}, {args.raters} raters, {args.precision}"
    for what, found in measured.items():
        for name in METHODS[1:]:
            report(Row(f"methods: {what} of {name}, {where}", found[name] / found["plain"], None, "plain training"))


if __name__ == "__main__":
    main()
