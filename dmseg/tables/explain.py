"""Which cells of a table each open choice touches, and the value that it has in them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dmseg.config.choices import CHOICES, Choice, written
from dmseg.config.compose import compose_plain
from dmseg.errors import UserError
from dmseg.runs.plan import PlannedRun
from dmseg.runs.sources import name_tasks
from dmseg.tables.planning import PlannedTable, TablePlanner
from dmseg.tables.request import parse_request
from dmseg.tables.spec import TableSpec

Cell = tuple[str, str]
"""Row (data set and network, or data set and task) and key of the column."""


@dataclass(frozen=True)
class Explained:
    """One open choice in one table.

    Attributes:
        choice: the choice.
        values: its values with the given overrides; several if they differ between cells, none if no cell has the key.
        touched: the cells whose runs or scores depend on it.
        fixed: whether the columns of the table set it themselves.
    """

    choice: Choice
    values: tuple[str, ...]
    touched: frozenset[Cell]
    fixed: bool = False


@dataclass(frozen=True)
class ExplainedTable:
    """The open choices of a table.

    Attributes:
        spec: its specification.
        rows: names of its rows.
        columns: keys of its columns that have a cell.
        cells: all cells.
        choices: the choices, in the order of `CHOICES`.
    """

    spec: TableSpec
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: frozenset[Cell]
    choices: tuple[Explained, ...]

    def describe(self, touched: frozenset[Cell]) -> str:
        """Names cells by columns and rows, as briefly as they can be."""
        if touched == self.cells:
            return "all cells"
        rows = [row for row in self.rows if any((row, column) in touched for column in self.columns)]
        columns = [column for column in self.columns if any((row, column) in touched for row in rows)]
        block = {(row, column) for row in rows for column in columns} & self.cells
        if block != touched:
            by_row = {row: [column for column in self.columns if (row, column) in touched] for row in rows}
            return "; ".join(f"{self._titles(own)} of {row}" for row, own in by_row.items())
        which = [] if columns == list(self.columns) else [self._titles(columns)]
        if rows != list(self.rows):
            which.append(", ".join(rows))
        return " of ".join(which)

    def _titles(self, columns: Iterable[str]) -> str:
        titles = {column.key: column.title for column in self.spec.columns}
        return ", ".join(titles.get(column, column) for column in columns)


def explain_tables(overrides: Sequence[str], specs: Sequence[TableSpec]) -> list[ExplainedTable]:
    """Explains tables. Nothing is read but the configuration.

    Args:
        overrides: as for `TablePlanner`.
        specs: the tables.

    Raises:
        UserError: if an override is invalid.
    """
    return [_agreement(spec, overrides) if spec.kind == "agreement" else _comparison(spec, overrides) for spec in specs]


def _comparison(spec: TableSpec, overrides: Sequence[str]) -> ExplainedTable:
    """Plans the table once as it is and once with each choice made differently, and compares the runs."""
    one_fold = [] if any(word.rpartition(":")[2].startswith("fold=") for word in overrides) else ["fold=0"]
    planner = TablePlanner([*overrides, *one_fold], [spec], open_tasks=name_tasks)
    table = planner.plan()[0]
    names = _row_names(table)
    before = _cells(table, names)
    found = [_explain(choice, planner, table, names, before) for choice in CHOICES]
    columns = tuple(column.key for column in spec.columns if any(key == column.key for _, key in before))
    return ExplainedTable(spec, tuple(dict.fromkeys(names)), columns, frozenset(before), tuple(found))


def _explain(
    choice: Choice, planner: TablePlanner, table: PlannedTable, names: Sequence[str], before: Mapping[Cell, object]
) -> Explained:
    if not choice.key:
        return Explained(choice, (), frozenset())
    values = dict.fromkeys(
        value
        for row in table.rows
        for column in row.cells
        for value in _in_force(choice, planner.lookup(row, column, [choice.key, *filter(None, [choice.acts])]))
    )
    touched: set[Cell] = set()
    fixed = False
    for value in (choice.paper, choice.release, choice.other):
        if value is None and choice.other is not None:
            continue
        try:
            changed = planner.changed(f"{choice.key}={written(value)}").plan()[0]
        except UserError as error:
            fixed = "set themselves" in str(error)
            continue
        after = _cells(changed, names)
        touched |= {cell for cell, runs in before.items() if after.get(cell) != runs}
    return Explained(choice, tuple(values), frozenset(touched), fixed)


def _in_force(choice: Choice, found: Mapping[str, Any]) -> list[str]:
    """The value of a choice in one cell, none if the cell has no such key."""
    value = found.get(choice.acts, "auto") if choice.acts else "auto"
    if value == "auto":
        if choice.key not in found:
            return []
        value = found[choice.key]
    return [written(value["name"] if isinstance(value, Mapping) and "name" in value else value)]


def _row_names(table: PlannedTable) -> list[str]:
    """Data set and network of each row; the tasks of a data set are one."""
    return [f"{row.data} {row.model}" for row in table.rows]


def _cells(table: PlannedTable, names: Sequence[str]) -> dict[Cell, object]:
    """What the numbers of each cell depend on."""
    found: dict[Cell, list[object]] = {}
    for row, name in zip(table.rows, names, strict=True):
        for column, runs in row.cells.items():
            found.setdefault((name, column), []).extend(map(_content, runs))
    return dict(found)


def _content(run: PlannedRun) -> object:
    return run.run_id, run.evaluation_id, run.settings.folds


def _agreement(spec: TableSpec, overrides: Sequence[str]) -> ExplainedTable:
    """Table 1, whose numbers need no runs: which choices concern the masks of the raters."""
    ...
