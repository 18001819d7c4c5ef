"""The content of a run store, read from its files alone, without any configuration or data."""

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dmseg.activity import track
from dmseg.errors import UserError, check_choice, cut, first_line, some
from dmseg.files.atomic import abandoned
from dmseg.files.atomic import remove as remove_path
from dmseg.files.names import is_id
from dmseg.files.regular import is_regular, regular_files
from dmseg.runs.lease import is_held
from dmseg.runs.progress_file import progress_path, read_progress, stale
from dmseg.runs.records import BASIC_SCORES, parse_cases, read_cases_file
from dmseg.runs.salvage import lost_weights
from dmseg.runs.seal import DONE, DamagedError, read_seal
from dmseg.runs.store import RunStore
from dmseg.text import printable, split_list
from dmseg.training.checkpoint_folder import FINISHED, checkpoints_in, steps_of, stored_title

OWN = re.compile(r"(\.time|\.predictions|\.?[0-9a-f]{16}(\.json|\.log)?)(\.[0-9a-f]{8,32}|\.claim)?")
"""Names that dmseg uses in a store's folders: runs, their leases and logs, and unfinished files."""
ASIDE = re.compile(r"[0-9a-f]{16}-[0-9]+")
"""Names of runs that were set aside."""
STATUSES = ("done", "damaged", "running", "failed", "interrupted")
"""States of a run, in the order of lists."""
FIELDS = ("status", "data", "task", "labels", "model", "loss", "method", "fold", "seed", "experiment")
"""Fields that runs can be selected by, in addition to their ids."""


@dataclass(frozen=True)
class Entry:
    """A run in a store.

    Attributes:
        store: the store.
        run_id: id of the run.
        status: one of `STATUSES`. An interrupted run has a checkpoint that the same command would resume from.
        title: title for display; the fault of a damaged run; empty if only the id is known. For a run in
            progress or interrupted it says how far it is.
        fields: values of `FIELDS`, as text.
        scores: means over the validation cases, fractions.
        seconds: time that it took, NaN if unknown.
    """

    store: RunStore
    run_id: str
    status: str
    title: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    seconds: float = math.nan


def entries(stores: Iterable[RunStore]) -> list[Entry]:
    """All runs of some stores: finished runs by data, task, labels, network, experiment, seed and fold, then others."""
    found = []
    for store in stores:
        stored = store.stored()
        found += [_stored_run(store, run_id) for run_id in track(stored, "reading runs", len(stored), "runs")]
        known = set(stored)
        for path in _named_by_runs(store, "leases", ".json"):
            if path.stem not in known and is_held(path):
                known.add(path.stem)
                state = read_progress(progress_path(store.results, path.stem))
                title = "" if state is None else f"{state.title} ({state.position})"
                found.append(Entry(store, path.stem, "running", title, {"status": "running"}))
        for path in _named_by_runs(store, "failed", ".log"):
            if path.stem not in known:
                known.add(path.stem)
                title = printable(stored_title(store.checkpoints(path.stem)))
                found.append(Entry(store, path.stem, "failed", title, {"status": "failed"}))
        for folder in sorted((store.results / "checkpoints").glob("*")):
            if folder.name not in known and is_id(folder.name) and (kept := checkpoints_in(folder)):
                found.append(_interrupted_run(store, folder.name, kept[-1]))
    return sorted(found, key=_order)


def _order(entry: Entry) -> tuple[object, ...]:
    numbers = [int(entry.fields.get(name, "0")) for name in ("seed", "fold")]
    names = [entry.fields.get(name, "") for name in ("data", "task", "labels", "model", "loss", "method", "experiment")]
    known = entry.status == "done"
    return (not known, *names, str(entry.store.results), *numbers, *(() if known else (STATUSES.index(entry.status),)))


def _named_by_runs(store: RunStore, folder: str, ending: str) -> list[Path]:
    """Files in one of the store's folders whose names are run ids."""
    found = (path for path in (store.results / folder).glob(f"*{ending}") if is_id(path.stem))
    return sorted(path for path in found if is_regular(path))


