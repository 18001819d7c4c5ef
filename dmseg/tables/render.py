"""Tables for people: Markdown, LaTeX and tidy CSV, with what the numbers mean underneath."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from dmseg.files import write_whole
from dmseg.tables.build import TableData
from dmseg.tables.spec import TableSpec

METRICS = {"dice": "Dice (%)", "bdice": "BDice (%)", "ece": "ECE (%)", "ged": "GED (%)", "raters": "# Raters"}
MISSING = "–"
NO_CELL = "-"
MARKS_MARKDOWN = {"": "{}", "better": "**{}**", "worse": "{}†"}
MARKS_LATEX = {"": "{}", "better": r"\textcolor{{red}}{{{}}}", "worse": r"{}$^\dagger$"}

PHANTOM_NOTE = (
    "PHANTOM DATA: images and raters are generated. These numbers show that the pipeline works; "
    "they measure nothing real and are not comparable with the paper's."
)
AGREEMENT_NOTES = (
    "Mean over the raters of a case of the Dice score between rater and majority vote (R // 2 + 1 votes of R raters), "
    "then mean over n cases. Two empty masks agree fully (Dice 1).",
)
METRIC_NOTES = {
    "dice": "Dice is against the majority vote.",
    "bdice": "BDice is the mean over the levels 0.1 to 0.9 against the reference below.",
    "ece": "ECE is against the majority vote: top label, equal bins, all pixels of a case, then mean over cases.",
    "ged": "GED is the squared generalised energy distance of a method's samples (docs/methods.md) to the raters' own "
    "annotations, d = 1 - IoU, times 100: between 0 and 200, lower is better.",
}
CELL_NOTE = "Each cell is the mean over all n cases, each validated once in one of the folds by the final checkpoint."
POOLED_NOTE = (
    "A row over several tasks is the mean of the tasks' means; its test averages each patient over tasks first."
)
BETTER_NOTE = "Marked cells ({mark}) are better than {reference} with p < 0.05:"
OURS_NOTE = (
    "{reference} is better than a cell with † with p < 0.05, and is marked ({mark}) where it is so for all of them:"
)
TEST_NOTE = (
    " two-sided Wilcoxon signed-rank test on per-case differences (zero_method=wilcox), not corrected; the CSV has n, "
    "effect size and Holm-corrected p. The procedure that the paper cites for its own marks could not be read, so this "
    "test is our choice."
)


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


def to_csv(table: TableData) -> str:
    """One row a cell, numbers with all their digits, what the table ran on beside each."""
    cells = table.cells.assign(table=table.spec.name, data=table.data, phantom=table.phantom)
    return str(cells.assign(profile=table.profile, protocol=table.protocol).to_csv(index=False))


def to_markdown(table: TableData, notes: tuple[str, ...] = ()) -> str:
    """The table in Markdown, our number first and the paper's in brackets where it has one."""
    header, rows = _grid(table, _cell_markdown)
    lines = [f"# {table.spec.heading}", "", f"_{_context(table)}_", ""]
    lines += _pipe_table(header, rows, _n_labels(table))
    for note in _notes(table, notes, mark="bold"):
        lines += ["", note]
    return "\n".join(lines) + "\n"


def to_latex(table: TableData, notes: tuple[str, ...] = ()) -> str:
    """The table in LaTeX (booktabs, xcolor), significant cells in red as in the paper."""
    header, rows = _grid(table, _cell_latex)
    labels = _n_labels(table)
    body = [" & ".join(row) + r" \\" for row in ([_escape(item) for item in header[:1]] + header[1:], *rows)]
    lines = [
        f"% {table.spec.heading}. {_context(table)}",
        *(f"% {note}" for note in _notes(table, notes, mark="red")),
        r"\begin{tabular}{" + "l" * labels + "r" * (len(header) - labels) + "}",
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


Cell = Callable[[pd.Series], str]


def _grid(table: TableData, cell: Cell) -> tuple[list[str], list[list[str]]]:
    """Header and rows; the columns before the first number are `_n_labels`."""
    if table.spec.kind == "agreement":
        return _agreement_grid(table, cell)
    return _grid_across(table, cell) if table.spec.across else _grid_down(table, cell)


def _n_labels(table: TableData) -> int:
    """How many columns stand before the numbers."""
    return 3 if table.spec.kind == "comparison" and (table.spec.across or _has_networks(table)) else 2


def _has_networks(table: TableData) -> bool:
    return bool(table.cells["model"].nunique() > 1)


def _grid_down(table: TableData, cell: Cell) -> tuple[list[str], list[list[str]]]:
    """Data sets and tasks below each other."""
    networks = ["Network"] if _has_networks(table) else []
    header = ["Dataset", *networks, "Metric", *(column.title for column in table.spec.shown)]
    rows = []
    for _, block in table.cells.groupby(["data_set", "model", "task"], sort=False):
        first = block.iloc[0]
        for index, (metric, chosen) in enumerate(block.groupby("metric", sort=False)):
            labels = [str(first["task_title"]), *([str(first["model_title"])] if networks else [])]
            shown = labels if index == 0 else [""] * len(labels)
            rows.append([*shown, _metric_title(str(metric), cell), *_values(table, chosen, cell)])
    return header, rows


def _grid_across(table: TableData, cell: Cell) -> tuple[list[str], list[list[str]]]:
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
                for value in _values(table, of_set.get(name, chosen.iloc[:0]), cell)
            ]
            rows.append([*([network, backbone] if index == 0 else ["", ""]), _metric_title(str(metric), cell), *values])
    return ["Method", "Backbone", "Metric", *columns], rows


