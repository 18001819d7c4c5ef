"""Trackers that cannot stop a training: after a failure, a tracker logs one warning and is no longer used."""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress

from dmseg.report.tracking.contents import Card, Report, Tracker

log = logging.getLogger(__name__)


class Guarded:
    """Wraps a tracker; its first error is logged as a warning, and it is not used again until the next `begin`.

    Args:
        name: its name, for the warning.
        tracker: the tracker.
    """

    def __init__(self, name: str, tracker: Tracker) -> None:
        self._name, self._tracker = name, tracker
        self.failed = False
        """Whether it has failed since `begin`."""

    @property
    def name(self) -> str:
        """Name of the tracker."""
        return self._name

    @property
    def delivered(self) -> bool:
        """Whether the last closed record has arrived."""
        return not self.failed and self._tracker.delivered

    def begin(self, card: Card) -> None:
        """Starts a record."""
        self.failed = False
        self._try(lambda: self._tracker.begin(card))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds numbers of a step."""
        self._try(lambda: self._tracker.log(step, values))

    def show(self, report: Report) -> None:
        """Adds what is shown once."""
        self._try(lambda: self._tracker.show(report))

    def end(self, finished: bool) -> None:
        """Closes the record, also of a tracker that has failed."""
        if self.failed:
            with suppress(Exception):
                self._tracker.end(False)
        else:
            self._try(lambda: self._tracker.end(finished))

    def _try(self, act: Callable[[], None]) -> None:
        if self.failed:
            return
        try:
            act()
        except Exception as error:
            self.failed = True
            reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
            log.warning(
                "tracker=%s has failed (%s); the run continues without it, 'dmseg track tracker=%s' records it later",
                self._name,
                reason,
                self._name,
            )
