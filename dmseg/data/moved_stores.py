"""Finds stores of raw data that are now in another folder: moved projects, links, other mount points."""

from pathlib import Path
from typing import Any

from dmseg.data.case import CaseFiles, Task
from dmseg.data.fingerprints import common_folder
from dmseg.data.prepared import KEY_LENGTH, REVISION, PreparedTask, is_current
from dmseg.errors import UserError


def other_stores(own: Path, options: dict[str, Any]) -> list[PreparedTask]:
    """Intact stores beside `own` that were prepared with the same options from another folder.

    Args:
        own: the folder of a store (`store_folder`); with ``*`` in place of the task, for those of all tasks.
        options: everything else that the arrays depend on.
    """
    name, key = own.name[:-KEY_LENGTH], own.name[-KEY_LENGTH:]
    found = []
    for folder in sorted(own.parent.glob(f"{name}{'[0-9a-f]' * KEY_LENGTH}")):
        try:
            store = PreparedTask(folder)
        except (OSError, UserError):  # damaged, or no store
            continue
        fits = store.manifest["revision"] == REVISION and store.manifest["options"] == options
        if fits and not folder.name.endswith(key):
            found.append(store)
    return found


def source_folder(store: PreparedTask) -> str:
    """The folder that contained all raw files of a store when it was prepared, for messages."""
    try:
        return common_folder(list(store.manifest["sources"]))
    except ValueError:
        return "an unknown folder"


def moved_store(own: Path, task: Task, files: list[CaseFiles], options: dict[str, Any]) -> Path | None:
    """The store of the same raw files when they were in another folder; None if there is none, or `own` exists."""
    if own.exists():
        return None
    others = (store.folder for store in other_stores(own, options))
    return next((folder for folder in others if is_current(folder, task, files, options)), None)
