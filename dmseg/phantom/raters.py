"""The raters of the phantom: a probit model with an exactly known foreground probability.

A structure has a signed distance d(x), in units of its own size. Rater r marks a pixel where

    d(x) + w (a B_r + sqrt(1 - a^2) G_r(x)) < 0,

with a size bias B_r ~ N(0, 1) (partly a habit that the rater keeps over all cases, partly drawn for each case)
and a smooth Gaussian field G_r of unit variance, which shifts the boundary locally. The bracket is N(0, 1) at every
pixel. A rater overlooks each part of the structure with probability m, so over all raters that could have
been drawn

    P(x) = (1 - m) Phi(-d(x) / w).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from dmseg.phantom.fields import Array, GaussianField, Grid

CERTAIN = 6.0
"""Distance, in units of w, beyond which all raters agree: there a rater would differ in one of 10^9 pixels."""


@dataclass(frozen=True)
class RaterModel:
    """The distribution of the raters of one task.

    Attributes:
        raters: number of raters.
        spread: w, standard deviation of the outline around the structure's, in units of the structure's size.
        bias: a in [0, 1], the part of it that shifts the whole outline.
        habit: fraction in [0, 1] of the variance of the bias that a rater keeps over all cases.
        length: correlation length of the remaining part, in units of the structure's size.
        miss: m in [0, 1), probability that a rater overlooks a part of the structure.
    """

    raters: int
    spread: float
    bias: float = 0.5
    habit: float = 0.3
    length: float = 0.3
    miss: float = 0.0


@dataclass(frozen=True)
class Structure:
    """The structure to segment in one image.

    Attributes:
        distances: (L, H, W) signed distance to each of its L parts, negative inside, in units of half the
            image's width. A pixel belongs to the nearest part.
        size: the structure's size, in the same units.
    """

    distances: Array
    size: float

    @property
    def distance(self) -> Array:
        """(H, W) signed distance to the nearest part, in units of the structure's size."""
        nearest: Array = self.distances.min(axis=0) / self.size
        return nearest


def presence(structure: Structure, model: RaterModel) -> Array:
    """Phi(-d/w): probability that a rater who does not overlook the part marks the pixel; (H, W) in [0, 1].

    It is exactly 0 or 1 if |d| is at least `CERTAIN` times w.
    """
    depth = -structure.distance / model.spread
    certain = (depth >= CERTAIN).astype(np.float64)
    return np.where(np.abs(depth) < CERTAIN, ndtr(depth), certain)


def probability(structure: Structure, model: RaterModel) -> Array:
    """P(x) = (1 - m) Phi(-d/w), the probability that a rater marks the pixel; (H, W) in [0, 1]."""
    return (1 - model.miss) * presence(structure, model)


@dataclass(frozen=True)
class Reading:
    """The random part of one rater's annotation of one case.

    Attributes:
        shift: a B_r.
        wander: G_r.
        attention: (L,) uniform numbers; part l is overlooked where attention[l] < m.
    """

    shift: float
    wander: GaussianField
    attention: Array

    def deviation(self, grid: Grid, model: RaterModel) -> Array:
        """The sum a B_r + sqrt(1 - a^2) G_r(x), a standard normal number at each pixel: (H, W)."""
        deviation: Array = self.shift + np.sqrt(1 - model.bias**2) * self.wander.on(grid)
        return deviation


def draw_habit(rng: np.random.Generator) -> float:
    """Draws the part of a rater's bias that is the same in all cases, N(0, 1)."""
    return float(rng.standard_normal())


def draw_reading(
    rng: np.random.Generator, structure: Structure, model: RaterModel, habit: float, half: tuple[float, float]
) -> Reading:
    """Draws one rater's reading of one case.

    Args:
        rng: the random stream of this rater, case and task.
        structure: the structure to segment.
        model: the distribution of raters.
        habit: the rater's own, from `draw_habit`.
        half: half height and half width of the image, in units of half its width.
    """
    mood = float(rng.standard_normal())
    bias = np.sqrt(model.habit) * habit + np.sqrt(1 - model.habit) * mood
    attention = rng.random(len(structure.distances))
    wander = GaussianField.draw(rng, half, model.length * structure.size)
    return Reading(float(model.bias * bias), wander, attention)


def annotate(structure: Structure, model: RaterModel, reading: Reading, grid: Grid) -> npt.NDArray[np.bool_]:
    """The pixels that the rater marks: (H, W) bool."""
    distance = structure.distance / model.spread
    marked = distance < 0
    near = np.abs(distance) < CERTAIN  # raters can differ only in the box around these pixels
    spans = (np.flatnonzero(near.any(axis=axis)) for axis in (1, 0))
    rows, columns = (slice(span[0], span[-1] + 1) if len(span) else slice(0) for span in spans)
    box = rows, columns
    marked[box] = distance[box] + reading.deviation(grid.window(box), model) < 0
    if model.miss:
        marked &= ~(reading.attention < model.miss)[structure.distances.argmin(axis=0)]  # parts that are overlooked
    return marked
