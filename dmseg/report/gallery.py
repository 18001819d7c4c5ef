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
"""Most bytes of all pictures of a report; where there are many, they are reduced in size."""
EDGES = (160, 128, 96, 64, 48)


@dataclass(frozen=True)
class Panel:
    """One image with outlines on it.

    Attributes:
        caption: what it shows.
        alt: the same in a sentence.
        image: a data URL.
        outlines: number of the colour, and path, of each outline.
        size: width and height in pixels.
    """

    caption: str
    alt: str
    image: str
    outlines: list[tuple[int, str]]
    size: tuple[int, int]


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
    """The pictures of each row, at a size at which they stay within `BUDGET` together."""
    found: list[RowGallery] = []
    for edge in EDGES:
        found = [_row_gallery(row, edge) for row in rows]
        if sum(_size(item) for item in found) <= BUDGET:
            break
    return found


def _size(gallery: RowGallery) -> int:
    every = [*gallery.fixed, *(shown for _, cases in gallery.extremes for shown in cases)]
    return sum(
        len(panel.image) + sum(len(line) for _, line in panel.outlines) for item in every for panel in item.panels
    )


def _row_gallery(row: RowFacts, edge: int) -> RowGallery:
    extremes = []
    for column in row.columns:
        if chosen := extreme_pictures(column):
            extremes.append((column.column.title, [_case(role, picture, edge) for role, picture in chosen]))
    return RowGallery(_fixed(row, edge), extremes)


def extreme_pictures(column: ColumnFacts) -> list[tuple[str, Picture]]:
    """The best, median and worst case among those that a column's runs keep pictures of.

    The median is the one, among the medians of the runs, whose Dice is closest to their median.
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


def _fixed(row: RowFacts, edge: int) -> list[Shown]:
    """The first fixed case of the first fold of which any column has a picture, with the predictions of all columns."""
    predictions: dict[str, list[tuple[str, Picture]]] = {}
    for column in row.columns:
        for facts in column.runs:
            for picture in facts.pictures or ():
                named = predictions.setdefault(picture.case, [])
                if "fixed" in picture.roles and column.column.title not in [title for title, _ in named]:
                    named.append((column.column.title, picture))
    if not any(predictions.values()):
        return []
    case, chosen = max(predictions.items(), key=lambda item: len(item[1]))  # of equal ones the first
    panels = _case("", chosen[0][1], edge).panels[:2]
    for title, picture in chosen:
        panels.append(_prediction(shrink(picture, edge), f"{title}, Dice {_percent(picture.dice)}"))
    return [Shown(f"Case {case}, {_slice(chosen[0][1])}", panels)]


def _case(role: str, picture: Picture, edge: int) -> Shown:
    small = shrink(picture, edge)
    raters = [(index, outline(mask != 0)) for index, mask in enumerate(small.raters)]
    said = f"{len(raters)} rater" + ("s" if len(raters) > 1 else "")
    panels = [
        _panel(
            small, f"Image, {said}", f"Slice of case {picture.case} with the contours of {said}", small.image, raters
        ),
        _panel(small, "Reference label", f"Reference label of case {picture.case}", small.reference, [], exact=True),
        _prediction(small, "Prediction"),
    ]
    title = f"{role}: Dice {_percent(picture.dice)}, case {picture.case}, {_slice(picture)}"
    return Shown(title, panels)


def _prediction(small: Picture, caption: str) -> Panel:
    alt = f"Predicted probability of case {small.case} ({caption}), with the contour at 0.5"
    # 0.5 itself is predicted as foreground, and lies between 127 and 128
    return _panel(small, caption, alt, small.probability, [(1, outline(small.probability >= 128))], exact=True)


def _panel(
    picture: Picture, caption: str, alt: str, values: Bytes, outlines: list[tuple[int, str]], exact: bool = False
) -> Panel:
    height, width = values.shape
    return Panel(caption, alt, _data_url(values, exact), [item for item in outlines if item[1]], (width, height))


def _data_url(values: Bytes, exact: bool) -> str:
    """An image as a data URL: as PNG with 64 levels where shades are probabilities, else as JPEG, which is smaller."""
    file = io.BytesIO()
    if exact:
        Image.fromarray((values // 4 * 255 // 63).astype(np.uint8)).save(file, "PNG", optimize=True)
    else:
        Image.fromarray(np.ascontiguousarray(values)).save(file, "JPEG", quality=85)
    kind = "png" if exact else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _percent(dice: float) -> str:
    return f"{100 * dice:.1f} %" if math.isfinite(dice) else "undefined"


def _slice(picture: Picture) -> str:
    return "one slice" if picture.n_slices == 1 else f"slice {picture.slice + 1} of {picture.n_slices}"
