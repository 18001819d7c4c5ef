"""The notes under a table: what its numbers mean, what they were computed from, and what is missing."""

from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

import pandas as pd

from dmseg.config.settings import FoldSettings
from dmseg.data.folds import DEFAULT_COUNT
from dmseg.errors import some
from dmseg.metrics.named import COUNT_METRICS
from dmseg.runs.plan import PlannedRun
from dmseg.runs.seal import DamagedError
from dmseg.runs.status import is_to_be_scored
from dmseg.runs.store import RunStore
from dmseg.tables.columns import SCORES
from dmseg.tables.inference_notes import inference_notes, shown_cells
from dmseg.tables.numbers import TableData
from dmseg.tables.planning import PlannedRow, PlannedTable

MISSING = "–"

PHANTOM_NOTE = (
    "PHANTOM DATA: images and raters are generated. These numbers show that the pipeline works; "
    "they measure nothing real and are not comparable with the paper's."
)
AGREEMENT_NOTE = (
    "Mean over the raters of a case of the Dice score between rater and majority vote (R // 2 + 1 votes of R raters), "
    "then mean over n cases. Two empty masks agree fully (Dice 1)."
)
DISJOINT_NOTE = (
    "A rater without any overlap with the majority vote counts as Dice {disjoint:g}, not 0 (agreement.disjoint)."
)
CELL_NOTE = "Each cell is the mean over n cases, scored with the final checkpoint of a run that did not train on them."
POOLED_NOTE = (
    "A row over several tasks is the mean of the tasks' means. Its test takes the difference between two columns for "
    "each case and task that have a value in both, averages it over the tasks of each patient, and is over patients; a "
    "cell is marked only where the mean difference over tasks has the same sign. Its interval adds up the variances of "
    "cohorts, whose tasks share patients and folds."
)


def table_notes(table: TableData, further: Iterable[str], mark: str) -> list[str]:
    """All notes of a table, as plain text.

    Args:
        table: the table.
        further: notes on its settings (`plan_notes`).
        mark: how significant cells are marked.
    """
    phantom = [PHANTOM_NOTE] if table.phantom else []
    if table.spec.kind == "agreement":
        replaced = [DISJOINT_NOTE.format(disjoint=table.disjoint)] if table.disjoint else []
        return [*phantom, " ".join([AGREEMENT_NOTE, *replaced]), *further]
    cells = " ".join(filter(None, [CELL_NOTE, *(SCORES[metric].note for metric in table.spec.metrics)]))
    pooled = [POOLED_NOTE] if (table.cells["n_tasks"] > 1).any() else []
    own = [*phantom, cells, *pooled, *inference_notes(table, mark)]
    return [*own, *further, *_other_ties(table), *_counts(table)]


def plan_notes(planned: PlannedTable) -> tuple[str, ...]:
    """Notes on the settings of a comparison: folds, scoring, networks, epochs and imported runs."""
    evaluate = planned.settings.evaluate
    reference = str(evaluate.reference["_target_"]).rpartition(".")[2]
    networks = dict.fromkeys(row.model for row in planned.rows)
    trainings = [(row.data, row.settings.train) for row in planned.rows]
    lengths = dict.fromkeys(
        f"{data} {train.epochs}" + (f" (at least {train.min_steps} steps)" if train.min_steps else "")
        for data, train in trainings
    )
    runs = {run.run_id: run for row in planned.rows for runs in row.cells.values() for run in runs}
    imported = sum(RunStore(run.results).is_imported(run_id) for run_id, run in runs.items())
    seeds = planned.seeds
    return (
        _folds(planned.rows),
        *([f"Seeds: {some(seeds, 20)}."] if len(seeds) > 1 else []),
        f"BDice reference: {reference} fusion of the raters. Both masks empty: {evaluate.empty}. "
        f"Network: {', '.join(networks)}. Epochs: {'; '.join(lengths)}.",
        *_to_score(runs.values()),
        *_without_counts(planned),
        *([f"{imported} of {len(runs)} runs were imported: they were not computed here."] if imported else []),
    )


def _to_score(runs: Collection[PlannedRun]) -> list[str]:
    """A note on runs that are trained but have no evaluation with these settings."""
    count = sum(is_to_be_scored(run) for run in runs)
    if not count:
        return []
    return [
        f"{count} of {len(runs)} runs are trained, but not scored with these settings; 'dmseg reproduce' with the same "
        "arguments scores them without training."
    ]


def _without_counts(planned: PlannedTable) -> list[str]:
    """A note on metrics that are empty because runs have no counts."""
    named = [name for name in planned.spec.metrics if name in COUNT_METRICS]
    lacking, without_weights = set(), 0
    for row in planned.rows:
        for run in (run for runs in row.cells.values() for run in runs) if named else ():
            store = RunStore(run.results)
            with suppress(DamagedError):
                known = store.has_evaluation(run.run_id, run.evaluation_id)
                if (
                    known
                    and run.run_id not in lacking
                    and store.folder_with("counts.npz", run.run_id, run.evaluation_id) is None
                ):
                    lacking.add(run.run_id)
                    without_weights += not store.has_weights(run.run_id)
    if not lacking:
        return []
    titles = ", ".join(SCORES[name].title for name in named)
    note = f"{titles}: {len(lacking)} runs were stored without counts, so their cells are empty."
    if without_weights < len(lacking):
        note += " 'dmseg reproduce' with the same arguments scores their weights again and adds the counts."
    if without_weights:
        note += f" {without_weights} of them were imported without weights and cannot be scored again."
    return [note]


