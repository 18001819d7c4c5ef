"""Splits cases into folds. A split is made once, written as JSON, and only read from then on.

With groups, cases of the same patient, scanner or site are never in different folds.
"""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from dmseg.config.settings import FoldSettings
from dmseg.data.readers import natural_key
from dmseg.data.split_files import compare_with_seal, read_groups, read_split_file, read_splits, write_split_file
from dmseg.errors import UserError, check_choice, some
from dmseg.files.schema import TEXT, list_of, parse_json

FOLDS = list_of(list_of(TEXT, least=1))
"""What a split file contains: the case ids of each fold."""
DEFAULT_COUNT = 5
"""Default number of folds, as in the paper."""
UNEVEN = 0.4
"""A fold with more than this fraction of the cases, and twice those of the smallest, causes a warning."""
HELD_OUT = 0.2
"""Fraction of a fold's training cases that an inner split holds out."""
STARTS = 20
"""Random starts of `balanced_folds`, of which the most even result is returned."""

Group = Sequence[str]
"""Ids of cases that stay together."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """The cases of one fold.

    Attributes:
        train: ids of the training cases.
        validation: ids of the validation cases, which are scored.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]


def contiguous_folds(cases: Sequence[str], count: int) -> list[list[str]]:
    """Consecutive blocks of N // count sorted ids each; the last block takes the remainder (as in JDTLosses)."""
    ordered = sorted(cases, key=natural_key)
    size = len(ordered) // count
    return [ordered[index * size : (index + 1) * size if index < count - 1 else None] for index in range(count)]


def shuffled_folds(cases: Sequence[str], count: int, seed: int) -> list[list[str]]:
    """Folds of the shuffled ids, whose sizes differ by at most one."""
    ordered = sorted(cases, key=natural_key)
    order = np.random.default_rng(seed).permutation(len(ordered))
    return [sorted((ordered[index] for index in part), key=natural_key) for part in np.array_split(order, count)]


def grouped_folds(groups: Collection[Sequence[str]], settings: FoldSettings) -> list[list[str]]:
    """Folds that keep groups together, of sizes as equal as the groups allow.

    Args:
        groups: the cases of each group.
        settings: kind and number of folds; contiguous folds are consecutive groups in the order of their first cases.

    Raises:
        UserError: if there are fewer groups than folds.
    """
    count = fold_count(settings)
    if len(groups) < count:
        raise UserError(
            f"folds.groups={settings.groups} has {len(groups)} groups, too few for {count} folds; reduce folds.count"
        )
    seed = None if settings.kind == "contiguous" else settings.seed or 0
    folds = _join_groups(tuple(map(tuple, groups)), count, seed)
    return [sorted((case for group in fold for case in group), key=natural_key) for fold in folds]


def fold_count(settings: FoldSettings) -> int:
    """Number of folds: as in ``folds.file``, else ``folds.count``, else 5.

    Raises:
        UserError: if ``folds.count`` is below 2, or ``folds.file`` cannot be read or has another number of folds.
    """
    if settings.count is not None and settings.count < 2:
        raise UserError(f"folds.count is {settings.count}, but must be at least 2")
    if settings.file is None:
        return DEFAULT_COUNT if settings.count is None else settings.count
    count = len(read_splits(settings.file, None))
    if settings.count not in (None, count):
        raise UserError(
            f"folds.file={settings.file} has {count} folds, but folds.count is {settings.count}; remove folds.count"
        )
    return count


def make_folds(cases: Sequence[str], settings: FoldSettings) -> list[list[str]]:
    """Splits cases as configured and returns the validation cases of each fold.

    Raises:
        UserError: if there are fewer cases than folds, the kind is unknown, or ``folds.groups`` does not fit the cases.
    """
    count = fold_count(settings)
    if len(cases) == 1:
        raise UserError(f"there is only one case, {cases[0]}, but training and validation need at least one each")
    if count > len(cases):
        raise UserError(f"folds.count is {count}, but must be between 2 and the number of cases, {len(cases)}")
    check_choice("folds.kind", settings.kind, ("contiguous", "shuffled"))
    if settings.groups is not None:
        return grouped_folds(read_groups(settings.groups, cases).values(), settings)
    if settings.kind == "contiguous":
        return contiguous_folds(cases, count)
    return shuffled_folds(cases, count, settings.seed or 0)


def make_splits(cases: Sequence[str], settings: FoldSettings) -> list[Split]:
    """The split of each fold, as configured or from the user's file; nothing is written.

    Raises:
        UserError: as `make_folds`, or if ``folds.file`` does not match the cases.
    """
    if settings.file is None:
        return _splits(make_folds(cases, settings))
    if settings.groups is not None:
        raise UserError("folds.groups has no effect together with folds.file; remove one of them")
    fold_count(settings)
    return [Split(tuple(train), tuple(validation)) for train, validation in read_splits(settings.file, cases)]


def load_splits(store: Path, cases: Sequence[str], settings: FoldSettings, write: bool = True) -> list[Split]:
    """The split of each fold of a prepared store; ``folds.file`` is read again each time.

    Args:
        store: the prepared store's folder.
        cases: ids of all cases of the store.
        settings: how cases are split.
        write: whether to keep a new split in the store.

    Raises:
        UserError: if a split cannot be made, or the file does not split exactly these cases.
    """
    if settings.file is not None:
        return make_splits(cases, settings)
    return _splits(load_folds(store, cases, settings, write))


