"""The HTML report of a table: one file that contains everything it shows and loads nothing."""

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import DictLoader, Environment, StrictUndefined
from omegaconf import OmegaConf

from dmseg import __version__
from dmseg.config.choices import TOPICS, written
from dmseg.files.atomic import write_whole
from dmseg.metrics.stored_counts import Floats
from dmseg.report.charts import Chart, curves, strip
from dmseg.report.gallery import RowGallery, galleries
from dmseg.report.gather import RowFacts, count_status, gather_rows
from dmseg.tables.columns import SCORES
from dmseg.tables.notes import MISSING, PHANTOM_NOTE, plan_notes, table_notes
from dmseg.tables.numbers import TableData
from dmseg.tables.open_choices import ExplainedTable
from dmseg.tables.planning import PlannedTable
from dmseg.text import one_line, printable_lines

TEMPLATES = ("report.html.j2", "charts.html.j2", "report.css", "report.js")
MARKS = {"": "", "better": "●", "worse": "†"}
DIFF_MARKS = {"": "", "better": "*", "worse": "‡"}
PACKS_NOTE = (
    "{n} finished runs were stored without pictures. 'dmseg reproduce' with the same arguments and "
    "evaluate.add_packs=true scores them again and adds the pictures."
)


@dataclass(frozen=True)
class Report:
    """The content of a report.

    Attributes:
        content: the table.
        planned: its runs; None for a table of the raters' agreement.
        cases: scores of its runs by case.
        choices: the open choices behind it; None if they are not known, as for an export.
        agreement: for a table of the raters' agreement, the Dice of each case in per cent, by title of the task.
    """

    content: TableData
    planned: PlannedTable | None
    cases: pd.DataFrame
    choices: ExplainedTable | None = None
    agreement: Mapping[str, "pd.Series[float]"] | None = None


def write_report(report: Report, folder: Path) -> Path:
    """Writes ``tableN.html`` and returns its path.

    Args:
        report: its content.
        folder: where to write it, beside the folder of the runs.
    """
    path = folder / f"{report.content.spec.stem}.html"
    write_whole(path, render(report))
    return path


