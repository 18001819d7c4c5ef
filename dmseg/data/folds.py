"""Splits of cases into folds: made once, written as JSON, and only read ever after."""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dmseg.data.readers import natural_key
from dmseg.errors import UserError
from dmseg.settings import FoldSettings


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
    """The same block sizes over a seeded shuffle of the ids."""
    ordered = sorted(cases, key=natural_key)
    shuffled = [ordered[index] for index in np.random.default_rng(seed).permutation(len(ordered))]
    size = len(ordered) // count
    return [
        sorted(shuffled[index * size : (index + 1) * size if index < count - 1 else None], key=natural_key)
        for index in range(count)
    ]


def make_folds(cases: Sequence[str], settings: FoldSettings) -> list[list[str]]:
    """Splits cases as configured.

    Raises:
        UserError: if there are fewer cases than folds, or the kind is unknown.
    """
    if not 2 <= settings.count <= len(cases):
        raise UserError(
            f"folds.count is {settings.count}, but must lie between 2 and the number of cases, {len(cases)}"
        )
    if settings.kind == "contiguous":
        return contiguous_folds(cases, settings.count)
    if settings.kind == "shuffled":
        return shuffled_folds(cases, settings.count, settings.seed or 0)
    raise UserError(f"folds.kind is '{settings.kind}', but may be contiguous or shuffled")


def load_folds(store: Path, cases: Sequence[str], settings: FoldSettings) -> list[list[str]]:
    """Reads the folds of a prepared store, making and writing them the first time.

    Args:
        store: the prepared store's folder; the file lies in it.
        cases: ids of all cases of the store.
        settings: kind and number of folds, and the seed of a shuffled split.

    Raises:
        UserError: if the file does not split exactly these cases.
    """
    seed = "" if settings.seed is None or settings.kind == "contiguous" else f"-seed{settings.seed}"
    path = store / f"folds-{settings.kind}-{settings.count}{seed}.json"
    if not path.exists():
        _write_once(path, make_folds(cases, settings))
    try:
        folds: list[list[str]] = json.loads(path.read_text())
        listed = sorted(case for fold in folds for case in fold)
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); restore or delete it") from None
    if listed != sorted(cases):
        odd = sorted(set(listed) ^ set(cases)) or ["a case that is there twice"]
        raise UserError(f"{path} does not split the cases of this store: {odd[0]}; restore or delete it")
    return folds


def split(folds: Sequence[Sequence[str]], fold: int) -> Split:
    """Returns the training and validation cases of one fold.

    Raises:
        UserError: if there is no such fold.
    """
    if not 0 <= fold < len(folds):
        raise UserError(f"fold {fold} does not exist: there are folds 0 to {len(folds) - 1}")
    train = tuple(case for index, cases in enumerate(folds) if index != fold for case in cases)
    return Split(train, tuple(folds[fold]))


def _write_once(path: Path, folds: list[list[str]]) -> None:
    """Writes atomically; whoever was first is obeyed."""
    handle, name = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    with os.fdopen(handle, "w") as file:
        json.dump(folds, file, indent=1)
    try:
        os.link(name, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(name)
