"""Finds the prepared stores of a data set, even if its raw data have been moved, linked or mounted elsewhere."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dmseg.config.code_version import code_version
from dmseg.config.settings import DataSettings, PathSettings
from dmseg.data.case import CaseFiles, Task
from dmseg.data.fingerprints import common_folder
from dmseg.data.prepared import KEY_LENGTH, REVISION, PreparedTask, is_current, store_folder
from dmseg.errors import DamagedStoreError, MissingDataError, UserError

STORE_DEFAULTS = {"dtype": "uint8", "bits": None}
"""Data options added later, each with the value that means the earlier behaviour. An option with this value is left out
of a store's name, so that stores from before are still found."""

LIMITS = ("max_gib",)
"""Data options that only limit what is accepted; the prepared arrays do not depend on them."""

ANY = Task("*", "", "", ())
"""Takes the place of a task in the names of stores of all tasks."""
Stores = tuple[dict[str, PreparedTask], dict[str, DamagedStoreError]]
"""The stores of a data set by task, and the errors of those that are damaged."""


def named_options(data: DataSettings) -> dict[str, Any]:
    """The options of the data set that determine the name of a store's folder."""
    chosen = {
        name: value
        for name, value in data.options.items()
        if name not in LIMITS and (name, value) not in STORE_DEFAULTS.items()
    }
    options: dict[str, Any] = json.loads(json.dumps({"adapter": data.target, "size": data.size, **chosen}))
    return options


def store_options(data: DataSettings) -> dict[str, Any]:
    """What a store's arrays depend on besides the raw data, as recorded in its manifest."""
    code = code_version(data.target)  # not in the folder's name, so that a new store replaces one of older code
    return named_options(data) | ({} if code == 1 else {"code": code})


def store_place(data: DataSettings, paths: PathSettings, task: Task) -> tuple[Path, dict[str, Any]]:
    """A task's store folder and options."""
    folder = store_folder(Path(paths.prepared), data.name, task, data.root, data.size, named_options(data))
    return folder, store_options(data)


def stores_of(data: DataSettings, paths: PathSettings) -> Stores:
    """The stores that were prepared from the data set's folder with its options, current or not."""
    place, options = store_place(data, paths, ANY)
    found, damaged = {}, {}
    for folder in sorted(place.parent.glob(place.name)):
        name = folder.name.removesuffix(place.name[1:])
        try:
            store = PreparedTask(folder)
            if store.task.name != name:
                raise DamagedStoreError(f"{folder} holds the store of task {store.task.name}")
            if store.manifest["revision"] == REVISION and store.manifest["options"] == options:
                found[name] = store
        except DamagedStoreError as error:
            damaged[name] = error
        except UserError:  # a folder that holds no store
            continue
    return found, damaged


def refuse_damaged(damaged: Mapping[str, DamagedStoreError], task: str | None, data: DataSettings) -> None:
    """Refuses a damaged store of the given task (of any task if None) when its raw data are missing."""
    for name, error in damaged.items():
        if task in (None, name):
            raise UserError(
                f"{error.fault}\nthe raw data to prepare it again are not in {data.root}: put them there, or restore "
                "the file from a copy of the store"
            )


def stores_of_moved_data(data: DataSettings, paths: PathSettings) -> dict[str, PreparedTask]:
    """Stores by task for a `data.root` without raw data, as in a project that was moved or copied without them.

    They were prepared with the same options from another folder that had the name of `data.root`, or was in a folder of
    this name; a store of other data is thus not taken because of a misspelt path. There are none of a phantom, which
    can be generated again.

    Raises:
        UserError: if there are several of a task.
    """
    found: dict[str, PreparedTask] = {}
    for store in _stores_from_elsewhere(data, paths):
        if Path(data.root).absolute().name not in Path(source_folder(store)).parts:
            continue
        name = store.task.name
        if name in found:
            raise UserError(
                f"there are no raw data in {data.root}, and two stores of {data.name}/{name} were prepared from other "
                f"folders: {found[name].folder} from {source_folder(found[name])}, {store.folder} from "
                f"{source_folder(store)}; set data.root to the folder of the right one"
            )
        found[name] = store
    return found


def _stores_from_elsewhere(data: DataSettings, paths: PathSettings) -> list[PreparedTask]:
    return [] if data.phantom is not None else other_stores(*store_place(data, paths, ANY))


def with_other_stores(error: MissingDataError, data: DataSettings, paths: PathSettings) -> MissingDataError:
    """Adds to an error on missing raw data where a store that could be used without them was prepared from."""
    others = [
        f"{store.folder} was prepared from {source_folder(store)}" for store in _stores_from_elsewhere(data, paths)
    ]
    if not others:
        return error
    return MissingDataError(
        f"{error}\nto use a prepared store, set data.root to where its data were: {'; '.join(others)}"
    )


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


def moved_store(
    own: Path, task: Task, list_files: Callable[[], list[CaseFiles]], options: dict[str, Any]
) -> Path | None:
    """The store of the same raw files when they were in another folder; None if there is none, or `own` exists."""
    if own.exists():
        return None
    others = [store.folder for store in other_stores(own, options)]
    files = list_files() if others else []
    return next((folder for folder in others if is_current(folder, task, files, options)), None)
