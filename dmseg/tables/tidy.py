"""Tidy CSV files: one row for each cell of a table, or for each case."""

from functools import cache
from pathlib import Path

import pandas as pd

from dmseg.files.atomic import write_whole
from dmseg.tables.numbers import TableData
from dmseg.tables.spec import TableSpec
from dmseg.text import csv_text


def frame_to_csv(frame: pd.DataFrame) -> str:
    """A frame as CSV: numbers in full precision, text made safe by `dmseg.text.csv_text`."""
    texts = frame.select_dtypes(exclude=["number", "bool"])
    safe = {str(name): texts[name].map(cache(csv_text), na_action="ignore") for name in texts}  # most are repeated
    return str(frame.assign(**safe).to_csv(index=False))


def to_csv(table: TableData) -> str:
    """One row for each cell, with data set, profile and protocol of the table."""
    cells = table.cells.assign(table=table.spec.name, data=table.data, phantom=table.phantom)
    return frame_to_csv(cells.assign(profile=table.profile, protocol=table.protocol))


def write_cases(cases: pd.DataFrame, folder: Path, spec: TableSpec) -> Path:
    """Writes the per-case scores that a table was computed from."""
    path = folder / f"{spec.stem}_cases.csv"
    write_whole(path, frame_to_csv(cases))
    return path
