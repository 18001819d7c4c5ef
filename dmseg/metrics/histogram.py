"""Per-case counts from which every metric of a binary task follows.

A case is reduced to a joint histogram (majority bit, level of the reference label, level of the predicted
probability) and three sums per confidence bin. Both add up over slices and batches, so a volume's Dice is exact and
memory does not grow with the data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dmseg.errors import UserError

BDICE_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Thresholds of BDice (paper, section 3.3)."""

DECISION_LEVEL = 0.5
"""A pixel is predicted foreground where its probability is at least this."""


@dataclass(frozen=True, eq=False)
class CaseCounts:
    """Counts of one case, or of any union of slices.

    Attributes:
        joint: int64 (2, L + 1, L + 1), pixels by majority bit, level of the reference label and level of the predicted
            probability. The level of a value is the number of thresholds that it reaches (``>=``, in float32).
        bins: float64 (B, 3), pixel count, sum of confidence and count of correct pixels by bin of the top-label
            confidence max(p, 1 - p). Bin k begins at k / B; a confidence of 1 is in the last bin.
        levels: the L thresholds, ascending.
    """

    joint: npt.NDArray[np.int64]
    bins: npt.NDArray[np.float64]
    levels: tuple[float, ...] = BDICE_LEVELS

    def __add__(self, other: Self) -> "CaseCounts":
        """Counts of both together.

        Raises:
            ValueError: if levels or number of bins differ.
        """
        if self.levels != other.levels or self.bins.shape != other.bins.shape:
            raise ValueError(
                f"cannot add counts over levels {self.levels} and {len(self.bins)} bins "
                f"to counts over {other.levels} and {len(other.bins)} bins"
            )
        return CaseCounts(self.joint + other.joint, self.bins + other.bins, self.levels)


@torch.no_grad()
def count_batch(
    probability: Tensor,
    majority: Tensor,
    reference: Tensor,
    case_index: Tensor,
    n_cases: int,
    levels: Sequence[float] = BDICE_LEVELS,
    n_bins: int = 10,
    valid: Tensor | None = None,
) -> list[CaseCounts]:
    """Counts a batch of slices, case by case, on the device where the tensors are.

    Thresholds are compared in float32. The sums of confidence are exact: every confidence is a multiple of 2^-24, so
    float64 holds their sum without rounding up to 2^29 pixels, in whatever order they are added.

    Args:
        probability: (N, H, W) float32 in [0, 1], predicted probability of the foreground.
        majority: (N, H, W) bool or uint8, majority vote, which Dice and calibration are measured against.
        reference: (N, H, W) float32 in [0, 1], label that BDice is measured against.
        case_index: (N,) int64 in [0, n_cases), the case of each slice.
        n_cases: number of cases; one without slices gets zeros.
        levels: thresholds of BDice in (0, 1], ascending, 0.5 among them.
        n_bins: number of equal confidence bins on [0, 1].
        valid: (N, H, W) bool, pixels that count; None for all.

    Returns:
        Counts of each case, in the order of `case_index`'s values.

    Raises:
        UserError: if levels or bins are unusable, or a value is not a number in [0, 1].
        ValueError: if shapes, dtypes or case indices do not fit.
    """
    levels = _checked_levels(levels, n_bins)
    _check_tensors(probability, majority, reference, case_index, n_cases, valid)
    foreground = majority != 0
    joint = _joint_codes(probability, foreground, reference, levels)
    confidence, correct, bin_index = _confidence_bins(probability, foreground, n_bins)
    size = 2 * (len(levels) + 1) ** 2
    pixels = _sum_by(joint, case_index, n_cases, size, valid)
    by_bin = bin_index.mul_(2).add_(correct)
    counts = _sum_by(by_bin, case_index, n_cases, 2 * n_bins, valid)
    sums = _sum_by(by_bin, case_index, n_cases, 2 * n_bins, valid, weights=confidence)
    return _per_case(pixels.cpu().numpy(), counts.cpu().numpy(), sums.cpu().numpy(), levels)


def count_case(
    probability: Tensor,
    majority: Tensor,
    reference: Tensor,
    levels: Sequence[float] = BDICE_LEVELS,
    n_bins: int = 10,
    valid: Tensor | None = None,
) -> CaseCounts:
    """Counts one case of any number of spatial axes; see `count_batch`.

    Args:
        probability: (*spatial) float32 in [0, 1].
        majority: (*spatial) bool or uint8.
        reference: (*spatial) float32 in [0, 1].
        levels: thresholds of BDice.
        n_bins: number of confidence bins.
        valid: (*spatial) bool, pixels that count; None for all.

    Raises:
        UserError: if levels or bins are unusable, or a value is not a number in [0, 1].
        ValueError: if shapes or dtypes do not fit.
    """
    one = torch.zeros(1, dtype=torch.int64, device=probability.device)
    inputs = (probability[None], majority[None], reference[None])
    return count_batch(*inputs, one, 1, levels, n_bins, None if valid is None else valid[None])[0]


