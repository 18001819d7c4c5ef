"""Geometry of the report's charts: from numbers to coordinates, which the template draws as SVG.

Coordinates are those of a view box of `WIDTH` x `HEIGHT`, so that a chart has the same proportions on every screen.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dmseg.metrics.stored_counts import Floats
from dmseg.text import counted

WIDTH, HEIGHT = 360, 240
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 62
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7a4fb5")
"""Okabe and Ito's palette, which colour-blind readers can distinguish, with a violet in place of its yellow, which is
too light for lines on white."""
MOST_STEPS = 6
"""Maximum number of steps between the ticks of an axis."""
DENSE = 150
"""Number of cases above which points are small."""
MOST_POINTS = 120
"""Maximum number of points of a curve; longer ones are thinned out."""


@dataclass(frozen=True)
class Tick:
    """A tick of an axis: its coordinate and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Series:
    """The part of a chart that belongs to one column.

    Attributes:
        title: the column's title.
        index: number of the column, which gives colour and dashes.
        points: path of the points, drawn with round caps; empty for none.
        line: path of the line; empty for none.
        mean: (left, right, height) of the line that marks the mean; None for none.
    """

    title: str
    index: int
    points: str = ""
    line: str = ""
    mean: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        title: its title.
        alt: a description in words, for readers who cannot see it.
        x_title: title of the horizontal axis.
        y_title: title of the vertical axis.
        x: ticks of the horizontal axis.
        y: ticks of the vertical axis.
        series: points and lines of each column.
        pairs: path of the lines that join the points of a case; empty for none.
        diagonal: path of the line that a perfect result would follow; empty for none.
        slanted: whether the labels of the horizontal axis are names of columns.
        legend: whether the columns are named in a legend.
        dense: whether there are so many points that they must be small.
    """

    title: str
    alt: str
    x_title: str
    y_title: str
    x: list[Tick]
    y: list[Tick]
    series: list[Series]
    pairs: str = ""
    diagonal: str = ""
    slanted: bool = False
    legend: bool = True
    dense: bool = False

    @property
    def named(self) -> list[Series]:
        """One of the series of each column, for the legend."""
        return list({item.title: item for item in self.series}.values())


@dataclass(frozen=True)
class Scale:
    """Maps an interval of values to coordinates."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The coordinate of a value."""
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)


