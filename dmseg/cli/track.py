"""``dmseg track``: records stored runs and tables with a tracker, each once."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dmseg.activity import activity
from dmseg.cli.messages import notify, set_up_logging
from dmseg.cli.runs import read_stores
from dmseg.cli.words import is_true, take_words
from dmseg.config.settings import TrackerSettings
from dmseg.config.typed import typed
from dmseg.errors import UserError, cut, first_line
from dmseg.report.tracking.stored import (
    record_run,
    record_table,
    stored_metadata,
    stored_tables,
    table_files,
    table_record,
)
from dmseg.report.tracking.tracker import RunMetadata, SafeTracker
from dmseg.report.tracking.tracking_plan import (
    Tracking,
    check_packages,
    destination,
    files_digest,
    is_remembered,
    remember,
    run_digest,
)
from dmseg.report.tracking.wandb_files import files_of, own_environment
from dmseg.report.tracking.wandb_sender import connection_fault, is_sent, send
from dmseg.runs.inventory import Entry, choose, entries, why_none
from dmseg.runs.store import RunStore
from dmseg.text import printable, split_list

TRACKERS = ("online", "offline", "jsonl", "mlflow")
BATCH = 20
"""Maximum number of files that are sent together."""
OWN = ("tracker", "again", "tables", "wandb.project", "wandb.entity", "wandb.tags", "wandb.notes", "wandb.images")


@dataclass(frozen=True)
class _Item:
    """A run or a table to record.

    Attributes:
        title: what it is, for messages.
        results: its results folder.
        settings: settings of the tracker.
        record_id: id of the record.
        digest: digest of what is recorded.
        record: records it.
    """

    title: str
    results: Path
    settings: TrackerSettings
    record_id: str
    digest: str
    record: Callable[[SafeTracker], None]


@dataclass
class _Counts:
    """How many runs or tables were recorded, had been recorded before, or failed."""

    new: int = 0
    before: int = 0
    failed: int = 0


def track(argv: Sequence[str]) -> int:
    """Records the chosen runs and tables with a tracker."""
    set_up_logging()
    given, words = take_words(argv, OWN)
    filters, folders = [], []
    for word in words:
        key, _, value = word.partition("=")
        if key == "paths.results":
            folders.append(value)
        elif key.startswith("wandb."):
            raise UserError(f"'dmseg track' has no key '{cut(key)}'; it takes {', '.join(OWN)} and filters of runs")
        else:
            filters.append(word)
    tracker, again = given.get("tracker", ""), is_true(given, "again")
    if tracker not in TRACKERS:
        message = (
            f"tracker is '{cut(tracker)}', but must be one of"
            if tracker
            else "name a tracker: tracker=NAME with one of"
        )
        raise UserError(f"{message} {', '.join(TRACKERS)}")
    check_packages([tracker])
    stores = read_stores(folders)
    found = entries(stores)
    if tracker == "online" and (fault := connection_fault()):
        raise UserError(f"nothing was sent: {fault}")
    chosen = choose(found, filters)
    if filters and not chosen:
        notify(why_none(found, filters))
    runs, tables = _Counts(), _Counts()
    items, kinds = [], []
    for item, counts in (
        *((item, runs) for item in _runs(found, chosen, given, runs)),
        *((item, tables) for item in _tables(stores, found, filters, given, tables)),
    ):
        if not again and is_remembered(item.results, _place(tracker, item), item.record_id, item.digest):
            counts.before += 1
        else:
            items.append(item)
            kinds.append(counts)
    step = BATCH if tracker == "online" else 1
    with activity("recording", len(items), "runs and tables") as advance:
        for start in range(0, len(items), step):
            batch = items[start : start + step]
            for counts, done in zip(kinds[start : start + step], _record(tracker, batch), strict=True):
                counts.new += done
                counts.failed += not done
            advance(len(batch))
    for name, counts in (("runs", runs), ("tables", tables)):
        failed = f", {counts.failed} failed" if counts.failed else ""
        print(f"{name}: {counts.new} recorded with tracker={tracker}, {counts.before} already recorded{failed}")
    return 1 if runs.failed or tables.failed else 0


def _record(tracker: str, items: Sequence[_Item]) -> list[bool]:
    """Records some items, and returns which of them have arrived."""
    arrived = []
    for item in items:
        used = Tracking().make("offline" if tracker == "online" else tracker, item.results, item.settings)
        try:
            item.record(used)
            arrived.append(used.delivered)
        except (UserError, OSError, ValueError) as error:
            notify(f"{item.title}: {first_line(error)}")
            arrived.append(False)
    if tracker == "online":
        folders = [
            files_of(item.results, item.record_id)[-1:] if ok else [] for item, ok in zip(items, arrived, strict=True)
        ]
        with own_environment():
            environment = dict(os.environ)
        send([path for own in folders for path in own], environment, 30.0 + 10.0 * len(items))
        arrived = [any(map(is_sent, own)) for own in folders]
        if not all(arrived):
            fault = connection_fault()
            notify(f"wandb: {arrived.count(False)} of {len(items)} were not sent{f': {fault}' if fault else ''}")
    for item, done in zip(items, arrived, strict=True):
        if done:
            remember(item.results, _place(tracker, item), item.record_id, item.digest)
    return arrived


def _runs(found: Sequence[Entry], chosen: Sequence[Entry], given: Mapping[str, str], counts: _Counts) -> list[_Item]:
    """The finished runs among the chosen."""
    import pandas as pd

    done = [entry for entry in found if entry.status == "done"]
    teachers: set[str] = set()
    for entry in done:
        node = entry.store.read_json(entry.run_id, "config.json")["identity"].get("distill") or {}
        teachers |= {node[key] for key in ("teacher", "calibrator") if key in node}
    tables: dict[str, tuple[str, ...]] = {}  # the written tables that each run contributes to, by run id
    folders = sorted({entry.store.results for entry in done})
    for path in (path for folder in folders for path in sorted((folder / "tables").glob("table*_cases.csv"))):
        try:
            ids = pd.read_csv(path, usecols=["run_id"], dtype=str)["run_id"].dropna().unique()
        except (OSError, ValueError):
            continue
        name = path.name.removeprefix("table").removesuffix("_cases.csv").lstrip("-")
        for run_id in ids:
            tables[run_id] = (*tables.get(run_id, ()), name)
    items = []
    for entry in chosen:
        if entry.status == "damaged":
            counts.failed += 1
            notify(printable(f"{entry.run_id} is damaged and is left out: {entry.title}"))
        if entry.status != "done":
            continue
        store, run_id = entry.store, entry.run_id
        settings = _settings(store.read_json(run_id, "config.json")["settings"].get("wandb"), given)
        job_type = "teacher" if run_id in teachers else "train"
        metadata = stored_metadata(store, run_id, settings, job_type, tables.get(run_id, ()))
        images = settings.images or bool(store.read_json(run_id, "manifest.json")["phantom"])
        digest = run_digest(store, run_id, settings)

        def record(
            used: SafeTracker,
            store: RunStore = store,
            run_id: str = run_id,
            metadata: RunMetadata = metadata,
            images: bool = images,
        ) -> None:
            record_run(store, run_id, metadata, used, images)

        items.append(_Item(f"run {run_id}", store.results, settings, run_id, digest, record))
    return items


def _tables(
    stores: Sequence[RunStore],
    found: Sequence[Entry],
    filters: Sequence[str],
    given: Mapping[str, str],
    counts: _Counts,
) -> list[_Item]:
    """The tables and sweeps to record: all of them without filters, else those that ``tables=`` names."""
    named = [name for name in split_list(given.get("tables", "")) if name]
    if filters and not named:
        return []
    items, seen = [], set()
    for store in stores:
        own = next((entry for entry in found if entry.store is store and entry.status == "done"), None)
        node = None if own is None else store.read_json(own.run_id, "config.json")["settings"].get("wandb")
        settings = _settings(node, given)
        for path in stored_tables(store.results):
            name = path.stem.removeprefix("table").lstrip("-")
            if named and "all" not in named and name not in named:
                continue
            seen.add(name)
            try:
                metadata, report = table_record(path, settings)
            except (OSError, ValueError) as error:
                counts.failed += 1
                notify(printable(f"{path} is left out: {first_line(error)}"))
                continue
            digest = files_digest(table_files(path), settings)

            def record(used: SafeTracker, metadata: RunMetadata = metadata, report: Any = report) -> None:  # noqa: ANN401
                record_table(metadata, report, used)

            items.append(_Item(str(path), store.results, settings, metadata.id, digest, record))
    if missing := [name for name in named if name not in seen | {"all"}]:
        raise UserError(
            f"table '{cut(missing[0])}' has not been written; write it with 'dmseg table', or see tables=all"
        )
    return items


def _settings(stored: Any, given: Mapping[str, str]) -> TrackerSettings:  # noqa: ANN401
    """Settings of a tracker: those of the run, overridden by those of the command line."""
    settings = TrackerSettings("dmseg")
    with suppress(UserError):  # settings of another version
        settings = typed(TrackerSettings, stored or {"project": "dmseg"}, "wandb")
    changed: dict[str, Any] = {
        name: given[f"wandb.{name}"] for name in ("project", "entity", "notes") if f"wandb.{name}" in given
    }
    if "wandb.tags" in given:
        changed["tags"] = [tag for tag in split_list(given["wandb.tags"]) if tag]
    if "wandb.images" in given:
        changed["images"] = is_true(given, "wandb.images")
    return replace(settings, **changed)


def _place(tracker: str, item: _Item) -> str:
    return destination(tracker, item.settings, item.results)
