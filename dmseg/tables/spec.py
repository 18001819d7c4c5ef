"""Specifications of tables, read from ``configs/table``."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from omegaconf import OmegaConf

from dmseg.config.config_dir import config_file, config_options
from dmseg.errors import UserError, cut
from dmseg.files.schema import TEXT, Check, SchemaError, flag, list_of, mapping, name, nullable, record, whole
from dmseg.tables.columns import SCORES

PAPER_DATA = {"qubiq": "QUBIQ", "lits": "LiTS", "kits": "KiTS"}
"""The paper's data sets, as tables print them."""


def one_of(*choices: str) -> Check:
    """Accepts one of some texts."""

    def check(value: object, where: str) -> None:
        if value not in choices:
            raise SchemaError(f"{where} is {value!r:.60}, but must be one of {', '.join(choices)}")

    return check


OVERRIDES = list_of(TEXT)
_TITLES = {"title": TEXT, "kind": one_of("agreement", "comparison")}
_COLUMN = record({"title": TEXT}, {"overrides": OVERRIDES, "shown": flag}, others=None)
_BLOCK = record(
    {"data": list_of(one_of(*PAPER_DATA), least=1), "models": list_of(name, least=1),
     "metrics": list_of(one_of(*SCORES), unique=True, least=1)},
    {"pooled": flag, "cells": mapping(TEXT, OVERRIDES)},
    others=None,
)  # fmt: skip
_COMPARISON = record(
    {**_TITLES, "reference": TEXT, "columns": mapping(name, _COLUMN), "blocks": list_of(_BLOCK, least=1)},
    {"reference_is_ours": flag, "across": flag, "without_own_teacher": flag, "paper": nullable(whole(1, 8))},
    others=None,
)
_AGREEMENT = record(_TITLES, others=None)


@dataclass(frozen=True)
class Column:
    """One method of a table.

    Attributes:
        key: its name in files.
        title: printed title.
        shown: whether it is printed; the reference of the tests need not be.
    """

    key: str
    title: str
    shown: bool = True


@dataclass(frozen=True)
class Block:
    """The rows of one data set with one network.

    Attributes:
        data: the paper's data set: ``qubiq``, ``lits`` or ``kits``.
        model: the paper's network, a file of ``configs/model``.
        metrics: scores to show, columns of ``cases.csv``.
        pooled: whether to show one row with the mean over the data set's tasks instead of one row for each task.
        cells: overrides of each column's configuration, by the column's key.
    """

    data: str
    model: str
    metrics: tuple[str, ...]
    pooled: bool
    cells: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class TableSpec:
    """A table of the paper, or one beyond it.

    Attributes:
        name: its number in the paper, or another name.
        title: title of the table.
        kind: ``agreement`` (of raters, nothing is trained) or ``comparison`` (of methods).
        reference: key of the column that every other column is tested against.
        reference_is_ours: whether the reference is the proposed method. Then it is tested whether the reference is
            better than each column, otherwise whether each column is better than the reference.
        across: whether data sets are columns and networks are rows.
        without_own_teacher: whether, with several networks, the teacher's network is left out as a student.
        paper: number of the paper's table to compare with; None for none.
        columns: the methods.
        blocks: the rows.
    """

    name: str
    title: str
    kind: str
    reference: str = ""
    reference_is_ours: bool = False
    across: bool = False
    without_own_teacher: bool = False
    paper: int | None = None
    columns: tuple[Column, ...] = field(default=())
    blocks: tuple[Block, ...] = field(default=())

    @property
    def stem(self) -> str:
        """Its name in files: ``table2``, ``table-methods``."""
        return f"table{self.name}" if self.name.isdecimal() else f"table-{self.name}"

    @property
    def heading(self) -> str:
        """The number, if it has one, and the title."""
        return f"Table {self.name}. {self.title}" if self.name.isdecimal() else self.title

    @property
    def shown(self) -> list[Column]:
        """The columns that are printed."""
        return [column for column in self.columns if column.shown]

    @property
    def metrics(self) -> tuple[str, ...]:
        """All scores that are shown."""
        return tuple(dict.fromkeys(metric for block in self.blocks for metric in block.metrics))

    def with_metrics(self, metrics: Sequence[str]) -> "TableSpec":
        """The same table with other scores in all its rows.

        Raises:
            UserError: if a score is unknown, or the table compares no methods.
        """
        known = [item for item in SCORES if item != "raters"]
        if unknown := [item for item in metrics if item not in known]:
            raise UserError(f"metrics names '{cut(unknown[0])}', which is not a metric; choose from {', '.join(known)}")
        if not metrics or len(set(metrics)) < len(metrics):
            raise UserError("metrics must name at least one metric, and each once: metrics=[dice,ece]")
        return replace(self, blocks=tuple(replace(block, metrics=tuple(metrics)) for block in self.blocks))


def table_names() -> list[str]:
    """Names of all specified tables: the paper's by number, then the others."""
    names = config_options("table")
    return sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


def table_numbers() -> list[int]:
    """Numbers of the paper's tables that are specified."""
    return [int(name) for name in table_names() if name.isdecimal()]


@contextmanager
def naming_column(table: str, column: str) -> Iterator[None]:
    """Adds the column and the file of the table to messages about the overrides of a cell."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}\nin the column {column} of {config_file('table', table)}") from None


def read_spec(name: str | int) -> TableSpec:
    """Reads the specification of a table.

    Args:
        name: the number of a table of the paper, or the name of another one.

    Raises:
        UserError: if there is no such table, or its file is invalid.
    """
    if str(name) not in (known := table_names()):  # a name, never a path
        raise UserError(f"there is no table '{cut(str(name))}'; choose from {', '.join(known)}")
    path = config_file("table", str(name))
    node: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(path))  # type: ignore[assignment]
    try:
        (_AGREEMENT if node.get("kind") == "agreement" else _COMPARISON)(node, str(path))
        named = [node["reference"]] if "reference" in node else []
        for column in (*named, *(key for block in node.get("blocks", ()) for key in block.get("cells", {}))):
            if column not in node["columns"]:
                raise SchemaError(f"{path} names the column {column!r:.60}, but has {', '.join(node['columns'])}")
    except ValueError as error:
        raise UserError(str(error)) from None
    columns = node.pop("columns", {})
    common = {key: tuple(value.get("overrides", ())) for key, value in columns.items()}
    blocks: list[Block] = []
    for item in node.pop("blocks", ()):
        cells = common | {key: tuple(value) for key, value in item.get("cells", {}).items()}
        metrics, pooled = tuple(item["metrics"]), item.get("pooled", False)
        blocks += (Block(data, model, metrics, pooled, cells) for model, data in product(item["models"], item["data"]))
    return TableSpec(
        name=path.stem,
        paper=node.pop("paper", int(path.stem) if path.stem.isdecimal() else None),
        columns=tuple(Column(key, value["title"], value.get("shown", True)) for key, value in columns.items()),
        blocks=tuple(blocks),
        **node,
    )
