"""Records what is already stored: finished runs, tables and the tables of sweeps."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dmseg.config.settings import TrackerSettings
from dmseg.files.regular import read_regular
from dmseg.report.tracking.journal import journal_path, read_steps
from dmseg.report.tracking.run_report import cut, run_metadata, run_report
from dmseg.report.tracking.tracker import Report, Rows, RunMetadata, Tracker, finite_numbers
from dmseg.runs.digests import identifier
from dmseg.runs.seal import read_seal
from dmseg.runs.store import RunStore

LARGEST_FILE = 64 * 2**20
PARTS = (".md", ".csv", ".tex", "_cases.csv")
"""Endings of the files of a table."""


def stored_metadata(
    store: RunStore, run_id: str, settings: TrackerSettings, job_type: str, tables: Sequence[str]
) -> RunMetadata:
    """Metadata of a stored run.

    Raises:
        DamagedError: if one of its files is damaged.
    """
    config, manifest = store.read_json(run_id, "config.json"), store.read_json(run_id, "manifest.json")
    return run_metadata(
        run_id,
        manifest["experiment_id"],
        config["settings"],
        phantom=manifest["phantom"],
        job_type=job_type,
        tables=tables,
        tags=settings.tags,
        notes=settings.notes,
    )


def record_run(
    store: RunStore,
    run_id: str,
    metadata: RunMetadata,
    tracker: Tracker,
    images: bool,
    evaluation_id: str | None = None,
) -> None:
    """Records a stored run: its epochs, what its journal adds to them, and its report.

    Args:
        store: the run store.
        run_id: id of the run.
        metadata: its metadata.
        tracker: the tracker.
        images: whether cases may be shown.
        evaluation_id: the evaluation to show first; None for the one made right after training.

    Raises:
        UserError: if one of its files is damaged.
    """
    steps = recorded_steps(store, run_id)
    report = run_report(store, run_id, evaluation_id, images)
    tracker.begin(metadata)
    for step, values in steps.items():
        tracker.log(step, values)
    if steps:
        last = max(steps)
        scores = {name: value for name, value in report.scores.items() if name.startswith("validation/")}
        scores.pop("validation/cases", None)  # a number of the summary, no curve
        tracker.log(last, {"epoch": steps[last]["epoch"], **finite_numbers(scores)})
    tracker.show(report)
    tracker.end(finished=True)


def recorded_steps(store: RunStore, run_id: str) -> dict[int, dict[str, float]]:
    """Numbers by step of a stored run, from its history and its journal."""
    folder = store.folder(run_id)
    if "history.csv" not in read_seal(folder):
        return {}
    history = pd.read_csv(io.BytesIO(read_regular(folder / "history.csv", LARGEST_FILE)))
    known = read_steps(journal_path(store.results, run_id))
    found = {}
    for row in history.to_dict("records"):
        step, epoch, lr = int(row.pop("step")), row.pop("epoch"), row.pop("lr")
        losses = {f"train/{name}": float(value) for name, value in row.items()}
        found[step] = {**known.get(step, {}), **finite_numbers({"epoch": epoch, "train/lr": lr, **losses})}
    return found


def stored_tables(results: Path) -> list[Path]:
    """The CSV files of the tables and sweeps of a results folder."""
    tables = (path for path in (results / "tables").glob("table*.csv") if not path.name.endswith("_cases.csv"))
    return sorted(tables) + sorted((results / "sweeps").glob("*.csv"))


def table_files(path: Path) -> list[Path]:
    """All files of a table, given its CSV file; that one is first."""
    others = (path.with_name(path.stem + ending) for ending in PARTS)
    return [path, *(other for other in others if other != path and other.is_file())]


def table_record(path: Path, settings: TrackerSettings) -> tuple[RunMetadata, Report]:
    """Metadata and content of a table or of the table of a sweep, from its CSV file.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not such a table.
    """
    frame = _read(path)
    if path.parent.name == "sweeps":
        metadata = RunMetadata(
            identifier({"sweep": path.stem, "columns": [str(name) for name in frame]}),
            cut(f"Sweep {path.stem}"),
            "sweeps",
            "sweep",
            tuple(dict.fromkeys(("sweep", *settings.tags))),
            settings.notes,
            {"sweep": path.stem},
        )
        return metadata, Report(scores={"rows": float(len(frame))}, tables={"sweep": _rows(frame)}, files=[path])
    missing = {"table", "metric", "value", "paper"} - set(frame)
    if missing or frame.empty:
        raise ValueError("it is not a table that dmseg wrote" if missing else "it has no cells")
    first = frame.iloc[0]
    data, profile, protocol = (str(first.get(name, "")) for name in ("data", "profile", "protocol"))
    phantom = bool(first.get("phantom", False))
    files = table_files(path)
    rows = {"table": _wide(frame), "cells": _rows(frame)}
    cases = path.with_name(f"{path.stem}_cases.csv")
    if cases in files:
        runs = _read(cases)
        known = [name for name in ("run_id", "data", "model", "task", "method", "seed", "fold") if name in runs]
        base = f"/{settings.entity}/{settings.project}/runs/" if settings.entity else "runs/"
        cells = runs[known].drop_duplicates().astype(str).values.tolist()
        rows["runs"] = Rows([*known, "run"], [[*row, f"{base}{row[0]}"] for row in cells])  # with addresses in wandb
    tags = [f"table {first['table']}", data, profile, protocol, *(["phantom"] if phantom else []), *settings.tags]
    ours, of_paper = frame["value"].notna(), frame["paper"].notna()
    both = frame[ours & of_paper]
    scores = {"cells": float(len(frame)), "cells with a number": float(ours.sum())}
    if len(both):
        scores["mean absolute difference from the paper"] = float((both["value"] - both["paper"]).abs().mean())
    metadata = RunMetadata(
        identifier({"table": str(first["table"]), "data": data, "profile": profile, "protocol": protocol}),
        cut(f"Table {first['table']} · {data}{' (phantom)' if phantom else ''} · {profile} · protocol {protocol}"),
        "tables",
        "table",
        tuple(dict.fromkeys(cut(tag, 64) for tag in tags if tag)),
        settings.notes,
        {"table": str(first["table"]), "data": data, "profile": profile, "protocol": protocol, "phantom": phantom},
    )
    return metadata, Report(scores=scores, tables=rows, files=files)


def record_table(metadata: RunMetadata, report: Report, tracker: Tracker) -> None:
    """Records a table."""
    tracker.begin(metadata)
    tracker.show(report)
    tracker.end(finished=True)


def _wide(frame: pd.DataFrame) -> Rows:
    """The table as people read it: a row for each task, network and metric, columns with our number and the paper's."""
    shown = [name for name in ("task_title", "model_title", "metric") if name in frame and frame[name].notna().any()]
    methods = list(dict.fromkeys(frame["method_title"].fillna(""))) if "method_title" in frame else [""]
    rows = []
    for key, block in frame.groupby(shown, sort=False, dropna=False):
        cells: list[Any] = []
        for method in methods:
            own = block[block["method_title"].fillna("") == method] if "method_title" in frame else block
            value, paper = (own[name].iloc[0] if len(own) else math.nan for name in ("value", "paper"))
            cells += [round(float(number), 4) if pd.notna(number) else None for number in (value, paper)]
        rows.append([*(str(item) for item in key), *cells])
    titles = [title for method in methods for title in (method or "value", f"{method} (paper)".strip())]
    return Rows([*shown, *titles], rows)


def _rows(frame: pd.DataFrame) -> Rows:
    plain = frame.astype(object).where(frame.notna(), None)
    return Rows([str(name) for name in plain.columns], plain.values.tolist())


def _read(path: Path) -> pd.DataFrame:
    content = read_regular(path, LARGEST_FILE)
    return pd.read_csv(
        io.BytesIO(content), dtype={"case": str, "table": str, "run_id": str}, keep_default_na=False, na_values=[""]
    )
