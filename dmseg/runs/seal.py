"""Folders sealed by a file of checksums, ``DONE``, their damage, and JSON files that are checked when they are read."""

import errno
import hashlib
import json
import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dmseg.errors import UserError
from dmseg.files.names import is_id
from dmseg.files.regular import checksum, checksums, copy_regular, inside
from dmseg.files.schema import GROUP, Check
from dmseg.files.schema import read_json as read_checked
from dmseg.runs.records import SCHEMAS, SEAL, SmallFiles, check_run

DONE = "DONE"
SMALL_FILES = ("config.json", "manifest.json", "history.csv", "cases.csv", "evaluation.json", "counts.npz", "pack.npz")
"""Files that are checked whenever a run is used; weights and predictions are checked when they are read."""


def repair_advice(folder: Path) -> str:
    """What to do about a damaged run whose folder, or a folder within it, is given."""
    runs = next((parent for parent in folder.parents if parent.name == "runs"), None)
    where = "" if runs is None else f" {shlex.quote(f'paths.results={runs.parent}')}"
    command = f"'dmseg runs verify aside=true{where}'"
    return f"run {command} to set damaged runs aside, then repeat the original command to compute them again"


class DamagedError(UserError):
    """A stored file is missing or has changed."""


def write_json(path: Path, node: dict[str, Any]) -> None:
    """Writes a JSON file."""
    path.write_text(json.dumps(node, indent=1, sort_keys=True) + "\n")


def read_json(folder: Path, name: str, check: Check | None = None) -> dict[str, Any]:
    """Reads a JSON file of a run and checks what it holds.

    Args:
        folder: the run's folder, or one within it.
        name: name of the file.
        check: its schema; by default the one for its name.

    Raises:
        DamagedError: if it is missing, damaged, a link, or does not fit the schema.
    """
    path = folder / name
    try:
        node: dict[str, Any] = read_checked(inside(folder, name), check or SCHEMAS.get(name, GROUP))
    except FileNotFoundError:
        raise DamagedError(f"{path} is missing; {repair_advice(folder)}") from None
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path} is damaged ({in_words(error)}); {repair_advice(folder)}") from None
    return node


def in_words(error: Exception) -> str:
    """The message of an error, with only the last part of a path."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return f"{Path(str(error.filename)).name}: {error.strerror}" if error.filename else error.strerror


def seal(folder: Path) -> None:
    """Writes ``DONE`` with the checksums of all files in a folder."""
    write_json(folder / DONE, checksums(folder))


def read_seal(folder: Path) -> dict[str, str]:
    """Reads the checksums of a sealed folder, by file name.

    Raises:
        DamagedError: if they are missing or damaged, so that no file of the folder can be trusted.
    """
    return read_json(folder, DONE, SEAL)


def copy_files(source: Path, names: Iterable[str], folder: Path) -> None:
    """Copies the named files of a folder, but never its seal.

    Raises:
        OSError: if a file is missing, a link, or cannot be written.
    """
    for name in names:
        if name != DONE:
            (folder / name).parent.mkdir(exist_ok=True)
            copy_regular(inside(source, name), folder / name)


def differs(folder: Path, name: str, known: str, read: SmallFiles | None = None) -> list[str]:
    """The fault of a stored file, as a list of one line; empty if there is none.

    Args:
        folder: the sealed folder.
        name: path of the file in it.
        known: its checksum in the seal.
        read: reads it whole, and keeps it, if it is not too large; None to read it in parts.
    """
    path = folder / name
    try:
        found = None
        if read is not None:
            try:
                found = hashlib.sha256(read(folder, name)).hexdigest()
            except OSError as error:
                if error.errno != errno.EFBIG:
                    raise
        found = found or checksum(inside(folder, name), follow=False)
        return [] if found == known else [f"{path} is damaged: its checksum differs"]
    except OSError as error:
        return [f"{path} cannot be read: {error.strerror}"]


def additions_of(folder: Path, known: Mapping[str, str]) -> list[Path]:
    """`RunStore.additions` of a run's folder with these checksums."""
    evaluations, predictions = folder / "evaluations", folder / "predictions"
    if evaluations.is_symlink():
        raise DamagedError(f"{evaluations} is damaged (it is a link); {repair_advice(folder)}")
    found = evaluations.iterdir() if evaluations.is_dir() else ()
    later = sorted(path for path in found if is_id(path.name) and path.is_dir())
    with_run = any(name.startswith("predictions/") for name in known)
    return later if with_run or not predictions.is_dir() else [*later, predictions]


def faults_of(folder: Path, run_id: str, every_file: bool, read: SmallFiles) -> list[str]:
    """`RunStore.damage` of a run's folder; `read` keeps the small files that were compared with their checksums."""
    try:
        own = read_seal(folder)
        additions = additions_of(folder, own)
        seals = {folder: own, **{place: read_seal(place) for place in additions}}
    except DamagedError as error:
        return [str(error).removesuffix(f"; {repair_advice(folder)}")]
    found = []
    for place, known in seals.items():
        unknown = [file for file in SMALL_FILES if file not in known and os.path.lexists(place / file)]
        found += [f"{place / DONE} has no checksum of {file}" for file in unknown]
        for file in known:
            small = file.rpartition("/")[2] in SMALL_FILES
            if every_file or small:
                found += differs(place, file, known[file], read if small else None)
    if found:
        return found
    try:
        check_run(folder, run_id, [place for place in additions if is_id(place.name)], read)
    except (OSError, ValueError) as error:
        return [f"{folder} is damaged: {in_words(error)}"]
    return []
