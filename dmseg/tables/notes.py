"""The notes under a table: what its numbers mean, how columns were compared, and what is missing."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd

from dmseg.config.settings import FoldSettings, Settings
from dmseg.data.folds import DEFAULT_COUNT
from dmseg.errors import some
from dmseg.metrics.named import COUNT_METRICS
from dmseg.runs.counts_file import COUNTS
from dmseg.runs.seal import DamagedError
from dmseg.runs.status import is_to_be_scored
from dmseg.runs.store import RunStore
from dmseg.stats.cross_validation import LARGEST_SHARE, LEAST_FOLDS
from dmseg.tables.collected import OTHER_TIES
from dmseg.tables.columns import SCORES
from dmseg.tables.inference import ALPHA, MORE_SEEDS
from dmseg.tables.numbers import TableData
from dmseg.tables.planning import PlannedRow, PlannedTable
from dmseg.text import counted

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
    "A row over several tasks is the mean of the tasks' means. Its test is over patients: for each patient, the "
    "differences of the cases that have a value in both columns are averaged over tasks. A cell is marked only where "
    "the mean difference over tasks has the same sign. Its interval treats cohorts as independent "
    "(docs/explanation/statistics.md)."
)
ONE_SEED = (
    "ONE SEED: training the same networks with another seed moves these numbers, often by as much as the columns "
    "differ. seeds=3 trains three, and prints means over seeds with their standard deviation."
)
SEVERAL_SEEDS = (
    "Each number is the mean over seeds of the mean over cases, ± the standard deviation of the seeds' means where "
    "there are several seeds. A seed counts once all of its folds are done."
)
BETTER_NOTE = "Marked cells ({mark}) are better than {reference} with p < 0.05:"
OURS_NOTE = (
    "{reference} is better than a cell with † with p < 0.05, and is marked ({mark}) where this holds for all columns:"
)
TESTS = {
    "wilcoxon": "two-sided Wilcoxon signed-rank test on per-case differences{means} (zero_method={zero_method})",
    "permutation": "two-sided permutation test of the mean per-case difference{means} (signs flipped)",
}
CORRECTED = "after Holm's correction for all tests of a score in this table"
UNCORRECTED = "not corrected; the CSV has n, effect size and Holm-corrected p"
BLIND = (
    "The procedure that the paper cites for its own marks could not be read, so this test is our choice. It is over "
    "cases and does not account for the variance between seeds: a significant difference may come from a lucky seed."
)
INTERVAL_BETTER = (
    "Cells with * are better than {reference} by the 95 % interval of the difference with folds as clusters, which "
    "excludes 0."
)
INTERVAL_OURS = (
    "{reference} is better than a cell with ‡ by the 95 % interval of the difference with folds as clusters, which "
    "excludes 0, and has a * where this holds for all columns."
)
INTERVAL_NOTE = (
    " Each fold has its own networks, so this interval includes the noise of training, even with one seed. It is not "
    "corrected for several comparisons; the CSV has its ends (diff_ci_low, diff_ci_high)."
)
INCOMPLETE = (
    "Not all seeds are complete; these cells are means over those that are: {cells}. A difference is over the seeds "
    "that both columns have."
)
GROUPED = (
    "Tests are over the groups of folds.groups (n_pairs in the CSV), not over cases: the differences of a group's "
    "cases are averaged first."
)
LARGE_FOLDS = (
    "The largest fold has more than {limit:.0f} % of the cases (up to {largest:.0f} %), and the interval is then too "
    "narrow: in simulations of such folds without a difference, 8 to 12 % of the intervals exclude 0. This concerns "
    "{cells}."
)
MORE = {1: "one", 2: "two", 3: "three"}[MORE_SEEDS]
TWO_SEEDS = " With two seeds these shares are rough: a part that is estimated below 0 counts as 0."


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
    scores = " ".join(filter(None, [CELL_NOTE, *(SCORES[metric].note for metric in table.spec.metrics)]))
    pooled = [POOLED_NOTE] if (table.cells["n_tasks"] > 1).any() else []
    notes = [*phantom, scores, *pooled, *inference_notes(table, mark), *further]
    cells = shown_cells(table)
    tied = cells[cells[OTHER_TIES].notna()]
    if len(tied):  # the number of raters is even
        rows = []
        for title, row in tied.groupby("row_title", sort=False):
            values = zip(row["method_title"], row[OTHER_TIES], strict=True)
            rows.append(f"{title}: " + ", ".join(f"{name} {SCORES['dice'].shown(value)}" for name, value in values))
        rule = "foreground" if table.ties == "background" else "background"
        note = f"Where the number of raters is even, a tie counts as {table.ties}. With ties as {rule}, Dice (%) is:"
        if not table.ties:
            note = "The columns differ in the class of tied pixels (evaluate.ties). With the other class, Dice (%) is:"
        notes.append(f"{note} {'; '.join(rows)}.")
    return [*notes, *_counts(cells)]


def plan_notes(planned: PlannedTable) -> tuple[str, ...]:
    """Notes on the settings of a comparison: folds, seeds, scoring, networks, epochs and imported runs."""
    data_sets = dict.fromkeys(row.data for row in planned.rows)
    folds = {data: _folds_of(row for row in planned.rows if row.data == data) for data in data_sets}
    alike = len(set(folds.values())) == 1
    texts = [next(iter(folds.values()))] if alike else [f"{data}: {text}" for data, text in folds.items()]
    notes = [f"Folds: {'; '.join(texts)}."]
    if len(planned.seeds) > 1:
        notes.append(f"Seeds: {some(planned.seeds, 20)}.")
    networks = dict.fromkeys(row.model for row in planned.rows)
    lengths = [
        f"{data} {_by_column(planned, _epochs, [row for row in planned.rows if row.data == data])}"
        for data in data_sets
    ]
    notes.append(
        f"BDice reference: {_by_column(planned, _reference)}. Both masks empty: {_by_column(planned, _empty)}. "
        f"Network: {', '.join(networks)}. Epochs: {'; '.join(lengths)}."
    )
    runs = {run.run_id: run for row in planned.rows for of_cell in row.runs.values() for run in of_cell}
    if unscored := sum(is_to_be_scored(run) for run in runs.values()):
        notes.append(
            f"{unscored} of {len(runs)} runs are trained, but not scored with these settings; 'dmseg reproduce' with "
            "the same arguments scores them without training."
        )
    notes += _without_counts(planned)
    if imported := sum(RunStore(run.results).is_imported(run_id) for run_id, run in runs.items()):
        notes.append(f"{imported} of {len(runs)} runs were imported: they were not computed here.")
    return tuple(notes)


def _by_column(
    planned: PlannedTable, describe: Callable[[Settings], str], rows: Sequence[PlannedRow] | None = None
) -> str:
    """Describes a setting of the runs; names columns where a table of one's own changes it in some of them."""
    titles = {column.key: column.title for column in planned.spec.columns}
    found: dict[str, dict[str, None]] = {}
    for row in planned.rows if rows is None else rows:
        for key, runs in row.runs.items():
            found.setdefault(describe(runs[0].settings), {})[titles[key]] = None
    if len(found) == 1:
        return next(iter(found))
    return ", ".join(f"{text} ({', '.join(columns)})" for text, columns in found.items())


