"""The actions of ``dmseg runs``: list, show, verify and prune the runs of a store."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from dmseg.activity import track
from dmseg.cli import output
from dmseg.cli.runs_list import columns, print_groups
from dmseg.cli.words import is_true, take_words
from dmseg.errors import UserError
from dmseg.files.schema import finite
from dmseg.runs.inventory import Entry, choose, damage, entries, foreign, leftovers, lineage, whole_runs, why_none
from dmseg.runs.store import RunStore
from dmseg.text import printable

SWITCHES = ("confirm", "aside")
"""Keys that turn something on rather than choose runs."""


@dataclass(frozen=True)
class _Request:
    """The runs that an action works on.

    Attributes:
        stores: the run stores.
        found: all runs in them.
        chosen: the runs that match the filters.
        filters: the filters; empty if all runs are chosen.
        switches: switches that are on.
    """

    stores: list[RunStore]
    found: list[Entry]
    chosen: list[Entry]
    filters: list[str]
    switches: set[str]


def _read(argv: Sequence[str]) -> _Request:
    """Looks up the runs that the arguments choose."""
    given, words = take_words(argv, SWITCHES)
    switches = {key for key in given if is_true(given, key)}
    folders = [word.partition("=")[2] for word in words if word.startswith("paths.results=")]
    filters = [word for word in words if not word.startswith("paths.results=")]
    stores = read_stores(folders)
    found = entries(stores)
    return _Request(stores, found, choose(found, filters), filters, switches)


def read_stores(named: Sequence[str]) -> list[RunStore]:
    """The stores in the named folders, or in all folders below ``results``.

    Raises:
        UserError: if there are none.
    """
    folders = [Path(name.strip("'\"")).expanduser() for name in named] or sorted(
        path.parent for path in Path("results").glob("*/runs")
    )
    if not all(name.strip("'\"") for name in named):
        raise UserError("paths.results is empty; name a results folder: paths.results=FOLDER")
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"there is no results folder {folder}; set paths.results to an existing one")
    if not folders:
        raise UserError("there are no runs below results/; name another results folder: paths.results=FOLDER")
    return [RunStore(folder) for folder in folders]


def list_runs(argv: Sequence[str]) -> int:
    """Prints the runs, sorted by experiment: in groups on a terminal, else one line for each with fixed columns."""
    request = _read(argv)
    chosen = request.chosen
    if sys.stdout.isatty():
        print_groups(chosen, Console(highlight=False))
    else:
        print("\n".join(columns(chosen)))
    print(f"{len(chosen)} runs{_unless_chosen(request)}")
    return 0


def _unless_chosen(request: _Request) -> str:
    """Why the filters choose no run; empty if they choose some, or there are none."""
    if request.chosen or not request.filters:
        return ""
    return printable(f" ({why_none(request.found, request.filters)})")


def show_run(argv: Sequence[str]) -> int:
    """Prints what is recorded of one run, as JSON."""
    request = _read(argv)
    if len(request.chosen) != 1:
        raise UserError(
            f"'dmseg runs show' shows one run, but {len(request.chosen)} match; give its id, or the beginning of it"
        )
    entry = request.chosen[0]
    if entry.status != "done":
        log = entry.store.log(entry.run_id)
        why = f": {entry.title}" if entry.title else ""
        print(printable(f"{entry.run_id} is {entry.status}{why}{f', its log: {log}' if log.is_file() else ''}"))
        return 0
    family = lineage(entry, request.found)
    shown = {
        "run": entry.title,
        "folder": str(entry.store.folder(entry.run_id)),
        "scores": dict(entry.scores),
        "taught_by": list(family.teachers),
        "teaches": list(family.students),
        "settings": entry.store.read_json(entry.run_id, "config.json")["settings"],
    }
    manifest = entry.store.read_json(entry.run_id, "manifest.json")
    shown |= {key: value for key, value in manifest.items() if key not in shown}
    print(json.dumps(finite(shown), indent=1, allow_nan=False))
    return 0


def verify_runs(argv: Sequence[str]) -> int:
    """Compares all files of runs with their checksums; returns 1 if a run is damaged."""
    request = _read(argv)
    stored = [entry for entry in request.chosen if entry.status in ("done", "damaged")]
    status = 0
    found = [(entry, damage(entry)) for entry in track(stored, "comparing checksums", len(stored), "runs")]
    for entry, wrong in found:
        if wrong:
            status = 1
            output.print_fault("\n".join(wrong))
            if "aside" in request.switches:
                print(f"{entry.run_id} is set aside in {printable(str(entry.store.set_aside(entry.run_id)))}")
    if ignored := [str(path) for store in request.stores for path in foreign(store)]:
        print(printable(f"ignored, not written by dmseg: {', '.join(ignored)}"))
    if not request.chosen and request.filters:
        raise UserError(f"no run was verified: {why_none(request.found, request.filters)}")
    said = "some are damaged" if status else "all files match their checksums" if stored else "there are none to verify"
    print(f"{len(stored)} runs verified: {said}")
    return status


def prune_runs(argv: Sequence[str]) -> int:
    """Lists what no run needs, and the runs that filters choose; removes them with ``confirm=true``."""
    request = _read(argv)
    confirmed = "confirm" in request.switches
    found = [item for store in request.stores for item in leftovers(store)]
    if request.filters:
        found += whole_runs(request.chosen)
    for item in found:
        print(printable(f"{item.size / 2**20:9.1f} MiB  {item.why}  {item.path}"))
        if confirmed:
            item.remove()
    total = sum(item.size for item in found) / 2**20
    done = "removed" if confirmed else "can be removed; add confirm=true to remove them"
    print(f"{len(found)} items, {total:.1f} MiB, {done}{_unless_chosen(request)}")
    return 0
