"""The content of a table that compares methods, from the runs in the store, and the folder that it is written to."""

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from dmseg.tables.inference import Inference
from dmseg.tables.numbers import TableData, comparison_cells
from dmseg.tables.planning import PlannedTable


def comparison_content(planned: PlannedTable, cases: pd.DataFrame, inference: Inference) -> TableData:
    """A planned table, ready to be rendered.

    Args:
        planned: its runs.
        cases: their scores (`dmseg.tables.collected.collect_cases`).
        inference: how cells are tested.
    """
    settings = planned.settings
    return TableData(
        planned.spec,
        comparison_cells(planned, cases, inference),
        ", ".join(dict.fromkeys(row.data for row in planned.rows)),
        planned.phantom,
        settings.profile,
        settings.protocol,
        inference,
        settings.evaluate.ties,
    )


def results_folder(planned: PlannedTable) -> Path:
    """The results folder of a table's runs, or the folder that contains all of theirs."""
    return common_folder([row.settings.paths.results for row in planned.rows])


def common_folder(folders: Sequence[str]) -> Path:
    """The folder that contains all of the given folders, or the first of them if only the root contains all.

    Args:
        folders: absolute or relative paths; the result is relative if all of them are.
    """
    if len(set(folders)) == 1:
        return Path(folders[0])
    common = os.path.commonpath([os.path.abspath(folder) for folder in folders])
    if common == os.path.sep:
        return Path(folders[0])
    return Path(common if any(map(os.path.isabs, folders)) else os.path.relpath(common))
