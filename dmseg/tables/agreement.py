"""Table 1: how far the raters agree, computed from their masks without any run."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from dmseg.config.compose import compose_settings
from dmseg.config.settings import Settings
from dmseg.data.prepared import PreparedTask
from dmseg.labels.fusion import majority
from dmseg.metrics.agreement import rater_dice
from dmseg.runs.sources import Notify, prepare_tasks
from dmseg.tables.columns import SCORES
from dmseg.tables.numbers import TableData, with_paper
from dmseg.tables.request import request_raters
from dmseg.tables.spec import TableSpec


def agreement_content(
    spec: TableSpec, overrides: Sequence[str], notify: Notify
) -> tuple[TableData, list[PreparedTask], Settings]:
    """A table of the raters' agreement, its prepared tasks, and its settings.

    Args:
        spec: the table.
        overrides: the user's overrides.
        notify: called with a message for each prepared task.
    """
    settings = compose_settings(request_raters(spec, overrides)[1])
    stores = list(prepare_tasks(settings, notify))
    disjoint = settings.agreement.disjoint
    content = TableData(
        spec,
        agreement_cells(stores, disjoint),
        settings.data.name,
        settings.data.phantom is not None,
        settings.profile,
        settings.protocol,
        disjoint=disjoint,
    )
    return content, stores, settings


def agreement_by_case(prepared: PreparedTask, disjoint: float) -> "pd.Series[float]":
    """For each case of a task, the mean over its raters of the Dice between rater and majority vote, in [0, 1].

    Args:
        prepared: a prepared task.
        disjoint: Dice of a rater without any overlap: 0, or 1 as in the released preparation script. Two empty masks
            have a Dice of 1.
    """
    found = {}
    for case in prepared.cases:
        masks = prepared.annotations(case)
        found[case.case] = float(rater_dice(masks, majority(masks), disjoint=disjoint).mean())
    return pd.Series(found, dtype=float)


def agreement_cells(stores: Sequence[PreparedTask], disjoint: float) -> pd.DataFrame:
    """Cells of Table 1: for each task the number of raters and the mean Dice between a rater and the majority.

    The mean is over the raters of a case, then over cases (`agreement_by_case`).

    Args:
        stores: prepared tasks.
        disjoint: Dice of a rater without any overlap.
    """
    rows = []
    for prepared in stores:
        common = {"task": prepared.task.name, "task_title": prepared.task.title, "n": len(prepared.cases)}
        raters = float(max(len(case.raters) for case in prepared.cases))
        rows.append({**common, "metric": "raters", "value": raters, "unit": SCORES["raters"].unit})
        dice = SCORES["dice"].factor * float(np.mean(agreement_by_case(prepared, disjoint).to_numpy()))
        rows.append({**common, "metric": "dice", "value": dice, "unit": SCORES["dice"].unit})
    cells = pd.DataFrame(rows).assign(method="", method_title="", paper_model="")
    return with_paper(cells.assign(paper_task=cells["task"]), 1)
