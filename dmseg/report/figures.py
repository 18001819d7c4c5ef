"""Figures: each is a function that draws on a fresh figure, named in `FIGURES`, written as PNG and PDF."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dmseg.errors import UserError
from dmseg.files.atomic import write_whole
from dmseg.losses import CompatibleFocalTverskyLoss, DiceSemimetricLoss, RegionLoss, SoftDiceLoss, confusion, pixel_sums
from dmseg.losses.region import class_losses

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Okabe and Ito's, told apart by the colour-blind."""
DASHES = ("-", "--", "-.", ":")
RESOLUTION = 1001


def pixel_losses(loss: RegionLoss, predictions: Tensor, labels: Tensor) -> Tensor:
    """Returns the losses of single pixels, each by itself.

    Args:
        loss: with ``from_logits=False``.
        predictions: foreground probabilities in [0, 1].
        labels: soft labels in [0, 1], of a shape that broadcasts with the predictions'.

    Returns:
        Losses of the broadcast shape.
    """
    shape = (predictions + labels).shape
    inputs, targets = predictions.expand(shape).reshape(-1, 1, 1), labels.expand(shape).reshape(-1, 1, 1)
    sums = pixel_sums(inputs, targets, None, loss.required, from_logits=False)
    return class_losses(confusion(sums, loss.setting.overlap), loss.setting).reshape(shape)


def minimisers(loss: RegionLoss, predictions: Tensor, labels: Tensor) -> Tensor:
    """Returns for each label (M,) that one of the predictions (N,) whose loss of one pixel is least, (M,)."""
    return predictions[pixel_losses(loss, predictions, labels[:, None]).argmin(1)]


def draw_focal_tversky(figure: Figure) -> None:
    """The paper's Figure 1: CFTL with alpha 0.7 and beta 0.3 for a soft label of 0.8, for several gamma."""
    label, predictions = torch.tensor(0.8, dtype=torch.float64), _from_zero_to_one()
    axes = figure.subplots()
    for gamma, colour, dashes in zip((0.5, 1.0, 2.0, 3.0), COLOURS, DASHES, strict=True):
        loss = CompatibleFocalTverskyLoss(0.7, 0.3, gamma, smooth=0.0, from_logits=False)
        axes.plot(
            predictions, pixel_losses(loss, predictions, label), dashes, color=colour, label=f"$\\gamma$ = {gamma:g}"
        )
    _mark_label(axes, float(label))
    axes.set(xlabel="prediction", ylabel="loss", xlim=(0, 1), ylim=(0, 1))
    axes.set_title("Compatible focal Tversky loss, $\\alpha$ = 0.7, $\\beta$ = 0.3")
    axes.legend(frameon=False)


def draw_soft_labels(figure: Figure) -> None:
    """Why the soft Dice loss is wrong for soft labels: loss of one pixel, and the prediction that it asks for."""
    label, predictions = torch.tensor(0.5, dtype=torch.float64), _from_zero_to_one()
    curves, asked = figure.subplots(1, 2)
    labels = torch.linspace(0.01, 1, 100, dtype=torch.float64)
    for (name, loss), colour, dashes, width in zip(
        _dice_losses().items(), COLOURS, DASHES, (1.5, 3, 1.5), strict=False
    ):
        values = pixel_losses(loss, predictions, label)
        least = int(values.argmin())
        curves.plot(predictions, values, dashes, color=colour, label=name)
        curves.plot(predictions[least], values[least], "o", color=colour, clip_on=False, zorder=3)
        asked.plot(labels, minimisers(loss, predictions, labels), dashes, color=colour, label=name, linewidth=width)
    _mark_label(curves, float(label))
    curves.set(
        xlabel="prediction", ylabel="loss", xlim=(0, 1), ylim=(0, 1), title="Loss of a pixel with soft label 0.5"
    )
    asked.set(xlabel="soft label", ylabel="prediction of least loss", xlim=(0, 1), ylim=(0, 1.02))
    asked.set_title("What each loss asks the network for")
    curves.legend(frameon=False, title="dot: least loss")
    asked.legend(frameon=False)


FIGURES: dict[str, tuple[Callable[[Figure], None], tuple[float, float]]] = {
    "1": (draw_focal_tversky, (5.0, 3.6)),
    "soft-labels": (draw_soft_labels, (9.0, 3.6)),
}
"""Name -> what draws it, and its width and height in inches."""


def write_figure(name: str, folder: Path) -> tuple[Path, Path]:
    """Draws a figure and writes it as ``figure<name>.png`` and ``.pdf``, the same bytes each time.

    Args:
        name: one of `FIGURES`.
        folder: where to write; made where it is missing.

    Returns:
        The two files.

    Raises:
        UserError: if there is no figure of this name.
        OSError: if the folder cannot be written to.
    """
    if name not in FIGURES:
        raise UserError(f"there is no figure '{name}'; choose from {', '.join(FIGURES)}")
    draw, size = FIGURES[name]
    stem = f"figure{name}" if name.isdigit() else name
    png, pdf = folder / f"{stem}.png", folder / f"{stem}.pdf"
    with _own_matplotlib():
        figure = _drawn(draw, size)
        write_whole(png, _saved(figure, format="png", dpi=200))
        write_whole(pdf, _saved(figure, format="pdf", metadata={"CreationDate": None}))
    return png, pdf


@contextmanager
def _own_matplotlib() -> Iterator[None]:
    """Matplotlib with its own defaults, whatever backend, style or file of settings the user has for it."""
    with _without("MPLBACKEND"):  # a notebook's is an error in the process that the notebook starts
        import matplotlib
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        yield


@contextmanager
def _without(name: str) -> Iterator[None]:
    """An environment without a variable."""
    before = os.environ.pop(name, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[name] = before


def _drawn(draw: Callable[[Figure], None], size: tuple[float, float]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    draw(figure)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _saved(figure: Figure, **options: Any) -> bytes:  # noqa: ANN401
    file = io.BytesIO()
    figure.savefig(file, **options)
    return file.getvalue()


def _from_zero_to_one() -> Tensor:
    return torch.linspace(0, 1, RESOLUTION, dtype=torch.float64)


def _dice_losses() -> dict[str, RegionLoss]:
    return {
        "SDL": SoftDiceLoss(smooth=0.0, from_logits=False),
        "DML$_1$": DiceSemimetricLoss(1, smooth=0.0, from_logits=False),
        "DML$_2$": DiceSemimetricLoss(2, smooth=0.0, from_logits=False),
    }


def _mark_label(axes: Axes, label: float) -> None:
    axes.axvline(label, color="0.6", linewidth=0.8, zorder=0)
    axes.annotate(
        f"label {label:g}", (label, 1), (4, -2), textcoords="offset points", color="0.4", va="top", fontsize="small"
    )
