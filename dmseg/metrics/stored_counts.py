"""The counts that are stored for each scored case, and the metrics computed from them. Imports no torch.

Every function takes the counts of one case (`StoredCounts`, made by `dmseg.metrics.counting.count_stored`) and returns
NaN where the metric is not defined. The majority vote is the reference unless a metric names the raters.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from dmseg.metrics.levels import DECISION_LEVEL, binned_ece, dice_ratio, ratio

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

LEAST_PROBABILITY = 2.0**-23
"""The NLL clips probabilities to [2^-23, 1 - 2^-23], float32's epsilon, as scikit-learn's ``log_loss`` does."""
TIES = {"background": 0, "foreground": 1}
"""The rules for ties, and their index in arrays of both."""


@dataclass(frozen=True, eq=False)
class StoredCounts:
    """Counts of one case of S slices with R raters, over B bins, L levels and C cells of probability.

    A pixel's vote is 0 if the background has the majority, 1 for a tie, 2 if the foreground has it. Cell c of the
    probabilities p holds cuts[c - 1] <= p < cuts[c]; the cuts are such that every bin and level is a union of cells.

    Attributes:
        joint: int64 (3, L + 1, L + 1), pixels by vote, level of the reference label and level of the probability.
        cells: int64 (3, C), pixels by vote and cell.
        sums: float64 (3, C), sum of the probabilities by vote and cell.
        squared_error: float64 (2,), sum of (p - y)^2, y the majority with ties as background and as foreground.
        log_loss: float64 (2,), sum of -log of the clipped probability of y (`LEAST_PROBABILITY`), likewise.
        adaptive: int64 (3, B), pixels by vote and bin of equal mass (`ace`).
        adaptive_sums: float64 (B,), sum of the probabilities in these bins.
        band: int64 (2, 2, C), pixels of the boundary band by rule for ties, y and cell (`ece_boundary`).
        band_sums: float64 (2, C), sum of the probabilities in the band by rule for ties and cell.
        raters: int64 (R, 3, C), pixels that each rater marked, by vote and cell.
        shared: int64 (R, R), pixels that two raters both marked; the diagonal has the size of each mask.
        votes: int64 (R + 1,), pixels by the number of raters who marked them.
        slices: int64 (S, 3, 2), pixels of each slice by vote and prediction (p >= 0.5).
        cuts: float32 (C - 1,), the cuts, ascending.
        bins: number of confidence bins B.
        ties: what a tie counts as in the majority vote, ``background`` or ``foreground``.
        empty: Dice of two empty masks: ``skip`` (NaN), ``one`` or ``zero``.
    """

    joint: Ints
    cells: Ints
    sums: Floats
    squared_error: Floats
    log_loss: Floats
    adaptive: Ints
    adaptive_sums: Floats
    band: Ints
    band_sums: Floats
    raters: Ints
    shared: Ints
    votes: Ints
    slices: Ints
    cuts: npt.NDArray[np.float32]
    bins: int = 10
    ties: str = "background"
    empty: str = "skip"

    @property
    def n_pixels(self) -> int:
        """Number of pixels."""
        return int(self.cells.sum())

    @property
    def decision(self) -> int:
        """The first cell that is predicted as foreground."""
        return int(np.searchsorted(self.cuts, np.float32(DECISION_LEVEL), side="right"))

    def foreground(self, by_vote: Ints, axis: int = 0) -> Ints:
        """The part of counts by vote where the majority is foreground.

        Args:
            by_vote: counts with an axis of the three votes.
            axis: this axis.
        """
        first = 1 if self.ties == "foreground" else 2
        return np.asarray(np.take(by_vote, range(first, 3), axis=axis).sum(axis=axis))


ARRAYS = tuple(field.name for field in fields(StoredCounts) if field.name not in ("cuts", "bins", "ties", "empty"))
"""Names of the arrays that each case has."""


def probability_cuts(n_bins: int, levels: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Cuts of the probability p at which a level, a bin of p, of 1 - p or of max(p, 1 - p) begins, all in float32.

    Args:
        n_bins: number B of equal bins on [0, 1].
        levels: thresholds.

    Returns:
        (C - 1,) float32, ascending, in (0, 1].
    """
    edges = (np.arange(1, n_bins) / n_bins).astype(np.float32)
    # the smallest p whose 1 - p, rounded to float32, lies below each edge: by bisection over the bits of p
    low = np.zeros(len(edges), dtype=np.int32)  # 1 - low >= edge
    high = np.full(len(edges), np.float32(1).view(np.int32))  # 1 - high < edge
    while np.any(high - low > 1):
        middle = low + (high - low) // 2
        below = np.float32(1) - middle.view(np.float32) < edges
        low, high = np.where(below, low, middle), np.where(below, middle, high)
    mirrored = high.view(np.float32)
    return np.unique(np.concatenate([edges, mirrored, np.asarray(levels, np.float32), [np.float32(DECISION_LEVEL)]]))


