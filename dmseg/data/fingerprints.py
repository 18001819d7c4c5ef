"""Fingerprints of raw files, which tell whether a prepared store is still up to date."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dmseg.activity import track
from dmseg.data.case import CaseFiles
from dmseg.data.raw import is_file
from dmseg.data.sealed_json import MAX_BYTES
from dmseg.errors import UserError
from dmseg.files.atomic import write_whole
from dmseg.files.regular import checksum, read_regular
from dmseg.files.schema import parse_json


def paths(files: CaseFiles) -> list[str]:
    """Absolute paths of a case's files."""
    return [str(path.absolute()) for path in files.files]


def missing_files(cases: list[CaseFiles]) -> list[Path]:
    """Lists the missing files of some cases.

    Raises:
        UserError: if a path is not a regular file, or cannot be accessed.
    """
    return [path for case in cases for path in case.files if not is_file(path)]


def fingerprints(files: CaseFiles) -> dict[str, Any]:
    """Fingerprint of each file of a case by its absolute path; None if it is missing or not a regular file.

    Raises:
        UserError: if a file exists but cannot be read.
    """
    found: dict[str, Any] = {}
    for path, name in zip(files.files, paths(files), strict=True):
        with _reading(path):
            found[name] = None
            if path.is_file():  # a pipe or a device has no content to compare
                status = path.stat()
                found[name] = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": checksum(path)}
    return found


def former_paths(cases: list[CaseFiles], known: list[Any]) -> dict[str, str] | None:
    """The path that each file had when a store was prepared, by the path it has now.

    Both are the same unless the data were moved, copied, mounted elsewhere, or are read through a link.

    Args:
        cases: the cases now.
        known: id and absolute paths of each case then.

    Returns:
        None unless cases and files are the same, up to the folder that contains all of them.
    """
    now = [[case.case, paths(case)] for case in cases]
    if now == known:
        return {path: path for _, found in now for path in found}
    if [(case, len(found)) for case, found in now] != [(case, len(found)) for case, found in known]:
        return None
    pairs = list(zip(*([path for _, found in each for path in found] for each in (now, known)), strict=True))
    try:
        here, there = (common_folder(list(side)) for side in zip(*pairs, strict=True))
    except ValueError:  # no files, or paths of another system
        return None
    same = all(os.path.relpath(path, here) == os.path.relpath(former, there) for path, former in pairs)
    return dict(pairs) if same else None


def common_folder(files: Sequence[str]) -> str:
    """The folder that contains all of these files.

    Raises:
        ValueError: if there is none.
    """
    return os.path.commonpath([os.path.dirname(path) for path in files])


def unchanged(
    path: Path, then: dict[str, Any] | None, times: dict[str, Any] | None = None, moved: bool = False
) -> bool:
    """Whether a file still matches its fingerprint: same size, and same time or same checksum.

    Args:
        path: the file.
        then: its fingerprint; None if it was missing.
        times: time and checksum of each file whose checksum was compared before; a file whose checksum is compared
            now is added.
        moved: whether it had another path then; the same time then means nothing, as archives may set all times alike.

    Raises:
        UserError: if the file exists but cannot be read.
    """
    with _reading(path):
        if then is None or not path.is_file():
            return then is None and not path.is_file()
        status = path.stat()
        if status.st_size != then["size"]:
            return False
        now = [status.st_mtime_ns, then["sha256"]]
        if (status.st_mtime_ns == then["mtime_ns"] and not moved) or (times or {}).get(str(path.absolute())) == now:
            return True
        if checksum(path) != then["sha256"]:
            return False
    if times is not None:
        times[str(path.absolute())] = now
    return True


def all_unchanged(cases: list[CaseFiles], sources: dict[str, Any], memory: Path, former: dict[str, str]) -> bool:
    """Whether all files of some cases still match their fingerprints.

    Copied data may have different times from the files that were prepared, moved data different paths. Their content is
    compared once, and the times are kept in a separate file; without it they are only compared again.

    Args:
        cases: the cases.
        sources: the fingerprints, by absolute path when they were made.
        memory: the file that keeps the times; if it cannot be written, nothing is kept.
        former: the path that each file had then, by its absolute path (`former_paths`).
    """
    try:
        found = parse_json(read_regular(memory, MAX_BYTES))
    except (OSError, ValueError):
        found = {}
    times: dict[str, Any] = found if isinstance(found, dict) else {}
    before = dict(times)
    tracked = track(cases, "comparing raw files", len(cases), "cases")
    files = ((path, str(path.absolute())) for case in tracked for path in case.files)
    same = all(unchanged(path, sources.get(former[now]), times, former[now] != now) for path, now in files)
    if times != before:
        with suppress(OSError):
            write_whole(memory, json.dumps(times))
    return same


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
