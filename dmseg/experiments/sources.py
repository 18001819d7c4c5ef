"""From data settings to a prepared store: phantom made, raw data prepared, folds written, each only where missing."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dmseg.components import bind
from dmseg.data.adapters.volumes import SliceCount, VolumeAdapter
from dmseg.data.case import Adapter, find_task
from dmseg.data.folds import Split, load_folds, make_folds, split
from dmseg.data.prepared import PreparedTask, prepare, store_folder
from dmseg.errors import UserError
from dmseg.settings import DataSettings, FoldSettings, PathSettings, Settings

Notify = Callable[[str], None]

STORE_DEFAULTS = {"dtype": "uint8", "bits": None}
"""Options of data that joined later, with the value that stands for the behaviour before: as such they are no part of
what a store is named by, so that earlier ones are found."""


@dataclass(frozen=True)
class Source:
    """Where the data of one run lie.

    Attributes:
        store: the prepared store's folder.
        digest: of its content.
        split: the fold's cases.
    """

    store: Path
    digest: str
    split: Split


def open_adapter(data: DataSettings) -> Adapter:
    """Builds the adapter of a data set, making its phantom first where that is what the settings ask for.

    Raises:
        UserError: if an option does not fit.
    """
    if data.phantom is not None:
        options = dict(data.phantom)
        bind(options.pop("_target_"), options, where="data.phantom")(Path(data.root))
    adapter: Adapter = bind(data.target, data.options, where="data")(data.root)
    return adapter


def prepare_task(
    data: DataSettings,
    paths: PathSettings,
    name: str | None,
    notify: Notify = lambda text: None,
    workers: int = 1,
) -> PreparedTask:
    """Prepares one task, unless that is done, and opens its store.

    Args:
        data: the data set.
        paths: where stores go.
        name: the task; None where the data set has one only.
        notify: told what is being done.
        workers: number of cases that are read at a time.

    Raises:
        UserError: if the task is unknown, the raw data are missing or damaged, or only labels were asked for.
    """
    if data.labels_only:
        raise UserError("data.labels_only=true counts slices (dmseg prepare) and trains nothing; set it to false")
    adapter = open_adapter(data)
    task = find_task(adapter.tasks, name, data.name)
    chosen = dict(item for item in data.options.items() if item not in STORE_DEFAULTS.items())
    options = json.loads(json.dumps({"adapter": data.target, "size": data.size, **chosen}))
    folder = store_folder(Path(paths.prepared), data.name, task, data.root, data.size, options)
    if prepare(adapter, task, folder, data.size, options, workers):
        notify(f"prepared {data.name}/{task.name} in {folder}")
    return PreparedTask(folder)


def task_names(data: DataSettings, wanted: str | None = None) -> list[str]:
    """All tasks of a data set, or the one that is wanted.

    Raises:
        UserError: if there is no such task.
    """
    tasks = open_adapter(data).tasks
    return list(tasks) if wanted is None else [find_task(tasks, wanted, data.name).name]


def count_target_slices(
    data: DataSettings, name: str | None, folds: FoldSettings, workers: int = 1
) -> tuple[list[SliceCount], list[list[SliceCount]]]:
    """Counts slices with the target from the labels of a data set of volumes alone; images need not be there.

    Returns:
        The counts of all cases, and of each fold's validation cases.

    Raises:
        UserError: if the data set has no volumes, or labels are missing or damaged.
    """
    adapter = open_adapter(data)
    if not isinstance(adapter, VolumeAdapter):
        raise UserError(f"data.labels_only is for volumes, not for data set '{data.name}'; set it to false")
    files = adapter.list_cases(find_task(adapter.tasks, name, data.name).name)
    with ThreadPoolExecutor(workers) as pool:
        counts = list(pool.map(adapter.count_slices, files))
    by_case = {count.case: count for count in counts}
    return counts, [[by_case[case] for case in fold] for fold in make_folds(list(by_case), folds)]


def fold_split(prepared: PreparedTask, folds: FoldSettings, fold: int) -> Split:
    """The cases of one fold of a prepared task. Cases without a slice count in the folds, and are then left out.

    Raises:
        UserError: if there is no such fold, the split cannot be made, or the fold has no case to score or to train on.
    """
    whole = split(load_folds(prepared.folder, prepared.listed, folds), fold)
    there = {case.case for case in prepared.cases}
    train, validation = (tuple(case for case in part if case in there) for part in (whole.train, whole.validation))
    if not train or not validation:
        raise UserError(
            f"fold {fold} of {prepared.folder} has {len(train)} cases to train on, {len(validation)} to score"
        )
    return Split(train, validation)


def open_source(settings: Settings, prepared: PreparedTask) -> Source:
    """The data of one run, from a prepared task."""
    return Source(prepared.folder, prepared.digest, fold_split(prepared, settings.folds, settings.fold))
