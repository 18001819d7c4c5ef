"""Searches for the tightest rho of the relaxed triangle inequality of the Dice semimetric losses.

Theorem 1 proves f(a, c) <= rho (f(a, b) + f(b, c)) with rho = (1 + sqrt 5) / 2, and an example in the paper's appendix
shows that no rho under 3/2 will do; between the two the question is open. This script maximises the ratio f(a, c) /
(f(a, b) + f(b, c)) by gradient ascent from many random triples of vectors in [0, 1]^p at once, for both variants and
several p, and prints the largest found. Run it with

    python scripts/search_rho.py --starts 2000 --steps 1500
"""

import argparse
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dmseg.losses import RegionSetting, confusion
from dmseg.losses.counts import Overlap, plain_sums, sums_for
from dmseg.losses.region import class_losses

LOWER_BOUND = 3 / 2
UPPER_BOUND = (1 + math.sqrt(5)) / 2
OVERLAPS: dict[int, Overlap] = {1: "minimum", 2: "product"}


class Found(NamedTuple):
    """The largest ratio, and the triple (3, p) where it was found."""

    ratio: float
    triple: Tensor


def dice_semimetric(x: Tensor, y: Tensor, overlap: Overlap) -> Tensor:
    """DML of pairs of vectors (starts, p), without smoothing; differentiable by both.

    Returns:
        (starts,)
    """
    sums = plain_sums(x.unsqueeze(1), y.unsqueeze(1), sums_for(overlap))
    return class_losses(confusion(sums, overlap), RegionSetting(overlap, smooth=0))[:, 0]


def ratios(triples: Tensor, overlap: Overlap) -> Tensor:
    """f(a, c) / (f(a, b) + f(b, c)) of triples (3, starts, p); 0 where a = b = c.

    Returns:
        (starts,)
    """
    a, b, c = triples
    detour = dice_semimetric(a, b, overlap) + dice_semimetric(b, c, overlap)
    return dice_semimetric(a, c, overlap) / detour.clamp_min(1e-12)


def search(variant: int, size: int, starts: int, steps: int, seed: int) -> Found:
    """Gradient ascent from random triples of vectors.

    Args:
        variant: 1 or 2, of the Dice semimetric loss.
        size: p, the length of the vectors.
        starts: number of triples.
        steps: of gradient ascent; the rate falls linearly to 0.
        seed: of the random triples.
    """
    overlap = OVERLAPS[variant]
    generator = torch.Generator().manual_seed(seed)
    triples = torch.rand(3, starts, size, generator=generator, dtype=torch.float64).requires_grad_()
    optimiser = torch.optim.Adam([triples], lr=0.02, maximize=True)
    best = Found(0.0, triples.detach()[:, 0])
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 0.02 * (1 - step / steps)
        optimiser.zero_grad()
        values = ratios(triples, overlap)
        top = int(values.argmax())
        if float(values[top].detach()) > best.ratio:
            best = Found(float(values[top].detach()), triples.detach()[:, top].clone())
        torch.autograd.backward(values.sum())
        optimiser.step()
        with torch.no_grad():
            triples.clamp_(0, 1)
    return best


def main(arguments: Sequence[str] | None = None) -> None:
    """Searches for all variants and sizes and prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 3, 5, 10, 50])
    parser.add_argument("--starts", type=int, default=500)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    print(f"known: {LOWER_BOUND} <= rho <= {UPPER_BOUND:.6f}")
    print("variant    p  largest ratio")
    for variant in OVERLAPS:
        for size in options.sizes:
            found = search(variant, size, options.starts, options.steps, options.seed)
            print(f"{variant:7} {size:4}  {found.ratio:.9f}", end="")
            print(f"  a, b, c = {found.triple.numpy().round(4).tolist()}" if size <= 3 else "")


if __name__ == "__main__":
    main()