def _stored_run(store: RunStore, run_id: str) -> Entry:
    """A run that has a folder, which is finished or damaged."""
    try:
        if not (wrong := store.damage(run_id)):
            settings = store.read_json(run_id, "config.json")["settings"]
            manifest = store.read_json(run_id, "manifest.json")
            values = {
                "status": "done",
                "data": settings["data"]["name"],
                "task": settings["task"],
                "labels": settings["labels"]["name"],
                "model": settings["model"]["name"],
                "loss": _name(settings, "loss"),
                "method": _name(settings, "method"),
                "fold": settings["fold"],
                "seed": settings["seed"],
                "experiment": manifest["experiment_id"],
            }
            remarks = {"phantom": "(PHANTOM data)", "imported": "(imported)"}
            words = [manifest["title"], *(remark for key, remark in remarks.items() if manifest.get(key))]
            words += ["(weights are missing)"] if lost_weights(store, run_id) else []
            return Entry(
                store,
                run_id,
                "done",
                " ".join(words),
                {name: str(value) for name, value in values.items()},
                stored_means(store.folder(run_id)),
                float(manifest["seconds"]),
            )
    except (DamagedError, OSError) as error:  # changed or removed while it was read
        wrong = [first_line(error)]
    return Entry(store, run_id, "damaged", wrong[0].removeprefix(f"{store.folder(run_id)}"), {"status": "damaged"})


def _interrupted_run(store: RunStore, run_id: str, checkpoint: Path) -> Entry:
    """A run that nobody works on, with its newest checkpoint."""
    finished = checkpoint.name.endswith(FINISHED)
    kept = "trained, not scored" if finished else f"kept after {steps_of(checkpoint)} steps"
    title = f"{printable(stored_title(checkpoint.parent))} ({kept})".lstrip()
    return Entry(store, run_id, "interrupted", title, {"status": "interrupted"})


def _name(settings: Mapping[str, Any], group: str) -> str:
    """Name of the file of a group; empty where an early version did not store it."""
    found = settings.get(group)
    return str(found.get("name", "")) if isinstance(found, Mapping) else ""


def stored_means(folder: Path) -> dict[str, float]:
    """Means of the scores in the evaluation that a folder holds, fractions; NaN where no case has the score.

    Raises:
        DamagedError: if they cannot be read.
    """
    try:
        rows = parse_cases(read_cases_file(folder))
    except ValueError as error:
        raise DamagedError(f"{folder} is damaged: {error}") from None
    values = {name: [float(row[name]) for row in rows if row.get(name)] for name in BASIC_SCORES}
    return {name: sum(found) / len(found) if found else math.nan for name, found in values.items()}


def choose(found: Sequence[Entry], filters: Sequence[str]) -> list[Entry]:
    """Selects runs by beginnings of ids and by ``field=value``, where several values are separated by commas.

    A run must have one of the ids, if any are given, and fit every field. Several values may be in brackets.

    Raises:
        UserError: if a field is unknown, a value is one that no run can have, or no run has such an id.
    """
    chosen = list(found)
    stores = ", ".join(dict.fromkeys(str(entry.store.results) for entry in found)) or "this store, which is empty"
    ids = [item for item in filters if "=" not in item]
    for item in ids:
        if not any(entry.run_id.startswith(item) for entry in found):
            raise UserError(f"there is no run '{item}' in {stores}; 'dmseg runs list' shows all")
    if ids:
        chosen = [entry for entry in chosen if entry.run_id.startswith(tuple(ids))]
    for item in (item for item in filters if "=" in item):
        name, _, value = item.partition("=")
        if name not in FIELDS:
            raise UserError(f"runs cannot be selected by '{name}'; select by {', '.join(FIELDS)}, or by id")
        wanted = _wanted(name, value)
        chosen = [entry for entry in chosen if entry.fields.get(name) in wanted]
    return chosen


def _wanted(name: str, value: str) -> list[str]:
    """The values of a filter.

    Raises:
        UserError: if one of them is no value of its field.
    """
    wanted = [item.strip("'\"") for item in split_list(value)]
    if name == "status":
        for item in wanted:
            check_choice("status", item, STATUSES)
    if name in ("fold", "seed"):
        for item in wanted:
            if not re.fullmatch(r"[0-9]{1,19}", item):
                raise UserError(f"{name} is '{cut(item)}', but must be a whole number, or several: {name}=0,1")
        wanted = [str(int(item)) for item in wanted]
    return wanted


def why_none(found: Sequence[Entry], filters: Sequence[str]) -> str:
    """Why filters choose no run: the first filter that no run matches, with the values that runs have.

    Args:
        found: all runs.
        filters: the filters (`choose`).
    """
    if not found:
        return "there are no runs"
    for item in (item for item in filters if "=" in item):
        name, _, value = item.partition("=")
        known = sorted({entry.fields[name] for entry in found if entry.fields.get(name)})
        if not set(_wanted(name, value)) & set(known):
            return f"no run has {name}={cut(value)}" + (f"; there are {some(known)}" if known else "")
    return f"no run matches {' '.join(map(cut, filters))}"


