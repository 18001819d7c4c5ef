"""The content of a table's report: runs, scores, curves and pictures, read from the run store."""

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from dmseg.activity import track
from dmseg.errors import UserError
from dmseg.files.regular import inside, read_regular
from dmseg.metrics.curves import Reliability, mean_level_dice, reliability
from dmseg.metrics.stored_counts import Floats, StoredCounts, dice_between_raters
from dmseg.report.tracking.journal import journal_path, read_steps
from dmseg.runs.plan import PlannedRun
from dmseg.runs.seal import DamagedError
from dmseg.runs.shareable import shareable_settings
from dmseg.runs.status import run_status
from dmseg.runs.store import RunStore
from dmseg.tables.collected import KEYS
from dmseg.tables.columns import SCORES
from dmseg.tables.numbers import network_title
from dmseg.tables.planning import PlannedRow, PlannedTable
from dmseg.tables.spec import Column
from dmseg.training.pictures import Picture

LARGEST_HISTORY = 64 * 2**20
VALIDATION = "validation/"
"""Beginning of the names of scores in a journal."""


@dataclass(frozen=True)
class RunFacts:
    """One run of a column.

    Attributes:
        run: the planned run.
        status: ``done``, ``missing``, ``running``, ``failed``, ``damaged``, ``not scored`` or ``unknown``.
        fault: what is damaged, without paths; empty if nothing is.
        folder: path of its folder relative to the results folder; empty if it has none.
        seconds: how long it took; None if unknown.
        machine: device, processor and version of torch; empty if unknown.
        history: losses by epoch; empty if there are none.
        validations: mean scores by epoch that a tracker recorded during training, as fractions; empty if there
            are none.
        pictures: pictures of its cases; None if they are not stored.
    """

    run: PlannedRun
    status: str
    fault: str = ""
    folder: str = ""
    seconds: float | None = None
    machine: str = ""
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    validations: pd.DataFrame = field(default_factory=pd.DataFrame)
    pictures: list[Picture] | None = None


@dataclass(frozen=True)
class ColumnFacts:
    """One column of a row: a method on a task.

    Attributes:
        column: the column.
        index: its number among the columns of the table.
        runs: its runs.
        scores: the mean over seeds of each score by case, in the unit of the table.
        reliability: reliability diagram over all pixels of all cases; None without counts.
        level_dice: Dice at each level, mean over cases; None without counts.
        uncounted: number of finished runs without counts.
        settings: its settings without paths, of the first run.
    """

    column: Column
    index: int
    runs: list[RunFacts]
    scores: pd.DataFrame
    reliability: Reliability | None
    level_dice: Floats | None
    uncounted: int
    settings: dict[str, Any]

    @property
    def curves(self) -> dict[str, tuple[Floats, Floats]]:
        """X and y of ``reliability`` and ``threshold`` (Dice in per cent by threshold), as far as there are counts."""
        found = {}
        if self.reliability is not None:
            found["reliability"] = self.reliability.probability, self.reliability.frequency
        if self.level_dice is not None:
            n_levels = len(self.level_dice)
            found["threshold"] = np.arange(1, n_levels + 1) / (n_levels + 1), 100 * self.level_dice
        return found


@dataclass(frozen=True)
class RowFacts:
    """One task with one network.

    Attributes:
        row: the planned row.
        title: task and network.
        columns: the columns that have a cell.
        agreement: mean Dice between raters by case, in per cent; empty without counts.
    """

    row: PlannedRow
    title: str
    columns: list[ColumnFacts]
    agreement: "pd.Series[float]"


