"""Figures of the paper and the documentation, by name in `FIGURES`, written as PNG, PDF and SVG."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dmseg.calibration import BetaTable, Keys
from dmseg.calibration.table import reference_estimate
from dmseg.errors import UserError
from dmseg.files.atomic import write_whole
from dmseg.losses import CompatibleFocalTverskyLoss, DiceSemimetricLoss, RegionLoss, SoftDiceLoss, confusion, pixel_sums
from dmseg.losses.region import class_losses
from dmseg.report.charts import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHES = ("-", "--", "-.", ":")
RESOLUTION = 1001


def pixel_losses(loss: RegionLoss, predictions: Tensor, labels: Tensor) -> Tensor:
    """Returns the loss of each pixel on its own.

    Args:
        loss: with ``from_logits=False``.
        predictions: foreground probabilities in [0, 1].
        labels: soft labels in [0, 1], of a shape that broadcasts with that of the predictions.

    Returns:
        Losses of the broadcast shape.
    """
    shape = (predictions + labels).shape
    inputs, targets = predictions.expand(shape).reshape(-1, 1, 1), labels.expand(shape).reshape(-1, 1, 1)
    sums = pixel_sums(inputs, targets, None, loss.required, from_logits=False)
    return class_losses(confusion(sums, loss.setting.overlap), loss.setting).reshape(shape)


def minimisers(loss: RegionLoss, predictions: Tensor, labels: Tensor) -> Tensor:
    """Returns for each label (M,) the prediction, among those given (N,), that minimises the loss of a pixel; (M,)."""
    return predictions[pixel_losses(loss, predictions, labels[:, None]).argmin(1)]


def draw_focal_tversky(figure: Figure) -> None:
    """The paper's Figure 1: CFTL with alpha 0.7 and beta 0.3 for a soft label of 0.8, for several gamma."""
    label, predictions = torch.tensor(0.8, dtype=torch.float64), _from_zero_to_one()
    axes = figure.subplots()
    for gamma, colour, dashes in zip((0.5, 1.0, 2.0, 3.0), COLOURS, DASHES, strict=False):
        loss = CompatibleFocalTverskyLoss(0.7, 0.3, gamma, smooth=0.0, from_logits=False)
        axes.plot(
            predictions, pixel_losses(loss, predictions, label), dashes, color=colour, label=f"$\\gamma$ = {gamma:g}"
        )
    _mark_label(axes, float(label))
    axes.set(xlabel="prediction", ylabel="loss", xlim=(0, 1), ylim=(0, 1))
    axes.set_title("Compatible focal Tversky loss, $\\alpha$ = 0.7, $\\beta$ = 0.3")
    axes.legend(frameon=False)


def draw_soft_labels(figure: Figure) -> None:
    """Why the soft Dice loss is wrong for soft labels: loss of one pixel, and the prediction that minimises it."""
    label, predictions = torch.tensor(0.5, dtype=torch.float64), _from_zero_to_one()
    curves, minima = figure.subplots(1, 2)
    losses = {
        "SDL": SoftDiceLoss(smooth=0.0, from_logits=False),
        "DML$_1$": DiceSemimetricLoss(1, smooth=0.0, from_logits=False),
        "DML$_2$": DiceSemimetricLoss(2, smooth=0.0, from_logits=False),
    }
    labels = torch.linspace(0.01, 1, 100, dtype=torch.float64)
    for (name, loss), colour, dashes, width in zip(losses.items(), COLOURS, DASHES, (1.5, 3, 1.5), strict=False):
        values = pixel_losses(loss, predictions, label)
        least = int(values.argmin())
        curves.plot(predictions, values, dashes, color=colour, label=name)
        curves.plot(predictions[least], values[least], "o", color=colour, clip_on=False, zorder=3)
        minima.plot(labels, minimisers(loss, predictions, labels), dashes, color=colour, label=name, linewidth=width)
    _mark_label(curves, float(label))
    curves.set(
        xlabel="prediction", ylabel="loss", xlim=(0, 1), ylim=(0, 1), title="Loss of a pixel with soft label 0.5"
    )
    minima.set(xlabel="soft label", ylabel="prediction with the lowest loss", xlim=(0, 1), ylim=(0, 1.02))
    minima.set_title("What each loss teaches the network to predict")
    curves.legend(frameon=False, title="dot: lowest loss")
    minima.legend(frameon=False)


