"""Files that a user brings for splitting the cases: nnU-Net's ``splits_final.json``, and groups of cases."""

import csv
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from dmseg.data.raw import read_text
from dmseg.data.readers import natural_key
from dmseg.errors import UserError

SHAPE = 'expected nnU-Net\'s splits_final.json, one fold per entry: [{"train": [ids], "val": [ids]}, ...]'
_FILE_NAME = re.compile(r"(_\d{4})?(\.nii|\.mha|\.mhd|\.nrrd|\.npz|\.npy|\.png|\.tiff?)(\.gz)?$", re.IGNORECASE)


def read_splits(file: str, cases: Collection[str] | None) -> list[tuple[list[str], list[str]]]:
    """Reads the training and validation cases of each fold, as nnU-Net writes them.

    A fold's training list may leave cases out. The order of ids in a list has no meaning; they are returned sorted.

    Args:
        file: path of the JSON file; ``~`` stands for the home folder.
        cases: ids of all cases of the data set; None to leave out the comparison with them.

    Raises:
        UserError: if the file cannot be read or has another shape, a list is empty or holds a case twice, a case is in
            both lists of a fold or in the validation lists of two folds, or the validation lists do not hold
            exactly these cases.
    """
    where = f"folds.file={file}"
    try:
        node = json.loads(_read_text(file, where), object_pairs_hook=_distinct_keys)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not valid JSON ({error}); {SHAPE}") from None
    if not isinstance(node, list) or not node:
        raise UserError(f"{where} does not hold a list of folds; {SHAPE}")
    folds = [_read_fold(where, number, item) for number, item in enumerate(node)]
    _check_validation(where, [validation for _, validation in folds])
    if cases is not None:
        every = [case for fold in folds for part in fold for case in part]
        _refuse_unknown(where, every, cases)
        listed = {case for _, validation in folds for case in validation}
        if left := sorted(set(cases) - listed, key=natural_key):
            raise UserError(
                f"{where} validates on no fold {some(left)}; every case must be in the val list of one fold"
            )
    return [(sorted(train, key=natural_key), sorted(validation, key=natural_key)) for train, validation in folds]


def read_groups(file: str, cases: Collection[str]) -> dict[str, list[str]]:
    """Reads the group of each case from a CSV file with the columns ``case`` and ``group``; other columns are ignored.

    Args:
        file: path of the file; ``~`` stands for the home folder.
        cases: ids of all cases of the data set.

    Returns:
        The sorted cases of each group, the groups in the order of their first case.

    Raises:
        UserError: if the file cannot be read or lacks a column, a case is unknown, missing or there twice, or has no
            group.
    """
    where = f"folds.groups={file}"
    rows = _read_rows(where, _read_text(file, where))
    _refuse_twice(where, (case for case, _ in rows))
    _refuse_unknown(where, (case for case, _ in rows), cases)
    by_case = dict(rows)
    if left := sorted(set(cases) - set(by_case), key=natural_key):
        raise UserError(f"{where} has no row for {some(left)}; every case needs a group")
    groups: dict[str, list[str]] = {}
    for case in sorted(by_case, key=natural_key):
        groups.setdefault(by_case[case], []).append(case)
    return groups


def _read_rows(where: str, text: str) -> list[tuple[str, str]]:
    expected = f"{where}: the first line must be 'case,group'"
    try:
        lines = [[field.strip() for field in line] for line in csv.reader(text.splitlines(), strict=True)]
    except csv.Error as error:
        raise UserError(f"{where} is not valid CSV ({error}); expected the columns case,group") from None
    lines = [line for line in lines if any(line)]
    if not lines or not {"case", "group"} <= set(lines[0]):
        raise UserError(f"{expected}, but is {_shown(','.join(lines[0]) if lines else '')}")
    case, group = lines[0].index("case"), lines[0].index("group")
    for line in lines[1:]:
        if len(line) != len(lines[0]) or not line[case] or not line[group]:
            raise UserError(f"{where} has the row {_shown(','.join(line))}; every row needs a case and its group")
    return [(line[case], line[group]) for line in lines[1:]]


def _read_fold(where: str, number: int, item: Any) -> tuple[list[str], list[str]]:  # noqa: ANN401
    if not isinstance(item, dict) or set(item) != {"train", "val"}:
        raise UserError(f"{where}: fold {number} does not consist of 'train' and 'val'; {SHAPE}")
    for name, ids in item.items():
        if not isinstance(ids, list) or not all(isinstance(case, str) for case in ids):
            raise UserError(f"{where}: '{name}' of fold {number} is not a list of case ids; {SHAPE}")
        if not ids:
            raise UserError(f"{where}: '{name}' of fold {number} is empty; every fold needs cases in both lists")
        _refuse_twice(f"{where}: '{name}' of fold {number}", ids)
    if both := sorted(set(item["train"]) & set(item["val"]), key=natural_key):
        raise UserError(f"{where}: fold {number} trains and validates on {some(both)}; remove it from one list")
    return item["train"], item["val"]


def _check_validation(where: str, folds: list[list[str]]) -> None:
    first: dict[str, int] = {}
    for number, fold in enumerate(folds):
        for case in fold:
            if case in first:
                raise UserError(
                    f"{where} validates on {some([case])} in the folds {first[case]} and {number}; "
                    "every case must be in the val list of exactly one fold"
                )
            first[case] = number


def _refuse_twice(where: str, ids: Iterable[str]) -> None:
    if twice := [case for case, times in Counter(ids).items() if times > 1]:
        raise UserError(f"{where} lists {some(twice[:1])} twice; list each case once")


def _refuse_unknown(where: str, ids: Iterable[str], cases: Collection[str]) -> None:
    known = set(cases)
    unknown = list(dict.fromkeys(case for case in ids if case not in known))
    if not unknown:
        return
    stem = _FILE_NAME.sub("", re.split(r"[/\\]", unknown[0])[-1])
    if stem != unknown[0] and stem in known:
        raise UserError(f"{where} names files, not cases: write '{stem}' instead of {_shown(unknown[0])}")
    example = min(known, key=natural_key, default="none")
    raise UserError(f"{where} lists {some(unknown)}, not in the data set; its cases are named like '{example}'")


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError(f"one key twice in {[key for key, _ in pairs]!s:.80}")
    return dict(pairs)


def _read_text(file: str, where: str) -> str:
    try:
        return read_text(Path(file).expanduser())
    except UserError as error:
        raise UserError(f"{where} cannot be read: {error}") from None
    except RuntimeError as error:  # an unknown home folder
        raise UserError(f"{where} cannot be read ({error})") from None


def some(cases: Sequence[str], shown: int = 3) -> str:
    """Names the first few of some cases."""
    more = f" and {len(cases) - shown} more" if len(cases) > shown else ""
    return ", ".join(case if len(case) < 80 and case.isprintable() else _shown(case) for case in cases[:shown]) + more


def _shown(text: str) -> str:
    """Text of a file in quotes: shortened, and with nothing in it that a terminal would obey."""
    return repr(text if len(text) < 80 else f"{text[:76]}...")
