"""The command ``runs``: what lies in the run store, whether it is sound, and what may go."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dmseg.errors import UserError
from dmseg.runs.inventory import Entry, Leftover, choose, damage, entries, foreign, leftovers, lineage, whole_runs
from dmseg.runs.records import SCORES
from dmseg.runs.store import RunStore
from dmseg.text import printable, printable_lines

SWITCHES = ("confirm", "aside")
ACTIONS = ("list", "show", "verify", "prune")


def runs(argv: Sequence[str]) -> int:
    """Lists, shows, verifies or prunes runs; returns the exit status."""
    action, rest = (argv[0], argv[1:]) if argv and argv[0] in ACTIONS else ("list", argv)
    if rest and "=" not in rest[0] and action == "list":
        raise UserError(f"'dmseg runs {rest[0]}' is unknown; choose from {', '.join(ACTIONS)}")
    switches = {word.partition("=")[0] for word in rest if word in tuple(f"{name}=true" for name in SWITCHES)}
    stores = _stores([word.partition("=")[2] for word in rest if word.startswith("paths.results=")])
    filters = [word for word in rest if not word.startswith(("paths.results=", *(f"{name}=" for name in SWITCHES)))]
    found = entries(stores)
    chosen = choose(found, filters)
    if action == "show":
        return _show(chosen, found)
    if action == "verify":
        return _verify(chosen, stores, aside="aside" in switches)
    if action == "prune":
        return _prune(stores, whole_runs(chosen) if filters else [], confirmed="confirm" in switches)
    return _list(chosen)


def _stores(named: Sequence[str]) -> list[RunStore]:
    """The store that is named, or all below ``results``.

    Raises:
        UserError: if there is none.
    """
    folders = [Path(name.strip("'\"")).expanduser() for name in named] or sorted(
        path.parent for path in Path("results").glob("*/runs")
    )
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"there is no results folder {folder}; set paths.results")
    if not folders:
        raise UserError("there are no runs below results/; name the results folder: paths.results=FOLDER")
    return [RunStore(folder) for folder in folders]


def _list(chosen: Sequence[Entry]) -> int:
    shown = Table("id", "status", "run", *(f"{name} %" for name in SCORES), "minutes", box=None)
    for entry in chosen:
        scores = [f"{100 * entry.scores[name]:.2f}" if name in entry.scores else "" for name in SCORES]
        minutes = "" if entry.seconds != entry.seconds else f"{entry.seconds / 60:.1f}"
        shown.add_row(*(Text(printable(text)) for text in (entry.run_id, entry.status, entry.title, *scores, minutes)))
    _print(shown)
    print(f"{len(chosen)} runs")
    return 0


def _show(chosen: Sequence[Entry], found: Sequence[Entry]) -> int:
    if len(chosen) != 1:
        raise UserError(f"show takes one run, but {len(chosen)} fit; name it by its id, or the beginning of it")
    entry = chosen[0]
    if entry.status != "done":
        log = entry.store.log(entry.run_id)
        why = f": {entry.title}" if entry.title else ""
        print(printable(f"{entry.run_id} is {entry.status}{why}{f', its log: {log}' if log.is_file() else ''}"))
        return 0
    family = lineage(entry, found)
    shown = {
        "run": entry.title,
        "folder": str(entry.store.folder(entry.run_id)),
        "scores": dict(entry.scores),
        "taught_by": list(family.teachers),
        "teaches": list(family.students),
        "settings": entry.store.read_json(entry.run_id, "config.json")["settings"],
    }
    manifest = entry.store.read_json(entry.run_id, "manifest.json")
    print(json.dumps(shown | {key: value for key, value in manifest.items() if key not in shown}, indent=1))
    return 0


def _verify(chosen: Sequence[Entry], stores: Sequence[RunStore], aside: bool) -> int:
    stored = [entry for entry in chosen if entry.status in ("done", "damaged")]
    status = 0
    for entry in stored:
        if wrong := damage(entry):
            status = 1
            print(printable_lines("\n".join(wrong)))
            if aside:
                print(f"{entry.run_id} is set aside in {printable(str(entry.store.set_aside(entry.run_id)))}")
    if ignored := [str(path) for store in stores for path in foreign(store)]:
        print(printable(f"ignored, not written by dmseg: {', '.join(ignored)}"))
    print(f"{len(stored)} runs verified: {'some are damaged' if status else 'all files are what was stored'}")
    return status


def _prune(stores: Sequence[RunStore], asked_for: Sequence[Leftover], confirmed: bool) -> int:
    found = [*(item for store in stores for item in leftovers(store)), *asked_for]
    for item in found:
        print(printable(f"{item.size / 2**20:9.1f} MiB  {item.why}  {item.path}"))
        if confirmed:
            item.remove()
    total = sum(item.size for item in found) / 2**20
    done = "removed" if confirmed else "would go; add confirm=true to remove them"
    print(f"{len(found)} items, {total:.1f} MiB, {done}")
    return 0


def _print(table: Table) -> None:
    Console(width=None if sys.stdout.isatty() else 160).print(table)
