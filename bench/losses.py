"""Time and memory of region loss + cross-entropy, forward and backward, soft labels, float32 on the CPU.

Every row computes 0.25 cross-entropy + 0.75 Dice loss over the batch for the same logits and labels. The rows of one
size take turns in one process. Times are minima over all repeats, since other load on the machine only adds to them;
ratios are to the plain form. Peak memory is the allocator's peak beyond the inputs, in units of the gradient, in eager
mode.

By default the C library hands large arrays back after each use, and on some machines mapping their pages again takes
longer than the arithmetic; users run these losses that way, so they are timed that way. With --keep-memory the library
keeps the memory, so that arithmetic alone is compared. Run it with

    python bench/losses.py --threads 2
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial

import segmentation_models_pytorch as smp
import torch
from monai.losses import DiceLoss
from rows import Row, least, peak_bytes, report, turns
from torch import Tensor
from torch.nn import functional as F

from dmseg.losses import CompoundLoss, DiceSemimetricLoss, SoftCrossEntropyLoss

Loss = Callable[[Tensor, Tensor], Tensor]
GOALS = {
    (2, 512): {"dmseg": 0.45, "dmseg, compiled": 0.25},
    (5, 512): {"dmseg": 0.75, "dmseg, compiled": 0.6},
}
MEMORY_GOALS = {(2, 512): {"dmseg": 3.0}}
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**33)}


def plain(logits: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """DML,1 from three reductions, and cross-entropy, by autograd."""
    prob, pixels = logits.softmax(1), (0, 2, 3)
    both = prob.sum(pixels) + target.sum(pixels) + 2 * smooth
    gap = (prob - target).abs().sum(pixels)
    return 0.25 * F.cross_entropy(logits, target) + 0.75 * (gap / both).mean()


def monai(logits: Tensor, target: Tensor) -> Tensor:
    """MONAI's Dice loss in its soft-label form, and cross-entropy."""
    dice = DiceLoss(softmax=True, soft_label=True, batch=True, smooth_nr=2.0, smooth_dr=2.0)
    value: Tensor = dice(logits, target)
    return 0.25 * F.cross_entropy(logits, target) + 0.75 * value


def smp_dice(logits: Tensor, target: Tensor) -> Tensor:
    """The Dice loss of segmentation-models-pytorch, whose multilabel mode takes soft labels, and cross-entropy."""
    dice = smp.losses.DiceLoss("multilabel", from_logits=False, smooth=1.0)
    value: Tensor = dice(logits.softmax(1), target)
    return 0.25 * F.cross_entropy(logits, target) + 0.75 * value


def rows(compiled: bool) -> dict[str, Loss]:
    """The losses to compare, the plain form first."""
    terms = {
        "ce": (0.25, SoftCrossEntropyLoss(check_values=False)),
        "dml1": (0.75, DiceSemimetricLoss(check_values=False)),
    }
    losses: dict[str, Loss] = {"plain": plain, "MONAI": monai, "smp": smp_dice, "dmseg": CompoundLoss(terms)}
    if compiled:
        losses |= {f"{name}, compiled": torch.compile(losses[name], fullgraph=True) for name in ("plain", "dmseg")}
    return losses


def inputs(classes: int, size: int) -> tuple[Tensor, Tensor]:
    """Logits and soft labels of a batch of 8."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, classes, size, size, generator=generator)
    return logits, torch.randn(8, classes, size, size, generator=generator).softmax(1)


def step(loss: Loss, logits: Tensor, target: Tensor) -> None:
    """One forward and backward."""
    torch.autograd.backward(loss(logits.detach().requires_grad_(), target))


def compare(classes: int, size: int, compiled: bool, repeats: int) -> None:
    """Reports the rows of one size."""
    losses = rows(compiled)
    logits, target = inputs(classes, size)
    steps = {name: partial(step, loss, logits, target) for name, loss in losses.items()}
    taken, what = least(turns(steps, repeats)), f"8 x {classes} x {size} x {size}"
    for name in list(losses)[1:]:
        wanted = GOALS.get((classes, size), {}).get(name)
        report(Row(f"losses: {name}, {what}", taken[name] / taken["plain"], wanted, "plain form, eager"))
    gradient, wanted = logits.numel() * logits.element_size(), MEMORY_GOALS.get((classes, size), {}).get("dmseg")
    report(Row(f"losses: peak memory of dmseg, {what}", peak_bytes(steps["dmseg"]) / gradient, wanted, "the gradient"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs all sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 5])
    parser.add_argument("--eager", action="store_true", help="leave torch.compile out")
    parser.add_argument("--keep-memory", action="store_true", help="time arithmetic alone (Linux)")
    options = parser.parse_args(arguments)
    if options.keep_memory and not KEEP_MEMORY.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP_MEMORY})
    torch.set_num_threads(options.threads)
    for classes in options.classes:
        for size in options.sizes:
            compare(classes, size, not options.eager, options.repeats)


if __name__ == "__main__":
    main()