@dataclass(frozen=True)
class Lineage:
    """The teachers and students of a run.

    Attributes:
        teachers: ids of runs that its identity names.
        students: ids of runs whose identity names it.
    """

    teachers: tuple[str, ...]
    students: tuple[str, ...]


def lineage(entry: Entry, found: Sequence[Entry]) -> Lineage:
    """Finds the teachers and students of a run from the identities of all runs."""
    own = set(_texts(_identity(entry)))
    others = [other for other in found if other.status == "done" and other.run_id != entry.run_id]
    return Lineage(
        tuple(other.run_id for other in others if other.run_id in own),
        tuple(other.run_id for other in others if entry.run_id in set(_texts(_identity(other)))),
    )


def _identity(entry: Entry) -> Any:  # noqa: ANN401
    return entry.store.read_json(entry.run_id, "config.json")["identity"]


def _texts(node: Any) -> Iterator[str]:  # noqa: ANN401
    """All strings in nested containers."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        for value in node.values():
            yield from _texts(value)
    elif isinstance(node, Sequence):
        for value in node:
            yield from _texts(value)


@dataclass(frozen=True)
class Leftover:
    """A file or folder that can be removed.

    Attributes:
        path: file or folder.
        why: what it is.
        size: its size in bytes.
    """

    path: Path
    why: str
    size: int

    def remove(self) -> None:
        """Removes it; for a link, not the target."""
        remove_path(self.path)


def leftovers(store: RunStore) -> list[Leftover]:
    """Files that can go: temporary files of dead processes, checkpoints and logs of finished runs, and damaged runs."""
    done = set(store.run_ids())
    found = [
        _leftover(path, "temporary file of a process that has ended")
        for path in store.runs.glob(".*")
        if OWN.fullmatch(path.name) and not is_held(store.lease_file(path.name.removeprefix(".").partition(".")[0]))
    ]
    found += [_leftover(path, "progress file of a process that has ended") for path in stale(store)]
    others = [store.results / name for name in ("", "leases", "progress", "failed", "tables", "sweeps", "figures")]
    for folder in (*others, *sorted((store.results / "checkpoints").glob("*"))):
        found += [_leftover(path, "temporary file of a process that has ended") for path in abandoned(folder)]
    for run_id in sorted(done):
        for path, why in (
            (store.checkpoints(run_id), "checkpoint of a finished run"),
            (store.log(run_id), "log of a failed attempt at a finished run"),
        ):
            if os.path.lexists(path):
                found.append(_leftover(path, why))
    aside = (path for path in sorted((store.results / "damaged").glob("*")) if ASIDE.fullmatch(path.name))
    return found + [_leftover(path, "damaged run, set aside") for path in aside]


def foreign(store: RunStore) -> list[Path]:
    """Files and folders in a store that dmseg did not write, such as those of an operating system or a file server.

    The content of a foreign folder is not listed.
    """
    folders = (store.results / name for name in ("runs", "checkpoints", "leases", "progress", "failed"))
    found = [path for folder in folders for path in folder.glob("*") if not OWN.fullmatch(path.name)]
    for run_id in store.run_ids():
        with suppress(DamagedError):
            run = store.folder(run_id)
            parts = [run, *store.additions(run_id)]
            known = {run / "evaluations", *parts}
            for part in parts:
                for name in (DONE, *read_seal(part)):
                    known |= {part / name, *(part / name).parents}
            everything = (Path(place) / name for place, inner, files in os.walk(run) for name in (*inner, *files))
            unknown = (path for path in everything if path not in known and path.parent in known)
            found += [path for path in unknown if not OWN.fullmatch(path.name)]
    return sorted(found)


def whole_runs(chosen: Sequence[Entry]) -> list[Leftover]:
    """The folders of runs that are finished or damaged; checkpoints and logs of failed or interrupted ones."""
    found = []
    for entry in chosen:
        store, run_id = entry.store, entry.run_id
        if entry.status in ("done", "damaged"):
            places = [store.folder(run_id)]
        elif entry.status in ("failed", "interrupted"):
            places = [place for place in (store.checkpoints(run_id), store.log(run_id)) if os.path.lexists(place)]
        else:
            continue
        found += [_leftover(place, f"{entry.status} run {entry.title}".rstrip()) for place in places]
    return found


def _leftover(path: Path, why: str) -> Leftover:
    files = regular_files(path) if path.is_dir() and not path.is_symlink() else [path]
    return Leftover(path, why, sum(item.lstat().st_size for item in files))


def damage(entry: Entry) -> list[str]:
    """Every file of a finished run that is missing or has changed, one line for each."""
    try:
        return entry.store.damage(entry.run_id, every_file=True)
    except (DamagedError, OSError) as error:
        return [str(error)]
