"""Tables for people: Markdown, LaTeX and tidy CSV, with what the numbers mean underneath."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from dmseg.tables.build import TableData

METRICS = {"dice": "Dice (%)", "bdice": "BDice (%)", "ece": "ECE (%)", "raters": "# Raters"}
MISSING = "–"

PHANTOM_NOTE = (
    "PHANTOM DATA: images and raters are generated. These numbers show that the pipeline works; "
    "they measure nothing real and are not comparable with the paper's."
)
AGREEMENT_NOTES = (
    "Mean over the raters of a case of the Dice score between rater and majority vote (R // 2 + 1 votes of R raters), "
    "then mean over n cases. Two empty masks agree fully (Dice 1).",
)
COMPARISON_NOTES = (
    "Each cell is the mean over all n cases, each validated once in one of the folds by the final checkpoint. Dice and "
    "ECE are against the majority vote, BDice is the mean over the levels 0.1 to 0.9 against the reference below.",
    "ECE: top label, equal bins, all pixels of a case, then mean over cases.",
    "Marked cells ({mark}) are better than {reference} with p < 0.05: two-sided Wilcoxon signed-rank test on per-case "
    "differences (zero_method=wilcox), not corrected; the CSV has n, effect size and Holm-corrected p. The procedure "
    "that the paper cites for its own marks could not be read, so this test is our choice.",
)


def write_table(table: TableData, folder: Path, notes: tuple[str, ...] = ()) -> list[Path]:
    """Writes ``tableN.md``, ``tableN.csv`` and ``tableN.tex``.

    Args:
        table: the numbers.
        folder: where the files go.
        notes: further lines under the table.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / f"table{table.spec.number}"
    files = {".md": to_markdown(table, notes), ".tex": to_latex(table, notes), ".csv": to_csv(table)}
    for suffix, text in files.items():
        base.with_suffix(suffix).write_text(text, encoding="utf-8")
    return [base.with_suffix(suffix) for suffix in files]


def to_csv(table: TableData) -> str:
    """One row a cell, numbers with all their digits, what the table ran on beside each."""
    cells = table.cells.assign(table=table.spec.number, data=table.data, phantom=table.phantom)
    return str(cells.assign(profile=table.profile, protocol=table.protocol).to_csv(index=False))


def to_markdown(table: TableData, notes: tuple[str, ...] = ()) -> str:
    """The table in Markdown, our number first and the paper's in brackets where it has one."""
    header, rows = _grid(table, _cell_markdown)
    lines = [f"# Table {table.spec.number}. {table.spec.title}", "", f"_{_context(table)}_", ""]
    lines += _pipe_table(header, rows)
    for note in _notes(table, notes, mark="bold"):
        lines += ["", note]
    return "\n".join(lines) + "\n"


def to_latex(table: TableData, notes: tuple[str, ...] = ()) -> str:
    """The table in LaTeX (booktabs, xcolor), significant cells in red as in the paper."""
    header, rows = _grid(table, _cell_latex)
    body = [" & ".join(row) + r" \\" for row in ([_escape(item) for item in header[:1]] + header[1:], *rows)]
    lines = [
        f"% Table {table.spec.number}. {_context(table)}",
        *(f"% {note}" for note in _notes(table, notes, mark="red")),
        r"\begin{tabular}{" + "l" * 2 + "r" * (len(header) - 2) + "}",
        r"\toprule",
        body[0].replace("#", r"\#").replace("%", r"\%"),
        r"\midrule",
        *body[1:],
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if table.phantom:
        lines.append(r"\\ \textbf{Phantom data: generated, not a measurement.}")
    return "\n".join(lines) + "\n"


def _grid(table: TableData, cell: Callable[[pd.Series], str]) -> tuple[list[str], list[list[str]]]:
    if table.spec.kind == "agreement":
        return _agreement_grid(table, cell)
    header = ["Dataset", "Metric", *(column.title for column in table.spec.columns)]
    rows = []
    for _, block in table.cells.groupby("task", sort=False):
        for metric in table.spec.metrics:
            chosen = block[block["metric"] == metric]
            values = [cell(chosen[chosen["method"] == column.key].iloc[0]) for column in table.spec.columns]
            title = str(block["task_title"].iloc[0]) if metric == table.spec.metrics[0] else ""
            rows.append([title, _metric_title(metric, cell), *values])
    return header, rows


def _agreement_grid(table: TableData, cell: Callable[[pd.Series], str]) -> tuple[list[str], list[list[str]]]:
    header = ["Dataset", "n", *dict.fromkeys(METRICS[str(name)] for name in table.cells["metric"])]
    rows = []
    for _, block in table.cells.groupby("task", sort=False):
        first = block.iloc[0]
        rows.append([str(first["task_title"]), str(first["n"]), *(cell(row) for _, row in block.iterrows())])
    return header, rows


def _metric_title(metric: str, cell: Callable[[pd.Series], str]) -> str:
    return _escape(METRICS[metric]) if cell is _cell_latex else METRICS[metric]


def _cell_markdown(row: pd.Series) -> str:
    text = _number(row, row["value"])
    if bool(row.get("significant", False)):
        text = f"**{text}**"
    return text if np.isnan(row["paper"]) else f"{text} ({_number(row, row['paper'])})"


def _cell_latex(row: pd.Series) -> str:
    text = _number(row, row["value"])
    return rf"\textcolor{{red}}{{{text}}}" if bool(row.get("significant", False)) else text


def _number(row: pd.Series, value: float) -> str:
    if np.isnan(value):
        return MISSING
    return f"{value:.0f}" if row["metric"] == "raters" else f"{value:.2f}"


def _context(table: TableData) -> str:
    kind = "PHANTOM (generated data)" if table.phantom else table.data
    beside = " The paper's numbers in brackets." if table.cells["paper"].notna().any() else ""
    return f"Data: {kind}. Profile: {table.profile}. Protocol: {table.protocol}.{beside}"


def _notes(table: TableData, notes: tuple[str, ...], mark: str) -> list[str]:
    own = AGREEMENT_NOTES if table.spec.kind == "agreement" else COMPARISON_NOTES
    titles = {column.key: column.title for column in table.spec.columns}
    filled = [note.format(mark=mark, reference=titles.get(table.spec.reference, "")) for note in own]
    return [*([PHANTOM_NOTE] if table.phantom else []), *filled, *notes, *_counts(table)]


def _counts(table: TableData) -> list[str]:
    """How many cases each row stands on, and which cells are still missing."""
    if table.spec.kind == "agreement":
        return []
    per_task = table.cells.groupby(["task_title", "metric"], sort=False)["n"].agg(["min", "max"])
    shown = [
        f"{title} {METRICS[metric].split()[0]} {low if low == high else f'{low} to {high}'}"
        for (title, metric), (low, high) in zip(per_task.index, per_task.to_numpy(), strict=True)
    ]
    lines = [f"n: {'; '.join(shown)}."]
    missing = int(table.cells["value"].isna().sum())
    if missing:
        lines.append(
            f"{missing} of {len(table.cells)} cells have no number yet ({MISSING}): "
            "runs are missing, or no case counts."
        )
    return lines


def _pipe_table(header: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[index]) for row in [header, *rows]) for index in range(len(header))]
    align = ["-" * width if index < 2 else "-" * (width - 1) + ":" for index, width in enumerate(widths)]
    padded = [
        [
            item.ljust(width) if index < 2 else item.rjust(width)
            for index, (item, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in (header, align, *rows)
    ]
    return [f"| {' | '.join(row)} |" for row in padded]


def _escape(text: str) -> str:
    return text.replace("%", r"\%").replace("#", r"\#")
