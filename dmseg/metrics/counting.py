"""Counts a scored case for storage (`dmseg.metrics.stored_counts`), slice by slice, with numpy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg.metrics.ged import shared_pixels
from dmseg.metrics.histogram import BDICE_LEVELS, levels_reached
from dmseg.metrics.stored_counts import LEAST_PROBABILITY, StoredCounts, probability_cuts

Masks = npt.NDArray[np.bool_]
Probabilities = npt.NDArray[np.float32]
Codes = npt.NDArray[np.intp]


def count_stored(
    probability: Probabilities,
    annotations: Masks,
    reference: npt.NDArray[np.float32],
    n_bins: int = 10,
    boundary: int = 2,
    levels: Sequence[float] = BDICE_LEVELS,
    ties: str = "background",
    empty: str = "skip",
) -> StoredCounts:
    """Counts one case.

    Args:
        probability: (S, H, W) float32 in [0, 1], predicted probability of the foreground.
        annotations: (R, S, H, W) bool, masks of the raters present.
        reference: (S, H, W) float32 in [0, 1], label that BDice compares with.
        n_bins: number B of confidence bins.
        boundary: pixels on each side of a contour that belong to the boundary band.
        levels: the L thresholds of BDice, ascending.
        ties: what a tie is in the majority vote: ``background`` or ``foreground``; both are counted.
        empty: Dice of two empty masks: ``skip``, ``one`` or ``zero``.

    Raises:
        ValueError: if shapes or dtypes do not match.
    """
    _check(probability, annotations, reference)
    cuts = probability_cuts(n_bins, levels)
    level_of_cell = np.searchsorted(np.asarray(levels, np.float32), np.concatenate([[0], cuts]), side="right")
    n_cells, n_levels, n_raters = len(cuts) + 1, len(levels) + 1, len(annotations)
    decision = int(np.searchsorted(cuts, np.float32(0.5), side="right"))
    edges = equal_mass_edges(probability, n_bins)
    pixels = np.zeros((3, n_levels, n_cells), np.int64)
    found: dict[str, npt.NDArray[Any]] = {
        "sums": np.zeros((3, n_cells)),
        "squared_error": np.zeros(2),
        "log_loss": np.zeros(2),
        "adaptive": np.zeros((3, n_bins), np.int64),
        "adaptive_sums": np.zeros(n_bins),
        "band": np.zeros((2, 2, n_cells), np.int64),
        "band_sums": np.zeros((2, n_cells)),
        "raters": np.zeros((n_raters, 3, n_cells), np.int64),
        "votes": np.zeros(n_raters + 1, np.int64),
        "slices": np.zeros((len(probability), 3, 2), np.int64),
    }
    for number, (p, masks, label) in enumerate(zip(probability, annotations.swapaxes(0, 1), reference, strict=True)):
        marked = masks.sum(axis=0, dtype=np.min_scalar_type(n_raters))
        vote = (2 * marked.astype(np.int32) > n_raters).astype(np.uint8) + (2 * marked.astype(np.int32) >= n_raters)
        cell = levels_reached(p, cuts)
        by_cell = (vote * np.intp(n_cells) + cell).ravel()
        own = np.bincount(
            ((vote * np.intp(n_levels) + levels_reached(label, levels)) * n_cells + cell).ravel(), minlength=pixels.size
        ).reshape(pixels.shape)
        pixels += own
        by_decision = own.sum(axis=1)
        found["slices"][number] = np.stack(
            [by_decision[:, :decision].sum(axis=1), by_decision[:, decision:].sum(axis=1)], axis=1
        )
        found["sums"] += _sum(by_cell, (3, n_cells), p)
        equal = levels_reached(p, edges)
        found["adaptive"] += _count((vote * np.intp(n_bins) + equal).ravel(), (3, n_bins))
        found["adaptive_sums"] += _sum(equal.ravel(), (n_bins,), p)
        found["votes"] += np.bincount(marked.ravel(), minlength=n_raters + 1)
        for rater, mask in enumerate(masks):
            found["raters"][rater] += _count(by_cell[mask.ravel()], (3, n_cells))
        _add_losses(p, vote, found["squared_error"], found["log_loss"])
        _add_band(p, vote, cell, boundary, found["band"], found["band_sums"])
    by_level = np.zeros((3, n_levels, n_levels), np.int64)
    for cell_number, level in enumerate(level_of_cell):
        by_level[:, :, level] += pixels[:, :, cell_number]
    return StoredCounts(
        joint=by_level,
        cells=pixels.sum(axis=1),
        shared=shared_pixels(annotations.swapaxes(0, 1)).sum(axis=0),
        cuts=cuts,
        bins=n_bins,
        ties=ties,
        empty=empty,
        **found,
    )


def equal_mass_edges(probability: Probabilities, n_bins: int) -> Probabilities:
    """Left edges of the bins of equal mass except the first: the values of rank floor(k n / B), k = 1 to B - 1.

    Args:
        probability: (...) float32 of a case's n pixels.
        n_bins: number B of bins.

    Returns:
        (B - 1,) float32, ascending; equal edges make empty bins.
    """
    ranks = [k * probability.size // n_bins for k in range(1, n_bins)]
    if not ranks or not probability.size:
        return np.zeros(len(ranks), np.float32)
    return np.asarray(np.partition(probability, list(set(ranks)), axis=None)[ranks])


def boundary_band(mask: Masks, width: int) -> Masks:
    """Pixels of a slice whose square neighbourhood of 2 width + 1 pixels has both classes.

    Args:
        mask: (H, W) bool.
        width: number of pixels on each side of a contour.

    Returns:
        (H, W) bool.
    """
    return _dilated(mask, width) & _dilated(~mask, width)


def _dilated(mask: Masks, width: int) -> Masks:
    for axis in (0, 1):
        grown = mask.copy()
        source, target = mask.swapaxes(0, axis), grown.swapaxes(0, axis)
        for shift in range(1, min(width, len(source) - 1) + 1):
            target[shift:] |= source[:-shift]
            target[:-shift] |= source[shift:]
        mask = grown
    return mask


def _check(probability: Probabilities, annotations: Masks, reference: npt.NDArray[np.float32]) -> None:
    shapes = probability.shape, annotations.shape[1:], reference.shape
    if probability.ndim != 3 or len(set(shapes)) > 1 or not len(annotations):
        raise ValueError(f"probability {shapes[0]}, annotations {annotations.shape} and reference {shapes[2]} differ")
    if [str(item.dtype) for item in (probability, annotations, reference)] != ["float32", "bool", "float32"]:
        found = f"{probability.dtype}, {annotations.dtype} and {reference.dtype}"
        raise ValueError(f"probability, annotations and reference are {found}, but must be float32, bool and float32")


def _count(codes: npt.NDArray[np.generic], shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    return np.bincount(codes, minlength=int(np.prod(shape))).reshape(shape)


def _sum(codes: npt.NDArray[np.generic], shape: tuple[int, ...], values: Probabilities) -> npt.NDArray[np.float64]:
    found: npt.NDArray[Any] = np.bincount(codes, weights=values.ravel(), minlength=int(np.prod(shape)))
    return found.reshape(shape)


def _add_losses(
    p: Probabilities, vote: npt.NDArray[np.uint8], squared: npt.NDArray[np.float64], log_loss: npt.NDArray[np.float64]
) -> None:
    """Adds squared errors and log losses under both rules for ties; ties are few, so they are computed separately."""
    error = np.abs(p.astype(np.float64) - (vote == 2))
    tied = vote == 1
    for values, own in ((error * error, squared), (_log_loss(error), log_loss)):
        own += values.sum()
    if tied.any():
        other = 1 - error[tied]
        squared[1] += (other**2 - error[tied] ** 2).sum()
        log_loss[1] += (_log_loss(other) - _log_loss(error[tied])).sum()


def _log_loss(error: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return -np.log(np.clip(1 - error, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY))


def _add_band(
    p: Probabilities,
    vote: npt.NDArray[np.uint8],
    cell: npt.NDArray[np.uint8],
    width: int,
    band: npt.NDArray[np.int64],
    sums: npt.NDArray[np.float64],
) -> None:
    """Adds the pixels of the boundary band under both rules for ties."""
    n_cells, tied = band.shape[-1], bool((vote == 1).any())
    for rule, label in enumerate((vote == 2, vote >= 1)):
        if rule == 0 or tied:  # without ties the band is the same under both rules
            now, confidence = np.zeros((2, n_cells), np.int64), np.zeros(n_cells)
            if label.any() and not label.all():
                inside = boundary_band(label, width)
                now = _count(label[inside] * np.intp(n_cells) + cell[inside], (2, n_cells))
                confidence = _sum(cell[inside], (n_cells,), p[inside])
        band[rule] += now
        sums[rule] += confidence
