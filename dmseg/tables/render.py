"""Rendered tables: Markdown and LaTeX with notes, and CSV with one row for each cell."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from dmseg.files.atomic import write_whole
from dmseg.tables.columns import SCORES
from dmseg.tables.notes import MISSING, table_notes
from dmseg.tables.numbers import TableData
from dmseg.tables.spec import TableSpec
from dmseg.text import csv_text, latex, latex_comment, markdown

NO_CELL = "-"
LATEX_PACKAGES = r"% Needs \usepackage[T1]{fontenc} and \usepackage{booktabs,graphicx,textcomp,xcolor}."
_NO_LABEL = re.compile(r"[^A-Za-z0-9]+")
"""What a label in LaTeX should not contain."""


@dataclass(frozen=True)
class Style:
    """How a format writes the cells of a table.

    Attributes:
        text: escapes text.
        marks: templates for numbers by mark of the test over cases.
        further_marks: text after the number, by mark of the interval of the difference.
        plus_minus: separator between a mean over seeds and its standard deviation.
        with_paper: whether the paper's numbers are added in brackets.
    """

    text: Callable[[str], str]
    marks: Mapping[str, str]
    further_marks: Mapping[str, str]
    plus_minus: str
    with_paper: bool

    def cell(self, row: pd.Series) -> str:
        """Text of a cell: the number with its SD over seeds and its marks, and the paper's number."""
        number = self._number(row, "value")
        if row.get("n_seeds", 1) > 1:
            number += f"{self.plus_minus}{self._number(row, 'sd_seeds')}"
        text = self.marks[str(row.get("mark", ""))].format(number)
        text += self.further_marks[str(row.get("diff_mark", ""))]
        return f"{text} ({self._number(row, 'paper')})" if self.with_paper and not np.isnan(row["paper"]) else text

    def _number(self, row: pd.Series, name: str) -> str:
        value = float(row[name])
        return self.text(MISSING if np.isnan(value) else SCORES[str(row["metric"])].shown(value))


MARKDOWN = Style(
    markdown,
    {"": "{}", "better": "**{}**", "worse": "{}†"},
    {"": "", "better": r"\*", "worse": "‡"},
    " ± ",
    with_paper=True,
)
LATEX = Style(
    latex,
    {"": "{}", "better": r"\textcolor{{red}}{{{}}}", "worse": r"{}$^\dagger$"},
    {"": "", "better": "$^{*}$", "worse": r"$^\ddagger$"},
    r" $\pm$ ",
    with_paper=False,
)


def write_table(table: TableData, folder: Path, notes: tuple[str, ...] = ()) -> list[Path]:
    """Writes ``tableN.md``, ``tableN.csv`` and ``tableN.tex``, or ``table-NAME.md`` and so on.

    Args:
        table: the numbers.
        folder: where to write the files.
        notes: further lines under the table.

    Returns:
        The files.
    """
    contents = {".md": to_markdown(table, notes), ".tex": to_latex(table, notes), ".csv": to_csv(table)}
    files = {(folder / table.spec.stem).with_suffix(suffix): text for suffix, text in contents.items()}
    for path, text in files.items():
        write_whole(path, text)
    return list(files)


def write_cases(cases: pd.DataFrame, folder: Path, spec: TableSpec) -> Path:
    """Writes the per-case scores that a table was computed from."""
    path = folder / f"{spec.stem}_cases.csv"
    write_whole(path, frame_to_csv(cases))
    return path