def _checked_levels(levels: Sequence[float], n_bins: int) -> tuple[float, ...]:
    found = tuple(float(level) for level in levels)
    ascending = all(low < high for low, high in zip(found, found[1:], strict=False))
    if not found or not ascending or not 0 < found[0] <= found[-1] <= 1 or DECISION_LEVEL not in found:
        raise UserError(f"BDice levels {found}: give ascending thresholds in (0, 1] with 0.5 among them")
    if n_bins < 1:
        raise UserError(f"number of calibration bins is {n_bins}: give at least 1")
    return found


def _check_tensors(
    probability: Tensor,
    majority: Tensor,
    reference: Tensor,
    case_index: Tensor,
    n_cases: int,
    valid: Tensor | None,
) -> None:
    shapes = {tuple(item.shape) for item in (probability, majority, reference, valid) if item is not None}
    if len(shapes) > 1 or case_index.shape != probability.shape[:1]:
        raise ValueError(f"shapes differ: {sorted(shapes)}, {tuple(case_index.shape)} case indices")
    for name, item in (("probability", probability), ("reference", reference)):
        if item.dtype != torch.float32:
            raise ValueError(f"{name} is {item.dtype}; metrics take float32")
        _check_range(name, item)
    if case_index.numel() and not 0 <= int(case_index.min()) <= int(case_index.max()) < n_cases:
        raise ValueError(f"case indices {case_index.tolist()} are not all in [0, {n_cases})")


def _check_range(name: str, values: Tensor) -> None:
    if values.numel() == 0:
        return
    low, high = (float(bound) for bound in torch.aminmax(values))
    if not 0.0 <= low <= high <= 1.0:  # also false for not-a-number
        raise UserError(f"{name} ranges from {low} to {high}, not within [0, 1]: check the network's output and labels")


def _levels_reached(values: Tensor, levels: Sequence[float]) -> Tensor:
    """Number of levels that each value reaches, as float32.

    One comparison a level into a float buffer: on a CPU several times faster than a binary search for each pixel.
    """
    reached = torch.zeros_like(values)
    flag = torch.empty_like(values)
    for level in levels:
        reached += torch.ge(values, float(np.float32(level)), out=flag)
    return reached


def _joint_codes(probability: Tensor, foreground: Tensor, reference: Tensor, levels: Sequence[float]) -> Tensor:
    """Flat index into (2, L + 1, L + 1) of each pixel, float32."""
    n_levels = len(levels) + 1
    codes = _levels_reached(probability, levels)
    codes.add_(_levels_reached(reference, levels), alpha=n_levels)
    return codes.add_(foreground, alpha=n_levels**2)


def _confidence_bins(probability: Tensor, foreground: Tensor, n_bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Confidence, correctness and bin of each pixel, the bin as float32.

    The bin is the last one whose left edge the confidence reaches (JDTLosses, ``metrics/ece_metric.py``). Confidences
    are at least 0.5, so only the edges above that are compared.
    """
    confidence = torch.maximum(probability, 1 - probability)
    correct = (probability >= DECISION_LEVEL) == foreground
    edges = [k / n_bins for k in range(n_bins)]
    below = [edge for edge in edges if edge <= 0.5]
    bin_index = _levels_reached(confidence, edges[len(below) :]).add_(len(below) - 1)
    return confidence, correct, bin_index


def _sum_by(
    codes: Tensor, case_index: Tensor, n_cases: int, size: int, valid: Tensor | None, weights: Tensor | None = None
) -> Tensor:
    """Sums ones (int64) or weights (float64) by case and code: (n_cases, size). Invalid pixels fall in a last slot."""
    total = n_cases * size
    offset = (case_index * size).view(-1, *[1] * (codes.ndim - 1))
    index = codes.to(torch.int64).add_(offset)
    if valid is not None:
        index = torch.where(valid != 0, index, total)
    index = index.view(-1)
    if weights is None:
        sums = torch.bincount(index, minlength=total + 1)
    else:  # not bincount, which has no deterministic form with weights on a GPU
        sums = torch.zeros(total + 1, dtype=torch.float64, device=codes.device)
        sums.scatter_add_(0, index, weights.to(torch.float64).view(-1))
    return sums[:total].view(n_cases, size)


def _per_case(
    pixels: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    sums: npt.NDArray[np.float64],
    levels: tuple[float, ...],
) -> list[CaseCounts]:
    n_cases, n_levels = len(pixels), len(levels) + 1
    joint = pixels.reshape(n_cases, 2, n_levels, n_levels)
    counts, sums = counts.reshape(n_cases, -1, 2), sums.reshape(n_cases, -1, 2)
    bins = np.stack([counts.sum(axis=2), sums.sum(axis=2), counts[..., 1]], axis=2)
    return [CaseCounts(joint[case].copy(), bins[case].copy(), levels) for case in range(n_cases)]
