"""Split files: those of a store, and the user's own (nnU-Net's ``splits_final.json``), also with groups of cases.

A store's split file is written once and sealed by a file beside it that contains its SHA-256. A split file without a
seal was written by an earlier version, or its writer was killed: the next reader adds the seal. So file and seal need
not be written together, and every reader sees the same split.
"""

import csv
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from dmseg.data.raw import read_json, read_text
from dmseg.data.readers import natural_key
from dmseg.errors import UserError, shown, some
from dmseg.files.atomic import create_file, writing
from dmseg.files.names import expand_home
from dmseg.files.regular import read_regular

SHAPE = 'expected nnU-Net\'s splits_final.json, one fold per entry: [{"train": [ids], "val": [ids]}, ...]'
_FILE_NAME = re.compile(r"(_\d{4})?(\.nii|\.mha|\.mhd|\.nrrd|\.npz|\.npy|\.png|\.tiff?)(\.gz)?$", re.IGNORECASE)
MAX_BYTES = 64 << 20
"""Largest split file that is read."""

Content = TypeVar("Content")


def read_splits(file: str, cases: Collection[str] | None) -> list[tuple[list[str], list[str]]]:
    """Reads the training and validation cases of each fold, as nnU-Net writes them.

    A fold's training list may omit cases. The order of ids in a list does not matter; they are returned sorted.

    Args:
        file: path of the JSON file; ``~`` means the home folder.
        cases: ids of all cases of the data set; None to skip the comparison with them.

    Raises:
        UserError: if the file cannot be read or has another structure, a list is empty or names a case twice, a case is
            in both lists of a fold or in the validation lists of two folds, or the validation lists together do not
            contain exactly these cases.
    """
    where = f"folds.file={file}"
    node = _read(file, where, lambda path: read_json(path, distinct=True))
    if not isinstance(node, list) or not node:
        raise UserError(f"{where} does not contain a list of folds; {SHAPE}")
    folds: list[tuple[list[str], list[str]]] = []
    for number, item in enumerate(node):
        if not isinstance(item, dict) or set(item) != {"train", "val"}:
            raise UserError(f"{where}: fold {number} must have the keys 'train' and 'val'; {SHAPE}")
        for name, ids in item.items():
            if not isinstance(ids, list) or not all(isinstance(case, str) for case in ids):
                raise UserError(f"{where}: '{name}' of fold {number} is not a list of case ids; {SHAPE}")
            if not ids:
                raise UserError(f"{where}: '{name}' of fold {number} is empty; every fold needs cases in both lists")
            _refuse_twice(f"{where}: '{name}' of fold {number}", ids)
        if both := sorted(set(item["train"]) & set(item["val"]), key=natural_key):
            raise UserError(f"{where}: fold {number} has {some(both)} in both lists; remove it from one of them")
        folds.append((item["train"], item["val"]))
    first: dict[str, int] = {}
    for number, (_, validation) in enumerate(folds):
        for case in validation:
            if case in first:
                raise UserError(
                    f"{where} validates on {some([case])} in folds {first[case]} and {number}; "
                    "every case must be in the val list of exactly one fold"
                )
            first[case] = number
    if cases is not None:
        every = [case for fold in folds for part in fold for case in part]
        _refuse_unknown(where, every, cases)
        if left := sorted(set(cases) - set(first), key=natural_key):
            raise UserError(
                f"{where} does not validate on {some(left)}; every case must be in the val list of one fold"
            )
    return [(sorted(train, key=natural_key), sorted(validation, key=natural_key)) for train, validation in folds]


