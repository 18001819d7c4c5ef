"""Follows training for the trackers: losses, speed and validations meanwhile, and the whole report at its end."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence

from dmseg.report.tracking.journal import Journal, journal_path, read_steps
from dmseg.report.tracking.tracker import Report, RunMetadata, SafeTracker, finite_numbers
from dmseg.runs.plan import PlannedRun
from dmseg.training.observers import EpochReport, RunInfo

log = logging.getLogger(__name__)

VALIDATIONS = 10
"""Number of validations during training, unless `evaluate.every` says otherwise."""


class TrackingObserver:
    """Passes the events of a run to its trackers.

    Args:
        run: the run.
        metadata: its metadata.
        trackers: the trackers, without the journal; may be none.
        report: collects what is shown at the end.
        remember: records that a tracker, given by name, has the complete run.
    """

    def __init__(
        self,
        run: PlannedRun,
        metadata: RunMetadata,
        trackers: Sequence[SafeTracker],
        report: Callable[[], Report],
        remember: Callable[[str], None],
    ) -> None:
        self._run, self._metadata, self._report, self._remember = run, metadata, report, remember
        self._journal = Journal(run.results)
        self._trackers = (SafeTracker("jsonl", self._journal), *trackers)
        self._info: RunInfo | None = None
        self._earlier: Mapping[int, Mapping[str, float]] = {}
        self._mark: tuple[int, float] | None = None
        self._last: EpochReport | None = None
        self._scores: Mapping[str, float] = {}

    def started(self, info: RunInfo) -> None:
        """Opens the records; what the journal of an earlier session holds is kept for the epochs that are replayed."""
        self._info = info
        self._earlier = read_steps(journal_path(self._run.results, info.run_id))
        for tracker in self._trackers:
            tracker.begin(self._metadata)

    def stepped(self, step: int) -> None:
        """Notes when the first step of this session was taken."""
        if self._mark is None:
            self._mark = (step, time.monotonic())
            self._journal.live = True

    def epoch_ended(self, report: EpochReport) -> None:
        """Records the epoch, and validates the network if that is due."""
        if self._info is None:
            return
        self._last = report
        losses = {f"train/{name}": value for name, value in report.losses.items()}
        values = {"epoch": report.epoch, **losses, "train/lr": report.lr}
        if self._mark is None:  # replayed
            values = {**self._earlier.get(report.step, {}), **values}
        else:
            step, since = self._mark
            seconds, settings = time.monotonic() - since, self._run.settings
            if report.step != step and seconds > 0:
                values["train/slices_per_second"] = (report.step - step) * settings.train.batch_size / seconds
            every, epochs = settings.evaluate.every, self._info.epochs
            if every is None:
                every = max(1, math.ceil(epochs / VALIDATIONS))
            is_due = every and report.epoch % every == 0 and report.epoch != epochs  # the last one is scored anyway
            if is_due and self._info.validate is not None:
                values |= {f"validation/{name}": value for name, value in self._info.validate().items()}
        self._log(report.step, values)
        if self._mark is not None:
            self._mark = (report.step, time.monotonic())

    def evaluated(self, summary: dict[str, float]) -> None:
        """Keeps the scores of the finished network."""
        self._scores = summary

    def ended(self, error: BaseException | None) -> None:
        """Records the report of a finished run, and closes the records."""
        if self._info is None:
            return
        if error is None:
            if self._last is not None:
                scores = {f"validation/{name}": value for name, value in self._scores.items()}
                self._log(self._last.step, {"epoch": self._last.epoch, **scores})
            try:
                report = self._report()
            except Exception as fault:
                log.warning("trackers: the report of run %s is left out (%s)", self._info.run_id, fault)
                report = Report()
            for tracker in self._trackers:
                tracker.show(report)
        for tracker in self._trackers:
            tracker.end(error is None)
            if error is None and tracker.delivered:
                self._remember(tracker.name)
        self._info = None

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        for tracker in self._trackers:
            tracker.log(step, finite_numbers(values))
