"""Verifies prepared stores: reads and compares every byte, regardless of file times."""

import re
from collections.abc import Iterator
from pathlib import Path

from dmseg.data.fold_files import compare_with_seal, read_split_file, split_files
from dmseg.data.integrity import is_sealed, read_store
from dmseg.data.listing import folders
from dmseg.errors import UserError

_STORE = re.compile(r"(?P<task>.+)-\d+-[0-9a-f]{8}")


def find_stores(parent: Path, data: str | None = None, task: str | None = None) -> Iterator[Path]:
    """Yields the folders of prepared stores, damaged or not.

    Args:
        parent: folder of the prepared stores.
        data: name of a data set; None for all.
        task: name of a task; None for all.

    Raises:
        UserError: if a folder cannot be listed.
    """
    for place in folders(parent):
        for folder in folders(place) if data in (None, place.name) else []:
            found = _STORE.fullmatch(folder.name)
            if found and task in (None, found["task"]):
                yield folder


def verify_store(folder: Path) -> list[str]:
    """Compares all files of a store with their seals, and the arrays also with the SHA-256 in the manifest.

    Returns:
        One line for each file that is damaged; empty if none is.
    """
    faults = []
    try:
        read_store(folder, thorough=True)
    except UserError as error:
        faults.append(getattr(error, "fault", str(error)))
    for path in split_files(folder):
        try:
            compare_with_seal(path, read_split_file(path), write=False)
        except UserError as error:
            faults.append(str(error).replace("\n", " "))
    return faults


def describe_store(folder: Path) -> str:
    """Says whether an intact store is sealed."""
    return (
        "intact"
        if is_sealed(folder)
        else "intact, no checksums yet (written by an earlier version; training adds them)"
    )
