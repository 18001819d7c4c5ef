"""Which cells of a table each open choice affects, and its value in them."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dmseg.config.choices import OPEN_CHOICES, Choice, written
from dmseg.config.compose import compose_plain, to_settings
from dmseg.config.overrides import get
from dmseg.config.settings import Settings
from dmseg.errors import UserError
from dmseg.runs.plan import plan_run
from dmseg.runs.sources import FoundTask, Notify, name_tasks
from dmseg.tables.planning import PlannedRow, TablePlanner
from dmseg.tables.request import option_key, request_raters
from dmseg.tables.spec import TableSpec

ALL = ("*",)
"""All columns of a row."""
ABSENT = "absent: no such key"
MARK = re.compile(r"CHOICE_\w+?_END")
OF_ONE = re.compile(r"^\w+:")
MASKS = ("protocol.disjoint_weight", "protocol.qubiq_incomplete_cases", "data.conflicting_annotations")
"""Choices that concern the raters' masks, which Table 1 compares."""

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
        choices: the choices, in the order of `OPEN_CHOICES`.
    """

    spec: TableSpec
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: frozenset[Cell]
    choices: tuple[Explained, ...]

    def describe(self, touched: frozenset[Cell]) -> str:
        """Names cells by columns and rows, as briefly as possible."""
        if touched in (self.cells, frozenset()):
            return "all cells" if touched else "no cell"
        by_columns: dict[tuple[str, ...], list[str]] = {}
        for row in self.rows:
            if columns := tuple(column for column in self.columns if (row, column) in touched):
                missing = {(row, column) for column in self.columns} & self.cells - touched
                by_columns.setdefault(columns if missing else ALL, []).append(row)
        # group rows that lack a cell with the rows that have it, if they agree in all other cells
        merged: dict[tuple[str, ...], list[str]] = {}
        for columns, rows in sorted(by_columns.items(), key=lambda item: (item[0] != ALL, -len(item[0]))):
            for row in rows:
                fitting = (
                    other
                    for other in merged
                    if other != ALL and columns == tuple(name for name in other if (row, name) in self.cells)
                )
                merged.setdefault(next(fitting, columns), []).append(row)
        if list(merged) == [ALL]:
            return self._names(sorted(merged[ALL], key=self.rows.index))
        titles = {column.key: column.title for column in self.spec.columns}
        parts = []
        for columns, unsorted in merged.items():
            rows = sorted(unsorted, key=self.rows.index)
            names = ", ".join(titles.get(name, name) for name in columns)
            part = "all columns" if columns == ALL else f"column{'s' * (len(columns) > 1)} {names}"
            with_cell = [row for row in self.rows if any((row, name) in self.cells for name in columns)]
            parts.append(part if rows == with_cell else f"{part} of {self._names(rows)}")
        return "; ".join(parts)

    def _names(self, rows: Sequence[str]) -> str:
        """Names of rows; if all rows of a data set or network are among them, only its name."""
        left, found = list(rows), list[str]()
        for part in (0, 1):
            for name in dict.fromkeys(row.split(" ")[part] for row in left):
                own = [row for row in self.rows if row.split(" ")[part] == name]
                if set(own) <= set(left):
                    left = [row for row in left if row not in own]
                    found.append(name)
        return ", ".join([*found, *left])


def explain_tables(overrides: Sequence[str], specs: Sequence[TableSpec]) -> list[ExplainedTable]:
    """Explains tables. Only the configuration is read.

    Args:
        overrides: as for `TablePlanner`.
        specs: the tables.

    Raises:
        UserError: if an override is invalid.
    """
    return [_agreement(spec, overrides) if spec.kind == "agreement" else _comparison(spec, overrides) for spec in specs]


def _agreement(spec: TableSpec, overrides: Sequence[str]) -> ExplainedTable:
    """Table 1, which compares the raters' masks and needs no runs."""
    data, words = request_raters(spec, overrides)
    plain = compose_plain(words)
    cell = (data, "agreement")
    found = []
    for choice in OPEN_CHOICES:
        value = get(plain, choice.key, ABSENT) if choice.key else ABSENT
        touches = value != ABSENT and choice.key in MASKS
        values = () if value == ABSENT or isinstance(value, Mapping) else (written(value),)
        found.append(Explained(choice, values, frozenset([cell] if touches else [])))
    return ExplainedTable(spec, (data,), ("agreement",), frozenset([cell]), tuple(found))


