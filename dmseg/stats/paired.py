"""Paired comparison of two methods over the same cases.

The paper cites Eelbode et al. (TMI 2020) for its procedure without describing it. Three tests are available: the
Wilcoxon signed-rank test (default), and the two tests in public code of the same group: a paired permutation test
(JeroenBertels/dicegrad, ``stat_sign_boot.m``, which uses ranks) and a bootstrap of the mean difference
(JeroenBertels/deepvoxnet2, ``Series.basic_test``, which is one-sided).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import stats

from dmseg.errors import check_choice, is_number, is_whole, shown
from dmseg.stats._check import as_numbers

Floats = npt.NDArray[np.float64]
TestName = Literal["wilcoxon", "permutation", "bootstrap"]
ZeroMethod = Literal["wilcox", "pratt", "zsplit"]

NAN = float("nan")


@dataclass(frozen=True)
class PairedResult:
    """Result of comparing our method with a reference method.

    Attributes:
        n: number of pairs compared.
        n_dropped: number of pairs left out because a value is missing.
        statistic: the test statistic: the smaller rank sum (Wilcoxon) or the mean difference; NaN if n is 0.
        p_value: two-sided, in [0, 1]; 1 if no pair differs, NaN if n is 0.
        mean_difference: mean of ours - reference, in the unit of the values; NaN if n is 0.
        effect_size: matched-pairs rank-biserial correlation in [-1, 1], positive if ours is higher; 0 if no pair
            differs, NaN if n is 0.
        better: whether ours is better in the mean and, for Wilcoxon, also in the ranks.
    """

    n: int
    n_dropped: int
    statistic: float
    p_value: float
    mean_difference: float
    effect_size: float
    better: bool

    def significant(self, alpha: float = 0.05) -> bool:
        """Whether ours is better with p below alpha; False for a significantly worse result.

        Raises:
            ValueError: if alpha does not lie between 0 and 1.
        """
        if not is_number(alpha) or not 0 < alpha < 1:
            raise ValueError(f"alpha is {shown(alpha)}; give a number between 0 and 1, such as 0.05")
        return self.better and self.p_value < alpha


def compare(
    ours: npt.ArrayLike,
    reference: npt.ArrayLike,
    *,
    test: TestName = "wilcoxon",
    zero_method: ZeroMethod = "wilcox",
    higher_is_better: bool = True,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> PairedResult:
    """Compares two methods on the same cases with a two-sided test.

    Args:
        ours: (N,) one value per case, NaN if missing: a list, an array, a tensor or a pandas Series.
        reference: (N,) values of the other method for the same cases in the same order.
        test: "wilcoxon" (signed ranks), "permutation" (`sign_flip_p_value`) or "bootstrap" (`bootstrap_p_value`).
        zero_method: how the Wilcoxon test treats pairs that do not differ (`scipy.stats.wilcoxon`).
        higher_is_better: False for errors such as the ECE.
        n_resamples: number of resamples of the permutation test and the bootstrap.
        seed: seed of the resamples.

    Returns:
        The result for all pairs without missing values.

    Raises:
        UserError: if `test` or `zero_method` is unknown.
        TypeError: if values are not numbers, or `higher_is_better` is not a bool.
        ValueError: if the values are not two vectors of the same length, some are infinite, two Series have different
            indexes, or `n_resamples` is below 1.
    """
    check_choice("test", test, get_args(TestName))
    check_choice("zero_method", zero_method, get_args(ZeroMethod))
    if not isinstance(higher_is_better, bool | np.bool_):
        raise TypeError(f"higher_is_better is {shown(higher_is_better)}; give True or False")
    first, second = as_numbers("ours", ours), as_numbers("reference", reference)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(
            f"paired values have shapes {first.shape} and {second.shape}, but must be vectors of equal length"
        )
    indexes: list[Any] = [getattr(values, "index", None) for values in (ours, reference)]  # of pandas Series
    if all(hasattr(index, "equals") for index in indexes) and not indexes[0].equals(indexes[1]):
        raise ValueError(
            "ours and reference have different indexes, but values are paired in their order; give "
            "reference.reindex(ours.index), or arrays (.to_numpy()) if the order is right"
        )
    _refuse_infinite(ours=first, reference=second)
    difference = _present(first - second)
    n_dropped = first.size - difference.size
    if difference.size == 0:
        return PairedResult(0, n_dropped, NAN, NAN, NAN, NAN, False)
    mean, effect = float(difference.mean()), rank_biserial(difference)
    if test == "wilcoxon":
        statistic, p_value = 0.0, 1.0
        if difference.any():
            result = stats.wilcoxon(difference, zero_method=zero_method, alternative="two-sided")
            statistic, p_value = float(result.statistic), float(result.pvalue)
    else:
        p_values = {"permutation": sign_flip_p_value, "bootstrap": bootstrap_p_value}
        statistic, p_value = mean, p_values[test](difference, n_resamples, seed)
    sign = 1 if higher_is_better else -1
    better = sign * mean > 0 and (test != "wilcoxon" or sign * effect > 0)
    return PairedResult(difference.size, n_dropped, statistic, p_value, mean, effect, better)


def least_p_value(
    difference: npt.ArrayLike, *, test: TestName = "wilcoxon", zero_method: ZeroMethod = "wilcox"
) -> float:
    """The smallest p-value that a test can give for differences of these sizes: the one if all had the same sign.

    With few cases, or many that do not differ, it is above any usual level, and the test cannot reject.

    Args:
        difference: (N,) differences, NaN if missing.
        test: the test, as for `compare`.
        zero_method: how the Wilcoxon test treats pairs that do not differ.

    Returns:
        The p-value in [0, 1]; 1 if no pair differs, NaN without pairs.

    Raises:
        UserError: if `test` or `zero_method` is unknown.
        TypeError: if the differences are not numbers.
        ValueError: if they are not a vector, or some are infinite.
    """
    sizes = np.abs(as_numbers("difference", difference))
    return compare(sizes, np.zeros_like(sizes), test=test, zero_method=zero_method).p_value


def rank_biserial(difference: npt.ArrayLike) -> float:
    """Matched-pairs rank-biserial correlation (Kerby, Comprehensive Psychology 2014).

    Fraction of the rank sum of |difference| with positive sign minus that with negative sign, without zeros.

    Args:
        difference: (N,) differences, NaN if missing.

    Returns:
        Correlation in [-1, 1]; 0 if all differences are 0.

    Raises:
        TypeError: if the differences are not numbers.
        ValueError: if they are not a vector, or some are infinite.
    """
    difference = _present(difference)
    present = difference[difference != 0]
    if present.size == 0:
        return 0.0
    ranks = stats.rankdata(np.abs(present))
    return float(np.sum(np.sign(present) * ranks) / ranks.sum())


def sign_flip_p_value(difference: npt.ArrayLike, n_resamples: int = 10_000, seed: int = 0) -> float:
    """Two-sided paired permutation test of the mean: each case swaps the methods with probability 1/2.

    Exact if there are no more possible swaps than resamples. Otherwise the observed assignment counts as one of the
    resamples, so that p is never 0 (Phipson and Smyth, 2010).

    Args:
        difference: (N,) differences, NaN if missing.
        n_resamples: number of random swaps, at least 1.
        seed: seed of the swaps.

    Returns:
        Fraction of swaps whose |mean difference| is at least the observed one; 1 without pairs.

    Raises:
        TypeError: if the differences are not numbers.
        ValueError: if they are not a vector, some are infinite, or `n_resamples` is below 1.
    """
    difference = _present(difference)
    _check_resamples(n_resamples)
    present = difference[difference != 0]
    rounding = 1e-12 * float(np.abs(present).sum())  # equal sums may differ by this much
    observed = abs(float(present.sum())) - rounding
    if 2**present.size <= n_resamples:
        signs = np.array(list(product((-1.0, 1.0), repeat=present.size)))
        return float(np.mean(np.abs(signs @ present) >= observed))
    rng = np.random.default_rng(seed)
    sums = _resample(lambda count: rng.choice((-1.0, 1.0), size=(count, present.size)) @ present, n_resamples)
    return float((1 + np.count_nonzero(np.abs(sums) >= observed)) / (1 + n_resamples))


def bootstrap_p_value(difference: npt.ArrayLike, n_resamples: int = 10_000, seed: int = 0) -> float:
    """Two-sided bootstrap test of the mean: twice the smaller fraction of resampled means on one side of 0.

    It is below alpha if the percentile interval of level 1 - alpha (Efron and Tibshirani, 1993, chapter 13) excludes 0;
    the observed cases count as one of the resamples. The test is too liberal for very few cases, whose resamples vary
    too little. With fewer than two pairs that differ, it returns 1.

    Args:
        difference: (N,) differences, NaN if missing.
        n_resamples: number of resamples of cases with replacement, at least 1.
        seed: seed of the resamples.

    Raises:
        TypeError: if the differences are not numbers.
        ValueError: if they are not a vector, some are infinite, or `n_resamples` is below 1.
    """
    difference = _present(difference)
    _check_resamples(n_resamples)
    if np.count_nonzero(difference) < 2:
        return 1.0
    rng = np.random.default_rng(seed)
    n = difference.size
    means = _resample(lambda count: difference[rng.integers(n, size=(count, n))].mean(axis=1), n_resamples)
    tail = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
    return float(min(1.0, 2 * (1 + tail) / (1 + n_resamples)))


def holm(p_values: npt.ArrayLike) -> Floats:
    """Holm's step-down correction for several tests (Holm, Scandinavian Journal of Statistics 1979).

    Args:
        p_values: (M,) in [0, 1]; NaN (no test) remain NaN and do not count as tests.

    Returns:
        (M,) adjusted p-values in [0, 1], in the same order.

    Raises:
        TypeError: if the p-values are not numbers.
        ValueError: if they are not a vector, or lie outside [0, 1].
    """
    array = as_numbers("p_values", p_values)
    if array.ndim != 1 or ((array < 0) | (array > 1)).any():
        raise ValueError(f"p_values is {shown(p_values)}; give a vector of numbers in [0, 1], NaN for no test")
    adjusted = np.full(array.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(array))
    order = tested[np.argsort(array[tested], kind="stable")]
    factors = np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(array[order] * factors), 1.0)
    return adjusted


def _present(difference: npt.ArrayLike) -> Floats:
    """Differences (N,) without those that are missing."""
    values = as_numbers("difference", difference)
    if values.ndim != 1:
        raise ValueError(f"difference has shape {values.shape}; give one number a case, (N,)")
    _refuse_infinite(difference=values)
    return values[~np.isnan(values)]


def _refuse_infinite(**named: Floats) -> None:
    for name, values in named.items():
        if (found := np.flatnonzero(np.isinf(values))).size:
            raise ValueError(
                f"{name}[{found[0]}] is {values[found[0]]}; give NaN where a case has no value, or a largest value in "
                "place of an infinite one"
            )


def _check_resamples(n_resamples: object) -> None:
    if not is_whole(n_resamples) or n_resamples < 1:
        raise ValueError(f"n_resamples is {shown(n_resamples)}; give a whole number of at least 1")


def _resample(draw: Callable[[int], Floats], n_resamples: int) -> Floats:
    """Draws in chunks, so that memory does not grow with the number of resamples."""
    chunk = 1000
    counts = [min(chunk, n_resamples - start) for start in range(0, n_resamples, chunk)]
    return np.concatenate([draw(count) for count in counts])
