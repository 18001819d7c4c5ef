"""The notes under a table that say how its columns were compared, and how far this can be trusted."""

from collections.abc import Sequence

import pandas as pd

from dmseg.errors import some
from dmseg.stats.cross_validation import LARGEST_SHARE, LEAST_FOLDS
from dmseg.tables.columns import SCORES
from dmseg.tables.inference import ALPHA, MORE_SEEDS
from dmseg.tables.numbers import TableData

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


def shown_cells(table: TableData) -> pd.DataFrame:
    """The cells of the printed columns, with ``row_title``: the task, and the network where there are several."""
    cells = table.cells[table.cells["method"].isin([column.key for column in table.spec.shown])]
    networks = " " + cells["model_title"] if cells["model"].nunique() > 1 else ""
    return cells.assign(row_title=cells["task_title"] + networks)


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
    means = " of means over seeds" if several else ""
    test = TESTS[table.inference.test].format(means=means, zero_method=table.inference.zero_method)
    correction = CORRECTED if table.inference.holm else UNCORRECTED
    fewer = cells[(cells["n_seeds"] < cells["n_seeds_planned"]) & (cells["n_seeds"] > 0)]  # a cell without is empty
    done = [f"{_place(cell)} {cell['n_seeds']} of {cell['n_seeds_planned']} seeds" for _, cell in fewer.iterrows()]
    grouped = ((tested["n_tasks"] == 1) & (tested["n_pairs"] < tested["n_value_pairs"])).any()
    large = tested[(tested["largest_fold"] > LARGEST_SHARE) & tested["diff_ci_low"].notna()]
    largest, places = 100 * large["largest_fold"].max(), some(_places(large))
    large_note = [LARGE_FOLDS.format(limit=100 * LARGEST_SHARE, largest=largest, cells=places)] if len(large) else []
    return [
        SEVERAL_SEEDS if several else ONE_SEED,
        *([INCOMPLETE.format(cells=some(done))] if done else []),
        f"{marked.format(mark=mark, reference=reference)} {test}, {correction}. {BLIND}",
        *([GROUPED] if grouped else []),
        *_powerless(tested),
        by_interval.format(reference=reference) + INTERVAL_NOTE,
        *_without_interval(tested),
        *large_note,
        *_shares(tested),
    ]


def _powerless(tested: pd.DataFrame) -> list[str]:
    """Tests that cannot reach significance."""
    hopeless = tested[tested["least_p_value"] >= ALPHA]
    if hopeless.empty:
        return []
    tied = hopeless["least_p_value"] == 1
    places = [
        f"{_place(cell)} (no pair differs)" if same else f"{_place(cell)} (p is at least {cell['least_p_value']:.2g})"
        for (_, cell), same in zip(hopeless.iterrows(), tied, strict=True)
    ]
    return [
        f"{len(hopeless)} of {len(tested)} tests over cases cannot reach p < {ALPHA}, however the differences fall, "
        f"because too few pairs differ: {some(places)}."
    ]


def _without_interval(tested: pd.DataFrame) -> list[str]:
    """Differences without an interval that counts folds."""
    lacking = tested[tested["diff_ci_low"].isna()]
    if lacking.empty:
        return []
    which = "the table" if len(lacking) == len(tested) else some(_places(lacking))
    same = (
        " The CSV has the interval for the same split (diff_same_splits_low, diff_same_splits_high)."
        if lacking["diff_same_splits_low"].notna().any()
        else ""
    )
    pooled = (lacking["n_tasks"] > 1).any() and len(lacking) < len(tested)
    shared = " A row over several tasks also needs each patient in the same fold in all tasks of a cohort."
    needs = f"This interval needs {LEAST_FOLDS} folds with cases to compare, and is missing for {which}."
    return [f"{needs}{shared if pooled else ''}{same}"]


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
    return list(dict.fromkeys(f"{row['row_title']} {SCORES[str(row['metric'])].title}" for _, row in cells.iterrows()))


def _place(cell: pd.Series) -> str:
    """``Kidney Dice Uniform``."""
    return f"{cell['row_title']} {SCORES[str(cell['metric'])].title} {cell['method_title']}"