def mce(counts: StoredCounts) -> float:
    """Maximum calibration error of the top label: the largest |mean confidence - accuracy| of a bin that has pixels.

    Bins are those of the ECE (Naeini et al., AAAI 2015). A bin with a single pixel counts like any other.
    """
    total, positive, sums = counts.cells.sum(axis=0), counts.foreground(counts.cells), counts.sums.sum(axis=0)
    pixels, confidence, correct = _top_label(counts, total, positive, sums)
    filled = pixels > 0
    gaps = np.abs(confidence[filled] - correct[filled]) / pixels[filled]
    return float(gaps.max()) if gaps.size else float("nan")


def classwise_ece(counts: StoredCounts) -> float:
    """Class-wise ECE (static calibration error): the mean over both classes of the ECE of the class's probability.

    The bins of a class are equal bins on [0, 1] of its own probability, p or 1 - p, and its frequency is the share of
    the bin's pixels whose majority is this class (Kull et al., NeurIPS 2019; Nixon et al., CVPR workshops 2019).
    """
    total, positive, sums = counts.cells.sum(axis=0), counts.foreground(counts.cells), counts.sums.sum(axis=0)
    values = cell_values(counts)
    of_foreground = _by_bin(bin_of(values, counts.bins), counts.bins, total, sums, positive)
    of_background = _by_bin(bin_of(1 - values, counts.bins), counts.bins, total, total - sums, total - positive)
    return (binned_ece(*of_foreground) + binned_ece(*of_background)) / 2


def ace(counts: StoredCounts) -> float:
    """Adaptive calibration error: the ECE of the foreground's probability over bins of equal mass (Nixon et al., 2019).

    Edge k of the B bins is the probability with rank floor(k n / B) of the case's n sorted probabilities, from 0, and
    opens bin k. Equal probabilities are never separated, so a bin can hold more or fewer than n / B pixels; bins are
    weighted by their pixels. The background's bins mirror these, so the mean over both classes is the same.
    """
    return binned_ece(counts.adaptive.sum(axis=0), counts.adaptive_sums, counts.foreground(counts.adaptive))


def brier(counts: StoredCounts) -> float:
    """Brier score: the mean over all pixels of (p - y)^2, y the majority vote, in [0, 1].

    For two classes this is half of the sum over classes that Brier (1950) defines, as in scikit-learn.
    """
    return ratio(float(counts.squared_error[TIES[counts.ties]]), counts.n_pixels)


def nll(counts: StoredCounts) -> float:
    """Negative log-likelihood: the mean over all pixels of -log of the probability of the majority's class, in nats.

    Probabilities are clipped to [2^-23, 1 - 2^-23].
    """
    return ratio(float(counts.log_loss[TIES[counts.ties]]), counts.n_pixels)


def boundary_ece(counts: StoredCounts) -> float:
    """ECE of the top label over the pixels of the boundary band only; NaN without a contour.

    The band holds the pixels whose square neighbourhood of 2 w + 1 pixels in their slice has both classes of the
    majority vote: w pixels on each side of a contour. What lies outside the slice does not count.
    """
    band = counts.band[TIES[counts.ties]]
    return binned_ece(*_top_label(counts, band.sum(axis=0), band[1], counts.band_sums[TIES[counts.ties]]))


def rater_ece(counts: StoredCounts) -> float:
    """The mean over the raters of the ECE of the top label against each rater's own mask."""
    total, sums = counts.cells.sum(axis=0), counts.sums.sum(axis=0)
    return _mean([binned_ece(*_top_label(counts, total, rater.sum(axis=0), sums)) for rater in counts.raters])


def volume_bias(counts: StoredCounts) -> float:
    """Relative volume bias: (V - mean of the raters' volumes) / mean of the raters' volumes; NaN if that mean is 0.

    V is the sum of the probabilities (Popordanoska et al., MICCAI 2021). Positive: the prediction is too large.
    """
    volumes = np.diagonal(counts.shared)
    mean = float(volumes.mean()) if volumes.size else 0.0
    return ratio(float(counts.sums.sum()) - mean, mean)


def volume_crps(counts: StoredCounts) -> float:
    """CRPS between the predicted volume V and the distribution of the raters' volumes, relative to their mean.

    mean |V_r - V| - mean |V_r - V_s| / 2 over the raters r and all ordered pairs (r, s), which is the integral of
    (F(x) - [x >= V])^2, F the step function of the raters' volumes (Gneiting and Raftery, JASA 2007). V is the sum of
    the probabilities. NaN if all raters' masks are empty.
    """
    volumes = np.diagonal(counts.shared).astype(np.float64)
    if not volumes.sum():
        return float("nan")
    spread = np.abs(volumes[:, None] - volumes).mean() / 2
    return float((np.abs(volumes - counts.sums.sum()).mean() - spread) / volumes.mean())