def _reference(settings: Settings) -> str:
    return f"{str(settings.evaluate.reference['_target_']).rpartition('.')[2]} fusion of the raters"


def _empty(settings: Settings) -> str:
    return settings.evaluate.empty


def _epochs(settings: Settings) -> str:
    train = settings.train
    return f"{train.epochs}" + (f" (at least {train.min_steps} steps)" if train.min_steps else "")


def inference_notes(table: TableData, mark: str) -> list[str]:
    """Notes on seeds, tests and intervals.

    Args:
        table: the table.
        mark: how cells with a significant test are marked.
    """
    reference = next(column.title for column in table.spec.columns if column.key == table.spec.reference)
    marked, by_interval = (OURS_NOTE, INTERVAL_OURS) if table.spec.reference_is_ours else (BETTER_NOTE, INTERVAL_BETTER)
    cells = shown_cells(table)
    tested = cells[cells["n_pairs"] > 0]
    several = bool((cells["n_seeds_planned"] > 1).any())
    notes = [SEVERAL_SEEDS if several else ONE_SEED]
    fewer = cells[(cells["n_seeds"] < cells["n_seeds_planned"]) & (cells["n_seeds"] > 0)]  # a cell without is empty
    if len(fewer):
        done = [f"{_place(cell)} {cell['n_seeds']} of {cell['n_seeds_planned']} seeds" for _, cell in fewer.iterrows()]
        notes.append(INCOMPLETE.format(cells=some(done)))
    means = " of means over seeds" if several else ""
    test = TESTS[table.inference.test].format(means=means, zero_method=table.inference.zero_method)
    correction = CORRECTED if table.inference.holm else UNCORRECTED
    notes.append(f"{marked.format(mark=mark, reference=reference)} {test}, {correction}. {BLIND}")
    if ((tested["n_tasks"] == 1) & (tested["n_pairs"] < tested["n_value_pairs"])).any():
        notes.append(GROUPED)
    # tests that cannot reach significance
    hopeless = tested[tested["least_p_value"] >= ALPHA]
    if len(hopeless):
        reasons = ["no pair differs" if p == 1 else f"p is at least {p:.2g}" for p in hopeless["least_p_value"]]
        cannot = [f"{_place(cell)} ({why})" for (_, cell), why in zip(hopeless.iterrows(), reasons, strict=True)]
        notes.append(
            f"{len(hopeless)} of {len(tested)} tests over cases cannot reach p < {ALPHA}, however the differences "
            f"fall, because too few pairs differ: {some(cannot)}."
        )
    notes.append(by_interval.format(reference=reference) + INTERVAL_NOTE)
    lacking = tested[tested["diff_ci_low"].isna()]
    if len(lacking):
        which = "the table" if len(lacking) == len(tested) else some(_places(lacking))
        note = f"This interval needs {LEAST_FOLDS} folds with cases to compare, and is missing for {which}."
        if (lacking["n_tasks"] > 1).any() and len(lacking) < len(tested):
            note += " A row over several tasks also needs each patient in the same fold in all tasks of a cohort."
        if lacking["diff_same_splits_low"].notna().any():
            note += " The CSV has the interval for the same split (diff_same_splits_low, diff_same_splits_high)."
        notes.append(note)
    large = tested[(tested["largest_fold"] > LARGEST_SHARE) & tested["diff_ci_low"].notna()]
    if len(large):
        largest, named = 100 * large["largest_fold"].max(), some(_places(large))
        notes.append(LARGE_FOLDS.format(limit=100 * LARGEST_SHARE, largest=largest, cells=named))
    return [*notes, *_shares(tested)]


