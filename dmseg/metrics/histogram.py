"""Per-case counts from which all metrics of a binary task are computed.

A case is reduced to a joint histogram (majority bit, level of the reference label, level of the predicted
probability) and three sums per confidence bin. Both add up over slices and batches, so the Dice of a volume is exact
and memory does not grow with the data.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dmseg.errors import UserError, kind_of
from dmseg.metrics._input import surely_in_unit_interval
from dmseg.metrics.levels import BDICE_LEVELS, DECISION_LEVEL, check_bins, checked_levels

CPU_PIXELS = 2**16
"""Pixels counted at once on a CPU."""


@dataclass(frozen=True, eq=False)
class CaseCounts:
    """Counts of one case, or of any union of slices.

    Attributes:
        joint: int64 (2, L + 1, L + 1), pixels by majority bit, level of the reference label and level of the predicted
            probability. The level of a value is the number of thresholds that it reaches (``>=``, in float32).
        bins: float64 (B, 3), number of pixels, sum of confidence and number of correct pixels by bin of the top-label
            confidence max(p, 1 - p). Bin k starts at k / B; a confidence of 1 is in the last bin.
        levels: the L thresholds, ascending.
    """

    joint: npt.NDArray[np.int64]
    bins: npt.NDArray[np.float64]
    levels: tuple[float, ...] = BDICE_LEVELS

    def __add__(self, other: Self) -> "CaseCounts":
        """Adds the counts of both.

        Raises:
            ValueError: if the levels or the numbers of bins differ.
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
    """Counts a batch of slices, case by case, on the device of the tensors.

    Thresholds are compared in float32. The sums of confidence are exact: every confidence is a multiple of 2^-24, so
    their sum over up to 2^29 pixels fits into float64 without rounding, in any order.

    Args:
        probability: (N, H, W) float32 in [0, 1], predicted probability of the foreground.
        majority: (N, H, W) bool or uint8, majority vote, the reference of Dice and calibration.
        reference: (N, H, W) float32 in [0, 1], label, the reference of BDice.
        case_index: (N,) int64 in [0, n_cases), the case of each slice.
        n_cases: number of cases; those without slices get zeros.
        levels: thresholds of BDice in (0, 1], ascending and including 0.5.
        n_bins: number of equal confidence bins on [0, 1].
        valid: (N, H, W) bool, pixels to count, and whose values are checked; None for all.

    Returns:
        Counts of each case, in the order of the case indices.

    Raises:
        UserError: if levels or bins are invalid, or a value is not a number in [0, 1].
        ValueError: if shapes, dtypes or case indices do not match.
    """
    levels = checked_levels(levels)
    check_bins(n_bins)
    if DECISION_LEVEL not in levels:
        raise UserError(f"BDice levels are {levels}, but must be ascending thresholds in (0, 1] that include 0.5")
    probability, majority, reference, case_index = map(as_tensor, (probability, majority, reference, case_index))
    valid = None if valid is None else as_tensor(valid)
    shapes = {tuple(item.shape) for item in (probability, majority, reference, valid) if item is not None}
    if len(shapes) > 1 or case_index.shape != probability.shape[:1]:
        raise ValueError(f"shapes differ: {sorted(shapes)}, {tuple(case_index.shape)} case indices")
    if majority.dtype not in (torch.bool, torch.uint8):
        raise ValueError(f"majority is {majority.dtype}, but must be bool or uint8")
    for name, item in (("probability", probability), ("reference", reference)):
        if item.dtype != torch.float32:
            raise ValueError(f"{name} is {item.dtype}, but must be float32")
    if not all(0 <= index < n_cases for index in case_index.tolist()):
        raise ValueError(f"case indices {case_index.tolist()} must be in [0, {n_cases})")
    # the top-label confidence is at least 0.5; its bin is the last one whose left edge is not above it (JDTLosses,
    # `metrics/ece_metric.py`)
    first_bin = sum(k / n_bins <= 0.5 for k in range(n_bins)) - 1
    edges = tuple(k / n_bins for k in range(first_bin + 1, n_bins))
    shape = (n_cases, 2, len(levels) + 1, len(levels) + 1, len(edges) + 1)
    rows = _Rows.of(probability, majority, reference, case_index, valid)
    sums = _sum_with_torch if probability.is_cuda else _sum_with_numpy
    # axes: case, majority, reference level, predicted level, used bin
    pixels, confidence = (found[:-1].reshape(shape) for found in sums(rows, shape, levels, edges))
    decision = levels.index(DECISION_LEVEL) + 1
    by_class = pixels.sum(axis=2)
    correct = by_class[:, 0, :decision].sum(axis=1) + by_class[:, 1, decision:].sum(axis=1)
    bins = np.zeros((n_cases, n_bins, 3))
    bins[:, first_bin:] = np.stack([by_class.sum(axis=(1, 2)), confidence.sum(axis=(1, 2, 3)), correct], axis=2)
    joint = pixels.sum(axis=-1)
    return [CaseCounts(joint[case].copy(), bins[case].copy(), levels) for case in range(n_cases)]


