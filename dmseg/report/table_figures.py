"""Figures of a table for papers: strip plots, reliability, Dice by threshold, agreement of the raters; in one style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dmseg.metrics.stored_counts import Floats
from dmseg.report.charts import COLOURS, jitter
from dmseg.report.figures import DASHES, write_drawing
from dmseg.report.gather import RowFacts
from dmseg.tables.columns import SCORES
from dmseg.text import one_line

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vPX*"
PANEL = 2.3
"""Edge length of a panel in inches."""
MOST_COLUMNS = 4


def write_table_figures(stem: str, rows: Sequence[RowFacts], folder: Path, phantom: bool) -> list[Path]:
    """Draws the figures of a table, each as PDF, SVG and PNG.

    Args:
        stem: first part of the files' names, such as ``table2``.
        rows: the rows of the table.
        folder: where to write.
        phantom: whether the data are generated; each figure then says so.

    Returns:
        The files; empty if there is nothing to draw.
    """
    files: list[Path] = []
    for row in rows:
        metrics = [name for name in row.row.block.metrics if any(len(item.scores) for item in row.columns)]
        if not metrics:
            continue
        several = f"-{row.row.model}" if len({item.row.model for item in rows}) > 1 else ""
        name = f"{stem}-cases-{row.row.data}-{row.row.task.name}{several}"
        width = max(PANEL, 0.45 * len(row.columns) + 0.7)
        draw = partial(_draw_strips, row=row, metrics=metrics, phantom=phantom)
        files += write_drawing(draw, (width * len(metrics), 2.7), folder / name)
    for name, title in (("reliability", "Reliability"), ("threshold", "Dice by threshold")):
        drawn = [row for row in rows if any(name in item.curves for item in row.columns)]
        if drawn:
            across = min(len(drawn), MOST_COLUMNS)
            down = -(-len(drawn) // MOST_COLUMNS)
            size = (PANEL * max(across, 1.6), PANEL * 1.05 * down + 0.6)
            draw = partial(_draw_panels, kind=name, title=title, rows=drawn, phantom=phantom)
            files += write_drawing(draw, size, folder / f"{stem}-{name}")
    agreement = {row.row.task.title: row.agreement for row in rows if len(row.agreement)}
    files += write_agreement_figure(stem, agreement, folder, phantom, "Dice between raters (%)")
    return files


def write_agreement_figure(
    stem: str, values: Mapping[str, pd.Series[float]], folder: Path, phantom: bool, y_title: str
) -> list[Path]:
    """Draws how well the raters of each case agree, by task.

    Args:
        stem: first part of the files' names.
        values: by title of the task, one value for each case.
        folder: where to write.
        phantom: whether the data are generated.
        y_title: title of the vertical axis.
    """
    if not values:
        return []

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        own = [(title, np.asarray(item, dtype=np.float64)) for title, item in values.items()]
        _strip(axes, own, [0] * len(values))
        axes.set_ylabel(y_title)
        _say_phantom(figure, "Agreement of the raters", phantom)

    return list(write_drawing(draw, (max(PANEL, 0.6 * len(values) + 1), 2.9), folder / f"{stem}-agreement"))


def _draw_strips(figure: Figure, row: RowFacts, metrics: Sequence[str], phantom: bool) -> None:
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(metrics))), metrics, strict=True):
        own = [item for item in row.columns if name in item.scores and len(item.scores)]
        cases = sorted({str(case) for item in own for case in item.scores.index})
        values = [(item.column.title, item.scores[name].reindex(cases).to_numpy(dtype=np.float64)) for item in own]
        _strip(axes, values, [item.index for item in own], paired=True)
        axes.set_ylabel(SCORES[name].heading)
    _say_phantom(figure, row.title, phantom)


def _strip(axes: Axes, values: Sequence[tuple[str, Floats]], indices: Sequence[int], paired: bool = False) -> None:
    """Draws a point for each case and a bar at the mean; if `paired`, lines join the points of a case."""
    for place, ((_, own), index) in enumerate(zip(values, indices, strict=True)):
        found = own[np.isfinite(own)]
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        at = place + 0.5 * jitter(len(own))
        axes.plot(
            at, own, marker, color=colour, markersize=2.2, alpha=0.7, markeredgewidth=0, rasterized=len(own) > 1000
        )
        if found.size:
            axes.plot([place - 0.34, place + 0.34], [found.mean()] * 2, color="black", linewidth=1.4, zorder=3)
    if paired and len(values) > 1:
        table = np.stack([own for _, own in values])
        places = np.arange(len(values))[:, None] + 0.5 * jitter(table.shape[1])
        axes.plot(places, table, color="0.5", linewidth=0.3, alpha=0.35, zorder=0)
    axes.set_xticks(range(len(values)), [_text(title) for title, _ in values], rotation=35, ha="right")
    axes.set_xlim(-0.6, len(values) - 0.4)


def _draw_panels(figure: Figure, kind: str, title: str, rows: Sequence[RowFacts], phantom: bool) -> None:
    across = min(len(rows), MOST_COLUMNS)
    grid = figure.subplots(-(-len(rows) // across), across, squeeze=False, sharey=kind == "reliability").ravel()
    for axes, row in zip(grid, rows, strict=False):
        for item in row.columns:
            dashes, marker = DASHES[item.index % len(DASHES)], MARKERS[item.index % len(MARKERS)]
            colour, label = COLOURS[item.index % len(COLOURS)], _text(item.column.title)
            if kind in item.curves:
                axes.plot(*item.curves[kind], dashes, color=colour, label=label, marker=marker, markersize=2.5)
        if kind == "reliability":
            axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, zorder=0)
            axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axes.set_title(_text(row.title.partition(": ")[2] or row.title), fontsize="small")
        axes.set_xlabel("predicted probability" if kind == "reliability" else "threshold", fontsize="small")
    for axes in grid[len(rows) :]:
        axes.set_axis_off()
    for axes in grid[::across]:
        axes.set_ylabel("share of foreground" if kind == "reliability" else "Dice (%)", fontsize="small")
    named = {label: line for axes in grid for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(
        list(named.values()),
        list(named),
        loc="outside lower center",
        ncols=min(len(named), 4),
        frameon=False,
        fontsize="small",
    )
    _say_phantom(figure, title, phantom)


def _say_phantom(figure: Figure, title: str, phantom: bool) -> None:
    for axes in figure.axes:
        axes.tick_params(labelsize="small")
        axes.yaxis.label.set_fontsize("small")
    figure.suptitle(_text(f"{title} (PHANTOM: generated data)" if phantom else title), fontsize="small")


def _text(text: str) -> str:
    """Escapes text for Matplotlib, where a dollar sign begins a formula."""
    return one_line(text).replace("$", r"\$")