def read_groups(file: str, cases: Collection[str]) -> dict[str, list[str]]:
    """Reads the group of each case from a CSV file with the columns ``case`` and ``group``; other columns are ignored.

    Args:
        file: path of the file; ``~`` means the home folder.
        cases: ids of all cases of the data set. Rows of other cases are ignored, so that one file may serve several
            tasks or a choice of cases.

    Returns:
        The sorted cases of each group; groups are in the order of their first case.

    Raises:
        UserError: if the file cannot be read or lacks a column, or a case is missing, listed twice or without a group.
    """
    where = f"folds.groups={file}"
    text = _read(file, where, read_text)
    try:
        lines = [[field.strip() for field in line] for line in csv.reader(text.splitlines(), strict=True)]
    except csv.Error as error:
        raise UserError(f"{where} is not valid CSV ({error}); expected the columns case,group") from None
    lines = [line for line in lines if any(line)]
    if not lines or not {"case", "group"} <= set(lines[0]):
        titles = ",".join(lines[0]) if lines else ""
        raise UserError(f"{where}: the first line must be 'case,group', but is {shown(titles)}")
    of_case, of_group = lines[0].index("case"), lines[0].index("group")
    rows = []
    for line in lines[1:]:
        if len(line) != len(lines[0]) or not line[of_case] or not line[of_group]:
            raise UserError(f"{where} has the row {shown(','.join(line))}; every row needs a case and a group")
        rows.append((line[of_case], line[of_group]))
    _refuse_twice(where, (case for case, _ in rows))
    known = set(cases)
    by_case = {case: group for case, group in rows if case in known}
    if not by_case:  # names the first rows
        _refuse_unknown(where, (case for case, _ in rows), cases)
    _refuse_file_names(where, (case for case, _ in rows), cases)
    if left := sorted(set(cases) - set(by_case), key=natural_key):
        raise UserError(f"{where} has no row for {some(left)}; every case needs a group")
    groups: dict[str, list[str]] = {}
    for case in sorted(by_case, key=natural_key):
        groups.setdefault(by_case[case], []).append(case)
    return groups


def read_split_file(path: Path) -> bytes:
    """Reads a split file.

    Raises:
        UserError: if it is not a regular file, cannot be read, or is too large.
    """
    try:
        return read_regular(path, MAX_BYTES)
    except OSError as error:
        raise UserError(
            f"{path} is damaged ({error.strerror or error}); restore it, or delete it to make a new split"
        ) from None


def compare_with_seal(path: Path, content: bytes, write: bool) -> None:
    """Compares the content of a split file with its seal.

    Args:
        path: the file.
        content: its content.
        write: whether to write a missing seal, if the store can be written to.

    Raises:
        UserError: if the file has changed since it was sealed.
    """
    seal, text = seal_of(path), f"{hashlib.sha256(content).hexdigest()}  {path.name}\n"
    if not os.path.lexists(seal):
        if write:
            with suppress(OSError):
                create_file(seal, text)
        return
    try:
        same = read_regular(seal, 1024) == text.encode()
    except OSError:
        same = False
    if not same:
        raise UserError(
            f"{path} has been edited or damaged: {seal.name} has a different checksum; restore the file,\n"
            f"delete it to make a new split, or delete {seal.name} to use the split as it is now"
        )


def seal_of(path: Path) -> Path:
    """The seal of a split file."""
    return path.with_name(f"{path.name}.sha256")


def write_split_file(path: Path, text: str) -> None:
    """Writes a split file atomically unless it exists; if several processes try, the first one's file stays.

    Raises:
        UnwritableError: if the store cannot be written to.
    """
    with writing(path):
        seal_of(path).unlink(missing_ok=True)  # left by a deleted file; remove it before the new file appears
        create_file(path, text)


def split_files(folder: Path) -> list[Path]:
    """Split files of a store."""
    return sorted(folder.glob("folds-*.json"))


def copy_split_files(store: Path, folder: Path) -> None:
    """Copies split files and their seals to another folder; skips what is not a regular file."""
    for path in split_files(store):
        for source in (path, seal_of(path)):
            try:
                content = read_regular(source, MAX_BYTES)
            except OSError:
                continue
            (folder / source.name).write_bytes(content)


def _refuse_twice(where: str, ids: Iterable[str]) -> None:
    if twice := [case for case, times in Counter(ids).items() if times > 1]:
        raise UserError(f"{where} lists {some(twice[:1])} twice; list each case once")


def _refuse_file_names(where: str, ids: Iterable[str], cases: Collection[str]) -> None:
    known = set(cases)
    for name in ids:
        stem = _FILE_NAME.sub("", re.split(r"[/\\]", name)[-1])
        if name not in known and stem in known:
            raise UserError(f"{where} names files instead of cases: write '{stem}', not {shown(name)}")


def _refuse_unknown(where: str, ids: Iterable[str], cases: Collection[str]) -> None:
    known = set(cases)
    unknown = list(dict.fromkeys(case for case in ids if case not in known))
    if not unknown:
        return
    _refuse_file_names(where, unknown[:1], cases)
    example = min(known, key=natural_key, default="none")
    raise UserError(
        f"{where} lists {some(unknown)}, which the data set does not have; its cases have names like '{example}'"
    )


def _read(file: str, where: str, read: Callable[[Path], Content]) -> Content:
    try:
        return read(Path(expand_home(file, "the path")))
    except UserError as error:
        raise UserError(f"{where} cannot be read: {error}") from None