def draw_calibration(figure: Figure) -> None:
    """Nodes of the calibration table and the estimate that it stores, for three clusters of keys and h = 1e-3."""
    bandwidth = 1e-3
    foreground = torch.tensor([0.1, 0.45, 0.9], dtype=torch.float64).repeat_interleave(10)
    label = (torch.arange(30) % 10 < torch.tensor([1, 7, 4]).repeat_interleave(10)).long()
    keys = Keys(torch.stack([1 - foreground, foreground], 1), torch.eye(2)[label])
    nodes = torch.sigmoid(BetaTable(keys, bandwidth).nodes)
    whole, zoom = figure.subplots(1, 2)
    for axes, (low, high) in ((whole, (0.0, 1.0)), (zoom, (0.25, 0.275))):
        shown = torch.linspace(low, high, RESOLUTION, dtype=torch.float64)
        estimate = reference_estimate(torch.stack([1 - shown, shown], 1), keys, bandwidth)[:, 1]
        axes.plot(shown, estimate, color=COLOURS[0], label="estimate of E[y | f]")
        axes.set(xlabel="prediction f", ylabel="share of foreground", xlim=(low, high), ylim=(0, 1))
    chosen = nodes[(nodes > 0.25) & (nodes < 0.275)]
    exact = reference_estimate(torch.stack([1 - chosen, chosen], 1), keys, bandwidth)[:, 1]
    whole.plot([0.1, 0.45, 0.9], [0.1, 0.7, 0.4], "o", color=COLOURS[1], label="ten keys and their share of foreground")
    zoom.plot(chosen, exact, ".", color=COLOURS[1], markersize=3, label="nodes of the table")
    whole.set_title(f"{len(nodes)} nodes, 30 keys, h = {bandwidth:g}")
    zoom.set_title("Between two clusters of keys")
    for axes in (whole, zoom):
        axes.legend(frameon=False, loc="upper left")


FIGURES: dict[str, tuple[Callable[[Figure], None], tuple[float, float]]] = {
    "1": (draw_focal_tversky, (5.0, 3.6)),
    "soft-labels": (draw_soft_labels, (9.0, 3.6)),
    "calibration": (draw_calibration, (9.0, 3.6)),
}
"""By name: the function that draws the figure, and its width and height in inches."""


def write_figure(name: str, folder: Path) -> tuple[Path, ...]:
    """Draws a figure and writes it as ``figure<name>.png``, ``.pdf`` and ``.svg``, the same bytes each time.

    Args:
        name: one of `FIGURES`.
        folder: where to write; created if missing.

    Returns:
        The three files.

    Raises:
        UserError: if there is no figure of this name.
        OSError: if the folder cannot be written to.
    """
    if name not in FIGURES:
        raise UserError(f"there is no figure '{name}'; choose from {', '.join(FIGURES)}")
    draw, size = FIGURES[name]
    stem = f"figure{name}" if name.isdigit() else name
    return write_drawing(draw, size, folder / stem)


def write_drawing(draw: Callable[[Figure], None], size: tuple[float, float], base: Path) -> tuple[Path, ...]:
    """Draws on an empty figure and writes it as PNG, PDF and SVG, the same bytes each time.

    Args:
        draw: draws on the figure.
        size: its width and height in inches.
        base: path of the files without their endings.

    Returns:
        The three files.
    """
    formats: dict[str, dict[str, Any]] = {
        "png": {"dpi": 200},
        "pdf": {"metadata": {"CreationDate": None}},
        "svg": {"metadata": {"Date": None}},
    }
    files = tuple(base.with_name(f"{base.name}.{ending}") for ending in formats)
    # matplotlib's default settings, regardless of the user's backend, style or settings file
    backend = os.environ.pop("MPLBACKEND", None)  # a notebook's backend is an error in a process that it starts
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "svg.hashsalt": "dmseg"}):
        from matplotlib.figure import Figure

        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        for axes in figure.axes:
            axes.spines[["top", "right"]].set_visible(False)
        for path, (ending, options) in zip(files, formats.items(), strict=True):
            file = io.BytesIO()
            figure.savefig(file, format=ending, **options)
            write_whole(path, file.getvalue())
    return files


def _from_zero_to_one() -> Tensor:
    return torch.linspace(0, 1, RESOLUTION, dtype=torch.float64)


def _mark_label(axes: Axes, label: float) -> None:
    axes.axvline(label, color="0.6", linewidth=0.8, zorder=0)
    axes.annotate(
        f"label {label:g}", (label, 1), (4, -2), textcoords="offset points", color="0.4", va="top", fontsize="small"
    )
