"""A/A check of the marks: compares one column of a table with itself, half of its seeds against the other half.

There is no difference to find, so a valid interval excludes 0 in about one of twenty comparisons. All splits of the
seeds into halves are compared (ten for six seeds), for every task and for their mean ("All"), by the two criteria by
which tables mark cells: the 95 % interval with folds as clusters, and the test over cases. The splits share networks
and are not independent: 10 of 10 claims for one row may be due to a single unlucky network.

    python scripts/aa_test.py table=2 column=majority seeds=6 data=phantom profile=demo paths.results=results/demo

Options, in addition to all overrides of ``dmseg reproduce``:

    table=NAME       the table [default: 2]
    column=NAME      its column [default: its first one]
    seeds=N          an even number of seeds, or a list of them [default: 6]
    metrics=A,B      scores [default: those of the table]
    train=true       train missing runs, with the launcher of the overrides; otherwise missing runs are an error
    to=FILE          also write the comparisons as CSV

Exit status: 0 if the check could be carried out, whatever it found.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pandas as pd

from dmseg.cli.commands import run_all
from dmseg.cli.messages import notify, set_up_logging
from dmseg.cli.words import take_inference, take_seeds, take_words
from dmseg.errors import UserError
from dmseg.files.names import expand_home
from dmseg.runs.plan import PlannedRun
from dmseg.tables.collected import collect_cases
from dmseg.tables.columns import SCORES
from dmseg.tables.numbers import comparison_cells
from dmseg.tables.planning import PlannedTable, TablePlanner
from dmseg.tables.spec import Column, TableSpec, read_spec
from dmseg.text import split_list

HALVES = ("one half", "the other half")


def one_column(spec: TableSpec, column: str) -> TableSpec:
    """The table with a single column.

    Raises:
        UserError: if it has no such column.
    """
    known = [item.key for item in spec.columns]
    if column not in known:
        raise UserError(f"table {spec.name} has no column '{column}'; choose from {', '.join(known)}")
    blocks = tuple(
        replace(block, cells={column: block.cells[column]}) for block in spec.blocks if column in block.cells
    )
    columns = tuple(replace(item, shown=True) for item in spec.columns if item.key == column)
    return replace(spec, columns=columns, blocks=blocks, reference=column, reference_is_ours=False, paper=None)


def halves(seeds: Sequence[int]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Each split of an even number of seeds into halves, once."""
    for chosen in combinations(seeds, len(seeds) // 2):
        if seeds[0] in chosen:
            yield chosen, tuple(seed for seed in seeds if seed not in chosen)


def against_itself(plan: PlannedTable, split: tuple[Sequence[int], Sequence[int]]) -> PlannedTable:
    """A table of two columns, the runs of half of the seeds each; the seeds of both are numbered from 0."""
    spec = replace(plan.spec, columns=tuple(Column(half, half) for half in HALVES), reference=HALVES[1])

    def runs_of(runs: Sequence[PlannedRun], seeds: Sequence[int]) -> list[PlannedRun]:
        return [
            replace(run, settings=replace(run.settings, seed=seeds.index(run.settings.seed)))
            for run in runs
            if run.settings.seed in seeds
        ]

    rows = []
    for row in plan.rows:
        runs = next(iter(row.runs.values()))
        rows.append(replace(row, runs={half: runs_of(runs, seeds) for half, seeds in zip(HALVES, split, strict=True)}))
    return PlannedTable(spec, tuple(rows))


def compare_halves(plan: PlannedTable, cases: pd.DataFrame, words: Sequence[str] = ()) -> pd.DataFrame:
    """One row for each task, score and split: the difference, its interval, the p-value, and which criteria claim it.

    Args:
        plan: a table of one column (`one_column`) under an even number of seeds.
        cases: the scores of its runs (`collect_cases`).
        words: ``test=`` and ``zero_method=``.
    """
    inference, _ = take_inference(words)
    found = []
    for split in halves(plan.seeds):
        seeds = dict(zip(HALVES, split, strict=True))
        both = pd.concat([cases[cases["seed"].isin(seeds[half])].assign(method=half) for half in HALVES])
        cells = comparison_cells(against_itself(plan, split), both, inference)
        title = " | ".join(" ".join(map(str, half)) for half in split)
        found.append(cells[cells["method"] == HALVES[0]].assign(seeds=title))
    rows = pd.concat(found)
    by_interval = (rows["diff_ci_low"] > 0) | (rows["diff_ci_high"] < 0)
    rows = rows.assign(by_interval=by_interval, by_test=rows["p_value"] < 0.05)
    names = ["task", "model", "metric", "seeds", "mean_difference_tasks", "diff_ci_low", "diff_ci_high", "p_value"]
    return rows[[*names, "by_interval", "by_test"]].sort_values(["metric", "model", "task"], kind="stable")


def report(rows: pd.DataFrame) -> str:
    """The comparisons and their counts, as text."""
    lines = [f"{'task':<18} {'score':<6} {'seeds':<16} {'difference':>10}  {'95 % interval':<18} {'p':>6}  claims"]
    for _, row in rows.iterrows():
        ends = f"{row['diff_ci_low']:8.3f} {row['diff_ci_high']:8.3f}"
        claims = [name for name in ("interval", "test") if row[f"by_{name}"]]
        lines.append(
            f"{row['task']:<18} {row['metric']:<6} {row['seeds']:<16} {row['mean_difference_tasks']:10.3f}  {ends:<18} "
            f"{row['p_value']:6.3f}  {' '.join(claims)}".rstrip()
        )
    lines.append("")
    for metric, of_metric in rows.groupby("metric", sort=False):
        for title, part in (
            ("single tasks", of_metric[of_metric["task"] != "all"]),
            ("All", of_metric[of_metric["task"] == "all"]),
        ):
            with_interval = part["diff_ci_low"].notna()
            if len(part):
                lines.append(
                    f"{SCORES[str(metric)].title}, {title}: of {len(part)} comparisons without a difference, the "
                    f"interval claims one in {part['by_interval'].sum()} (of {with_interval.sum()} that have an "
                    f"interval), the test over cases in {part['by_test'].sum()}"
                )
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    set_up_logging()
    options, rest = take_words(argv, ("table", "column", "metrics", "train", "to"))
    target = Path(expand_home(options["to"], "to")) if "to" in options else None
    tests, rest = take_words(rest, ("test", "zero_method"))
    seeds, rest = take_seeds(rest)
    seeds = seeds or tuple(range(6))
    if len(seeds) % 2:
        raise UserError(f"{len(seeds)} seeds cannot be split into halves; give an even number: seeds=6")
    spec = read_spec(options.get("table", "2"))
    if spec.kind != "comparison":
        raise UserError(f"table {spec.name} compares no columns; choose another: table=2")
    spec = one_column(spec, options.get("column", spec.columns[0].key))
    if "metrics" in options:
        chosen = tuple(split_list(options["metrics"]))
        if unknown := [name for name in chosen if name not in spec.metrics]:
            raise UserError(f"table {spec.name} has no score '{unknown[0]}'; choose from {', '.join(spec.metrics)}")
        spec = replace(spec, blocks=tuple(replace(block, metrics=chosen) for block in spec.blocks))
    plan = TablePlanner(rest, [spec], notify, seeds=seeds).plan()[0]
    if options.get("train") == "true" and (status := run_all(plan.runs, plan.settings)):
        return status
    cases = collect_cases(plan)
    needed = {run.run_id for row in plan.rows for runs in row.runs.values() for run in runs}
    if missing := needed - set(cases["run_id"]):
        raise UserError(f"{len(missing)} of {len(needed)} runs are missing; add train=true to train them")
    words = [f"{key}={value}" for key, value in tests.items()]
    rows = compare_halves(plan, cases, words)
    if target is not None:
        rows.to_csv(target, index=False)
    print(report(rows))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        sys.exit(f"aa_test: {error}")
