"""The actions of ``dmseg runs``: list, show, verify and prune the runs of a store."""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from dmseg.activity import track
from dmseg.cli import output
from dmseg.cli.words import is_true, take_words
from dmseg.errors import UserError
from dmseg.files.names import expand_home
from dmseg.files.schema import finite
from dmseg.runs.inventory import Entry, choose, damage, entries, foreign, leftovers, lineage, whole_runs, why_none
from dmseg.runs.records import BASIC_SCORES
from dmseg.runs.store import RunStore
from dmseg.text import counted, printable

SWITCHES = ("confirm", "aside")
"""Keys that turn something on rather than choose runs."""
NONE = "-"
"""Printed in place of a missing value."""


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


def list_runs(argv: Sequence[str]) -> int:
    """Prints the runs, sorted by experiment: in groups on a terminal, else one line for each with fixed columns."""
    request = _read(argv)
    chosen = request.chosen
    if sys.stdout.isatty():
        print_groups(chosen, Console(highlight=False))
    else:
        print("\n".join(columns(chosen)))
    print(f"{counted(len(chosen), 'run')}{_unless_chosen(request)}")
    return 0


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
    print(f"{counted(len(stored), 'run')} verified: {said}")
    return status


def prune_runs(argv: Sequence[str]) -> int:
    """Lists what no run needs, and the runs that filters choose; removes them with ``confirm=true``."""
    request = _read(argv)
    confirmed = "confirm" in request.switches
    found = whole_runs(request.chosen) if request.filters else []
    if request.chosen or not request.filters:  # a filter without a match may be misspelt: nothing is removed
        found = [item for store in request.stores for item in leftovers(store)] + found
    for item in found:
        print(printable(f"{item.size / 2**20:9.1f} MiB  {item.why}  {item.path}"))
        if confirmed:
            item.remove()
    total = sum(item.size for item in found) / 2**20
    done = "removed" if confirmed else "can be removed; add confirm=true to remove them"
    print(f"{counted(len(found), 'item')}, {total:.1f} MiB, {done}{_unless_chosen(request)}")
    return 0


def read_stores(named: Sequence[str]) -> list[RunStore]:
    """The stores in the named folders, or in all folders below ``results``.

    Raises:
        UserError: if there are none.
    """
    folders = [Path(expand_home(name.strip("'\""), "paths.results")) for name in named] or sorted(
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


def columns(chosen: Sequence[Entry]) -> list[str]:
    """One line for each run, for files and other programs: columns that are always the same, nothing cut.

    The title comes last, as only it contains spaces.
    """
    names = ("id", "status", "experiment", *(f"{name}_%" for name in BASIC_SCORES), "minutes", "run")
    rows = [names]
    for entry in chosen:
        experiment, title = entry.fields.get("experiment", NONE), printable(entry.title) or NONE
        rows.append((entry.run_id, entry.status, experiment, *_numbers(entry), title))
    widths = [max(len(row[index]) for row in rows) for index in range(len(names) - 1)]
    padded = [[f"{cell:<{width}}" for cell, width in zip(row[:-1], widths, strict=True)] for row in rows]
    return ["  ".join([*cells, row[-1]]) for cells, row in zip(padded, rows, strict=True)]


def print_groups(chosen: Sequence[Entry], console: Console) -> None:
    """Prints runs for people: the title of an experiment, and below it a line for each of its runs."""
    for experiment, group in groupby(chosen, key=lambda entry: (entry.store.results, entry.fields.get("experiment"))):
        runs = list(group)
        if experiment[1] is None:  # only the status of these runs is known
            for entry in runs:
                line = Text.assemble((entry.status, "red" if entry.status in ("failed", "damaged") else "cyan"))
                line.append(f"  {entry.run_id}  {printable(entry.title)}".rstrip())
                console.print(line)
            console.print()
            continue
        first, loss = runs[0].fields, printable(runs[0].fields.get("loss", ""))
        title = runs[0].title.replace(f" seed {first['seed']}", "", 1).replace(f" fold {first['fold']}", "", 1)
        console.print(Text.assemble((printable(title), "bold"), (f"  {loss}  {experiment[1]}", "dim")))
        whole_id = Column("id", no_wrap=True, min_width=len(runs[0].run_id))  # can be copied on narrow terminals, too
        numbers = (*(f"{name} %" for name in BASIC_SCORES), "minutes")
        table = Table("fold", "seed", whole_id, *numbers, box=None, pad_edge=False)
        for entry in runs:
            fields = [entry.fields["fold"], entry.fields["seed"], entry.run_id]
            table.add_row(*map(Text, (*fields, *_numbers(entry))))
        console.print(table, "")


def _read(argv: Sequence[str]) -> _Request:
    """Looks up the runs that the arguments choose."""
    given, words = take_words(argv, SWITCHES)
    switches = {key for key in given if is_true(given, key)}
    folders = [word.partition("=")[2] for word in words if word.startswith("paths.results=")]
    filters = [word for word in words if not word.startswith("paths.results=")]
    stores = read_stores(folders)
    found = entries(stores)
    return _Request(stores, found, choose(found, filters), filters, switches)


def _unless_chosen(request: _Request) -> str:
    """Why the filters choose no run; empty if they choose some, or there are none."""
    if request.chosen or not request.filters:
        return ""
    return printable(f" ({why_none(request.found, request.filters)})")


def _numbers(entry: Entry) -> list[str]:
    """Scores in per cent and minutes."""
    values = [100 * entry.scores.get(name, math.nan) for name in BASIC_SCORES]
    shown = [NONE if math.isnan(value) else f"{value:.2f}" for value in values]
    return [*shown, NONE if math.isnan(entry.seconds) else f"{entry.seconds / 60:.1f}"]