def _comparison(spec: TableSpec, overrides: Sequence[str]) -> ExplainedTable:
    """Changes each choice in each cell, and compares the ids of the cell's run and evaluation."""
    one_fold = [] if any(word.rpartition(":")[2].startswith("fold=") for word in overrides) else ["fold=0"]
    tasks: dict[str, FoundTask] = {}

    def first_task(settings: Settings, notify: Notify) -> list[FoundTask]:
        return [tasks.setdefault(settings.data.name, name_tasks(settings, notify)[0])]

    planner = TablePlanner([*overrides, *one_fold], [spec], open_tasks=first_task)
    table = planner.plan()[0]
    given = {option_key(OF_ONE.sub("", word)) for word in overrides}
    cells = {
        (f"{row.data} {row.model}", column): _CellChoices(planner, row, column, tasks[row.settings.data.name], given)
        for row in table.rows
        for column in row.runs
    }
    keys = {item.partition("=")[0] for block in spec.blocks for cell in block.cells.values() for item in cell}
    found = []
    for choice in OPEN_CHOICES:
        values = dict.fromkeys(text for cell in cells.values() if (text := cell.in_force(choice)) is not None)
        touched = frozenset(name for name, cell in cells.items() if cell.is_touched(choice))
        found.append(Explained(choice, tuple(values), touched, choice.key in keys or choice.acts in keys))
    rows = tuple(dict.fromkeys(row for row, _ in cells))
    columns = tuple(column.key for column in spec.columns if any(key == column.key for _, key in cells))
    return ExplainedTable(spec, rows, columns, frozenset(cells), tuple(found))


class _CellChoices:
    """The configuration of one cell, in which each choice can be changed.

    The configuration is composed once, with a placeholder for each value of the protocol. Replacing the placeholders by
    values gives what Hydra composes, in a thousandth of the time.
    """

    def __init__(
        self, planner: TablePlanner, row: PlannedRow, column: str, task: FoundTask, given: Collection[str]
    ) -> None:
        self._planner, self._row, self._column, self._task, self._given = planner, row, column, task, given
        marks = [f"{choice.key}={_mark(choice)}" for choice in OPEN_CHOICES if choice.key.startswith("protocol.")]
        self._marked = planner.composed(row, column, marks)
        real = planner.composed(row, column)
        self._values = {
            _mark(choice): value for choice in OPEN_CHOICES if (value := get(real, choice.key, ABSENT)) != ABSENT
        }
        self._plain = _filled(self._marked, self._values)
        self._before = self._content(self._plain)

    def in_force(self, choice: Choice) -> str | None:
        """The value of a choice, None if the cell has no such key."""
        value = get(self._plain, choice.acts, ABSENT) if choice.acts in self._given else ABSENT
        if value == ABSENT:
            value = get(self._plain, choice.key, ABSENT) if choice.key else ABSENT
        if isinstance(value, Mapping):
            value = value.get("name", value)
        return None if value == ABSENT else written(value)

    def is_touched(self, choice: Choice) -> bool:
        """Whether the numbers of the cell depend on a choice."""
        value = get(self._plain, choice.key, ABSENT) if choice.key else ABSENT
        if value == ABSENT:
            return False
        own = written(value.get("name", value) if isinstance(value, Mapping) else value)
        others = [choice.paper, choice.release if choice.release != choice.paper else choice.other]
        return any(self._differs(choice, other) for other in others if written(other) != own)

    def _differs(self, choice: Choice, value: Any) -> bool:  # noqa: ANN401
        """Whether the numbers of the cell depend on something else if a choice has this value."""
        try:
            if choice.key.startswith("protocol."):
                plain = _filled(self._marked, {**self._values, _mark(choice): value})
                if plain == self._plain:
                    return False
            elif isinstance(get(self._plain, choice.key, ABSENT), Mapping):  # a file of a group
                plain = self._planner.composed(self._row, self._column, extra=[f"{choice.key}={written(value)}"])
            else:
                plain = _with(self._plain, choice.key, value)
            return self._content(plain) != self._before
        except UserError:
            return True  # the cell does not allow this value, so the choice matters

    def _content(self, plain: Mapping[str, Any]) -> object:
        """What the numbers of the cell depend on."""
        settings = to_settings(plain)
        (task,) = [item for item in name_tasks(settings) if item.task.name == self._task.task.name]
        run = plan_run(settings, task)
        return run.run_id, run.evaluation_id, settings.folds


def _mark(choice: Choice) -> str:
    """The placeholder for the value of a key of the protocol."""
    return f"CHOICE_{choice.key.partition('.')[2].replace('.', '_IN_')}_END"


def _filled(node: Any, values: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """A configuration with values in place of placeholders, which may be parts of texts."""
    if isinstance(node, Mapping):
        return {key: _filled(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled(value, values) for value in node]
    if isinstance(node, str) and "CHOICE_" in node:
        return values[node] if node in values else MARK.sub(lambda found: str(values[found[0]]), node)
    return node


def _with(node: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:  # noqa: ANN401
    """A copy with another value of a dotted key."""
    name, _, rest = key.partition(".")
    return {**node, name: _with(node[name], rest, value) if rest else value}
