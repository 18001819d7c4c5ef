"""Folds that keep groups together: cases of the same patient, scanner or site are never in different folds."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

Group = Sequence[str]

STARTS = 20
"""Random starts of `balanced_folds`, of which the most even result is returned."""


def consecutive_folds(groups: Sequence[Group], count: int) -> list[list[Group]]:
    """Splits a sequence of groups into `count` runs of sizes as equal as possible (least sum of squares).

    Args:
        groups: at least `count` groups in order, none of them empty.
        count: number of folds.
    """
    ends = np.concatenate([[0], np.cumsum([len(group) for group in groups])]).astype(float)
    best = np.where(ends == 0, 0.0, np.inf)
    starts = []
    for _ in range(count):
        # least sum of squares of the first j groups with one more run, and the start of that run
        least, start = np.full(len(ends), np.inf), np.zeros(len(ends), dtype=np.int64)
        for j in range(1, len(ends)):
            costs = best[:j] + (ends[j] - ends[:j]) ** 2
            start[j] = costs.argmin()
            least[j] = costs[start[j]]
        best = least
        starts.append(start)
    cuts = [len(groups)]
    for start in reversed(starts):
        cuts.append(int(start[cuts[-1]]))
    cuts.reverse()
    return [list(groups[first:last]) for first, last in pairwise(cuts)]


def balanced_folds(groups: Sequence[Group], count: int, rng: np.random.Generator) -> list[list[Group]]:
    """Distributes groups at random over folds of nearly equal size.

    Each start assigns the groups, in random order, to the smallest fold, and then moves and swaps groups between two
    folds as long as this makes their sizes more equal.

    Args:
        groups: at least `count` groups, none of them empty.
        count: number of folds.
        rng: random number generator for the orders.
    """
    best: list[list[Group]] = []
    for _ in range(STARTS):
        folds: list[list[Group]] = [[] for _ in range(count)]
        for index in rng.permutation(len(groups)):
            min(folds, key=_size).append(groups[index])
        while _even_out(folds):
            pass
        if not best or _spread(folds) < _spread(best):
            best = folds
        sizes = [_size(fold) for fold in best]
        if max(sizes) - min(sizes) <= 1:
            break
    return best


def _even_out(folds: list[list[Group]]) -> bool:
    """Makes the single move or swap of groups between two folds that helps most; False if none helps."""
    options = (
        (step * (gap - step), large, small, given, taken)
        for large in folds
        for small in folds
        if (gap := _size(large) - _size(small)) > 1
        for given in _one_of_each_size(large)
        for taken in [(), *_one_of_each_size(small)]
        if 0 < (step := len(given) - len(taken)) < gap
    )
    chosen = max(options, key=lambda option: option[0], default=None)
    if chosen is None:
        return False
    _, large, small, given, taken = chosen
    large.remove(given)
    small.append(given)
    if taken:
        small.remove(taken)
        large.append(taken)
    return True


def _one_of_each_size(fold: list[Group]) -> list[Group]:
    return list({len(group): group for group in fold}.values())


def _size(fold: list[Group]) -> int:
    return sum(map(len, fold))


def _spread(folds: list[list[Group]]) -> int:
    return sum(_size(fold) ** 2 for fold in folds)
