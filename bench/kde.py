"""Time, memory and error of the kernel estimate E[y | f] of a whole image, as ratios to the plain formula.

Run ``python bench/kde.py``. The plain formula computes the kernel of every pixel with every key in float32, in blocks
of 16384 pixels. Rows take turns in one process; times are medians, memory is the allocator's peak beyond the inputs.
The goal for 512 x 512 pixels, two classes and 1000 keys: the table takes at most 1/100 of the plain time and 64 MiB,
and differs by at most 3e-4 from the formula in float64.
"""

import argparse
from collections.abc import Callable

import torch
from rows import Row, medians, peak_bytes, report, turns
from torch import Tensor

from dmseg.calibration import BetaTable, Keys, PixelKernel, draw_keys, kernel_estimate, recalibrate

BANDWIDTH = 1e-3
MIB = 2**20
GOAL = 0.01


def make_image(size: int, n_classes: int, device: str) -> tuple[Tensor, Tensor]:
    """Probabilities of a confident network (N, C) and labels drawn from them."""
    generator = torch.Generator().manual_seed(0)
    prob = (4 * torch.randn(size * size, n_classes, generator=generator)).softmax(1)
    label = torch.multinomial(prob, 1, generator=generator).squeeze(1)
    return prob.to(device), label.to(device)


def plain(prob: Tensor, keys: Keys) -> Tensor:
    """Eqs. 30 to 32 as they stand, with the denominator kept above 1e-10 as JDTLosses does."""
    alpha = keys.prob / BANDWIDTH + 1
    constant = torch.lgamma(alpha.sum(1)) - torch.lgamma(alpha).sum(1)
    parts = []
    for part in torch.split(prob, 16384):
        kernel = (part.log() @ (alpha - 1).T + constant).exp()
        parts.append(kernel @ keys.label.to(prob.dtype) / kernel.sum(1, keepdim=True).clamp_min(1e-10))
    return torch.cat(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    prob, label = make_image(args.size, 2, args.device)
    one_hot = torch.nn.functional.one_hot(label, 2).float()
    stream = torch.Generator().manual_seed(0)
    keep = torch.ones_like(label, dtype=torch.bool)
    index, counted = draw_keys(label, keep, 2, args.keys, True, stream)
    keys = Keys(prob[index][counted], one_hot[index][counted])
    image, target = (item.T.reshape(1, 2, args.size, args.size) for item in (prob, one_hot))
    settings = PixelKernel(BANDWIDTH, args.keys)
    some = prob[::50]
    functions: dict[str, Callable[[], object]] = {
        "plain, all pixels": lambda: plain(prob, keys),
        "table, all pixels": lambda: BetaTable(keys, BANDWIDTH).estimate(prob),
        "log space, 2 % of the pixels": lambda: kernel_estimate(some, keys, BANDWIDTH),
        "keys drawn": lambda: draw_keys(label, keep, 2, args.keys, True, stream),
        "recalibrate, keys drawn": lambda: recalibrate(
            image, target, keep.reshape(image[:, 0].shape), settings, stream
        ),
    }
    synchronise = torch.cuda.synchronize if args.device == "cuda" else None
    times = medians(turns(functions, args.repeats, synchronise))
    first = times["plain, all pixels"]
    what, peer = f"{args.size} x {args.size}, {len(keys.prob)} keys", "plain formula, all pixels"
    for name in list(functions)[1:]:
        report(Row(f"kde: {name}, {what}", times[name] / first, GOAL if name.startswith("table") else None, peer))
    table = peak_bytes(functions["table, all pixels"], args.device) / MIB
    report(Row(f"kde: memory of the table, {what}", table, 64.0, "1 MiB"))
    exact = kernel_estimate(prob.double(), keys, BANDWIDTH)
    error = float((BetaTable(keys, BANDWIDTH).estimate(prob) - exact).abs().max())
    report(Row(f"kde: largest error of the table, {what}", error, 3e-4, "1, against the formula in float64"))


if __name__ == "__main__":
    main()
