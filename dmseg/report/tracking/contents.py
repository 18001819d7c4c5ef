"""What a tracker shows for a run or a table, and the protocol that all trackers share."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Card:
    """What a tracker knows about a run from the start.

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

    def begin(self, card: Card) -> None:
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
