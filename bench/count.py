"""Time of the stored counts of a case, as a ratio to counting Dice, BDice and ECE alone: ``python bench/count.py``."""

from functools import partial

import numpy as np
import torch
from rows import Row, least, report, turns

from dmseg.metrics.counting import count_stored
from dmseg.metrics.histogram import count_batch
from dmseg.metrics.levels import BDICE_LEVELS


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    for n, size, raters in ((8, 256, 3), (8, 256, 6), (2, 512, 4)):
        row, column = np.mgrid[:size, :size] - size / 2
        distance = np.hypot(row, column)
        p = (1 / (1 + np.exp((distance - size / 5) / 2 + rng.normal(0, 0.5, (n, size, size))))).astype(np.float32)
        masks = np.stack([np.stack([distance < size / 5 + rng.normal(0, 2) for _ in range(n)]) for _ in range(raters)])
        label = masks.mean(axis=0).astype(np.float32)
        tensors = (torch.from_numpy(p), torch.from_numpy(label >= 0.5), torch.from_numpy(label))
        times = least(
            turns(
                {
                    "stored": partial(count_stored, p, masks, label),
                    "batch": partial(count_batch, *tensors, torch.zeros(n).long(), 1, BDICE_LEVELS),
                },
                9,
            )
        )
        name = f"count: counts.npz, {n} x {size} x {size}, {raters} raters"
        report(Row(name, times["stored"] / times["batch"], None, "`count_batch`"))


if __name__ == "__main__":
    main()
