"""Tables for people: Markdown and LaTeX, with what the numbers mean underneath."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dmseg.files.atomic import write_whole
from dmseg.tables.columns import SCORES
from dmseg.tables.notes import MISSING, table_notes
from dmseg.tables.numbers import TableData
from dmseg.tables.tidy import to_csv
from dmseg.text import latex, latex_comment, markdown

NO_CELL = "-"


@dataclass(frozen=True)
class Style:
    """How a format writes what a table consists of.

    Attributes:
        text: makes any text safe.
        marks: what a marked number becomes.
        beside: whether the paper's numbers stand beside ours, in brackets.
    """

    text: Callable[[str], str]
    marks: Mapping[str, str]
    beside: bool

    def cell(self, row: pd.Series) -> str:
        """A number."""
        text = self.marks[str(row.get("mark", ""))].format(self._number(row, "value"))
        return f"{text} ({self._number(row, 'paper')})" if self.beside and not np.isnan(row["paper"]) else text

    def _number(self, row: pd.Series, name: str) -> str:
        value = float(row[name])
        return self.text(MISSING if np.isnan(value) else SCORES[str(row["metric"])].shown(value))


MARKDOWN = Style(markdown, {"": "{}", "better": "**{}**", "worse": "{}†"}, beside=True)
LATEX = Style(latex, {"": "{}", "better": r"\textcolor{{red}}{{{}}}", "worse": r"{}$^\dagger$"}, beside=False)


def write_table(table: TableData, folder: Path, notes: tuple[str, ...] = ()) -> list[Path]:
    """Writes ``tableN.md``, ``tableN.csv`` and ``tableN.tex``, or ``table-NAME.md`` and so on.

    Args:
        table: the numbers.
        folder: where the files go.
        notes: further lines under the table.

    Returns:
        The files.
    """
    base = folder / table.spec.stem
    files = {".md": to_markdown(table, notes), ".tex": to_latex(table, notes), ".csv": to_csv(table)}
    for suffix, text in files.items():
        write_whole(base.with_suffix(suffix), text)
    return [base.with_suffix(suffix) for suffix in files]


def to_markdown(table: TableData, notes: tuple[str, ...] = ()) -> str:
    """The table in Markdown, our number first and the paper's in brackets where it has one."""
    header, rows = _grid(table, MARKDOWN)
    lines = [f"# {markdown(table.spec.heading)}", "", f"_{markdown(_context(table))}_", ""]
    lines += _pipe_table(header, rows, _n_labels(table))
    for note in table_notes(table, notes, mark="bold"):
        lines += ["", markdown(note)]
    return "\n".join(lines) + "\n"


def to_latex(table: TableData, notes: tuple[str, ...] = ()) -> str:
    """The table in LaTeX (booktabs, xcolor), significant cells in red as in the paper."""
    header, rows = _grid(table, LATEX)
    labels = _n_labels(table)
    head, *body = [" & ".join(row) + r" \\" for row in (header, *rows)]
    lines = [
        latex_comment(f"{table.spec.heading}. {_context(table)}"),
        *map(latex_comment, table_notes(table, notes, mark="red")),
        r"\begin{tabular}{" + "l" * labels + "r" * (len(header) - labels) + "}",
        r"\toprule",
        head,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if table.phantom:
        lines.append(r"\\ \textbf{Phantom data: generated, not a measurement.}")
    return "\n".join(lines) + "\n"


def _grid(table: TableData, style: Style) -> tuple[list[str], list[list[str]]]:
    """Header and rows as a format writes them; the columns before the first number are `_n_labels`."""
    if table.spec.kind == "agreement":
        return _agreement_grid(table, style)
    return _grid_across(table, style) if table.spec.across else _grid_down(table, style)


def _n_labels(table: TableData) -> int:
    """How many columns stand before the numbers."""
    return 3 if table.spec.kind == "comparison" and (table.spec.across or _has_networks(table)) else 2


def _has_networks(table: TableData) -> bool:
    return bool(table.cells["model"].nunique() > 1)


def _grid_down(table: TableData, style: Style) -> tuple[list[str], list[list[str]]]:
    """Data sets and tasks below each other."""
    names = ["task_title", *(["model_title"] if _has_networks(table) else [])]
    header = ["Dataset", *["Network"][: len(names) - 1], "Metric", *(column.title for column in table.spec.shown)]
    rows = []
    for _, block in table.cells.groupby(["data_set", "model", "task"], sort=False):
        labels = _texts((str(block[name].iloc[0]) for name in names), style)
        for index, (metric, chosen) in enumerate(block.groupby("metric", sort=False)):
            shown = labels if index == 0 else [""] * len(labels)
            rows.append([*shown, style.text(SCORES[str(metric)].heading), *_values(table, chosen, style)])
    return _texts(header, style), rows


def _grid_across(table: TableData, style: Style) -> tuple[list[str], list[list[str]]]:
    """Networks below each other, data sets side by side, as in the paper's Table 4."""
    sets = table.cells[["data_set", "task", "task_title"]].drop_duplicates()
    columns = [f"{title}: {column.title}" for title in sets["task_title"] for column in table.spec.shown]
    rows = []
    for _, block in table.cells.groupby("model", sort=False):
        network, _, backbone = str(block["model_title"].iloc[0]).partition(" ")
        for index, (metric, chosen) in enumerate(block.groupby("metric", sort=False)):
            of_set = dict(iter(chosen.groupby(["data_set", "task"])))
            values = [
                value
                for name in zip(sets["data_set"], sets["task"], strict=True)
                for value in _values(table, of_set.get(name, chosen.iloc[:0]), style)
            ]
            labels = [network, backbone] if index == 0 else ["", ""]
            rows.append([*_texts((*labels, SCORES[str(metric)].heading), style), *values])
    return _texts(["Method", "Backbone", "Metric", *columns], style), rows


def _texts(texts: Iterable[str], style: Style) -> list[str]:
    return [style.text(text) for text in texts]


def _values(table: TableData, chosen: pd.DataFrame, style: Style) -> list[str]:
    """The numbers of one row, one for each method; a dash where a method has no cell."""
    by_method = {str(row["method"]): row for _, row in chosen.iterrows()}
    return [style.cell(by_method[column.key]) if column.key in by_method else NO_CELL for column in table.spec.shown]


def _agreement_grid(table: TableData, style: Style) -> tuple[list[str], list[list[str]]]:
    header = ["Dataset", "n", *dict.fromkeys(SCORES[str(name)].heading for name in table.cells["metric"])]
    rows = []
    for _, block in table.cells.groupby("task", sort=False):
        first = block.iloc[0]
        labels = _texts((str(first["task_title"]), str(first["n"])), style)
        rows.append([*labels, *(style.cell(row) for _, row in block.iterrows())])
    return _texts(header, style), rows


def _context(table: TableData) -> str:
    kind = "PHANTOM (generated data)" if table.phantom else table.data
    beside = " The paper's numbers in brackets." if table.cells["paper"].notna().any() else ""
    return f"Data: {kind}. Profile: {table.profile}. Protocol: {table.protocol}.{beside}"


def _pipe_table(header: list[str], rows: list[list[str]], labels: int) -> list[str]:
    widths = [max(len(row[index]) for row in [header, *rows]) for index in range(len(header))]
    align = ["-" * width if index < labels else "-" * (width - 1) + ":" for index, width in enumerate(widths)]
    padded = [
        [
            item.ljust(width) if index < labels else item.rjust(width)
            for index, (item, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in (header, align, *rows)
    ]
    return [f"| {' | '.join(row)} |" for row in padded]
