"""Time of the generalised energy distance from counts, as a ratio to a plain double loop over pairs of masks.

Run ``python bench/ged.py``. Rows are interleaved in one process with one thread; times are minima over repeats. The
goal is a ratio of at most 0.3.
"""

from functools import partial
from itertools import product

import numpy as np
from rows import Row, least, report, turns

from dmseg.metrics.energy_distance import shared_pixels, squared_ged

REPEATS = 9
GOAL = 0.3


def from_counts(masks: np.ndarray, n_samples: int) -> float:
    """By this package."""
    return squared_ged(shared_pixels(masks).sum(axis=0), n_samples)


def plain_loop(masks: np.ndarray, n_samples: int) -> float:
    """By its definition, pair by pair."""
    samples, raters = np.split(masks.swapaxes(0, 1), [n_samples])
    between, within, among = (_mean(*pair) for pair in ((samples, raters), (samples, samples), (raters, raters)))
    return 2 * between - within - among


def _mean(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.mean([_distance(one, other) for one, other in product(first, second)]))


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    union = np.count_nonzero(one | other)
    return 1 - np.count_nonzero(one & other) / union if union else 0.0


def main() -> None:
    for n_slices, n_samples, n_raters, size in ((1, 9, 6, 256), (1, 20, 7, 256), (16, 9, 4, 128)):
        masks = np.random.default_rng(0).random((n_slices, n_samples + n_raters, size, size)) < 0.3
        np.testing.assert_allclose(from_counts(masks, n_samples), plain_loop(masks, n_samples), atol=1e-12)
        functions = {"loop": partial(plain_loop, masks, n_samples), "counts": partial(from_counts, masks, n_samples)}
        times = least(turns(functions, REPEATS))
        what = f"{n_slices} x {size} x {size}, {n_samples} samples, {n_raters} raters"
        report(Row(f"ged: {what}", times["counts"] / times["loop"], GOAL, "plain loop over pairs"))


if __name__ == "__main__":
    main()