def to_markdown(table: TableData, notes: tuple[str, ...] = ()) -> str:
    """The table in Markdown, with the paper's numbers in brackets after ours."""
    header, rows = _grid(table, MARKDOWN)
    lines = [f"# {markdown(table.spec.heading)}", "", f"_{markdown(_context(table))}_", ""]
    labels = _n_labels(table)  # left-aligned, unlike the numbers
    widths = [max(len(row[index]) for row in [header, *rows]) for index in range(len(header))]
    align = ["-" * width if index < labels else "-" * (width - 1) + ":" for index, width in enumerate(widths)]
    for row in (header, align, *rows):
        padded = [
            item.ljust(width) if index < labels else item.rjust(width)
            for index, (item, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"| {' | '.join(padded)} |")
    for note in table_notes(table, notes, mark="bold"):
        lines += ["", markdown(note)]
    return "\n".join(lines) + "\n"


def to_latex(table: TableData, notes: tuple[str, ...] = ()) -> str:
    """The table in LaTeX, as a float no wider than the text, significant cells in red as in the paper."""
    header, rows = _grid(table, LATEX)
    labels = _n_labels(table)
    head, *body = [" & ".join(row) + r" \\" for row in (header, *rows)]
    caption = f"{latex(table.spec.title)}."
    if table.spec.kind == "comparison":  # what the marks mean
        reference = latex({column.key: column.title for column in table.spec.columns}[table.spec.reference])
        if table.spec.reference_is_ours:
            tests = r"by the test over cases ($\dagger$) or the interval of the difference ($\ddagger$)"
            caption += f" Columns that {reference} is better than {tests}."
        else:
            tests = r"by the test over cases (\textcolor{red}{red}) or the interval of the difference ($*$)"
            caption += f" Cells that are better than {reference} {tests}."
    lines = [
        latex_comment(f"{table.spec.heading}. {_context(table)}"),
        *map(latex_comment, table_notes(table, notes, mark="red")),
        LATEX_PACKAGES,
        r"\begin{table}[tbp]",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:dmseg-{_NO_LABEL.sub('-', table.spec.name)}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        r"\begin{tabular}{" + "l" * labels + "r" * (len(header) - labels) + "}",
        r"\toprule",
        head,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
    ]
    if table.phantom:
        lines.append(r"\par\textbf{Phantom data: generated, not a measurement.}")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def to_csv(table: TableData) -> str:
    """One row for each cell, with data set, profile and protocol of the table."""
    cells = table.cells.assign(table=table.spec.name, data=table.data, phantom=table.phantom)
    return frame_to_csv(cells.assign(profile=table.profile, protocol=table.protocol))


def frame_to_csv(frame: pd.DataFrame) -> str:
    """A frame as CSV: numbers in full precision, text made safe by `dmseg.text.csv_text`."""
    texts = frame.select_dtypes(exclude=["number", "bool"])
    safe = {str(name): texts[name].map(cache(csv_text), na_action="ignore") for name in texts}  # most are repeated
    return str(frame.assign(**safe).to_csv(index=False))


def _context(table: TableData) -> str:
    kind = "PHANTOM (generated data)" if table.phantom else table.data
    brackets = " The paper's numbers in brackets." if table.cells["paper"].notna().any() else ""
    return f"Data: {kind}. Profile: {table.profile}. Protocol: {table.protocol}.{brackets}"


def _grid(table: TableData, style: Style) -> tuple[list[str], list[list[str]]]:
    """Header and rows in a format; the first `_n_labels` columns contain no numbers."""
    cells, shown = table.cells, table.spec.shown
    rows: list[list[str]] = []
    if table.spec.kind == "agreement":
        header = ["Dataset", "n", *dict.fromkeys(SCORES[str(name)].heading for name in cells["metric"])]
        for _, block in cells.groupby("task", sort=False):
            first = block.iloc[0]
            labels = [style.text(str(first["task_title"])), style.text(str(first["n"]))]
            rows.append([*labels, *(style.cell(row) for _, row in block.iterrows())])
    elif table.spec.across:  # a row for each network and metric, data sets side by side, as in the paper's Table 4
        sets = cells[["data_set", "task", "task_title"]].drop_duplicates()
        columns = [f"{title}: {column.title}" for title in sets["task_title"] for column in shown]
        header = ["Method", "Backbone", "Metric", *columns]
        for _, block in cells.groupby("model", sort=False):
            network, _, backbone = str(block["model_title"].iloc[0]).partition(" ")
            for index, (metric, chosen) in enumerate(block.groupby("metric", sort=False)):
                labels = [network, backbone] if index == 0 else ["", ""]
                row = [style.text(label) for label in (*labels, SCORES[str(metric)].heading)]
                of_set = dict(iter(chosen.groupby(["data_set", "task"])))
                for name in zip(sets["data_set"], sets["task"], strict=True):
                    row += _values(table, of_set.get(name, chosen.iloc[:0]), style)
                rows.append(row)
    else:  # a row for each data set, network, task and metric
        titles = {"task_title": "Dataset"} | ({"model_title": "Network"} if _has_networks(table) else {})
        header = [*titles.values(), "Metric", *(column.title for column in shown)]
        for _, block in cells.groupby(["data_set", "model", "task"], sort=False):
            own = [str(block[name].iloc[0]) for name in titles]
            for index, (metric, chosen) in enumerate(block.groupby("metric", sort=False)):
                labels = own if index == 0 else [""] * len(own)
                row = [style.text(label) for label in (*labels, SCORES[str(metric)].heading)]
                rows.append(row + _values(table, chosen, style))
    return [*map(style.text, header)], rows


def _n_labels(table: TableData) -> int:
    """Number of columns before the numbers."""
    return 3 if table.spec.kind == "comparison" and (table.spec.across or _has_networks(table)) else 2


def _has_networks(table: TableData) -> bool:
    return bool(table.cells["model"].nunique() > 1)


def _values(table: TableData, chosen: pd.DataFrame, style: Style) -> list[str]:
    """The numbers of one row, one for each method; a dash if a method has no cell."""
    by_method = {str(row["method"]): row for _, row in chosen.iterrows()}
    return [style.cell(by_method[column.key]) if column.key in by_method else NO_CELL for column in table.spec.shown]
