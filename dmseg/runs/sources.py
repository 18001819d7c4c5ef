"""From data settings to a prepared store: generates the phantom, prepares raw data and writes folds where missing.

`find_tasks` looks up the same stores without writing anything.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dmseg.activity import track
from dmseg.config.components import bind, resolve
from dmseg.config.settings import DataSettings, FoldSettings, PathSettings, Settings
from dmseg.data.adapters.volume import SliceCount, VolumeAdapter
from dmseg.data.case import Adapter, Task, find_task
from dmseg.data.contract import cases_of, tasks_of
from dmseg.data.folds import Split, find_split, fold_count, load_splits, make_splits
from dmseg.data.integrity import seal_store
from dmseg.data.manifest import SKIPPED
from dmseg.data.prepared import (
    PreparedTask,
    is_current,
    prepare,
)
from dmseg.data.split_files import read_groups
from dmseg.errors import MissingDataError, UserError, some
from dmseg.runs.found_stores import (
    moved_store,
    refuse_damaged,
    source_folder,
    store_options,
    store_place,
    stores_of,
    stores_of_moved_data,
    with_other_stores,
)

Notify = Callable[[str], None]


@dataclass(frozen=True)
class FoundTask:
    """A task that was looked up without preparing anything, which is enough to plan its runs.

    Attributes:
        task: the task.
        folder: path of its prepared store.
        store: the store, or None if it is missing or outdated. Runs can then be counted, but their ids are unknown as
            they depend on the prepared arrays.
    """

    task: Task
    folder: Path
    store: PreparedTask | None

    @property
    def digest(self) -> str:
        """Digest of the store, or a placeholder that is unique to this task and never equals a real digest."""
        return f"not prepared: {self.folder}" if self.store is None else self.store.digest


TaskData = PreparedTask | FoundTask
"""The data that runs are planned for."""


def check_phantom(data: DataSettings) -> bool:
    """Checks the settings of a phantom and the folder for it; writes nothing.

    Returns:
        Whether it would be written.

    Raises:
        UserError: if a setting is out of range, or the folder contains something other than a phantom.
    """
    if data.phantom is None:
        return False
    options = {**data.phantom, "write": False}
    return bool(bind(options.pop("_target_"), options, where="data.phantom")(Path(data.root)))


def open_adapter(data: DataSettings) -> Adapter:
    """Builds the adapter of a data set; generates its phantom first if the settings ask for one.

    Raises:
        UserError: if an option does not fit.
    """
    if data.phantom is not None:
        options = dict(data.phantom)
        bind(options.pop("_target_"), options, where="data.phantom")(Path(data.root))
    return _adapter(data)


def prepare_tasks(
    settings: Settings, notify: Notify = lambda text: None, complete: bool = False
) -> Iterator[PreparedTask]:
    """Prepares the task named in the settings, or else all tasks of the data set one by one, like `prepare_task`.

    With `complete`, what stores of earlier versions lack is added (`dmseg.data.prepared.prepare`).
    """
    adapter, tasks, stores = _open(settings)
    for task in _chosen(tasks, settings):
        yield _prepare(adapter, task, stores, settings, notify, complete)


def prepare_task(settings: Settings, notify: Notify = lambda text: None) -> PreparedTask:
    """Prepares one task unless its store is current, and opens the store.

    If the raw data are missing, a store that was prepared from them is used as it is, and `notify` is called.

    Args:
        settings: settings with the data set and the task, which may be None if the data set has only one.
        notify: called with a message for the user.

    Raises:
        UserError: if the task is unknown, the raw data are missing or damaged, ``data.labels_only`` is set, or the
            store is damaged and the raw data needed to prepare it again are missing.
    """
    adapter, tasks, stores = _open(settings)
    task = find_task(tasks, settings.task, settings.data.name)
    return _prepare(adapter, task, stores, settings, notify, complete=False)


def _open(settings: Settings) -> tuple[Adapter | None, Mapping[str, Task], Mapping[str, PreparedTask]]:
    """The adapter of the data set and its tasks; if the raw data are missing, None and the tasks of their stores."""
    _refuse_labels_only(settings.data)
    try:
        adapter = open_adapter(settings.data)
        return adapter, tasks_of(adapter), {}
    except MissingDataError as error:
        stores = _stores_without_data(settings, settings.task_name, error)
        return None, {name: store.task for name, store in stores.items()}, stores


def _prepare(
    adapter: Adapter | None,
    task: Task,
    stores: Mapping[str, PreparedTask],
    settings: Settings,
    notify: Notify,
    complete: bool,
) -> PreparedTask:
    data, paths = settings.data, settings.paths
    if adapter is not None:
        try:
            folder, options = store_place(data, paths, task)
            folder = moved_store(folder, task, partial(cases_of, adapter, task), options) or folder
            if prepare(adapter, task, folder, data.size, options, settings.workers, complete):
                notify(f"prepared {data.name}/{task.name} in {folder}")
            return PreparedTask(folder)
        except MissingDataError as error:
            stores = _stores_without_data(settings, task.name, error)
    store = stores[task.name]
    seal_store(store.folder)
    notify(_without_raw_data(data, paths, store))
    return store


def _stores_without_data(settings: Settings, name: str | None, error: MissingDataError) -> Mapping[str, PreparedTask]:
    """The stores to use as they are because the raw data are missing.

    Raises:
        MissingDataError: if there is none (of the wanted task, if one is named).
        UserError: if a store is damaged.
    """
    data, paths = settings.data, settings.paths
    # a phantom can be generated again
    stores, damaged = ({}, {}) if data.phantom is not None else stores_of(data, paths)
    refuse_damaged(damaged, name, data)
    stores = stores or stores_of_moved_data(data, paths)
    if not stores or name not in (None, *stores):
        raise with_other_stores(error, data, paths) from None
    return stores


def find_tasks(settings: Settings, notify: Notify = lambda text: None) -> list[FoundTask]:
    """Looks up the prepared store of the task named in the settings, or else of every task; writes nothing.

    Args:
        settings: settings with the data set and optionally the task.
        notify: called with a message for each store that is damaged (and so counts as not prepared) and for each whose
            raw data are missing.

    Raises:
        UserError: if the task is unknown, an option does not fit, the raw data of a store are damaged, or
            ``data.labels_only`` is set.
    """
    data = settings.data
    _refuse_labels_only(data)
    outdated = check_phantom(data) and Path(data.root).exists()  # a phantom of other settings will be generated again
    stores, damaged = ({}, {}) if outdated else stores_of(data, settings.paths)
    for name, error in damaged.items():
        if settings.task_name in (None, name):
            notify(f"{error.fault}; it counts as not prepared")
    adapter = None
    try:
        adapter = _adapter(data)
        tasks = tasks_of(adapter)
    except MissingDataError:
        stores = stores or stores_of_moved_data(data, settings.paths)
        tasks = {name: store.task for name, store in stores.items()} or _unread_tasks(data, settings.task_name)
        if not tasks:
            raise
    found = []
    for task in _chosen(tasks, settings):
        place, options = store_place(data, settings.paths, task)
        store = stores.get(task.name)
        if store is None and adapter is not None and not outdated:  # its raw files may have been elsewhere
            try:
                files = cases_of(adapter, task)  # checks what the adapter lists, also if there is no other store
                moved = moved_store(place, task, partial(list, files), options)
            except MissingDataError:
                store = stores_of_moved_data(data, settings.paths).get(task.name)
            else:
                store = None if moved is None else PreparedTask(moved)
        if store is not None and not _is_current(data, settings.paths, adapter, task, store, notify):
            store = None
        found.append(FoundTask(task, place if store is None else store.folder, store))
    return found


def name_tasks(settings: Settings, notify: Notify = lambda text: None) -> list[FoundTask]:
    """The task named in the settings, or else every task, as if nothing was prepared; neither data nor stores are read.

    The placeholders in the ids of their runs depend on the settings of the data set.

    Raises:
        UserError: if the task is unknown or an option does not fit.
    """
    data = settings.data
    try:
        tasks = tasks_of(_adapter(data))
    except MissingDataError:
        tasks = _unread_tasks(data, settings.task_name)
        if not tasks:
            raise
    return [FoundTask(task, store_place(data, settings.paths, task)[0], None) for task in _chosen(tasks, settings)]


def count_target_slices(
    data: DataSettings, name: str | None, folds: FoldSettings, workers: int = 1
) -> tuple[list[SliceCount], list[list[SliceCount]]]:
    """Counts the slices that contain the target, from labels alone; the images of the volumes may be missing.

    Returns:
        The counts of all cases, and of each fold's validation cases.

    Raises:
        UserError: if the data set has no volumes, or labels are missing or damaged.
    """
    adapter = open_adapter(data)
    if not isinstance(adapter, VolumeAdapter):
        raise UserError(f"data.labels_only is for volumes, not for data set '{data.name}'; set it to false")
    files = cases_of(adapter, find_task(tasks_of(adapter), name, data.name))
    with ThreadPoolExecutor(workers) as pool:
        counts = list(track(pool.map(adapter.count_slices, files), "counting slices", len(files), "cases"))
    by_case = {count.case: count for count in counts}
    return counts, [[by_case[case] for case in fold.validation] for fold in make_splits(list(by_case), folds)]


def say_without_slices(store: PreparedTask) -> str:
    """Says which cases have no slices and why, for a message."""
    faulty = store.manifest.get(SKIPPED, [])
    empty = [case for case in store.without_slices if case not in faulty]
    said = [
        f"{len(cases)} of {len(store.listed)} cases {one if len(cases) == 1 else several} {reason} ({some(cases)})"
        for cases, one, several, reason in (
            (empty, "has", "have", "no slices to keep"),
            (faulty, "was", "were", "skipped because of a fault"),
        )
        if cases
    ]
    return " and ".join(said)


def fold_split(data: TaskData, folds: FoldSettings, fold: int) -> Split:
    """The cases of one fold of a task. Cases without slices take part in the split and are removed afterwards.

    The split of a prepared task is stored with it when it is first needed. The cases of a task without a store are
    unknown, so placeholders are returned.

    Raises:
        UserError: if there is no such fold, the split cannot be made, or the fold has no case to score or to train on.
    """
    store = data.store if isinstance(data, FoundTask) else data
    if store is None:
        return find_split([Split(("others",), (f"fold {k}",)) for k in range(fold_count(folds))], fold)
    whole = find_split(load_splits(store.folder, store.listed, folds, write=store is data), fold)
    cases = {case.case for case in store.cases}
    train, validation = (tuple(case for case in part if case in cases) for part in (whole.train, whole.validation))
    if not train or not validation:
        raise UserError(
            f"fold {fold} of {store.folder} has {len(train)} cases to train on, {len(validation)} to score: "
            f"{say_without_slices(store)}; choose other folds (folds.count, folds.kind), or remove these cases"
        )
    return Split(train, validation)


def case_groups(data: TaskData, folds: FoldSettings) -> list[list[str]] | None:
    """The cases of each group that folds keep together; None without ``folds.groups``, or if the cases are unknown.

    Raises:
        UserError: if the file of groups cannot be read or does not fit the cases.
    """
    store = data.store if isinstance(data, FoundTask) else data
    if store is None or folds.groups is None:
        return None
    return list(read_groups(folds.groups, store.listed).values())


def _adapter(data: DataSettings) -> Adapter:
    adapter: Adapter = bind(data.target, data.options, where="data")(data.root)
    return adapter


def _chosen(tasks: Mapping[str, Task], settings: Settings) -> list[Task]:
    """The task named in the settings, or else all tasks of a data set."""
    if settings.task is None:
        return list(tasks.values())
    return [find_task(tasks, settings.task, settings.data.name)]


def _unread_tasks(data: DataSettings, name: str | None) -> dict[str, Task]:
    """A placeholder for the task of a data set whose missing files would name it; empty if the adapter has none."""
    task: Task | None = getattr(resolve(data.target, "data"), "unread_task", None)
    if task is None:
        return {}
    name = name or task.name
    return {name: replace(task, name=name)}


def _is_current(
    data: DataSettings, paths: PathSettings, adapter: Adapter | None, task: Task, store: PreparedTask, notify: Notify
) -> bool:
    """Whether a store matches the raw data; without raw data it counts as current."""
    try:
        if adapter is not None:
            return is_current(store.folder, task, cases_of(adapter, task), store_options(data))
    except MissingDataError:
        pass
    if data.phantom is None:
        notify(_without_raw_data(data, paths, store))
    return True


def _without_raw_data(data: DataSettings, paths: PathSettings, store: PreparedTask) -> str:
    moved = store.folder != store_place(data, paths, store.task)[0]
    origin = f", which was prepared from {source_folder(store)}" if moved else ""
    return f"{data.name}/{store.task.name}: raw data not found; using the prepared store {store.folder}{origin}"


def _refuse_labels_only(data: DataSettings) -> None:
    if data.labels_only:
        raise UserError("data.labels_only=true only counts slices (dmseg prepare); set it to false to train")
