"""From data settings to a prepared store: phantom made, raw data prepared, folds written, each only where missing."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dmseg.components import bind
from dmseg.data.case import Adapter, find_task
from dmseg.data.folds import Split, load_folds, split
from dmseg.data.prepared import PreparedTask, prepare, store_folder
from dmseg.settings import DataSettings, FoldSettings, PathSettings, Settings

Notify = Callable[[str], None]


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
    data: DataSettings, paths: PathSettings, name: str | None, notify: Notify = lambda text: None
) -> PreparedTask:
    """Prepares one task, unless that is done, and opens its store.

    Args:
        data: the data set.
        paths: where stores go.
        name: the task; None where the data set has one only.
        notify: told what is being done.

    Raises:
        UserError: if the task is unknown or the raw data are missing or damaged.
    """
    adapter = open_adapter(data)
    task = find_task(adapter.tasks, name, data.name)
    options = json.loads(json.dumps({"adapter": data.target, "size": data.size, **data.options}))
    folder = store_folder(Path(paths.prepared), data.name, task, data.root, data.size, options)
    if prepare(adapter, task, folder, data.size, options):
        notify(f"prepared {data.name}/{task.name} in {folder}")
    return PreparedTask(folder)


def task_names(data: DataSettings, wanted: str | None = None) -> list[str]:
    """All tasks of a data set, or the one that is wanted.

    Raises:
        UserError: if there is no such task.
    """
    tasks = open_adapter(data).tasks
    return list(tasks) if wanted is None else [find_task(tasks, wanted, data.name).name]


def fold_split(prepared: PreparedTask, folds: FoldSettings, fold: int) -> Split:
    """The cases of one fold of a prepared task.

    Raises:
        UserError: if there is no such fold, or the split cannot be made.
    """
    return split(load_folds(prepared.folder, [case.case for case in prepared.cases], folds), fold)


def open_source(settings: Settings, prepared: PreparedTask) -> Source:
    """The data of one run, from a prepared task."""
    return Source(prepared.folder, prepared.digest, fold_split(prepared, settings.folds, settings.fold))
