"""Wilcoxon's signed-rank test, as `scipy.stats.wilcoxon` decides between exact and normal distribution.

`scipy.stats` takes longer to import than all tests of the paper's tables take, so only what `scipy.special` has not is
computed here. The rare small samples with ties or zeros are left to `scipy.stats`.
"""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

Floats = npt.NDArray[np.float64]

MOST_EXACT = 50
"""Pairs up to which the distribution of the statistic is exact, if there are no ties and zeros."""
MOST_SWAPPED = 13
"""Pairs up to which all swaps of signs are counted if there are ties or zeros."""


def wilcoxon(difference: Floats, zero_method: str = "wilcox") -> tuple[float, float]:
    """Two-sided signed-rank test of differences that are symmetric about 0.

    Args:
        difference: (N,) differences without NaN, not all of them 0.
        zero_method: ``wilcox`` leaves zeros out, ``pratt`` ranks them and then leaves them out, ``zsplit`` ranks them
            and gives half of their ranks to each sign.

    Returns:
        The smaller rank sum, and the p-value in [0, 1].
    """
    n_zeros = int(np.count_nonzero(difference == 0))
    ranked = difference[difference != 0] if zero_method == "wilcox" else difference
    ranks, ties = average_ranks(np.abs(ranked))
    if (n_zeros or ties.max() > 1) and difference.size <= MOST_SWAPPED:
        from scipy import stats

        found = stats.wilcoxon(difference, zero_method=zero_method, alternative="two-sided")
        return float(found.statistic), float(found.pvalue)
    plus, minus = (float(ranks[side].sum()) for side in (ranked > 0, ranked < 0))
    if zero_method == "zsplit":
        half = float(ranks[ranked == 0].sum()) / 2
        plus, minus = plus + half, minus + half
    if difference.size <= MOST_EXACT and not n_zeros and ties.max() == 1:
        return min(plus, minus), _exact_p_value(round(plus), difference.size)
    n = float(ranked.size)
    mean, variance = n * (n + 1) * 0.25, n * (n + 1) * (2 * n + 1)
    if zero_method == "pratt" and n_zeros:
        mean -= n_zeros * (n_zeros + 1) * 0.25
        variance -= n_zeros * (n_zeros + 1) * (2 * n_zeros + 1)
        ties = ties[1:]  # the first are the zeros
    sd = math.sqrt((variance - float((ties**3 - ties).sum()) / 2) / 24)
    return min(plus, minus), float(2 * ndtr(-abs((plus - mean) / sd)))


def average_ranks(values: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Ranks from 1 on, equal values with the mean of their ranks, and how often each distinct value occurs, sorted.

    Args:
        values: (N,) numbers without NaN.
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place], counts.astype(np.int64)


def _exact_p_value(plus: int, n: int) -> float:
    """Two-sided p-value of a rank sum of n differences without ties and zeros."""
    chances, low = _rank_sums(n), plus <= n * (n + 1) / 4
    at_most = chances[: plus + 1].sum() if low else 1 - chances[plus + 1 :].sum()
    at_least = chances[plus:].sum() if low else 1 - chances[:plus].sum()
    return float(np.clip(2 * min(at_most, at_least), 0, 1))


@lru_cache(maxsize=MOST_EXACT)
def _rank_sums(n: int) -> Floats:
    """Probability of each sum of the ranks with positive sign, 0 to n (n + 1) / 2, if signs are random."""
    chances = np.ones(1)
    for rank in range(1, n + 1):
        halved = 0.5 * chances
        chances = np.zeros(halved.size + rank)
        chances[: halved.size] = halved
        chances[rank:] += halved
    return chances