def nice_ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten that span an interval.

    Args:
        low: its lower end.
        high: its upper end, not below the lower one.
        whole: whether the ticks are whole numbers.
    """
    if not high > low:
        low, high = (low - 0.5 * abs(low), high + 0.5 * abs(high)) if low else (0.0, 1.0)
    rough = (high - low) / MOST_STEPS
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    step = max(step, 1.0) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def strip(title: str, y_title: str, values: Mapping[str, Floats], digits: int, paired: bool = True) -> Chart:
    """Values of each case for each column, with the column's mean.

    Args:
        title: title of the chart.
        y_title: title and unit of the values.
        values: by title of the column, one value for each case; NaN for none.
        digits: number of decimals in the description.
        paired: whether all columns have the same cases in the same order; a line then joins the values of a case.
            Otherwise each column has cases of its own, and the description states how many.
    """
    every = np.concatenate(list(values.values()))
    finite = every[np.isfinite(every)]
    most = max(map(len, values.values()))
    ticks = nice_ticks(float(finite.min()), float(finite.max())) if finite.size else [0.0, 1.0]
    y = Scale(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP)
    width = (WIDTH - LEFT - RIGHT) / len(values)
    centres = [LEFT + width * (index + 0.5) for index in range(len(values))]
    shifts = jitter(most) * min(0.5 * width, 30)  # the same for a case in each column
    series, means = [], []
    for index, (name, own) in enumerate(values.items()):
        found = own[np.isfinite(own)]
        points = "".join(
            f"M{centres[index] + shift:.1f} {y(value):.1f}h0"
            for shift, value in zip(shifts, own, strict=False)  # other columns may have more cases
            if math.isfinite(value)
        )
        half = min(0.42 * width, 26)
        mean = (centres[index] - half, centres[index] + half, y(float(found.mean()))) if found.size else None
        series.append(Series(name, index, points, mean=mean))
        mean_text = f"{found.mean():.{digits}f}" if found.size else "none"
        means.append(f"{name} {mean_text}" if paired else f"{name} {mean_text} (n {found.size})")
    cases = zip(*values.values(), strict=True) if paired else ()
    pairs = "".join(
        path([(centre + shift, y(value)) for centre, value in zip(centres, case, strict=True) if math.isfinite(value)])
        for shift, case in zip(shifts, cases, strict=False)
    )
    of_cases = counted(most, "case")
    return Chart(
        title,
        f"{title}: {y_title} {f'of {of_cases}' if paired else 'by case'}. Means: {', '.join(means)}.",
        "",
        y_title,
        [Tick(centre, name) for centre, name in zip(centres, values, strict=True)],
        [Tick(y(tick), f"{tick:g}") for tick in ticks],
        series,
        pairs=pairs,
        slanted=True,
        legend=False,
        dense=most > DENSE,
    )


def curves(
    title: str,
    x_title: str,
    y_title: str,
    lines: Sequence[tuple[str, int, Floats, Floats]],
    unit: bool = False,
    by_epoch: bool = False,
) -> Chart:
    """Curves of some columns.

    Args:
        title: title of the chart.
        x_title: title of the horizontal axis.
        y_title: title of the vertical axis.
        lines: title and number of the column, horizontal and vertical values; points that are not finite are left out.
        unit: whether both axes run from 0 to 1, with the line on which both values are equal; otherwise they span the
            values, and the horizontal one begins at 0.
        by_epoch: whether the horizontal axis counts epochs: its ticks are whole numbers, and points are not marked.
    """
    kept = []
    for name, index, xs, ys in lines:
        shown = np.flatnonzero(np.isfinite(xs) & np.isfinite(ys))
        few = np.linspace(0, max(len(shown) - 1, 0), min(len(shown), MOST_POINTS)).round().astype(int)
        shown = shown[np.unique(few)]
        kept.append((name, index, xs[shown], ys[shown]))
    every_x, every_y = (np.concatenate([item[axis] for item in kept] or [np.zeros(1)]) for axis in (2, 3))
    if unit or not every_x.size:
        x_ticks = y_ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    else:
        x_ticks = nice_ticks(min(0.0, float(every_x.min())), float(every_x.max()), whole=by_epoch)
        y_ticks = nice_ticks(float(every_y.min()), float(every_y.max()))
    x = Scale(x_ticks[0], x_ticks[-1], LEFT, WIDTH - RIGHT)
    y = Scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM + 20, TOP)
    series = []
    for name, index, xs, ys in kept:
        places = [(x(a), y(b)) for a, b in zip(xs, ys, strict=True)]
        points = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in places) if not by_epoch or len(places) == 1 else ""
        series.append(Series(name, index, points, path(places)))
    names = ", ".join(dict.fromkeys(name for name, *_ in lines)) or "no column"
    return Chart(
        title,
        f"{title}: {y_title} against {x_title}, for {names}.",
        x_title,
        y_title,
        [Tick(x(tick), f"{tick:g}") for tick in x_ticks],
        [Tick(y(tick), f"{tick:g}") for tick in y_ticks],
        series,
        diagonal=path([(x(0), y(0)), (x(1), y(1))]) if unit else "",
    )


def jitter(n: int) -> Floats:
    """Evenly spread shifts (n,) in [-0.5, 0.5), the same each time (multiples of the golden ratio)."""
    return np.asarray((np.arange(n) * 0.618034) % 1 - 0.5)


def path(places: Sequence[tuple[float, float]]) -> str:
    """An SVG path through some points; empty for fewer than two."""
    if len(places) < 2:
        return ""
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places)


def outline(mask: npt.NDArray[np.bool_]) -> str:
    """SVG path along the edges of the pixels (H, W) where a mask ends; pixel (i, j) covers [j, j + 1] x [i, i + 1]."""
    padded = np.pad(mask, 1)
    across = padded[1:, 1:-1] != padded[:-1, 1:-1]  # (H + 1, W): horizontal edges
    along = padded[1:-1, 1:] != padded[1:-1, :-1]  # (H, W + 1): vertical edges
    horizontal = "".join(f"M{first} {row}h{length}" for row, first, length in _stretches(across))
    return horizontal + "".join(f"M{column} {first}v{length}" for column, first, length in _stretches(along.T))


def _stretches(edges: npt.NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """Row, first column and length of each stretch of true values in a row."""
    steps = np.diff(edges.astype(np.int8), axis=1, prepend=0, append=0)
    rows, firsts = np.nonzero(steps == 1)
    lasts = np.nonzero(steps == -1)[1]
    return [(int(row), int(first), int(last - first)) for row, first, last in zip(rows, firsts, lasts, strict=True)]