def render(report: Report) -> str:
    """The text of a report."""
    sources = {name: (files("dmseg.report") / "templates" / name).read_text("utf-8") for name in TEMPLATES}
    environment = Environment(
        loader=DictLoader(sources), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["clean"] = lambda text: one_line(str(text))
    rows = list(gather_rows(report.planned, report.cases)) if report.planned else []
    script = sources["report.js"]
    by_task = {title: np.asarray(values, dtype=np.float64) for title, values in (report.agreement or {}).items()}
    return environment.get_template("report.html.j2").render(
        style=sources["report.css"],
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        version=__version__,
        **_table_context(report),
        **_runs_context(report, rows),
        rows=[_row_context(row, gallery) for row, gallery in zip(rows, galleries(rows), strict=True)],
        agreement=[strip("Raters and majority", "Dice (%)", by_task, 2, paired=False)] if by_task else [],
        choices=_choices_context(report.choices),
    )


def _table_context(report: Report) -> dict[str, Any]:
    content = report.content
    notes = plan_notes(report.planned) if report.planned else ()
    cells = [_cell_context(content, row) for row in content.cells.to_dict("records")]
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    for cell in cells:
        key = cell["data_set"], cell["model"], cell["task"], cell["metric"]
        group = groups.setdefault(key, {**cell, "by_method": {}})
        group["by_method"][cell["method"]] = cell
    agreement = content.spec.kind == "agreement"
    reference = {column.key: column.title for column in content.spec.columns}.get(content.spec.reference, "")
    rows = Counter((group["data_set"], group["model"], group["task"]) for group in groups.values())
    for group in groups.values():  # the first line of a row spans all of its scores
        group["span"] = rows.pop((group["data_set"], group["model"], group["task"]), 0)
    return {
        "heading": content.spec.heading,
        "data": content.data,
        "profile": content.profile,
        "protocol": content.protocol,
        "phantom": content.phantom,
        "phantom_note": PHANTOM_NOTE,
        "is_agreement": agreement,
        "columns": [] if agreement else [{"key": item.key, "title": item.title} for item in content.spec.shown],
        "reference": reference,
        "compared": f"{reference} − column" if content.spec.reference_is_ours else f"column − {reference}",
        "has_networks": not agreement and content.cells["model"].nunique() > 1,
        "grid": list(groups.values()),
        "cells": cells,
        "has_paper": bool(content.cells["paper"].notna().any()),
        "notes": [note for note in table_notes(content, notes, mark="●") if note != PHANTOM_NOTE],
        "missing": MISSING,
    }


def _cell_context(content: TableData, row: Mapping[Any, Any]) -> dict[str, Any]:
    """The texts and sort keys of a cell."""
    score = SCORES[str(row["metric"])]

    def shown(name: str, signed: bool = False) -> str:
        value = float(row.get(name, math.nan))
        if math.isnan(value):
            return ""
        if signed:
            return _signed(value, score.digits)
        return score.shown(round(value, score.digits) + 0.0).replace("-", "−")

    difference, p_value = float(row["value"]) - float(row["paper"]), float(row.get("p_value", math.nan))
    several = row.get("n_seeds", 1) > 1
    return {
        "data_set": str(row.get("data_set", "")),
        "model": str(row.get("model", "")),
        "model_title": str(row.get("model_title", "")),
        "task": str(row["task"]),
        "task_title": str(row["task_title"]),
        "metric": str(row["metric"]),
        "heading": score.heading,
        "method": str(row["method"]),
        "method_title": str(row["method_title"]),
        "value": shown("value"),
        "key": _key(row["value"]),
        "sd": shown("sd_seeds") if several else "",
        "paper": shown("paper"),
        "paper_key": _key(row["paper"]),
        "difference": "" if math.isnan(difference) else _signed(difference, score.digits),
        "difference_key": _key(difference),
        "interval": _interval(shown("ci_low"), shown("ci_high")),
        "gap": shown("mean_difference_tasks", signed=True),
        "gap_key": _key(row.get("mean_difference_tasks", math.nan)),
        "gap_interval": _interval(shown("diff_ci_low"), shown("diff_ci_high")),
        "p": "" if math.isnan(p_value) else "< 0.001" if p_value < 0.001 else f"{p_value:.3f}",
        "p_key": _key(p_value),
        "mark": MARKS[str(row.get("mark", ""))],
        "diff_mark": DIFF_MARKS[str(row.get("diff_mark", ""))],
        "n": int(row["n"]),
        "seeds": f"{int(row['n_seeds'])} of {int(row['n_seeds_planned'])}" if "n_seeds_planned" in row else "",
        "anchor": _anchor(row.get("data_set", ""), row.get("model", ""), row["task"], row["method"]),
        "pooled": int(row.get("n_tasks", 1)) > 1,
    }


def _signed(value: float, digits: int) -> str:
    """A difference with its sign; none if it is rounded to 0."""
    rounded = round(value, digits)
    return f"{rounded:+.{digits}f}".replace("-", "−") if rounded else f"{0:.{digits}f}"


def _interval(low: str, high: str) -> str:
    return f"{low} to {high}" if low and high else ""


def _key(value: Any) -> str:  # noqa: ANN401
    """The key that a column is sorted by; empty keys come last."""
    return "" if math.isnan(float(value)) else f"{float(value):.9g}"


def _anchor(*names: object) -> str:
    """The name of a link target in the report, from names that may contain anything."""
    return "c" + hashlib.sha256("\0".join(map(str, names)).encode()).hexdigest()[:12]


def _runs_context(report: Report, rows: Sequence[RowFacts]) -> dict[str, Any]:
    """Status of the runs, machines and hours, and what is missing."""
    if report.planned is None:
        return {"status": [], "machines": [], "hours": "", "gaps": [], "seeds": ""}
    status = count_status(report.planned, rows)
    found = {facts.run.run_id: facts for row in rows for column in row.columns for facts in column.runs}
    machines: dict[str, list[float]] = {}
    for facts in found.values():
        if facts.seconds is not None:
            machines.setdefault(facts.machine or "unknown machine", []).append(facts.seconds)
    gaps = [f"{name}: {count} of {len(found)} runs." for name, count in status.items() if name != "done"]
    gaps += [f"Run {run_id}: {facts.fault}" for run_id, facts in found.items() if facts.fault]
    if lacking := sum(facts.status == "done" and facts.pictures is None for facts in found.values()):
        gaps.append(PACKS_NOTE.format(n=lacking))
    if uncounted := sum(column.uncounted for row in rows for column in row.columns):
        gaps.append(f"{uncounted} finished runs have no readable counts; they are missing from the curves.")
    seconds = [item for times in machines.values() for item in times]
    return {
        "status": [f"{count} {name}" for name, count in status.items()],
        "machines": [(name, len(times), f"{sum(times) / 3600:.2f}") for name, times in machines.items()],
        "hours": f"{sum(seconds) / 3600:.2f}",
        "gaps": gaps,
        "seeds": ", ".join(map(str, report.planned.seeds)),
    }


def _row_context(row: RowFacts, gallery: RowGallery) -> dict[str, Any]:
    metrics = [name for name in row.row.block.metrics if any(name in column.scores for column in row.columns)]
    index = sorted({str(case) for column in row.columns for case in column.scores.index})
    columns = [column for column in row.columns if len(column.scores)]
    strips, cases = [], []
    for name in metrics:
        score = SCORES[name]
        scored = [column for column in columns if name in column.scores]
        values = {item.column.title: item.scores[name].reindex(index).to_numpy(np.float64) for item in scored}
        if values and index:
            strips.append(strip(score.title, score.heading, values, score.digits))
    for case in index:
        numbers = [
            (name, float(column.scores[name].get(case, math.nan)) if name in column.scores else math.nan)
            for name in metrics
            for column in columns
        ]
        cases.append((case, ["" if math.isnan(value) else SCORES[name].shown(value) for name, value in numbers]))
    return {
        "title": row.title,
        "anchor": _anchor(row.row.data, row.row.model, row.row.task.name),
        "strips": strips,
        "curves": _curve_charts(row),
        "gallery": gallery,
        "metrics": [SCORES[name].heading for name in metrics],
        "case_columns": [column.column.title for column in columns],
        "cases": cases,
        "methods": [
            {
                "title": column.column.title,
                "anchor": _anchor(row.row.data, row.row.model, row.row.task.name, column.column.key),
                "experiments": " ".join(dict.fromkeys(facts.run.experiment_id for facts in column.runs)),
                "runs": [
                    {
                        "id": facts.run.run_id,
                        "fold": facts.run.settings.fold,
                        "seed": facts.run.settings.seed,
                        "status": facts.status,
                        "minutes": "" if facts.seconds is None else f"{facts.seconds / 60:.1f}",
                        "folder": facts.folder,
                        "cases": len(facts.run.split.validation),
                    }
                    for facts in column.runs
                ],
                "settings": printable_lines(OmegaConf.to_yaml(OmegaConf.create(column.settings))),
            }
            for column in row.columns
        ],
    }


def _curve_charts(row: RowFacts) -> list[Chart]:
    """Reliability, Dice by threshold, and by epoch each run's loss and the validations that a tracker recorded."""
    reliable, thresholds = (
        [(column.column.title, column.index, *column.curves[name]) for column in row.columns if name in column.curves]
        for name in ("reliability", "threshold")
    )
    charts = []
    if reliable:
        charts.append(curves("Reliability", "predicted probability", "share of foreground", reliable, unit=True))
    if thresholds:
        charts.append(curves("Dice by threshold (their mean is BDice)", "threshold", "Dice (%)", thresholds))
    losses = _run_lines(row, [[facts.history for facts in column.runs] for column in row.columns], "loss")
    if losses:
        charts.append(curves("Training loss, a line for each run", "epoch", "loss", losses, by_epoch=True))
    validations = [
        [facts.validations if len(facts.validations) > 1 else pd.DataFrame() for facts in column.runs]
        for column in row.columns
    ]
    for name in row.row.block.metrics:
        if lines := _run_lines(row, validations, name, SCORES[name].factor):
            score = SCORES[name]
            title = f"{score.title} of the validation cases during training"
            charts.append(curves(title, "epoch", score.heading, lines, by_epoch=True))
    return charts


def _run_lines(
    row: RowFacts, tables: Sequence[Sequence[pd.DataFrame]], name: str, factor: float = 1.0
) -> list[tuple[str, int, Floats, Floats]]:
    """A line for each run: the values of a column of its table by epoch; tables are given by column and run."""
    return [
        (
            column.column.title,
            column.index,
            table["epoch"].to_numpy(np.float64),
            factor * table[name].to_numpy(np.float64),
        )
        for column, own in zip(row.columns, tables, strict=True)
        for table in own
        if {"epoch", name} <= set(table)
    ]


def _choices_context(table: ExplainedTable | None) -> list[dict[str, Any]]:
    if table is None:
        return []
    found = {item.choice.title: item for item in table.choices}
    topics = []
    for topic in TOPICS:
        choices = []
        for choice in topic.choices:
            item = found[choice.title]
            values = [value if not choice.key else written(value) for value in (choice.paper, choice.release)]
            affects = "set by the columns" if item.fixed else table.describe(item.touched)
            choices.append(
                {
                    "title": choice.title,
                    "key": choice.key,
                    "value": " or ".join(item.values),
                    "paper": values[0],
                    "release": values[1],
                    "affects": affects if choice.key else choice.why,
                    "source": choice.source,
                }
            )
        topics.append({"title": topic.title, "choices": choices})
    return topics
