"""Time of Dice, BDice and ECE from counts, as a ratio to a plain numpy loop over the images.

Run ``python bench/metrics.py``. Rows are interleaved in one process; times are medians over repeats. The goal is a
ratio of at most 0.12 for 8 images of 256 x 256 with two threads.
"""

from functools import partial

import numpy as np
import torch
from rows import Row, medians, report, turns

from dmseg.metrics.histogram import count_batch
from dmseg.metrics.levels import BDICE_LEVELS
from dmseg.metrics.scores import case_scores

N_BINS = 10
REPEATS = 21
GOAL = 0.12

Images = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def make_images(n: int, size: int) -> Images:
    """Probabilities, majority votes and averages of three raters, (n, size, size)."""
    generator = torch.Generator().manual_seed(0)
    probability = torch.rand(n, size, size, generator=generator)
    votes = torch.randint(0, 4, (n, size, size), generator=generator)
    return probability, (votes >= 2).to(torch.uint8), votes.to(torch.float32) / 3


def from_counts(images: Images) -> list[tuple[float, ...]]:
    """Scores by this package."""
    n = len(images[0])
    counts = count_batch(*images, torch.arange(n), n, BDICE_LEVELS, N_BINS)
    scores = (case_scores(item) for item in counts)
    return [(float(item["dice"]), float(item["bdice"]), float(item["ece"])) for item in scores]


def plain_loop(images: Images) -> list[tuple[float, ...]]:
    """Scores by their definitions, image by image."""
    return [_plain_scores(*(item.numpy() for item in image)) for image in zip(*images, strict=True)]


def _plain_scores(probability: np.ndarray, majority: np.ndarray, reference: np.ndarray) -> tuple[float, ...]:
    levels = [np.float32(level) for level in BDICE_LEVELS]
    bdice = np.mean([_plain_dice(probability >= level, reference >= level) for level in levels])
    confidence = np.maximum(probability, 1 - probability)
    correct = (probability >= 0.5) == (majority == 1)
    bins = np.digitize(confidence, np.arange(N_BINS, dtype=np.float32) / np.float32(N_BINS)) - 1
    error = 0.0
    for k in range(N_BINS):
        chosen = bins == k
        error += abs(confidence[chosen].sum(dtype=np.float64) - correct[chosen].sum())
    return _plain_dice(probability >= 0.5, majority == 1), float(bdice), error / confidence.size


def _plain_dice(first: np.ndarray, second: np.ndarray) -> float:
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


def main() -> None:
    torch.set_num_threads(2)
    for n, size in ((8, 256), (8, 512)):
        images = make_images(n, size)
        np.testing.assert_allclose(from_counts(images), plain_loop(images), atol=1e-9)
        times = medians(turns({"loop": partial(plain_loop, images), "counts": partial(from_counts, images)}, REPEATS))
        goal = GOAL if size == 256 else None
        report(Row(f"metrics: {n} x {size} x {size}", times["counts"] / times["loop"], goal, "plain numpy loop"))


if __name__ == "__main__":
    main()
