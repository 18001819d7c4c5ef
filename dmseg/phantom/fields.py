"""Geometry of the phantom: pixel grids, smooth random fields, and outlines with a signed distance.

Lengths are in units of half the image's width, so nothing here depends on the number of pixels: a case at another
scale has the same anatomy, sampled at other positions.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """Pixel centres of an image; the origin is the centre of the whole image.

    Attributes:
        rows: (H,) position of each row, downwards.
        columns: (W,) position of each column, to the right.
    """

    rows: Array
    columns: Array

    @classmethod
    def over(
        cls, shape: tuple[int, int], half: tuple[float, float], centre: tuple[float, float] = (0.0, 0.0)
    ) -> "Grid":
        """Places (H, W) pixels on the rectangle from -half to +half (height, width) around a point."""
        axes = zip(shape, half, centre, strict=True)
        return cls(*(middle + ((np.arange(n) + 0.5) / n * 2 - 1) * extent for n, extent, middle in axes))

    def window(self, box: tuple[slice, slice]) -> "Grid":
        """The part of the grid inside a box of pixels."""
        return Grid(self.rows[box[0]], self.columns[box[1]])


@dataclass(frozen=True)
class GaussianField:
    """A smooth Gaussian random field with mean 0 and variance 1 at every point.

    White noise on a lattice of knots is smoothed with a separable Gaussian kernel. The squares of its weights sum to 1
    at each point, so the variance is exactly 1 everywhere. The correlation of two points at distance t is
    exp(-t^2 / (2 length^2)), up to the (small) effect of the lattice.

    Attributes:
        knots: (K, L) white noise.
        half: half height and half width of the rectangle that the field covers.
        length: correlation length.
    """

    knots: Array
    half: tuple[float, float]
    length: float

    @classmethod
    def draw(cls, rng: np.random.Generator, half: tuple[float, float], length: float) -> "GaussianField":
        """Draws a field over the rectangle from -half to +half."""
        shape = tuple(len(_knot_positions(extent, length)) for extent in half)
        return cls(rng.standard_normal(shape), half, length)

    def on(self, grid: Grid) -> Array:
        """Samples the field: (H, W)."""
        down = _kernel_weights(grid.rows, self.half[0], self.length)
        across = _kernel_weights(grid.columns, self.half[1], self.length)
        sampled: Array = down @ self.knots @ across.T
        return sampled


def _knot_positions(half: float, length: float) -> Array:
    """Knots one kernel width apart, reaching three kernel widths beyond the edge."""
    step = length / np.sqrt(2)
    beyond = int(np.ceil(half / step)) + 3
    positions: Array = np.arange(-beyond, beyond + 1) * step
    return positions


def _kernel_weights(positions: Array, half: float, length: float) -> Array:
    """(n, K) weights of the knots at each position; their squares sum to 1."""
    offsets = (positions[:, None] - _knot_positions(half, length)) / length
    weights = np.exp(-(offsets**2))
    unit: Array = weights / np.sqrt(np.sum(weights**2, axis=1, keepdims=True))
    return unit


@dataclass(frozen=True)
class Blob:
    """An ellipse with a wavy outline.

    In the ellipse's own polar coordinates (rho = 1 on the plain ellipse) the outline is
    rho = 1 + Re sum_n waves[n] exp(i (n + 2) angle).

    Attributes:
        centre: row and column position.
        radii: the two semi-axes.
        turn: rotation in radians.
        waves: complex amplitudes of the waves 2, 3, ... around the outline.
    """

    centre: tuple[float, float]
    radii: tuple[float, float]
    turn: float = 0.0
    waves: tuple[complex, ...] = ()

    @property
    def size(self) -> float:
        """Radius of the circle with the plain ellipse's area."""
        return float(np.sqrt(self.radii[0] * self.radii[1]))

    def distance(self, grid: Grid) -> Array:
        """Signed distance to the outline, negative inside: (H, W).

        Computed as the implicit function rho - outline divided by the length of its gradient: exact to first order at
        the outline, and a rough approximation far from it.
        """
        down, across = np.cos(self.turn), np.sin(self.turn)
        y, x = grid.rows[:, None] - self.centre[0], grid.columns[None, :] - self.centre[1]
        point = (down * y + across * x) / self.radii[0] + 1j * ((down * x - across * y) / self.radii[1])
        point += 1e-12  # so that the centre has a direction
        rho = _magnitude(point.real, point.imag)
        direction = point / rho
        outline, slope = np.ones(direction.shape), np.zeros(direction.shape)  # radius, and its derivative by the angle
        turning = direction
        for order, amplitude in enumerate(self.waves, start=2):
            turning = turning * direction
            if amplitude:
                wave = amplitude * turning
                outline += wave.real
                slope -= order * wave.imag
        gradient = direction * (1 - 1j * (slope / np.maximum(rho, 0.3)))
        distance: Array = (rho - outline) / _magnitude(gradient.real / self.radii[0], gradient.imag / self.radii[1])
        return distance

    def inside(self, grid: Grid, edge: float = 0.015) -> Array:
        """Fraction in [0, 1] of each pixel that is inside: (H, W).

        The profile of the edge is a normal distribution function with standard deviation `edge`.
        """
        share = np.zeros((len(grid.rows), len(grid.columns)))
        reach = max(self.radii) * (1 + sum(map(abs, self.waves))) + 5 * edge
        positions = zip((grid.rows, grid.columns), self.centre, strict=True)
        rows, columns = (slice(*np.searchsorted(axis, (mid - reach, mid + reach))) for axis, mid in positions)
        share[rows, columns] = ndtr(self.distance(grid.window((rows, columns))) / -edge)
        return share


def _magnitude(x: Array, y: Array) -> Array:
    """sqrt(x^2 + y^2); several times faster than `np.hypot`, and the values here cannot overflow."""
    length: Array = np.sqrt(x * x + y * y)
    return length


def random_waves(rng: np.random.Generator, amplitude: float, orders: int = 4) -> tuple[complex, ...]:
    """Draws waves 2, 3, ... with amplitudes inversely proportional to the order; `amplitude` is that of wave 2."""
    noise = rng.standard_normal((orders, 2)) @ np.array([1, 1j]) / np.sqrt(2)
    return tuple(complex(value) * amplitude * 2 / (order + 2) for order, value in enumerate(noise))


def resample(values: Array, shape: tuple[int, int]) -> Array:
    """Resamples (H, W) linearly at the pixel centres of (H', W'); values of that shape are returned unchanged."""
    if values.shape == shape:
        return values
    for axis, extent in enumerate(shape):
        old = values.shape[axis]
        position = np.clip((np.arange(extent) + 0.5) * old / extent - 0.5, 0, old - 1)
        left = np.minimum(position.astype(np.intp), old - 2)
        weight = np.expand_dims(position - left, 1 - axis)
        values = values.take(left, axis) * (1 - weight) + values.take(left + 1, axis) * weight
    return values