def _values(table: TableData, chosen: pd.DataFrame, cell: Cell) -> list[str]:
    """The numbers of one row, one for each method; a dash where a method has no cell."""
    by_method = {str(row["method"]): row for _, row in chosen.iterrows()}
    return [cell(by_method[column.key]) if column.key in by_method else NO_CELL for column in table.spec.shown]


def _agreement_grid(table: TableData, cell: Cell) -> tuple[list[str], list[list[str]]]:
    header = ["Dataset", "n", *dict.fromkeys(METRICS[str(name)] for name in table.cells["metric"])]
    rows = []
    for _, block in table.cells.groupby("task", sort=False):
        first = block.iloc[0]
        rows.append([str(first["task_title"]), str(first["n"]), *(cell(row) for _, row in block.iterrows())])
    return header, rows


def _metric_title(metric: str, cell: Cell) -> str:
    return _escape(METRICS[metric]) if cell is _cell_latex else METRICS[metric]


def _cell_markdown(row: pd.Series) -> str:
    text = MARKS_MARKDOWN[str(row.get("mark", ""))].format(_number(row, row["value"]))
    return text if np.isnan(row["paper"]) else f"{text} ({_number(row, row['paper'])})"


def _cell_latex(row: pd.Series) -> str:
    return MARKS_LATEX[str(row.get("mark", ""))].format(_number(row, row["value"]))


def _number(row: pd.Series, value: float) -> str:
    if np.isnan(value):
        return MISSING
    return f"{value:.0f}" if row["metric"] == "raters" else f"{value:.2f}"


def _context(table: TableData) -> str:
    kind = "PHANTOM (generated data)" if table.phantom else table.data
    beside = " The paper's numbers in brackets." if table.cells["paper"].notna().any() else ""
    return f"Data: {kind}. Profile: {table.profile}. Protocol: {table.protocol}.{beside}"


def _notes(table: TableData, notes: tuple[str, ...], mark: str) -> list[str]:
    own = AGREEMENT_NOTES if table.spec.kind == "agreement" else _comparison_notes(table.spec, mark)
    return [*([PHANTOM_NOTE] if table.phantom else []), *own, *notes, *_counts(table)]


def _comparison_notes(spec: TableSpec, mark: str) -> tuple[str, ...]:
    reference = next(column.title for column in spec.columns if column.key == spec.reference)
    tests = (OURS_NOTE if spec.reference_is_ours else BETTER_NOTE).format(mark=mark, reference=reference) + TEST_NOTE
    metrics = " ".join(METRIC_NOTES[metric] for metric in spec.metrics if metric in METRIC_NOTES)
    pooled = (POOLED_NOTE,) if any(block.data == "qubiq" for block in spec.blocks) else ()
    return (f"{CELL_NOTE} {metrics}", *pooled, tests)


def _counts(table: TableData) -> list[str]:
    """How many cases each row stands on, and which cells are still missing."""
    if table.spec.kind == "agreement":
        return []
    titles = table.cells["task_title"]
    if _has_networks(table):
        titles = titles + " " + table.cells["model_title"]
    per_task = (
        table.cells.assign(task_title=titles).groupby(["task_title", "metric"], sort=False)["n"].agg(["min", "max"])
    )
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


def _escape(text: str) -> str:
    return text.replace("%", r"\%").replace("#", r"\#")
