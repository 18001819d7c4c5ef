"""STAPLE: a label and the raters' performance, estimated together (Warfield, Zou and Wells, IEEE TMI 23(7), 2004).

Each rater has a confusion matrix, and each pixel an unknown true class. Expectation maximisation alternates between the
posterior of the true class given the matrices, and the matrices given the posterior. All pixels with the same votes
have the same posterior, so it runs on the distinct patterns of votes and their numbers of pixels: at most C ** R rows,
regardless of the size of the case. Pixels are counted with integers, and everything else is float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg.errors import is_number, is_whole, shown
from dmseg.labels._check import as_array

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.integer[Any]]

TOLERANCE = 1e-7
"""Default tolerance of the convergence criterion, as in ITK's filter."""

MAX_ITERATIONS = 10_000
"""Default maximum number of iterations."""


@dataclass(frozen=True)
class Staple:
    """Result of STAPLE.

    Attributes:
        posterior: (C, *spatial) float64, probability of each class, which sums to 1 over the classes.
        confusion: (R, C, C) float64, probability that rater r decides for class i where the true class is j, at
            [r, i, j]; for two classes, the sensitivity is [r, 1, 1] and the specificity [r, 0, 0]. Columns of a class
            without any probability are 0.
        iterations: number of iterations.
        change: largest change of a confusion matrix's entry in the last iteration; infinite after a single one.
        converged: whether `change` is at most the tolerance.
    """

    posterior: Floats
    confusion: Floats
    iterations: int
    change: float
    converged: bool


def vote_patterns(votes: npt.ArrayLike, n_classes: int = 2) -> tuple[Integers, Integers, Integers]:
    """Groups pixels by the votes of all raters.

    Args:
        votes: (R, *spatial), class that each rater chose: 0 to `n_classes` - 1.
        n_classes: number of classes.

    Returns:
        The distinct patterns (P, R), the number of pixels of each (P,) int64, and each pixel's pattern (*spatial).

    Raises:
        ValueError: if there is no rater or no pixel, or a vote is not a class.
    """
    if not is_whole(n_classes) or n_classes < 1:
        raise ValueError(f"n_classes is {shown(n_classes)}, but must be a whole number of at least 1")
    votes = as_array(votes, "votes")
    if votes.ndim == 0 or not votes.size:
        raise ValueError(f"votes have the shape {votes.shape}, but must be of at least one rater and one pixel")
    needed = f"votes must be whole numbers from 0 to {n_classes - 1}"
    if votes.dtype.kind not in "biu":
        raise ValueError(f"{needed}, but are of type {votes.dtype}; convert classes with .astype(int)")
    low, high = int(votes.min()), int(votes.max())
    if low < 0 or high >= n_classes:
        raise ValueError(f"{needed}, but hold {low if low < 0 else high}")
    patterns = np.zeros((1, 0), dtype=np.int64)
    counts = np.array([votes[0].size], dtype=np.int64)
    index = np.zeros(votes[0].size, dtype=np.int32 if votes[0].size < 2**31 // n_classes else np.int64)
    for rater in votes:
        index *= n_classes
        index += rater.reshape(-1).astype(index.dtype)
        counts = np.bincount(index, minlength=len(patterns) * n_classes)
        (found,) = np.nonzero(counts)
        position = np.zeros(len(counts), dtype=index.dtype)
        position[found] = np.arange(len(found))
        index = position[index]
        patterns = np.column_stack([patterns[found // n_classes], found % n_classes])
        counts = counts[found]
    return patterns, counts, index.reshape(votes.shape[1:])


def staple_posterior(
    votes: npt.ArrayLike,
    n_classes: int = 2,
    prior: Sequence[float] | None = None,
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
) -> Staple:
    """Estimates the true class of each pixel and the confusion matrix of each rater.

    All pixels of the array count: more background around a structure makes the foreground's prior smaller and the
    specificities greater. It starts from the share of raters who chose each class, as ITK's filter does.

    Args:
        votes: (R, *spatial), class that each rater chose: 0 to `n_classes` - 1.
        n_classes: number of classes C.
        prior: C probabilities of the classes at any pixel, which sum to 1; None takes the share of each class in all
            votes. A class that has probability 0, or that nobody chose anywhere, is never the true one.
        tolerance: largest change of an entry of a confusion matrix in an iteration that counts as converged.
        max_iterations: maximum number of iterations, at least 1.

    Raises:
        ValueError: if an argument is out of its range.
    """
    patterns, counts, index = vote_patterns(votes, n_classes)
    posterior, confusion, iterations, change = estimate(patterns, counts, n_classes, prior, tolerance, max_iterations)
    return Staple(posterior.T[:, index], confusion, iterations, change, change <= tolerance)


def estimate(
    patterns: Integers,
    counts: Integers,
    n_classes: int = 2,
    prior: Sequence[float] | None = None,
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
) -> tuple[Floats, Floats, int, float]:
    """The expectation maximisation of `staple_posterior` on patterns of votes.

    Args:
        patterns: (P, R), the distinct patterns of votes.
        counts: (P,), number of pixels of each.
        n_classes: as for `staple_posterior`.
        prior: as for `staple_posterior`.
        tolerance: as for `staple_posterior`.
        max_iterations: as for `staple_posterior`.

    Returns:
        Posterior (P, C), confusion matrices (R, C, C), number of iterations and change in the last one.

    Raises:
        ValueError: if an argument is out of its range.
    """
    if not is_number(tolerance) or not tolerance > 0:
        raise ValueError(f"tolerance is {shown(tolerance)}, but must be above 0")
    if not is_whole(max_iterations) or max_iterations < 1:
        raise ValueError(f"max_iterations is {shown(max_iterations)}, but must be a whole number of at least 1")
    one_hot = (patterns[:, :, None] == np.arange(n_classes)).astype(np.float64)
    posterior = one_hot.mean(axis=1)
    pixels = counts.astype(np.float64)
    if prior is None:
        shares = pixels @ posterior / pixels.sum()
    else:
        try:
            shares = np.asarray(prior, dtype=np.float64)
        except (TypeError, ValueError):
            shares = np.zeros(0)
        fits = shares.shape == (n_classes,) and bool((shares >= 0).all())
        if not fits or not np.isclose(shares.sum(), 1.0, rtol=0, atol=1e-6):  # float32, too
            raise ValueError(f"prior must be {n_classes} probabilities that sum to 1, but is {shown(prior)}")
    log_prior = np.where(one_hot.any(axis=(0, 1)), _log(shares), -np.inf)
    confusion, change, iteration = np.zeros((0, n_classes, n_classes)), np.inf, 0
    while iteration < max_iterations and not change <= tolerance:
        iteration += 1
        # expected shares of a rater's decisions i among the pixels of true class j
        weight = pixels[:, None] * posterior
        total = weight.sum(axis=0)
        joint = np.einsum("pri,pj->rij", one_hot, weight)
        before, confusion = confusion, np.divide(joint, total, out=np.zeros_like(joint), where=total > 0)
        scores = log_prior + np.einsum("pri,rij->pj", one_hot, _log(confusion))
        # softmax of the scores
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        posterior = powers / powers.sum(axis=1, keepdims=True)
        if iteration > 1:
            change = float(np.abs(confusion - before).max())
    return posterior, confusion, iteration, change


def _log(values: Floats) -> Floats:
    """Logarithm with a finite value for 0, so that each pattern of votes has a most probable class."""
    return np.asarray(np.log(np.maximum(values, np.finfo(np.float64).tiny)))
