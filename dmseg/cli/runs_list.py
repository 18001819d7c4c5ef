"""How ``dmseg runs list`` prints runs."""

import math
from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from dmseg.runs.inventory import Entry
from dmseg.runs.records import SCORES
from dmseg.text import printable

NONE = "-"
"""Printed in place of a missing value."""


def columns(chosen: Sequence[Entry]) -> list[str]:
    """One line for each run, for files and other programs: columns that are always the same, nothing cut.

    The title comes last, as only it contains spaces.
    """
    names = ("id", "status", "experiment", *(f"{name}_%" for name in SCORES), "minutes", "run")
    rows = [names]
    for entry in chosen:
        experiment, title = entry.fields.get("experiment", NONE), printable(entry.title) or NONE
        rows.append((entry.run_id, entry.status, experiment, *_numbers(entry), title))
    widths = [max(len(row[index]) for row in rows) for index in range(len(names) - 1)]
    padded = [[f"{cell:<{width}}" for cell, width in zip(row[:-1], widths, strict=True)] for row in rows]
    return ["  ".join([*cells, row[-1]]) for cells, row in zip(padded, rows, strict=True)]


def _numbers(entry: Entry) -> list[str]:
    """Scores in per cent and minutes."""
    values = [100 * entry.scores.get(name, math.nan) for name in SCORES]
    shown = [NONE if math.isnan(value) else f"{value:.2f}" for value in values]
    return [*shown, NONE if math.isnan(entry.seconds) else f"{entry.seconds / 60:.1f}"]


def print_groups(chosen: Sequence[Entry], console: Console) -> None:
    """Prints runs for people: the title of an experiment, and below it a line for each of its runs."""
    for experiment, group in groupby(chosen, key=lambda entry: (entry.store.results, entry.fields.get("experiment"))):
        runs = list(group)
        if experiment[1] is None:
            _print_others(runs, console)
            continue
        first, loss = runs[0].fields, printable(runs[0].fields.get("loss", ""))
        title = runs[0].title.replace(f" seed {first['seed']}", "", 1).replace(f" fold {first['fold']}", "", 1)
        console.print(Text.assemble((printable(title), "bold"), (f"  {loss}  {experiment[1]}", "dim")))
        whole_id = Column("id", no_wrap=True, min_width=len(runs[0].run_id))  # can be copied on narrow terminals, too
        numbers = (*(f"{name} %" for name in SCORES), "minutes")
        table = Table("fold", "seed", whole_id, *numbers, box=None, pad_edge=False)
        for entry in runs:
            fields = [entry.fields["fold"], entry.fields["seed"], entry.run_id]
            table.add_row(*map(Text, (*fields, *_numbers(entry))))
        console.print(table, "")


def _print_others(runs: Sequence[Entry], console: Console) -> None:
    """Prints runs of which only the status is known."""
    for entry in runs:
        line = Text.assemble((entry.status, "red" if entry.status in ("failed", "damaged") else "cyan"))
        line.append(f"  {entry.run_id}  {printable(entry.title)}".rstrip())
        console.print(line)
    console.print()