def as_tensor(values: Tensor | npt.NDArray[Any]) -> Tensor:
    """Returns a tensor as it is and a numpy array as a tensor.

    Raises:
        TypeError: if it is neither.
    """
    if isinstance(values, Tensor):
        return values
    if isinstance(values, np.ndarray | np.generic):
        native = values.dtype.newbyteorder("=")  # that of the machine: PyTorch has no other
        return torch.as_tensor(np.require(values, native, ["C", "W"]))  # copied if it cannot be written to
    raise TypeError(f"metrics take tensors or numpy arrays, not {kind_of(values)}")


@dataclass(frozen=True)
class _Rows:
    """Rows of pixels of all slices: all tensors are (M, W), except the case index (N,) of slices of `height` rows."""

    probability: Tensor
    majority: Tensor
    reference: Tensor
    case_index: Tensor
    valid: Tensor | None
    height: int

    @classmethod
    def of(
        cls, probability: Tensor, majority: Tensor, reference: Tensor, case_index: Tensor, valid: Tensor | None
    ) -> Self:
        rows = (math.prod(probability.shape[:-1]), probability.shape[-1])
        probability, reference = probability.detach(), reference.detach()
        if valid is not None:  # values elsewhere have no effect, whatever they are
            probability, reference = (item.masked_fill(valid == 0, 0) for item in (probability, reference))
        return cls(
            probability.reshape(rows),
            majority.reshape(rows),
            reference.reshape(rows),
            case_index,
            None if valid is None else valid.reshape(rows),
            math.prod(probability.shape[1:-1]),
        )

    def check_values(self) -> None:
        """Refuses values that are not numbers in [0, 1]."""
        for name, item in (("probability", self.probability), ("reference", self.reference)):
            low, high = (float(bound) for bound in torch.aminmax(item)) if item.numel() else (0.0, 0.0)
            if not 0.0 <= low <= high <= 1.0:  # also false for NaN
                found = f"{name} ranges from {low} to {high}"
                raise UserError(f"{found}, but must be in [0, 1]: check the network and labels")

    def blocks(self, n_pixels: int) -> Iterator[list[npt.NDArray[Any]]]:
        """Yields blocks of rows as numpy arrays: probability, majority, reference, case index, and valid if given."""
        step = max(n_pixels // max(self.probability.shape[1], 1), 1)
        arrays = [item.numpy() for item in (self.probability, self.majority, self.reference)]
        arrays.append(np.repeat(self.case_index.numpy(), self.height))
        if self.valid is not None:
            arrays.append(self.valid.numpy())
        for start in range(0, len(self.probability), step):
            yield [item[start : start + step] for item in arrays]


def _sum_with_numpy(
    rows: _Rows, shape: tuple[int, ...], levels: Sequence[float], edges: Sequence[float]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Sums pixels and confidences over the flattened shape, with one entry at the end for invalid pixels.

    Blocks are processed in one thread, so that buffers stay in the cache and no thread waits for another.
    """
    size = math.prod(shape) + 1
    pixels, confidence = np.zeros(size, dtype=np.int64), np.zeros(size)
    narrow = np.int16 if size <= 2**15 else np.int32  # narrow codes are computed faster
    for probability, majority, reference, case_index, *valid in rows.blocks(CPU_PIXELS):
        if not (surely_in_unit_interval(probability) and surely_in_unit_interval(reference)):
            rows.check_values()  # here, not at the beginning: the block is in the cache for what follows
        top = 1 - probability
        np.maximum(probability, top, out=top)
        codes = (majority != 0).astype(narrow)
        codes += 2 * case_index.astype(narrow)[:, None]
        for values, thresholds in ((reference, levels), (probability, levels), (top, edges)):
            codes *= narrow(len(thresholds) + 1)
            codes += levels_reached(values, thresholds)
        if valid:
            codes[valid[0] == 0] = size - 1
        index = torch.from_numpy(codes.ravel())  # torch takes narrow codes as they are, and half of numpy's time
        pixels += torch.bincount(index, minlength=size).numpy()
        confidence += torch.bincount(index, torch.from_numpy(top.ravel().astype(np.float64)), size).numpy()
    return pixels, confidence


def levels_reached(
    values: npt.NDArray[np.float32], levels: Sequence[float] | npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """Number of levels that each value reaches, compared in float32.

    One comparison per level is ten times faster than a binary search per value; many evenly spaced levels, such as 0.1
    to 0.9, take one multiplication for all of them.

    Args:
        values: (...) float32 in [0, 1].
        levels: at most 255 thresholds, ascending.
    """
    steps = _steps(tuple(float(level) for level in levels))
    if steps is not None:
        found = (values * np.float32(steps)).astype(np.uint8)
        found -= (found == steps).view(np.uint8)  # values of 1; seven times as fast as a minimum
        return found
    found = np.zeros(values.shape, dtype=np.uint8)
    reached = np.empty(values.shape, dtype=np.bool_)
    for level in levels:
        np.greater_equal(values, np.float32(level), out=reached)
        found += reached.view(np.uint8)
    return found


@cache
def _steps(levels: tuple[float, ...]) -> int | None:
    """Returns n if levels are 1 / n, 2 / n, ..., (n - 1) / n and a value v in [0, 1) reaches floor(n v) of them.

    Else it returns None, as the product is rounded to float32: it may be k below k / n, or less than k at k / n. As
    rounding is monotone, it suffices to look at the levels and at the largest numbers below them.
    """
    steps = len(levels) + 1
    if not 6 <= steps <= 255:
        return None  # for fewer, comparisons are faster; a larger n does not fit in uint8
    at = np.array(levels, np.float32)
    below = np.nextafter(at, np.float32(0))
    reached, missed = (np.floor(item * np.float32(steps)) for item in (at, below))
    wanted = np.arange(1, steps)
    return steps if (reached == wanted).all() and (missed == wanted - 1).all() else None


def _sum_with_torch(
    rows: _Rows, shape: tuple[int, ...], levels: Sequence[float], edges: Sequence[float]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Computes the same sums for all pixels at once, on the device of the rows."""
    rows.check_values()
    size, device = math.prod(shape) + 1, rows.probability.device
    top = torch.maximum(rows.probability, 1 - rows.probability)
    codes = (rows.majority != 0) + 2 * rows.case_index.repeat_interleave(rows.height)[:, None]
    for values, thresholds in ((rows.reference, levels), (rows.probability, levels), (top, edges)):
        boundaries = torch.tensor(thresholds, dtype=torch.float32, device=device)
        codes = codes.mul_(len(thresholds) + 1).add_(torch.bucketize(values, boundaries, right=True))
    if rows.valid is not None:
        codes.masked_fill_(rows.valid == 0, size - 1)
    # bincount with weights is not deterministic on a GPU, so the confidences are summed by scatter_add_
    confidence = torch.zeros(size, dtype=torch.float64, device=device)
    confidence.scatter_add_(0, codes.view(-1), top.to(torch.float64).view(-1))
    return torch.bincount(codes.view(-1), minlength=size).cpu().numpy(), confidence.cpu().numpy()
