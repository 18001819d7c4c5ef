"""The scores of a planned run's cases, with the metrics that its settings ask for."""

import pandas as pd

from dmseg.metrics.named import COUNT_METRICS, count_scores
from dmseg.runs.plan import PlannedRun
from dmseg.runs.store import RunStore


def read_scores(run: PlannedRun) -> pd.DataFrame:
    """The scores of a run's cases, also those metrics in ``evaluate.metrics`` that are computed from counts.

    These are NaN if the run has no counts, as some imported runs.

    Raises:
        UserError: if a file is missing or damaged.
    """
    store = RunStore(run.results)
    cases = store.read_cases(run.run_id, run.evaluation_id)
    names = [name for name in run.settings.evaluate.metrics if name in COUNT_METRICS]
    counts = store.read_counts(run.run_id, run.evaluation_id) if names else None
    return cases.assign(
        **(dict.fromkeys(names, float("nan")) if counts is None else count_scores(counts, cases["case"], names))
    )