def dice_of_raters(counts: StoredCounts) -> float:
    """The mean over the raters of the Dice of the prediction (p >= 0.5) with each rater's own mask."""
    predicted = int(counts.cells[:, counts.decision :].sum())
    hits = counts.raters[:, :, counts.decision :].sum(axis=(1, 2))
    return _mean(dice_ratio(hits, predicted + np.diagonal(counts.shared), counts.empty))


def dice_between_raters(counts: StoredCounts) -> float:
    """The mean over all pairs of raters of the Dice of their masks; NaN with a single rater."""
    first, second = np.triu_indices(len(counts.shared), 1)
    sizes = np.diagonal(counts.shared)
    return _mean(dice_ratio(counts.shared[first, second], sizes[first] + sizes[second], counts.empty))


def dice_raters_majority(counts: StoredCounts) -> float:
    """The mean over the raters of the Dice of their masks with the majority vote (as in the paper's Table 1)."""
    hits = counts.foreground(counts.raters.sum(axis=2), axis=1)
    size = int(counts.foreground(counts.cells).sum())
    return _mean(dice_ratio(hits, size + np.diagonal(counts.shared), counts.empty))


def fleiss_kappa(counts: StoredCounts) -> float:
    """Fleiss' kappa of the raters over the case's pixels (Psychological Bulletin 1971).

    NaN with a single rater, and if all raters marked every pixel or none.
    """
    n_raters, n_pixels = len(counts.votes) - 1, int(counts.votes.sum())
    marked = np.arange(n_raters + 1)
    if n_raters < 2 or not n_pixels:
        return float("nan")
    agreeing = marked * (marked - 1) + (n_raters - marked) * (n_raters - marked - 1)
    observed = float(counts.votes @ agreeing) / (n_pixels * n_raters * (n_raters - 1))
    share = float(counts.votes @ marked) / (n_pixels * n_raters)
    expected = share**2 + (1 - share) ** 2
    return (observed - expected) / (1 - expected) if 0 < share < 1 else float("nan")


def dice_by_slice(counts: StoredCounts) -> float:
    """The mean over the slices of a case of the Dice with the majority vote; slices that are skipped do not count."""
    actual = counts.foreground(counts.slices, axis=1)
    hits, predicted = actual[:, 1], counts.slices[:, :, 1].sum(axis=1)
    return _mean(dice_ratio(hits, predicted + actual.sum(axis=1), counts.empty))


def majority_dice(counts: StoredCounts) -> float:
    """Dice of the prediction with the majority vote, the same as ``dice`` in ``cases.csv``."""
    hits = counts.foreground(counts.cells[:, counts.decision :]).sum()
    size = counts.cells[:, counts.decision :].sum() + counts.foreground(counts.cells).sum()
    return float(dice_ratio(np.array([hits]), np.array([size]), counts.empty)[0])


def dice_other_ties(counts: StoredCounts) -> float:
    """The same Dice under the other rule for ties; equal to it where the number of raters is odd."""
    other = "background" if counts.ties == "foreground" else "foreground"
    return majority_dice(replace(counts, ties=other))


def cell_values(counts: StoredCounts) -> npt.NDArray[np.float32]:
    """The smallest probability of each cell."""
    return np.concatenate([np.zeros(1, np.float32), counts.cuts])


def bin_of(values: npt.NDArray[np.float32], n_bins: int) -> npt.NDArray[np.intp]:
    """The last bin whose left edge k / B is not above a value, compared in float32."""
    edges = (np.arange(1, n_bins) / n_bins).astype(np.float32)
    return np.searchsorted(edges, values, side="right")


def _by_bin(index: npt.NDArray[np.intp], n_bins: int, *values: Ints | Floats) -> list[Floats]:
    """Sums of values by cell (C,) over the cells of each bin."""
    found = [np.zeros(n_bins) for _ in values]
    for sums, item in zip(found, values, strict=True):
        np.add.at(sums, index, item)
    return found


def _top_label(counts: StoredCounts, total: Ints, positive: Ints, sums: Floats) -> list[Floats]:
    """Pixels, sum of confidences and correct pixels by bin of the top-label confidence max(p, 1 - p).

    Args:
        counts: for the cells and bins.
        total: (C,) pixels.
        positive: (C,) those of them that are foreground.
        sums: (C,) sum of p.
    """
    values, chosen = cell_values(counts), np.arange(len(total)) >= counts.decision
    confidence, correct = np.where(chosen, sums, total - sums), np.where(chosen, positive, total - positive)
    return _by_bin(bin_of(np.maximum(values, 1 - values), counts.bins), counts.bins, total, confidence, correct)


def _mean(values: npt.ArrayLike) -> float:
    """Mean of the values that are not NaN."""
    found = np.asarray(values, dtype=np.float64)
    found = found[~np.isnan(found)]
    return float(found.mean()) if found.size else float("nan")
