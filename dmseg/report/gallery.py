"""The pictures of a report: fixed cases side by side for all columns, and each column's best, median and worst case."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dmseg.report.charts import outline
from dmseg.report.gather import ColumnFacts, RowFacts
from dmseg.training.pictures import Bytes, Picture, shrink

BUDGET = 5_000_000
"""Maximum size of all pictures of a report in bytes; larger ones are scaled down."""
EDGES = (160, 128, 96, 64, 48)


@dataclass(frozen=True)
class Panel:
    """One image with outlines on it.

    Attributes:
        caption: short title.
        alt: description in a sentence, for readers who cannot see it.
        image: a data URL.
        outlines: number of the colour, and path, of each outline.
        size: width and height in pixels.
        view: left, top, width and height of the part that is shown.
    """

    caption: str
    alt: str
    image: str
    outlines: list[tuple[int, str]]
    size: tuple[int, int]
    view: tuple[float, float, float, float]


@dataclass(frozen=True)
class Shown:
    """The panels of one case."""

    title: str
    panels: list[Panel]


@dataclass(frozen=True)
class RowGallery:
    """The pictures of one row.

    Attributes:
        fixed: the same cases for all columns.
        extremes: by column, its best, median and worst case.
    """

    fixed: list[Shown]
    extremes: list[tuple[str, list[Shown]]]


def galleries(rows: Sequence[RowFacts]) -> list[RowGallery]:
    """The pictures of each row, reduced in size until all of them together fit into `BUDGET`."""
    found: list[RowGallery] = []
    for edge in EDGES:
        found = [_gallery(row, edge) for row in rows]
        cases = [case for row in found for own in (row.fixed, *(own for _, own in row.extremes)) for case in own]
        panels = [panel for case in cases for panel in case.panels]
        if sum(len(panel.image) + sum(len(line) for _, line in panel.outlines) for panel in panels) <= BUDGET:
            break
    return found


def extreme_pictures(column: ColumnFacts) -> list[tuple[str, Picture]]:
    """The best, median and worst case of those that the runs of a column keep pictures of.

    The median case is the one of the runs' median cases whose Dice is closest to the median of theirs.
    """
    every = [picture for facts in column.runs for picture in facts.pictures or () if math.isfinite(picture.dice)]
    if not every:
        return []
    medians = [picture for picture in every if "median" in picture.roles] or every
    middle = float(np.median([picture.dice for picture in medians]))
    return [
        ("best", max(every, key=lambda picture: picture.dice)),
        ("median", min(medians, key=lambda picture: abs(picture.dice - middle))),
        ("worst", min(every, key=lambda picture: picture.dice)),
    ]


def _gallery(row: RowFacts, edge: int) -> RowGallery:
    """The fixed case that most columns have a picture of, and the extremes of each column that has pictures."""
    predictions: dict[str, list[tuple[str, Picture]]] = {}
    for column in row.columns:
        for facts in column.runs:
            for picture in facts.pictures or ():
                named = predictions.setdefault(picture.case, [])
                if "fixed" in picture.roles and column.column.title not in [title for title, _ in named]:
                    named.append((column.column.title, picture))
    fixed = []
    if any(predictions.values()):
        case, chosen = max(predictions.items(), key=lambda item: len(item[1]))  # of equal ones the first
        pictures = [shrink(picture, edge) for _, picture in chosen]
        view = _view(pictures)
        panels = _data_panels(pictures[0], view)
        for (title, _), picture in zip(chosen, pictures, strict=True):
            panels.append(_prediction(picture, f"{title}, Dice {_percent(picture.dice)}", view))
        fixed.append(Shown(f"{case}, {_slice(chosen[0][1])}", panels))
    extremes = []
    for column in row.columns:
        cases = []
        for role, picture in extreme_pictures(column):
            small = shrink(picture, edge)
            view = _view([small])
            title = f"{role}: Dice {_percent(picture.dice)}, {picture.case}, {_slice(picture)}"
            cases.append(Shown(title, [*_data_panels(small, view), _prediction(small, "Prediction", view)]))
        if cases:
            extremes.append((column.column.title, cases))
    return RowGallery(fixed, extremes)


def _view(pictures: Sequence[Picture]) -> tuple[float, float, float, float]:
    """The square around everything marked or predicted, with a margin; its edge is at least 0.4 of the picture's."""
    height, width = pictures[0].image.shape
    marked = np.any([(item.raters != 0).any(axis=0) | (item.probability >= 128) for item in pictures], axis=0)
    if not marked.any():
        return 0, 0, width, height
    spans = []
    for places, extent in zip(np.nonzero(marked), (height, width), strict=True):
        spans.append((float(places.min() + places.max() + 1) / 2, float(np.ptp(places) + 1), extent))
    edge = max(1.6 * max(span for _, span, _ in spans), 0.4 * max(height, width))
    (top, tall), (left, wide) = (
        (min(max(centre - edge / 2, 0), max(extent - edge, 0)), min(edge, extent)) for centre, _, extent in spans
    )
    return left, top, wide, tall


def _data_panels(small: Picture, view: tuple[float, float, float, float]) -> list[Panel]:
    """The image with the raters' contours, and the reference label."""
    raters = [(index, outline(mask != 0)) for index, mask in enumerate(small.raters)]
    count = f"{len(raters)} rater" + ("s" if len(raters) > 1 else "")
    alt = f"Slice of case {small.case} with the contours of {count}"
    label = f"Reference label of case {small.case}"
    return [
        _panel(f"Image, {count}", alt, small.image, raters, view),
        _panel("Reference label", label, small.reference, [], view, exact=True),
    ]


def _prediction(small: Picture, caption: str, view: tuple[float, float, float, float]) -> Panel:
    alt = f"Predicted probability of case {small.case} ({caption}), with the contour at 0.5"
    # 0.5 itself is predicted as foreground, and lies between 127 and 128
    return _panel(caption, alt, small.probability, [(1, outline(small.probability >= 128))], view, exact=True)


def _panel(
    caption: str,
    alt: str,
    values: Bytes,
    outlines: list[tuple[int, str]],
    view: tuple[float, float, float, float],
    exact: bool = False,
) -> Panel:
    """A panel; its image is a PNG with 64 levels for probabilities (`exact`), else a JPEG, which is smaller."""
    file = io.BytesIO()
    if exact:
        Image.fromarray((values.astype(np.int64) // 4 * 255 // 63).astype(np.uint8)).save(file, "PNG", optimize=True)
    else:
        Image.fromarray(np.ascontiguousarray(values)).save(file, "JPEG", quality=85)
    url = f"data:image/{'png' if exact else 'jpeg'};base64,{base64.b64encode(file.getvalue()).decode()}"
    height, width = values.shape
    return Panel(caption, alt, url, [item for item in outlines if item[1]], (width, height), view)


def _percent(dice: float) -> str:
    return f"{100 * dice:.1f} %" if math.isfinite(dice) else "undefined"


def _slice(picture: Picture) -> str:
    return "one slice" if picture.n_slices == 1 else f"slice {picture.slice + 1} of {picture.n_slices}"
