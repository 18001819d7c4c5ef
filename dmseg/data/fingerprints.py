"""Fingerprints of raw files: whether they are still what a prepared store was made from."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dmseg.data.case import CaseFiles
from dmseg.data.raw import is_file
from dmseg.data.sealed_json import MAX_BYTES, parse_json
from dmseg.errors import UserError
from dmseg.files.atomic import write_whole
from dmseg.files.regular import checksum, read_regular


def paths(files: CaseFiles) -> list[str]:
    """Absolute paths of a case's files."""
    return [str(path.absolute()) for path in files.files]


def missing_files(cases: list[CaseFiles]) -> list[Path]:
    """Files of some cases that are missing.

    Raises:
        UserError: if there is something else than a regular file in a file's place, or it cannot be looked at.
    """
    return [path for case in cases for path in case.files if not is_file(path)]


def fingerprints(files: CaseFiles) -> dict[str, Any]:
    """Fingerprint of each file of a case by its absolute path; None for a missing one, or no regular file.

    Raises:
        UserError: if a file is there but cannot be read.
    """
    return {str(path.absolute()): _fingerprint(path) for path in files.files}


def unchanged(path: Path, then: dict[str, Any] | None, times: dict[str, Any] | None = None) -> bool:
    """Whether a file is as its fingerprint says: same size, and same time or same checksum.

    Args:
        path: the file.
        then: its fingerprint; None if it was missing.
        times: for each file that was compared by its checksum before, the time it had, and the checksum; a file
            whose checksum has to be compared now is added.

    Raises:
        UserError: if the file is there but cannot be read.
    """
    with _reading(path):
        if then is None or not path.is_file():
            return then is None and not path.is_file()
        status = path.stat()
        if status.st_size != then["size"]:
            return False
        now = [status.st_mtime_ns, then["sha256"]]
        if status.st_mtime_ns == then["mtime_ns"] or (times or {}).get(str(path.absolute())) == now:
            return True
        if checksum(path) != then["sha256"]:
            return False
    if times is not None:
        times[str(path.absolute())] = now
    return True


def all_unchanged(cases: list[CaseFiles], sources: dict[str, Any], memory: Path) -> bool:
    """Whether all files of some cases are as their fingerprints say.

    Copies of the data may have other times than the files had when they were prepared. Their content is compared once:
    the times are kept in a file of their own, whose loss costs time only.

    Args:
        cases: the cases.
        sources: the fingerprints, by absolute path.
        memory: the file that keeps the times; where it cannot be written, nothing is kept.
    """
    times = _read_times(memory)
    before = dict(times)
    same = all(unchanged(path, sources.get(str(path.absolute())), times) for case in cases for path in case.files)
    if times != before:
        with suppress(OSError):
            write_whole(memory, json.dumps(times))
    return same


def _read_times(memory: Path) -> dict[str, Any]:
    try:
        times = parse_json(read_regular(memory, MAX_BYTES))
    except (OSError, ValueError):
        return {}
    return times if isinstance(times, dict) else {}


def _fingerprint(path: Path) -> dict[str, Any] | None:
    with _reading(path):
        if not path.is_file():  # a pipe or a device has no content that could be compared
            return None
        status = path.stat()
        return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": checksum(path)}


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
