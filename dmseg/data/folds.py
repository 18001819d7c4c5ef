"""Splits of cases into folds: made once, written as JSON, and only read ever after."""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeGuard

import numpy as np

from dmseg.config.settings import FoldSettings
from dmseg.data.fold_files import compare_with_seal, read_split_file, write_split_file
from dmseg.data.groups import balanced_folds, consecutive_folds
from dmseg.data.readers import natural_key
from dmseg.data.sealed_json import parse_json
from dmseg.data.split_files import read_groups, read_splits, some
from dmseg.errors import UserError

DEFAULT_COUNT = 5
"""Number of folds where none is given, as in the paper."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """The cases of one fold.

    Attributes:
        train: ids of the cases that are trained on.
        validation: ids of the cases that are scored.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]


HELD_OUT = 0.2
"""Share of a fold's training cases that an inner split holds out."""


def inner_split(split: Split, seed: int, fold: int) -> Split:
    """Splits the training cases of a fold again; the fold's validation cases are in neither part.

    Args:
        split: the fold's cases, at least two to train on.
        seed: seed of the run.
        fold: number of the fold.
    """
    order = np.random.default_rng((seed, fold)).permutation(len(split.train))
    held = set(order[: max(1, round(HELD_OUT * len(order)))].tolist())
    parts = ([case for k, case in enumerate(split.train) if (k in held) is inside] for inside in (False, True))
    return Split(*map(tuple, parts))


def contiguous_folds(cases: Sequence[str], count: int) -> list[list[str]]:
    """Blocks of the sorted ids, each of N // count cases, the last with the rest (as in JDTLosses)."""
    ordered = sorted(cases, key=natural_key)
    size = len(ordered) // count
    return [ordered[index * size : (index + 1) * size if index < count - 1 else None] for index in range(count)]


def shuffled_folds(cases: Sequence[str], count: int, seed: int) -> list[list[str]]:
    """Folds of a seeded shuffle of the ids; their sizes differ by one at most."""
    ordered = sorted(cases, key=natural_key)
    order = np.random.default_rng(seed).permutation(len(ordered))
    return [sorted((ordered[index] for index in part), key=natural_key) for part in np.array_split(order, count)]


def grouped_folds(groups: Collection[Sequence[str]], settings: FoldSettings) -> list[list[str]]:
    """Folds that never divide a group, of sizes as equal as the groups allow.

    Args:
        groups: the cases of each group.
        settings: kind and number of folds; contiguous folds are runs of groups in the order of their first cases.

    Raises:
        UserError: if there are fewer groups than folds.
    """
    count = fold_count(settings)
    if len(groups) < count:
        raise UserError(
            f"folds.groups={settings.groups} has {len(groups)} groups, too few for {count} folds; lower folds.count"
        )
    seed = None if settings.kind == "contiguous" else settings.seed or 0
    folds = _join_groups(tuple(map(tuple, groups)), count, seed)
    return [sorted((case for group in fold for case in group), key=natural_key) for fold in folds]


@lru_cache(maxsize=64)
def _join_groups(groups: tuple[tuple[str, ...], ...], count: int, seed: int | None) -> list[list[Sequence[str]]]:
    """Groups of each fold, found once for all runs of a table."""
    if seed is None:
        return consecutive_folds(groups, count)
    return balanced_folds(groups, count, np.random.default_rng(seed))