def _other_ties(table: TableData) -> list[str]:
    """Dice under the other rule for ties, where the number of raters is even."""
    columns = [column.key for column in table.spec.shown]
    cells = table.cells[table.cells["method"].isin(columns) & table.cells["dice_other_ties"].notna()]
    if not len(cells):
        return []
    networks = " " + cells["model_title"] if cells["model"].nunique() > 1 else ""
    rows = []
    for title, row in cells.groupby(cells["task_title"] + networks, sort=False):
        values = zip(row["method_title"], row["dice_other_ties"], strict=True)
        rows.append(f"{title}: " + ", ".join(f"{name} {SCORES['dice'].shown(value)}" for name, value in values))
    rule = "foreground" if table.ties == "background" else "background"
    note = f"Where the number of raters is even, a tie counts as {table.ties}. With ties as {rule}, Dice (%) is:"
    return [f"{note} {'; '.join(rows)}."]


def _folds(rows: Iterable[PlannedRow]) -> str:
    """The folds of the runs; for each data set if they differ."""
    by_data: dict[str, list[PlannedRow]] = {}
    for row in rows:
        by_data.setdefault(row.data, []).append(row)
    found = {data: _folds_of(of_data) for data, of_data in by_data.items()}
    if len(set(found.values())) == 1:
        return f"Folds: {next(iter(found.values()))}."
    return "Folds: " + "; ".join(f"{data}: {text}" for data, text in found.items()) + "."


def _folds_of(rows: Iterable[PlannedRow]) -> str:
    cells = [runs for row in rows for runs in row.cells.values()]
    settings = cells[0][0].settings.folds
    chosen = sorted({run.settings.fold for runs in cells for run in runs})
    splits = [[run.split for run in runs] for runs in cells]
    # complete if each case that is trained on is validated by another run
    if all({c for s in of_cell for c in s.train} <= {c for s in of_cell for c in s.validation} for of_cell in splits):
        return f"{len(chosen)}-fold cross-validation ({_kind(settings)}), each case is validated once"
    sizes = sorted({len({case for run in runs for case in run.split.validation}) for runs in cells})
    cases = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    names = f"fold{'s' if len(chosen) > 1 else ''} {', '.join(map(str, chosen))} only"
    count = settings.count or (DEFAULT_COUNT if settings.file is None else None)
    whole = f"{count} folds, " if count else ""
    return f"{names} ({whole}{_kind(settings)}): the {cases} cases of the validation set, no others are scored"


def _kind(settings: FoldSettings) -> str:
    """Describes how the cases were split."""
    if settings.file is not None:
        return f"split of {Path(settings.file).name}"
    shuffled = f"shuffled, seed {settings.seed or 0}"
    kinds = {"contiguous": "contiguous blocks of the sorted case ids", "shuffled": shuffled}
    kept = "" if settings.groups is None else f", the groups of {Path(settings.groups).name} kept together"
    return f"{kinds.get(settings.kind, settings.kind)}{kept}"


def _counts(table: TableData) -> list[str]:
    """Notes on the number of cases of each row, on rows that compare different cases, and on missing cells."""
    shown = shown_cells(table)
    computed = shown[shown["value"].notna()]
    rows = [row for _, row in computed.groupby(["row_title", "metric"], sort=False)]
    notes = [f"n: {_n_of(rows)}."] if rows else []
    if uneven := [_by_column(row) for row in rows if row["n_values"].nunique() > 1 or _unpaired(row).any()]:
        notes.append(
            "Columns with different n, or with cases that the column they are tested against lacks, are means over "
            f"different cases: {'; '.join(uneven)}. Tests use only cases that have a value in both columns."
        )
    if missing := len(shown) - len(computed):
        notes.append(
            f"{missing} of {len(shown)} cells have no number yet ({MISSING}): runs are missing or not scored for it, "
            "or no case counts."
        )
    return notes


def _n_of(rows: Iterable[pd.DataFrame]) -> str:
    """``Kidney Dice, BDice 24; Kidney ECE 20 to 24``; for a row over several tasks, numbers of patients and values."""
    metrics: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        first = row.iloc[0]
        pooled = f" patients ({_range(row['n_values'])} values of cases and tasks)" if first["n_tasks"] > 1 else ""
        key = str(first["row_title"]), f"{_range(row['n'])}{pooled}"
        metrics.setdefault(key, []).append(SCORES[str(first["metric"])].title)
    return "; ".join(f"{title} {', '.join(names)} {count}" for (title, count), names in metrics.items())


def _range(counts: "pd.Series[int]") -> str:
    low, high = counts.min(), counts.max()
    return f"{low}" if low == high else f"{low} to {high}"


def _unpaired(row: pd.DataFrame) -> "pd.Series[bool]":
    """Columns that were tested with fewer values than they have."""
    tested = row["n_value_pairs"] + row["n_dropped"] > 0
    return tested & (row["n_value_pairs"] < row["n_values"])


def _by_column(row: pd.DataFrame) -> str:
    """``Kidney Dice (Majority 24, Random 23 of which 22 in the test)``."""
    first = row.iloc[0]
    columns = [
        f"{title} {values}{f' of which {pairs} in the test' if unpaired else ''}"
        for title, values, pairs, unpaired in zip(
            row["method_title"], row["n_values"], row["n_value_pairs"], _unpaired(row), strict=True
        )
    ]
    return f"{first['row_title']} {SCORES[str(first['metric'])].title} ({', '.join(columns)})"
