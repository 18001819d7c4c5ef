"""A comparison of methods with everything that its files say, from the runs in the store."""

import os
from pathlib import Path

import pandas as pd

from dmseg.tables.inference import Inference
from dmseg.tables.numbers import TableData, comparison_cells
from dmseg.tables.planning import PlannedTable


def comparison_content(planned: PlannedTable, cases: pd.DataFrame, inference: Inference) -> TableData:
    """A planned table, ready to be rendered.

    Args:
        planned: its runs.
        cases: their scores (`dmseg.tables.numbers.collect_cases`).
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
    return Path(os.path.commonpath([row.settings.paths.results for row in planned.rows]))
