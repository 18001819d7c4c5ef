"""Curves over probability and level, computed from stored counts: reliability, and Dice at each level of BDice."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dmseg.metrics.levels import dice_by_level
from dmseg.metrics.stored_counts import Floats, Ints, StoredCounts, bin_of, cell_values


@dataclass(frozen=True, eq=False)
class Reliability:
    """A reliability diagram of the foreground's probability over B equal bins on [0, 1].

    Attributes:
        probability: (B,) float64, mean probability of each bin's pixels; NaN for an empty bin.
        frequency: (B,) float64, share of these pixels whose majority is foreground; NaN for an empty bin.
        pixels: (B,) int64, number of pixels.
    """

    probability: Floats
    frequency: Floats
    pixels: Ints


def reliability(cases: Iterable[StoredCounts]) -> Reliability | None:
    """The reliability diagram over all pixels of some cases with the same bins; None without cases.

    It is of the foreground's probability, so that the background, which has most of the pixels, fills only the first
    bins (Niculescu-Mizil and Caruana, ICML 2005).

    Args:
        cases: counts of each case, a list.

    Raises:
        TypeError: if it is the counts of a single case.
        ValueError: if cases have different numbers of bins.
    """
    if isinstance(cases, StoredCounts):
        raise TypeError("cases is the counts of one case; give a list, [counts]")
    totals: Floats | None = None
    for counts in cases:
        if totals is not None and totals.shape[1] != counts.bins:
            raise ValueError(f"cases have {totals.shape[1]} and {counts.bins} bins; give counts with the same n_bins")
        index = bin_of(cell_values(counts), counts.bins)
        cells = counts.cells.sum(axis=0), counts.sums.sum(axis=0), counts.foreground(counts.cells)
        binned = np.stack([np.bincount(index, item, minlength=counts.bins).astype(np.float64) for item in cells])
        totals = binned if totals is None else totals + binned
    if totals is None:
        return None
    pixels, sums, positive = totals
    with np.errstate(invalid="ignore"):
        return Reliability(sums / pixels, positive / pixels, pixels.astype(np.int64))


def level_dice(counts: StoredCounts) -> Floats:
    """Dice of prediction and reference label, both thresholded at each level: the values whose mean is BDice.

    Returns:
        (L,) float64 in [0, 1], NaN for a level that is skipped.
    """
    return dice_by_level(counts.joint, counts.empty)


def mean_level_dice(cases: Iterable[StoredCounts]) -> Floats | None:
    """The mean over cases of `level_dice`, over the cases that have a value at a level; None without cases."""
    values = [level_dice(counts) for counts in cases]
    if not values:
        return None
    table = np.stack(values)
    present = np.isfinite(table)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(present, table, 0).sum(axis=0) / present.sum(axis=0))
