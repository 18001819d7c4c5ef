"""Counts a scored case for storage (`dmseg.metrics.stored_counts`), slice by slice, with numpy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg.errors import UserError, check_choice, is_whole, kind_of, shown
from dmseg.metrics._input import check_unit_interval
from dmseg.metrics.levels import BDICE_LEVELS, DECISION_LEVEL, EMPTY_DICE, check_bins, checked_levels
from dmseg.metrics.stored_counts import LEAST_PROBABILITY, TIES, StoredCounts, probability_cuts

Masks = npt.NDArray[np.bool_]
Probabilities = npt.NDArray[np.float32]

Numbers = npt.NDArray[np.unsignedinteger[Any]]

BLOCK_PIXELS = 2**15
"""Pixels counted at once."""
PATTERN_RATERS = 8
"""Maximum number of raters of whom all patterns are counted; of more raters, only those that occur."""
_BOTH = (np.uint8(3), np.uint8(12))
"""Bits of `_classes` for both classes of the first and of the second mask."""
_OTHERS = "dmseg.metrics.case_metrics also takes tensors, lists and other types"


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
        reference: (S, H, W) float32 in [0, 1], reference label of BDice.
        n_bins: number B of confidence bins.
        boundary: pixels on each side of a contour that belong to the boundary band, at least 1.
        levels: the L thresholds of BDice in (0, 1], ascending.
        ties: what a tie counts as in the majority vote: ``background`` or ``foreground``; both are counted.
        empty: Dice of two empty masks: ``skip``, ``one`` or ``zero``.

    Raises:
        TypeError: if an array is not a numpy array.
        ValueError: if shapes or dtypes do not match.
        UserError: if a setting is invalid, or a value is not a number in [0, 1].
    """
    _check(probability, annotations, reference)
    check_bins(n_bins)
    if not is_whole(boundary) or boundary < 1:
        raise UserError(f"boundary is {shown(boundary)}, but must be a whole number of pixels, at least 1")
    check_choice("ties", ties, tuple(TIES))
    check_choice("empty", empty, tuple(EMPTY_DICE))
    levels = checked_levels(levels)
    cuts, edges = probability_cuts(n_bins, levels), equal_mass_edges(probability, n_bins)
    tally = _Tally(np.unique(np.concatenate([cuts, edges])), levels, len(annotations), boundary)
    slices = np.zeros((len(probability), 3, 2), np.int64)
    together = max(1, BLOCK_PIXELS // max(probability[0].size, 1)) if len(probability) else 1
    for first in range(0, len(probability), together):
        chosen = slice(first, first + together)
        slices[chosen] = tally.add(probability[chosen], annotations[:, chosen], reference[chosen])
    in_cells, in_bins, in_levels = (tally.merged_by(item) for item in (cuts, edges, np.asarray(levels, np.float32)))
    by_vote = tally.pixels.sum(axis=1)
    return StoredCounts(
        joint=_merged(tally.pixels, in_levels),
        cells=_merged(by_vote, in_cells),
        sums=tally.sums @ in_cells,
        squared_error=tally.squared_error,
        log_loss=tally.log_loss,
        adaptive=_merged(by_vote, in_bins),
        adaptive_sums=tally.sums.sum(axis=0) @ in_bins,
        band=_merged(tally.band, in_cells),
        band_sums=tally.band_sums @ in_cells,
        raters=_merged(tally.raters, in_cells),
        shared=tally.shared,
        votes=tally.votes,
        slices=slices,
        cuts=cuts,
        bins=n_bins,
        ties=ties,
        empty=empty,
    )


class _Tally:
    """Sums over pixels by parts of [0, 1] that are so fine that every cell, bin and level is a union of them.

    Pixels are counted in blocks that stay in the cache, by the pattern of the raters who marked them, from which their
    vote and every rater's mask follow.

    Args:
        marks: (P - 1,) where the parts begin, ascending; part k holds marks[k - 1] <= p < marks[k].
        levels: the L thresholds.
        n_raters: number R of raters.
        boundary: pixels on each side of a contour that belong to the boundary band.
    """

    def __init__(self, marks: Probabilities, levels: Sequence[float], n_raters: int, boundary: int) -> None:
        self._marks, self._levels, self._boundary = marks, np.asarray(levels, np.float32), boundary
        n_parts = self._n_parts = len(marks) + 1
        self._decision = int(np.searchsorted(marks, np.float32(DECISION_LEVEL), side="right"))
        self.pixels = np.zeros((3, len(levels) + 1, n_parts), np.int64)
        self.sums = np.zeros((3, n_parts))
        self.squared_error, self.log_loss = np.zeros(2), np.zeros(2)
        self.band, self.band_sums = np.zeros((2, 2, n_parts), np.int64), np.zeros((2, n_parts))
        self.raters = np.zeros((n_raters, 3, n_parts), np.int64)
        self.shared, self.votes = np.zeros((n_raters, n_raters), np.int64), np.zeros(n_raters + 1, np.int64)

    def merged_by(self, thresholds: Probabilities) -> npt.NDArray[np.float64]:
        """Matrix (P, K + 1) that adds up the parts between K of the marks; of equal ones, the last counts."""
        index = np.searchsorted(thresholds, np.concatenate([np.full(1, -1, np.float32), self._marks]), side="right")
        return np.asarray(index[:, None] == np.arange(len(thresholds) + 1), np.float64)

    def add(
        self, probability: Probabilities, annotations: Masks, reference: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.int64]:
        """Adds S slices; returns their pixels (S, 3, 2) by vote and prediction."""
        slices = np.zeros((len(probability), 3, 2), np.int64)
        masks = annotations.reshape(len(annotations), -1)
        p, label = probability.ravel(), reference.ravel()
        vote = np.empty(p.size, np.uint8)
        part: Numbers = np.empty(p.size, np.uint8 if self._n_parts <= 256 else np.uint16)
        patterns = _Patterns.of(len(masks)) if len(masks) <= PATTERN_RATERS else None
        counted: npt.NDArray[np.int64] | int = 0
        for start in range(0, p.size, BLOCK_PIXELS):
            block = slice(start, start + BLOCK_PIXELS)
            self._add_pixels(p[block], masks[:, block], label[block], vote[block], part[block])
            # the raters who marked each pixel, as a pattern; with few raters, bit r of its number stands for rater r
            if patterns:
                known, index = patterns, np.zeros(vote[block].size, np.uint8)
                for mask in masks[::-1, block]:
                    index += index
                    index |= mask.view(np.uint8)
            else:
                found, place = np.unique(np.packbits(masks[:, block], axis=0).T, axis=0, return_inverse=True)
                members = np.unpackbits(found, axis=1, count=len(masks)).astype(np.float64)
                known, index = _Patterns.with_members(members), place.ravel().astype(np.uint32)
            # pixels (S, M, P) of the block by slice, pattern and part
            shape = (len(slices), len(known.members), self._n_parts)
            codes = _codes(math.prod(shape), index).reshape(len(slices), -1)
            if len(slices) > 1:
                codes += shape[1] * np.arange(len(slices), dtype=codes.dtype)[:, None]
            codes *= self._n_parts
            codes += part[block].reshape(len(slices), -1)
            own = np.bincount(codes.ravel().astype(np.intp), minlength=math.prod(shape)).reshape(shape)
            if patterns:
                counted += own
            else:
                self._add_patterns(own, known, slices)
        if patterns and p.size:
            self._add_patterns(np.asarray(counted), patterns, slices)
        votes, parts = vote.reshape(probability.shape), part.reshape(probability.shape)
        for one in zip(probability, votes, parts, strict=True):
            self._add_band(*one)
        return slices

    def _add_pixels(
        self,
        p: Probabilities,
        masks: Masks,
        label: npt.NDArray[np.float32],
        vote: npt.NDArray[np.uint8],
        part: Numbers,
    ) -> None:
        """Adds a block, except for what depends on single raters; fills in the votes and parts of its pixels."""
        _count_reached(p, self._marks, part)
        marked = masks.sum(axis=0, dtype=np.min_scalar_type(len(masks)))
        above, half = marked > len(masks) // 2, marked >= (len(masks) + 1) // 2
        np.add(above.view(np.uint8), half.view(np.uint8), out=vote)
        by_label = _codes(self.pixels.size, vote)
        by_label *= self.pixels.shape[1]
        by_label += _count_reached(label, self._levels, np.empty(label.shape, np.uint8))
        by_label *= self._n_parts
        by_label += part
        index = by_label.astype(np.intp)
        self.pixels += np.bincount(index, minlength=self.pixels.size).reshape(self.pixels.shape)
        exact = p.astype(np.float64)
        sums = np.bincount(index, weights=exact, minlength=self.pixels.size)
        self.sums += sums.reshape(self.pixels.shape).sum(axis=1)
        # squared errors and log losses under both rules for ties; ties are few, so they are added separately
        # `exact` is overwritten
        tied = np.flatnonzero(vote == 1)
        error = np.abs(np.subtract(exact, vote == 2, out=exact), out=exact)
        first = error[tied]
        self.squared_error += error @ error
        right = np.subtract(1, error, out=exact)
        np.clip(right, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY, out=right)
        self.log_loss -= np.log(right, out=right).sum()
        if tied.size:
            other = 1 - first
            self.squared_error[1] += (other**2 - first**2).sum()
            self.log_loss[1] += (_log_loss(other) - _log_loss(first)).sum()

    def _add_patterns(
        self, counted: npt.NDArray[np.int64], patterns: "_Patterns", slices: npt.NDArray[np.int64]
    ) -> None:
        """Adds pixels (S, M, P) by slice, pattern and part."""
        total = counted.sum(axis=0)
        of_pattern = total.sum(axis=1)
        n_raters = len(self.raters)
        self.votes += np.bincount(patterns.n_marked, of_pattern, n_raters + 1).astype(np.int64)
        self.shared += _merged(patterns.members.T * of_pattern, patterns.members)
        self.raters += _merged(patterns.raters, total.astype(np.float64)).reshape(self.raters.shape)
        predicted = np.add.reduceat(counted, [0, self._decision], axis=2)
        slices += (patterns.votes @ predicted.astype(np.float64)).astype(np.int64)

    def _add_band(self, p: Probabilities, vote: npt.NDArray[np.uint8], part: Numbers) -> None:
        """Adds the boundary band of a slice under both rules for ties; it lies near pixels with a vote."""
        rows = np.flatnonzero(vote.any(axis=1))
        if not rows.size:
            return
        columns, margin = np.flatnonzero(vote.any(axis=0)), self._boundary
        box = tuple(slice(max(int(item[0]) - margin, 0), int(item[-1]) + margin + 1) for item in (rows, columns))
        p, vote, part = p[box], vote[box], part[box]
        labels = (vote == 2, vote >= 1)
        near = _dilated(_classes(*labels), self._boundary)
        for rule, label in enumerate(labels):
            if rule == 0 or (vote == 1).any():  # without ties the band is the same under both rules
                inside = np.flatnonzero((near & _BOTH[rule]) == _BOTH[rule])
                parts = part.ravel()[inside].astype(np.intp)
                codes = parts + self._n_parts * label.ravel()[inside]
                now = np.bincount(codes, minlength=2 * self._n_parts).reshape(2, -1)
                confidence = np.bincount(parts, weights=p.ravel()[inside], minlength=self._n_parts)
            self.band[rule] += now
            self.band_sums[rule] += confidence


def equal_mass_edges(probability: Probabilities, n_bins: int) -> Probabilities:
    """Left edges of the bins of equal mass except the first: the values of rank floor(k n / B), k = 1 to B - 1.

    Args:
        probability: (...) float32 of a case's n pixels.
        n_bins: number B of bins.

    Returns:
        (B - 1,) float32, ascending; equal edges make empty bins.
    """
    ranks = np.array([k * probability.size // n_bins for k in range(1, n_bins)], np.int64)
    if not ranks.size or not probability.size:
        return np.zeros(len(ranks), np.float32)
    return np.asarray(np.sort(probability, axis=None)[ranks])  # faster than a partition by several ranks


def _classes(*labels: Masks) -> npt.NDArray[np.uint8]:
    """One bit for the background and one for the foreground of each of two masks."""
    first, second = (label.view(np.uint8) for label in labels)
    return 5 + first + 4 * second


def _dilated(bits: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.uint8]:
    """Bits that some pixel of the square neighbourhood of 2 width + 1 pixels has."""
    for axis in (0, 1):
        grown = bits.copy()
        source, target = bits.swapaxes(0, axis), grown.swapaxes(0, axis)
        for shift in range(1, min(width, len(source) - 1) + 1):
            target[shift:] |= source[:-shift]
            target[:-shift] |= source[shift:]
        bits = grown
    return bits


@dataclass(frozen=True)
class _Patterns:
    """Patterns of the raters who marked a pixel.

    Attributes:
        members: (M, R), 1 for the raters of each pattern.
        n_marked: (M,) their number.
        votes: (3, M), 1 for the patterns of each vote.
        raters: (3 R, M), the same for each rater, 0 for patterns without the rater.
    """

    members: npt.NDArray[np.float64]
    n_marked: npt.NDArray[np.int64]
    votes: npt.NDArray[np.float64]
    raters: npt.NDArray[np.float64]

    @classmethod
    def with_members(cls, members: npt.NDArray[np.float64]) -> "_Patterns":
        marked, n_raters = members.sum(axis=1).astype(np.int64), members.shape[1]
        vote = (2 * marked > n_raters).astype(np.int64) + (2 * marked >= n_raters)
        votes = (vote == np.arange(3)[:, None]).astype(np.float64)
        return cls(members, marked, votes, (members.T[:, None] * votes).reshape(-1, len(members)))

    @classmethod
    @cache
    def of(cls, n_raters: int) -> "_Patterns":
        """All patterns of a few raters; bit r of a pattern's number stands for rater r."""
        members = (np.arange(2**n_raters)[:, None] >> np.arange(n_raters)) & 1
        return cls.with_members(members.astype(np.float64))


def _codes(size: int, first: Numbers) -> Numbers:
    """A copy of type large enough for numbers below a size."""
    return first.astype(np.uint16 if size <= 2**16 else np.uint32)


def _count_reached(values: npt.NDArray[np.float32], thresholds: npt.NDArray[np.float32], out: Numbers) -> Numbers:
    """Number of thresholds that each value reaches, like `levels_reached`, but for any number of thresholds."""
    out[...] = 0
    reached = np.empty(values.shape, np.bool_)
    for threshold in thresholds:
        np.greater_equal(values, threshold, out=reached)
        np.add(out, reached.view(np.uint8), out=out)
    return out


def _merged(
    values: npt.NDArray[np.int64] | npt.NDArray[np.float64], parts: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Product of counts with a matrix of 0 and 1, exact below 2^53."""
    return np.asarray(values @ parts).astype(np.int64)


def _check(probability: Probabilities, annotations: Masks, reference: npt.NDArray[np.float32]) -> None:
    given = (("probability", probability, "float32"), ("annotations", annotations, "bool"))
    for name, item, dtype in (*given, ("reference", reference, "float32")):
        if not isinstance(item, np.ndarray):
            raise TypeError(f"{name} is {kind_of(item)}, but must be a numpy array; {_OTHERS}")
        if str(item.dtype) != dtype:
            raise ValueError(f"{name} is {item.dtype}, but must be {dtype}; {_OTHERS}")
    if probability.ndim != 3 or annotations.ndim != 4:
        raise ValueError(
            f"probability has shape {probability.shape} and annotations {annotations.shape}; give slices (S, H, W), "
            "x[None] for a single one, and raters and slices (R, S, H, W)"
        )
    if not probability.shape == annotations.shape[1:] == reference.shape:
        raise ValueError(
            f"probability {probability.shape}, annotations {annotations.shape} and reference {reference.shape} differ "
            "in their pixels; give (S, H, W), (R, S, H, W) and (S, H, W)"
        )
    if not len(annotations):
        raise ValueError(f"annotations {annotations.shape} of probability {probability.shape} have no rater")
    check_unit_interval("probability", probability)
    check_unit_interval("reference", reference)


def _log_loss(error: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return -np.log(np.clip(1 - error, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY))
