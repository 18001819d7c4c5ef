"""Agreement of the raters by case, from their annotations."""

from collections.abc import Sequence

import pandas as pd

from dmseg.data.prepared import PreparedTask
from dmseg.labels.fusion import majority
from dmseg.metrics.agreement import rater_dice


def agreement_by_case(stores: Sequence[PreparedTask]) -> dict[str, "pd.Series[float]"]:
    """By title of the task, the mean over a case's raters of the Dice between rater and majority, in per cent."""
    found: dict[str, pd.Series[float]] = {}
    for prepared in stores:
        values = {}
        for case in prepared.cases:
            masks = prepared.annotations(case)
            values[case.case] = 100 * float(rater_dice(masks, majority(masks)).mean())
        found[prepared.task.title] = pd.Series(values, dtype=float)
    return found