def load_folds(store: Path, cases: Sequence[str], settings: FoldSettings, write: bool = True) -> list[list[str]]:
    """Reads the folds of a prepared store; the first time they are made and written.

    Args:
        store: the prepared store's folder, which contains the file.
        cases: ids of all cases of the store.
        settings: kind and number of folds, the seed of a shuffled split, and groups.
        write: whether to keep new folds in the store.

    Raises:
        UserError: if the file does not split exactly these cases, or has changed since it was written.
    """
    # the name contains everything that the split depends on, except the cases
    seed = "" if settings.seed is None or settings.kind == "contiguous" else f"-seed{settings.seed}"
    groups = ""
    if settings.groups is not None:
        listed = json.dumps(sorted(read_groups(settings.groups, cases).values()))
        groups = f"-groups{hashlib.sha256(listed.encode()).hexdigest()[:8]}"
    count = fold_count(settings)
    path = store / f"folds-{settings.kind}-{count}{seed}{groups}.json"
    if not os.path.lexists(path):
        folds = make_folds(cases, settings)
        if not write:
            return folds
        sizes = [len(fold) for fold in folds]
        if max(sizes) > UNEVEN * sum(sizes) and max(sizes) >= 2 * min(sizes):
            said = ", ".join(map(str, sizes))
            log.warning("%s: folds of %s cases; folds.kind=shuffled makes folds of equal size", path.name, said)
        write_split_file(path, json.dumps(folds, indent=1))
    content = read_split_file(path)
    try:
        stored: list[list[str]] = parse_json(content)
        FOLDS(stored, "folds")
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); restore it, or delete it to make a new split") from None
    times = Counter(case for fold in stored for case in fold)
    gone, new = (sorted(part, key=natural_key) for part in (set(times) - set(cases), set(cases) - set(times)))
    twice = [case for case, number in times.items() if number > 1]
    if len(stored) != count:
        raise UserError(
            f"{path} has {len(stored)} folds instead of {count}; restore it, or delete it to make a new split"
        )
    if twice:
        raise UserError(
            f"{path} does not split the cases of this store: {twice[0]} is listed twice; restore or delete it"
        )
    if gone or new:
        changes = "; ".join(f"{some(part)} {word}" for part, word in ((gone, "removed"), (new, "added")) if part)
        raise UserError(
            f"{path} does not split the cases of this store: {changes}; delete this file to make a new split"
        )
    compare_with_seal(path, content, write)
    return stored


def find_split(splits: Sequence[Split], fold: int) -> Split:
    """Returns one fold's split.

    Raises:
        UserError: if there is no such fold.
    """
    if not 0 <= fold < len(splits):
        raise UserError(f"fold {fold} does not exist: there are folds 0 to {len(splits) - 1}")
    return splits[fold]


def inner_split(split: Split, seed: int, fold: int, groups: Collection[Collection[str]] | None = None) -> Split:
    """Splits the training cases of a fold once more; the fold's validation cases are in neither part.

    Groups are taken in random order; one is held out if this brings the number of held-out cases closer to `HELD_OUT`.

    Args:
        split: the fold's cases, with at least two training cases.
        seed: seed of the run.
        fold: number of the fold.
        groups: the cases of each group, which stay together; other cases than the training cases are ignored. None if
            each case is a group of its own.

    Raises:
        UserError: if all training cases are in one group.
    """
    group_of = {case: number for number, group in enumerate(groups or ()) for case in group}
    by_group = dict[int | str, list[str]]()
    for case in split.train:
        by_group.setdefault(group_of.get(case, case), []).append(case)
    found = list(by_group.values())
    if len(found) == 1 < len(split.train):
        raise UserError(
            f"the training cases of fold {fold} are all in one group of folds.groups, so distill.calibrate=inner has "
            "none to hold out; set distill.calibrate=train, or null"
        )
    order = [found[k] for k in np.random.default_rng((seed, fold)).permutation(len(found))]
    goal, held = max(1, round(HELD_OUT * len(split.train))), set[str]()
    for group in order:
        if abs(len(held) + len(group) - goal) < abs(len(held) - goal):
            held |= set(group)
    if not held:  # every group is large
        smallest = min(order, key=len)
        held = set(smallest)
    parts = (tuple(case for case in split.train if (case in held) is inside) for inside in (False, True))
    return Split(*parts)


def consecutive_folds(groups: Sequence[Group], count: int) -> list[list[Group]]:
    """Splits a sequence of groups into `count` consecutive parts, as equal in size as possible (least sum of squares).

    Args:
        groups: at least `count` groups in order, none of them empty.
        count: number of folds.
    """
    ends = np.concatenate([[0], np.cumsum([len(group) for group in groups])]).astype(float)
    best = np.where(ends == 0, 0.0, np.inf)
    starts = []
    for _ in range(count):
        # least sum of squares of the first j groups with one more part, and the start of that part
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


def _splits(folds: Sequence[Sequence[str]]) -> list[Split]:
    """The split of each fold; all cases of the other folds are training cases."""
    return [
        Split(tuple(case for other in folds if other is not validation for case in other), tuple(validation))
        for validation in folds
    ]


@lru_cache(maxsize=64)
def _join_groups(groups: tuple[tuple[str, ...], ...], count: int, seed: int | None) -> list[list[Sequence[str]]]:
    """The groups of each fold, computed once for all runs of a table."""
    if seed is None:
        return consecutive_folds(groups, count)
    return balanced_folds(groups, count, np.random.default_rng(seed))


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