def shown_cells(table: TableData) -> pd.DataFrame:
    """The cells of the printed columns, with ``row_title``: the task, and the network where there are several."""
    cells = table.cells[table.cells["method"].isin([column.key for column in table.spec.shown])]
    networks = " " + cells["model_title"] if cells["model"].nunique() > 1 else ""
    return cells.assign(row_title=cells["task_title"] + networks)


def _folds_of(rows: Iterable[PlannedRow]) -> str:
    """Describes the folds of a data set's runs."""
    cells = [runs for row in rows for runs in row.runs.values()]
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


def _without_counts(planned: PlannedTable) -> list[str]:
    """A note on metrics that are empty because runs have no counts."""
    named = [name for name in planned.spec.metrics if name in COUNT_METRICS]
    if not named:
        return []
    lacking, without_weights = set(), 0
    for run in (run for row in planned.rows for runs in row.runs.values() for run in runs):
        store = RunStore(run.results)
        with suppress(DamagedError):
            if run.run_id in lacking or not store.has_evaluation(run.run_id, run.evaluation_id):
                continue
            if store.folder_with(COUNTS, run.run_id, run.evaluation_id) is None:
                lacking.add(run.run_id)
                without_weights += not store.has_weights(run.run_id)
    if not lacking:
        return []
    titles = ", ".join(SCORES[name].title for name in named)
    note = f"{titles}: the cells of {counted(len(lacking), 'run')} are empty, as no counts are stored."
    if without_weights < len(lacking):
        note += " 'dmseg reproduce' with the same arguments scores their weights again and adds the counts."
    if without_weights:
        note += f" {without_weights} of them were imported without weights and cannot be scored again."
    return [note]