def gather_rows(planned: PlannedTable, cases: pd.DataFrame) -> Iterator[RowFacts]:
    """Reads the facts that a report shows for each row of a table.

    Args:
        planned: the table.
        cases: scores of its runs (`dmseg.tables.collected.collect_cases`).
    """
    several = len({row.model for row in planned.rows}) > 1
    indices = {column.key: index for index, column in enumerate(planned.spec.columns)}
    columns = {column.key: column for column in planned.spec.columns}
    scores = dict(iter(cases.groupby(list(KEYS)))) if len(cases) else {}
    for row in track(planned.rows, "reading curves and pictures", len(planned.rows), "rows"):
        found, agreement = [], pd.Series(dtype=float)
        for key, runs in row.runs.items():
            own = scores.get((*row.key, key), cases.iloc[:0])
            scored = set(own["run_id"])
            counts = _Counts()
            facts = [_facts(run, run.run_id in scored, counts) for run in runs]
            known = [name for name in row.block.metrics if name in own]
            means = pd.DataFrame(columns=known, dtype=float)
            if len(own):
                means = own.groupby("case", sort=True)[known].mean()
            found.append(
                ColumnFacts(
                    columns[key],
                    indices[key],
                    facts,
                    means.mul([SCORES[name].factor for name in known], axis=1),
                    reliability(counts.every),
                    mean_level_dice(counts.every),
                    counts.lacking,
                    shareable_settings(asdict(runs[0].settings)),
                )
            )
            if counts.agreement:
                agreement = pd.Series(counts.agreement, dtype=float)
        network = f", {network_title(row.settings.model)}" if several else ""
        yield RowFacts(row, f"{row.data}: {row.task.title}{network}", found, agreement)


class _Counts:
    """Counts of a column's cases under all seeds.

    Attributes:
        every: the counts of each case of each run.
        agreement: mean Dice between raters by case, in per cent.
        lacking: number of runs without readable counts.
    """

    def __init__(self) -> None:
        self.every: list[StoredCounts] = []
        self.agreement: dict[str, float] = {}
        self.lacking = 0

    def add(self, run: PlannedRun) -> None:
        found = None
        with suppress(DamagedError):
            found = RunStore(run.results).read_counts(run.run_id, run.evaluation_id)
        if found is None:
            self.lacking += 1
            return
        self.every += found.values()
        self.agreement |= {case: 100 * dice_between_raters(counts) for case, counts in found.items()}


def _facts(run: PlannedRun, scored: bool, counts: _Counts) -> RunFacts:
    """Reads the facts of a run; `scored` says whether its scores were read. Adds its counts to `counts`."""
    store = RunStore(run.results)
    folder = f"runs/{run.run_id}"
    if not scored:
        status: str = run_status(run)
        fault = ""
        if status == "done" or (status != "unknown" and run.run_id in store.stored()):
            damage = store.damage(run.run_id)
            status = "damaged" if damage else "not scored"
            fault = damage[0].replace(f"{store.results}/", "") if damage else ""
        log = f"failed/{run.run_id}.log" if status == "failed" else ""
        return RunFacts(run, status, fault, log or (folder if status in ("damaged", "not scored") else ""))
    counts.add(run)
    manifest: dict[str, Any] = {}
    pictures = None
    with suppress(DamagedError):
        manifest = store.read_json(run.run_id, "manifest.json")
    with suppress(DamagedError):
        pictures = store.read_pack(run.run_id, run.evaluation_id)
    machine, versions = (manifest.get(name) or {} for name in ("machine", "versions"))
    parts = [machine.get("device"), machine.get("processor")]
    parts += [f"torch {versions['torch']}"] if "torch" in versions else []
    history = pd.DataFrame()
    with suppress(OSError, ValueError, UserError):
        content = read_regular(inside(store.folder(run.run_id), "history.csv"), LARGEST_HISTORY)
        history = pd.read_csv(io.BytesIO(content)).select_dtypes("number")
    # validations are in the journal of a run that was trained with a tracker; the last one is that of the final weights
    steps = read_steps(journal_path(store.results, run.run_id))
    validations = [
        {"epoch": values["epoch"], **{name.removeprefix(VALIDATION): values[name] for name in names}}
        for _, values in sorted(steps.items())
        if "epoch" in values and (names := [name for name in values if name.startswith(VALIDATION)])
    ]
    return RunFacts(
        run,
        "done",
        folder=folder,
        seconds=float(manifest["seconds"]) if "seconds" in manifest else None,
        machine=", ".join(str(item) for item in parts if item),
        history=history,
        validations=pd.DataFrame(validations),
        pictures=pictures,
    )


def count_status(planned: PlannedTable, rows: Sequence[RowFacts]) -> Counter[str]:
    """Number of distinct runs by status."""
    found = {facts.run.run_id: facts.status for row in rows for column in row.columns for facts in column.runs}
    return Counter(found.values())
