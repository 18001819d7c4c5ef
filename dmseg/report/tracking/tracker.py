"""The protocol of trackers, what they show for a run or a table, and a wrapper that keeps their errors from runs."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dmseg.errors import first_line

log = logging.getLogger(__name__)
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class RunMetadata:
    """What a tracker knows about a run or a table from the start.

    Attributes:
        id: id of the run or table.
        name: name in lists, such as ``kidney-1 · uniform · dml1 · fold 2``.
        group: the experiment in words, shared by its folds and seeds.
        job_type: ``train``, ``teacher``, ``table`` or ``sweep``.
        tags: words to filter by.
        notes: the user's notes, or None.
        config: the configuration, with dotted keys.
    """

    id: str
    name: str
    group: str
    job_type: str
    tags: tuple[str, ...]
    notes: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """A table of text and numbers.

    Attributes:
        columns: titles of the columns.
        rows: one list for each row.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Curves:
    """Lines in one diagram.

    Attributes:
        title: its title.
        x_title: title of the horizontal axis.
        lines: x and y of each line, by its name.
    """

    title: str
    x_title: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]


@dataclass(frozen=True)
class Layer:
    """A mask that is drawn over an image.

    Attributes:
        mask: (H, W) uint8, the class of each pixel; 0 is not drawn.
        classes: names of the classes.
    """

    mask: Bytes
    classes: Mapping[int, str]


@dataclass(frozen=True)
class Overlay:
    """A validation case: its image with layers, and everything side by side.

    Attributes:
        case: id of the case.
        caption: one line.
        image: (H, W) uint8.
        layers: masks by name.
        panel: (h, w, 3) uint8, image, contours, label, probability and error side by side.
    """

    case: str
    caption: str
    image: Bytes
    layers: Mapping[str, Layer]
    panel: Bytes


@dataclass(frozen=True)
class Report:
    """What is shown once, at the end.

    Attributes:
        scores: numbers of the summary, by name.
        tables: by name.
        curves: by name.
        overlays: validation cases.
        files: files that belong to it.
    """

    scores: Mapping[str, float] = field(default_factory=dict)
    tables: Mapping[str, Rows] = field(default_factory=dict)
    curves: Mapping[str, Curves] = field(default_factory=dict)
    overlays: Sequence[Overlay] = ()
    files: Sequence[Path] = ()


def finite_numbers(values: Mapping[str, float]) -> dict[str, float]:
    """The finite ones of some numbers by name, as floats."""
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}


class Tracker(Protocol):
    """Records one run at a time."""

    @property
    def delivered(self) -> bool:
        """Whether the last closed record has reached its destination completely."""

    def begin(self, metadata: RunMetadata) -> None:
        """Starts a record; one with the same id is replaced or continued, never duplicated."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds numbers for a step; steps come in ascending order, and may repeat."""

    def show(self, report: Report) -> None:
        """Adds what is shown once; called at most once, after the last step."""

    def end(self, finished: bool) -> None:
        """Closes the record.

        Args:
            finished: whether the run is finished; otherwise it has failed or was stopped.
        """


class SafeTracker:
    """Wraps a tracker so that its errors never stop a run.

    The first error is logged as a warning, and the tracker is not used again until the next `begin`.

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

    def begin(self, metadata: RunMetadata) -> None:
        """Starts a record."""
        self.failed = False
        self._try(lambda: self._tracker.begin(metadata))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds numbers of a step."""
        self._try(lambda: self._tracker.log(step, values))

    def show(self, report: Report) -> None:
        """Adds what is shown once."""
        self._try(lambda: self._tracker.show(report))

    def end(self, finished: bool) -> None:
        """Closes the record, even if the tracker has failed."""
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
            reason = first_line(error)[:300]
            log.warning(
                "tracker=%s has failed (%s); the run continues without it, and 'dmseg track tracker=%s' records "
                "it later",
                self._name,
                reason,
                self._name,
            )