def _shares(tested: pd.DataFrame) -> list[str]:
    """Where the variance of the differences comes from, for each score, and what more seeds would do."""
    parts = ["cases", "networks", "split", "rest"]
    names = [f"share_{part}" for part in parts]
    known = tested[tested[names].sum(axis=1) > 0]
    if known.empty:
        return []
    texts = []
    for metric in dict.fromkeys(tested["metric"]):
        cells = known[known["metric"] == metric]
        if cells.empty:
            continue
        means = ", ".join(f"{part} {100 * cells[name].mean():.0f} %" for part, name in zip(parts, names, strict=True))
        texts.append(
            f"{SCORES[str(metric)].title} {means}; {MORE} more seeds would narrow the interval by about "
            f"{100 * cells['narrowed_by'].mean():.0f} %"
        )
    rough = TWO_SEEDS if (known["n_seeds_compared"] == 2).any() else ""
    return [f"Shares of the variance of a difference (means over the rows of single tasks): {'. '.join(texts)}.{rough}"]


def _places(cells: pd.DataFrame) -> Sequence[str]:
    """``Kidney Dice`` for each row and score, once."""
    return list(dict.fromkeys(f"{row['row_title']} {SCORES[str(row['metric'])].title}" for _, row in cells.iterrows()))


def _place(cell: pd.Series) -> str:
    """``Kidney Dice Uniform``."""
    return f"{cell['row_title']} {SCORES[str(cell['metric'])].title} {cell['method_title']}"


def _counts(cells: pd.DataFrame) -> list[str]:
    """Notes on the number of cases of each row, on rows that compare different cases, and on missing cells."""
    computed = cells[cells["value"].notna()]
    metrics: dict[tuple[str, str], list[str]] = {}
    uneven = []
    for _, row in computed.groupby(["row_title", "metric"], sort=False):
        first = row.iloc[0]
        title, score = str(first["row_title"]), SCORES[str(first["metric"])].title
        pooled = f" patients ({_range(row['n_values'])} values of cases and tasks)" if first["n_tasks"] > 1 else ""
        metrics.setdefault((title, f"{_range(row['n'])}{pooled}"), []).append(score)
        tested = row["n_value_pairs"] + row["n_dropped"] > 0
        # columns that are tested with fewer values than they have
        unpaired = tested & (row["n_value_pairs"] < row["n_values"])
        if row["n_values"].nunique() > 1 or unpaired.any():  # Kidney Dice (Majority 24, Random 23 of which 22 in ...)
            columns = [
                f"{name} {values}{f' of which {pairs} in the test' if fewer else ''}"
                for name, values, pairs, fewer in zip(
                    row["method_title"], row["n_values"], row["n_value_pairs"], unpaired, strict=True
                )
            ]
            uneven.append(f"{title} {score} ({', '.join(columns)})")
    texts = [f"{title} {', '.join(names)} {count}" for (title, count), names in metrics.items()]
    notes = [f"n: {'; '.join(texts)}."] if texts else []  # n: Kidney Dice, BDice 24; Kidney ECE 20 to 24.
    if uneven:
        notes.append(
            "Columns with different n, or with cases that the column they are tested against lacks, are means over "
            f"different cases: {'; '.join(uneven)}. Tests use only cases that have a value in both columns."
        )
    if missing := len(cells) - len(computed):
        notes.append(
            f"{missing} of {len(cells)} cells have no number yet ({MISSING}): runs are missing or not scored for it, "
            "or no case counts."
        )
    return notes


def _range(counts: "pd.Series[int]") -> str:
    """``24`` or ``20 to 24``."""
    low, high = counts.min(), counts.max()
    return f"{low}" if low == high else f"{low} to {high}"
