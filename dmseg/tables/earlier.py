"""Keeps the files of an earlier table that a new one of the same name would replace with fewer or different numbers."""

import io
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from dmseg.config.overrides import flatten
from dmseg.errors import UserError, first_line, shown
from dmseg.files.regular import read_regular
from dmseg.runs.plan import PlannedRun
from dmseg.runs.store import RunStore
from dmseg.tables.numbers import TableData
from dmseg.tables.planning import PlannedTable

EARLIER = "earlier"
"""Folder of the tables that were replaced, beside those that replaced them."""
LARGEST_TABLE = 256 * 2**20
"""Largest CSV file that is read, in bytes."""
CELL = ["data_set", "task", "model", "metric", "method"]
"""Columns of a table's CSV file that identify a cell."""
FILES = (".csv", ".md", ".tex", "_cases.csv")
"""Endings of the files of a table."""
NOT_COMPARED = ("paths", "device", "workers", "threads", "launcher", "tracker", "wandb", "checkpoint", "fold", "graph")
"""Settings that have no effect on numbers, or differ between the runs of a cell."""


def keep_earlier(new: TableData, folder: Path, planned: PlannedTable | None) -> str:
    """Moves the files of an earlier table to the folder ``earlier`` if replacing it would lose numbers.

    It would if the new table has fewer cells with a number, lacks runs that the earlier one was computed from, or has
    different numbers of the same runs. An earlier table whose CSV file cannot be read is kept as well.

    Args:
        new: the table that is about to be written.
        folder: where it will be written.
        planned: its runs; None for a table without runs.

    Returns:
        A message that says what was kept and why; empty if nothing was.
    """
    path = folder / f"{new.spec.stem}.csv"
    if not os.path.lexists(path):
        return ""
    try:
        earlier = pd.read_csv(io.BytesIO(read_regular(path, LARGEST_TABLE)), dtype=str, keep_default_na=False)
        if not {"metric", "value"} <= set(earlier):
            raise ValueError("it is not a table")
        numbers = pd.to_numeric(earlier["value"], errors="coerce")
        if (damaged := earlier["value"][numbers.isna() & (earlier["value"] != "")]).any():
            raise ValueError(f"value {shown(damaged.iloc[0])} is not a number")
        earlier = earlier.assign(value=numbers)
    except (OSError, ValueError) as error:
        lost = f"its CSV file cannot be read ({first_line(error)})"
    else:
        lost = _difference(earlier, new.cells, planned)
    if not lost:
        return ""
    number = 1
    while any(os.path.lexists(folder / EARLIER / f"{new.spec.stem}-{number}{ending}") for ending in FILES):
        number += 1
    place = folder / EARLIER / f"{new.spec.stem}-{number}"
    try:
        place.parent.mkdir(exist_ok=True)
        for ending in FILES:
            with suppress(FileNotFoundError):
                os.replace(folder / f"{new.spec.stem}{ending}", f"{place}{ending}")
    except OSError as error:
        raise UserError(
            f"{path} would be replaced ({lost}), and cannot be kept in {place.parent}: "
            f"{error.strerror or error}; move it, or write to another folder (paths.results=FOLDER)"
        ) from None
    return f"the earlier table {new.spec.name} is kept in {place}.*: {lost}"


def _difference(earlier: pd.DataFrame, new: pd.DataFrame, planned: PlannedTable | None) -> str:
    """What an earlier table has that the new one lacks, in words; empty if nothing."""
    before, now = int(earlier["value"].notna().sum()), int(new["value"].notna().sum())
    if not before:
        return ""
    other = _other_settings(earlier, planned)
    if now < before:
        return f"it has {before} cells with a number, the new one has {now}{f'; {other}' if other else ''}"
    if other:
        return other
    known = [name for name in CELL if name in earlier and name in new]
    columns = [*known, "value"]
    both = earlier[columns].merge(new[columns].astype(dict.fromkeys(known, str)), on=known, suffixes=("_old", "_new"))
    changed = (both["value_old"] - both["value_new"]).abs() > 1e-9 * both["value_old"].abs()
    n = int(changed.sum())
    words = "1 cell has a different number" if n == 1 else f"{n} cells have different numbers"
    return f"{words} under the new settings" if n else ""


def _other_settings(earlier: pd.DataFrame, planned: PlannedTable | None) -> str:
    """Names settings in which the runs of the earlier table differ from those of the same cells of the new one."""
    if planned is None or not {"runs", "method", "task", "data_set", "model"} <= set(earlier):
        return ""
    ids = {run.run_id for row in planned.rows for runs in row.runs.values() for run in runs}
    cells = {(*row.key, method): runs for row in planned.rows for method, runs in row.runs.items()}
    lost = 0
    for _, row in earlier[earlier["value"].notna()].iterrows():
        if not (missing := [run_id for run_id in str(row["runs"]).split() if run_id not in ids]):
            continue
        lost += 1
        runs = cells.get((row["data_set"], row["model"], row["task"], row["method"]), ())
        if differing := next(filter(None, (_differing(run, missing) for run in runs)), []):
            return f"its settings differ: {', '.join(differing)}"
    return f"{lost} of its cells come from runs that the new one does not use" if lost else ""


def _differing(run: PlannedRun, others: list[str]) -> list[str]:
    """Up to three keys, with both values, in which a run differs from the first other run of the same fold."""
    store = RunStore(run.results)
    for run_id in others:
        with suppress(UserError, OSError):
            stored = store.read_json(run_id, "config.json")["settings"]
            if stored["fold"] == run.settings.fold:
                old, new = (
                    {
                        key: list(value) if isinstance(value, tuple) else value
                        for key, value in flatten(node)
                        if not isinstance(value, Mapping) and key.partition(".")[0] not in NOT_COMPARED
                    }
                    for node in (stored, asdict(run.settings))
                )
                keys = [key for key in old if key in new and old[key] != new[key]]
                return [f"{key} was {shown(old[key])}, is {shown(new[key])}" for key in keys[:3]]
    return []
