"""Curves over all cases of an evaluation, from their stored counts."""

from collections.abc import Sequence

import numpy as np

from dmseg.metrics.stored_counts import Floats, Ints, StoredCounts


def reliability(counts: Sequence[StoredCounts]) -> tuple[list[float], list[float], list[int]]:
    """Calibration of the foreground's probability over the pixels of all cases.

    Args:
        counts: of each case; at least one, all with the same cuts and bins.

    Returns:
        For each of the B equal bins of probability that has pixels: their mean probability, the share of them whose
        majority is foreground, and their number.
    """
    bins, cuts = counts[0].bins, counts[0].cuts
    edges = (np.arange(1, bins) / bins).astype(np.float32)
    index = np.searchsorted(edges, np.concatenate([np.zeros(1, np.float32), cuts]), side="right")

    def by_bin(values: Ints | Floats) -> Floats:
        return np.bincount(index, weights=values, minlength=bins).astype(np.float64)

    pixels = by_bin(np.sum([case.cells.sum(axis=0) for case in counts], axis=0))
    sums = by_bin(np.sum([case.sums.sum(axis=0) for case in counts], axis=0))
    positive = by_bin(np.sum([case.foreground(case.cells) for case in counts], axis=0))
    filled = pixels > 0
    mean, share = sums[filled] / pixels[filled], positive[filled] / pixels[filled]
    return mean.tolist(), share.tolist(), pixels[filled].astype(np.int64).tolist()


def dice_over_thresholds(counts: Sequence[StoredCounts]) -> tuple[list[float], list[float]]:
    """Dice of prediction and reference label, both cut at a threshold: the mean over the cases that have one.

    The mean over the thresholds of a case's values is its BDice.

    Args:
        counts: of each case; at least one, all with BDice's thresholds (`BDICE_LEVELS`).

    Returns:
        The thresholds, and the mean Dice at each of them in [0, 1]; NaN where no case has one.
    """
    from dmseg.metrics.histogram import BDICE_LEVELS

    empty = {"skip": np.nan, "one": 1.0, "zero": 0.0}[counts[0].empty]
    joint = np.stack([case.joint.sum(axis=0) for case in counts])
    means = []
    for level in range(1, len(BDICE_LEVELS) + 1):
        label, predicted = joint[:, level:].sum(axis=(1, 2)), joint[:, :, level:].sum(axis=(1, 2))
        sizes = label + predicted
        dice = np.where(sizes > 0, 2 * joint[:, level:, level:].sum(axis=(1, 2)) / np.maximum(sizes, 1), empty)
        means.append(float(np.nanmean(dice)) if not np.isnan(dice).all() else float("nan"))
    return list(BDICE_LEVELS), means