def fold_count(settings: FoldSettings) -> int:
    """Number of folds: that of ``folds.file``, or ``folds.count``, or 5.

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
            f"folds.file={settings.file} has {count} folds, but folds.count is {settings.count}; leave folds.count out"
        )
    return count


def make_folds(cases: Sequence[str], settings: FoldSettings) -> list[list[str]]:
    """Splits cases as configured: the validation cases of each fold.

    Raises:
        UserError: if there are fewer cases than folds, the kind is unknown, or ``folds.groups`` does not fit the cases.
    """
    count = fold_count(settings)
    if count > len(cases):
        raise UserError(f"folds.count is {count}, but must lie between 2 and the number of cases, {len(cases)}")
    if settings.kind not in ("contiguous", "shuffled"):
        raise UserError(f"folds.kind is '{settings.kind}', but may be contiguous or shuffled")
    if settings.groups is not None:
        return grouped_folds(read_groups(settings.groups, cases).values(), settings)
    if settings.kind == "contiguous":
        return contiguous_folds(cases, count)
    return shuffled_folds(cases, count, settings.seed or 0)


def make_splits(cases: Sequence[str], settings: FoldSettings) -> list[Split]:
    """The split of each fold, made as configured or read from the user's file; nothing is written.

    Raises:
        UserError: as `make_folds`, or if ``folds.file`` does not fit the cases.
    """
    if settings.file is None:
        return _splits(make_folds(cases, settings))
    if settings.groups is not None:
        raise UserError("folds.groups has no effect on folds.file, which says all; leave one of them out")
    fold_count(settings)
    return [Split(tuple(train), tuple(validation)) for train, validation in read_splits(settings.file, cases)]


def load_splits(store: Path, cases: Sequence[str], settings: FoldSettings, write: bool = True) -> list[Split]:
    """The split of each fold of a prepared store. That of ``folds.file`` is read from there every time.

    Args:
        store: the prepared store's folder.
        cases: ids of all cases of the store.
        settings: how cases are split.
        write: whether a split that is made is kept in the store.

    Raises:
        UserError: if a split cannot be made, or the file that it is read from does not split exactly these cases.
    """
    if settings.file is not None:
        return make_splits(cases, settings)
    return _splits(load_folds(store, cases, settings, write))


def load_folds(store: Path, cases: Sequence[str], settings: FoldSettings, write: bool = True) -> list[list[str]]:
    """Reads the folds of a prepared store, making and writing them the first time.

    Args:
        store: the prepared store's folder; the file lies in it.
        cases: ids of all cases of the store.
        settings: kind and number of folds, the seed of a shuffled split, and groups.
        write: whether folds that are made are kept in the store.

    Raises:
        UserError: if the file does not split exactly these cases, or was changed after it was written.
    """
    path = store / _file_name(cases, settings)
    if not os.path.lexists(path):
        folds = make_folds(cases, settings)
        if not write:
            return folds
        _warn_uneven(path, folds)
        write_split_file(path, json.dumps(folds, indent=1))
    content = read_split_file(path)
    try:
        stored = parse_json(content)
        if not _is_folds(stored):
            raise ValueError("expected lists of case ids, none empty")
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); restore it, or delete it to make the split anew") from None
    _check_stored(path, stored, cases, fold_count(settings))
    compare_with_seal(path, content, write)
    return stored


def _file_name(cases: Sequence[str], settings: FoldSettings) -> str:
    """Name of a split's file: all that the split depends on beside the cases."""
    seed = "" if settings.seed is None or settings.kind == "contiguous" else f"-seed{settings.seed}"
    groups = ""
    if settings.groups is not None:
        content = json.dumps(sorted(read_groups(settings.groups, cases).values()))
        groups = f"-groups{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    return f"folds-{settings.kind}-{fold_count(settings)}{seed}{groups}.json"


def _is_folds(node: object) -> TypeGuard[list[list[str]]]:
    return isinstance(node, list) and all(
        isinstance(fold, list) and fold and all(isinstance(case, str) for case in fold) for fold in node
    )


def _check_stored(path: Path, folds: list[list[str]], cases: Sequence[str], count: int) -> None:
    """Refuses a file with another number of folds or other cases."""
    times = Counter(case for fold in folds for case in fold)
    gone, new = (sorted(part, key=natural_key) for part in (set(times) - set(cases), set(cases) - set(times)))
    twice = [case for case, number in times.items() if number > 1]
    if len(folds) != count:
        raise UserError(f"{path} has {len(folds)} folds instead of {count}; restore it, or delete it to make them anew")
    if twice:
        raise UserError(
            f"{path} does not split the cases of this store: {twice[0]} is there twice; restore or delete it"
        )
    if gone or new:
        changes = "; ".join(f"{some(part)} {word}" for part, word in ((gone, "gone"), (new, "new")) if part)
        raise UserError(
            f"{path} does not split the cases of this store: {changes}; delete this file to split the cases of now"
        )


def _warn_uneven(path: Path, folds: list[list[str]], share: float = 0.4) -> None:
    """Says it where one fold is far larger than the others, as the last one of few contiguous cases is."""
    sizes = [len(fold) for fold in folds]
    if max(sizes) > share * sum(sizes) and max(sizes) >= 2 * min(sizes):
        shown = ", ".join(map(str, sizes))
        log.warning("%s: folds of %s cases; folds.kind=shuffled makes them equally large", path.name, shown)


def _splits(folds: Sequence[Sequence[str]]) -> list[Split]:
    return [split(folds, fold) for fold in range(len(folds))]


def split(folds: Sequence[Sequence[str]], fold: int) -> Split:
    """Returns the training and validation cases of one fold.

    Raises:
        UserError: if there is no such fold.
    """
    if not 0 <= fold < len(folds):
        raise UserError(f"fold {fold} does not exist: there are folds 0 to {len(folds) - 1}")
    train = tuple(case for index, cases in enumerate(folds) if index != fold for case in cases)
    return Split(train, tuple(folds[fold]))


def find_split(splits: Sequence[Split], fold: int) -> Split:
    """Returns one fold's split.

    Raises:
        UserError: if there is no such fold.
    """
    if not 0 <= fold < len(splits):
        raise UserError(f"fold {fold} does not exist: there are folds 0 to {len(splits) - 1}")
    return splits[fold]
