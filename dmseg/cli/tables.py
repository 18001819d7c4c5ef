"""The commands for tables and figures: reproduce, table, plan."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from dmseg.cli import extensions
from dmseg.cli.commands import run_all
from dmseg.cli.messages import notify, set_up_logging
from dmseg.cli.words import TEST_WORDS, take_inference, take_seeds, take_words
from dmseg.config.compose import compose_settings
from dmseg.config.settings import Settings
from dmseg.errors import UserError, cut
from dmseg.files.names import expand_home
from dmseg.runs.plan import evaluation_passes
from dmseg.runs.sources import find_tasks, prepare_tasks
from dmseg.runs.status import Status, Summary, summarise
from dmseg.tables.exported import plan_from_text
from dmseg.tables.planning import OpenTasks, PlannedTable, TablePlanner
from dmseg.tables.request import parse_request
from dmseg.tables.spec import TableSpec, read_spec, table_numbers
from dmseg.text import split_list

if TYPE_CHECKING:
    import pandas as pd

    from dmseg.tables.collected import Texts
    from dmseg.tables.inference import Inference
    from dmseg.tables.numbers import TableData

TABLE_WORDS = ("table", "tables", "metrics", "seeds", *TEST_WORDS)
"""Keys of tables that are not part of the configuration."""


def reproduce(argv: Sequence[str]) -> int:
    """Runs what tables need and writes them; or draws a figure."""
    set_up_logging()
    if named := [word for word in argv if word.startswith("figure=")]:
        from dmseg.report.figures import write_figure

        if len(named) != 1:
            raise UserError("name one figure: figure=1")
        if of_tables := next((word for word in argv if word.partition("=")[0] in TABLE_WORDS), None):
            raise UserError(f"{named[0]} draws a figure without runs, so {cut(of_tables)} has no effect; leave one out")
        settings = compose_settings([word for word in argv if word not in named])
        for path in write_figure(named[0].removeprefix("figure="), Path(settings.paths.results) / "figures"):
            print(path)
        return 0
    inference, argv = take_inference(argv)
    seeds, argv = take_seeds(argv)
    specs, overrides = split_tables(argv)
    plans = plan_all(specs, overrides, seeds=seeds)
    tables: dict[str, tuple[str, ...]] = {}  # names of the tables that each run is trained for, by run id
    for name, planned in plans.items():
        for run_id in dict.fromkeys(run.run_id for run in planned.runs):
            tables[run_id] = (*tables.get(run_id, ()), name)
    status = 0
    for part in evaluation_passes(run for planned in plans.values() for run in planned.runs):
        if status == 0:
            status = run_all(part, next(iter(plans.values())).settings, tables)
    _write_all(specs, plans, overrides, inference)
    return status


def table(argv: Sequence[str]) -> int:
    """Writes tables from finished runs, or from an export (``from=FOLDER``)."""
    set_up_logging()
    inference, argv = take_inference(argv)
    seeds, argv = take_seeds(argv)
    specs, overrides = split_tables(argv)
    exported = exported_plans(argv, specs, overrides, seeds)
    if exported is None:
        _write_all(specs, plan_all(specs, overrides, seeds=seeds), overrides, inference)
        return 0
    folder, plans = exported
    files = [_write_comparison(planned, inference, {}, folder) for planned in plans]
    for path in files:
        print(path.read_text(encoding="utf-8"))
    return 0


def exported_plans(
    argv: Sequence[str], specs: Sequence[TableSpec], overrides: Sequence[str], seeds: Sequence[int]
) -> tuple[Path, list[PlannedTable]] | None:
    """The plans of tables in the export that ``from=FOLDER`` names, and where to write; None without this argument.

    Files are written to the export itself, or to the folder that ``paths.results=FOLDER`` names.

    Args:
        argv: all arguments, for the scores to show.
        specs: the tables.
        overrides: the arguments that remain after `split_tables`.
        seeds: the seeds given by ``seeds=``, which an export does not accept, as it has its own.

    Raises:
        UserError: if no folder is named, other overrides are given with it, or the folder has no such tables.
    """
    exported = [word.removeprefix("from=").strip("'\"") for word in overrides if word.startswith("from=")]
    if not exported:
        return None
    given, others = take_words([word for word in overrides if not word.startswith("from=")], ("paths.results",))
    if len(exported) > 1:
        raise UserError("from is given twice; name one export")
    if others or seeds:
        named = f"'{others[0]}'" if others else "seeds"
        raise UserError(f"an export has its own settings and seeds; leave {named} out")
    if not exported[0]:
        raise UserError("from= names no folder; write from=FOLDER, the folder of an export")
    folder = Path(expand_home(exported[0], "from"))
    plans = [plan_from_text(folder, spec) for spec in specs]
    metrics = shown_metrics(argv)
    results = given.get("paths.results")
    place = Path(expand_home(results, "paths.results")) if results else folder
    return place, [planned.with_metrics(metrics) for planned in plans] if metrics else plans


def plan(argv: Sequence[str]) -> int:
    """Prints how many runs tables need and how many are done."""
    set_up_logging()
    seeds, argv = take_seeds(argv)
    specs, overrides = split_tables(argv)
    plans = plan_all(specs, overrides, find_tasks, seeds)
    titles = ("experiments", "runs", "done", "to score", "running", "failed", "missing", "hours left")
    shown = Table("table", *titles, box=None)
    for name, planned in plans.items():
        shown.add_row(name, *_summary_row(summarise(planned.runs)))
    if len(plans) > 1:
        everything = summarise(run for planned in plans.values() for run in planned.runs)
        shown.add_row("all, each run once", *_summary_row(everything))
    Console(width=120).print(shown)
    if names := dict.fromkeys(name for planned in plans.values() for name in planned.unprepared):
        request = parse_request(overrides, [block.data for planned in plans.values() for block in planned.spec.blocks])
        for name in names:
            command = shlex.join(["dmseg", "prepare", *extensions.words(), *request.overrides_of(name)])
            print(f"{name}: not fully prepared, so finished runs cannot be counted; run: {command}")
    return 0


def split_tables(argv: Sequence[str]) -> tuple[list[TableSpec], list[str]]:
    """Separates ``table=N``, ``tables=N,NAME`` or ``tables=all`` (those of the paper) from the overrides.

    ``metrics=[A,B]`` replaces the scores that the tables show.

    Raises:
        UserError: if no table or metric is named, or one that does not exist.
    """
    named = [word for word in argv if word.startswith(("table=", "tables="))]
    if len(named) != 1:
        raise UserError("name one table or several: table=1, tables=2,4,6 or tables=all")
    names = split_list(named[0].partition("=")[2])
    if names == ["all"]:
        names = [str(number) for number in table_numbers()]
    specs = [read_spec(name) for name in dict.fromkeys(names)]
    if metrics := shown_metrics(argv):
        specs = [spec.with_metrics(metrics) if spec.kind == "comparison" else spec for spec in specs]
    return specs, [word for word in argv if word not in named and not word.startswith("metrics=")]


def shown_metrics(argv: Sequence[str]) -> list[str]:
    """The scores that ``metrics=[A,B]`` names; empty without this argument."""
    named = [word.partition("=")[2] for word in argv if word.startswith("metrics=")]
    if len(named) > 1:
        raise UserError("metrics is given twice; name several in one list: metrics=[A,B]")
    return split_list(named[0]) if named else []


def plan_all(
    specs: Sequence[TableSpec],
    overrides: Sequence[str],
    open_tasks: OpenTasks = prepare_tasks,
    seeds: Sequence[int] = (),
) -> dict[str, PlannedTable]:
    """Plans the tables that need runs; returns them by name."""
    comparisons = [spec for spec in specs if spec.kind == "comparison"]
    planner = TablePlanner(overrides, comparisons, notify, open_tasks, seeds)
    return {planned.spec.name: planned for planned in planner.plan()}


def _summary_row(summary: Summary) -> list[str]:
    names: list[Status] = ["done", "trained", "running", "failed", "missing"]
    counts = [str(summary.counts[name]) for name in names]
    if unknown := summary.counts["unknown"]:
        known = [f"{counts[0]} + {unknown} unknown", *counts[1:]]
        counts = ["unknown", *[""] * (len(names) - 1)] if unknown == summary.runs else known
    hours = "no estimate" if summary.hours is None else f"{summary.hours:.2f}"
    return [str(summary.experiments), str(summary.runs), *counts, hours]


def _write_all(
    specs: Sequence[TableSpec],
    plans: Mapping[str, PlannedTable],
    overrides: Sequence[str],
    inference: "Inference",
) -> None:
    """Writes the files of all tables, then prints the tables, so that all files are there even if printing fails."""
    texts: Texts = {}
    files = []
    for spec in specs:
        if spec.kind == "agreement":
            from dmseg.tables.rater_agreement import agreement_content

            content, _, settings = agreement_content(spec, overrides, notify)
            files.append(_write(content, Path(settings.paths.results) / "tables", settings))
        else:
            files.append(_write_comparison(plans[spec.name], inference, texts))
    for path in files:
        print(path.read_text(encoding="utf-8"))


def _write_comparison(
    planned: PlannedTable, inference: "Inference", texts: "Texts", results: Path | None = None
) -> Path:
    """Writes a table below the results folder of its runs, or below the folder that contains all of theirs.

    Args:
        planned: the table.
        inference: how its cells are tested.
        texts: scores that were read for other tables (`collect_cases`).
        results: the folder to write to instead.
    """
    from dmseg.tables.collected import collect_cases
    from dmseg.tables.numbers import comparison_content

    cases = collect_cases(planned, texts)
    folder = (results or planned.results) / "tables"
    return _write(comparison_content(planned, cases, inference), folder, planned.settings, planned, cases)


def _write(
    content: "TableData",
    folder: Path,
    settings: Settings,
    planned: PlannedTable | None = None,
    cases: "pd.DataFrame | None" = None,
) -> Path:
    """Writes the files of a table, and records them with its trackers; returns the Markdown file.

    An earlier table with more numbers, or of other settings, is kept (`dmseg.tables.earlier`).
    """
    from dmseg.report.tracking.update import update_table
    from dmseg.tables.earlier import keep_earlier
    from dmseg.tables.notes import plan_notes
    from dmseg.tables.render import write_cases, write_table

    if kept := keep_earlier(content, folder, planned):
        notify(kept)
    if planned is not None and cases is not None:
        write_cases(cases, folder, planned.spec)
    files = write_table(content, folder, () if planned is None else plan_notes(planned))
    notify(f"written: {', '.join(str(path) for path in files)}")
    update_table(files[0].with_suffix(".csv"), settings)
    return files[0]
