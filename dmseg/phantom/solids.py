"""Anatomy of the phantom's volumes: three-dimensional solids, painted in CT numbers or MR intensities.

Lengths are in units of half the slice width, or half the volume depth along z. Axes are (z, y, x) and run superior,
posterior and to the patient's left.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

Array = npt.NDArray[np.float64]
Triple = tuple[float, float, float]
Space = tuple[Array, Array, Array]

EDGE = 0.03
"""Width of the transition at a surface, in half widths."""


class Scan(NamedTuple):
    """A volume: image (Z, Y, X) in the units of the modality, and labels (Z, Y, X)."""

    image: Array
    label: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Solid:
    """An ellipsoid with an uneven surface.

    Attributes:
        centre: position, (z, y, x).
        radii: semi-axes, (z, y, x).
        waves: (K, 4) wave vectors and phases of the surface.
        amplitude: amplitude of the surface, as a fraction of the radii.
    """

    centre: Triple
    radii: Triple
    waves: Array
    amplitude: float

    def distance(self, space: Space) -> Array:
        """Approximate signed distance to the surface, negative inside: (Z, Y, X)."""
        offsets = [axis - middle for axis, middle in zip(space, self.centre, strict=True)]
        rho = np.sqrt(sum((offset / radius) ** 2 for offset, radius in zip(offsets, self.radii, strict=True)))
        uneven: Array = sum(
            np.cos(wave[0] * offsets[0] + wave[1] * offsets[1] + wave[2] * offsets[2] + wave[3]) for wave in self.waves
        )
        away: Array = (rho - 1 + self.amplitude / len(self.waves) * uneven) * min(self.radii[1:])
        return away

    def within(self, other: "Solid", share: float, direction: Array) -> "Solid":
        """The same solid, moved part of the way from another solid's centre to its surface."""
        unit = direction / np.linalg.norm(direction)
        z, y, x = (
            middle + share * radius * step for middle, radius, step in zip(other.centre, other.radii, unit, strict=True)
        )
        return Solid((z, y, x), self.radii, self.waves, self.amplitude)


def _space(shape: tuple[int, int, int]) -> Space:
    z, y, x = ((np.arange(extent) + 0.5) / extent * 2 - 1 for extent in shape)
    return z[:, None, None], y[None, :, None] * shape[1] / shape[2], x[None, None, :]


def _solid(
    rng: np.random.Generator, centre: Triple, radii: Triple, move: float = 0.05, amplitude: float = 0.25
) -> Solid:
    """A random solid near a typical position and of about a typical size, with a wavy surface."""
    z, y, x = (middle + rng.uniform(-move, move) for middle in centre)
    size = 1 + rng.uniform(-0.15, 0.15)
    waves = np.column_stack([rng.normal(0, 2.0 / min(radii), (4, 3)), rng.uniform(0, 2 * np.pi, 4)])
    depth, height, width = (radius * size * (1 + rng.uniform(-0.1, 0.1)) for radius in radii)
    return Solid((z, y, x), (depth, height, width), waves, amplitude)


def _paint(image: Array, distance: Array, value: float) -> None:
    """Paints the inside of a solid in place with a value."""
    image += ndtr(-distance / EDGE) * (value - image)


def _torso(rng: np.random.Generator, space: Space) -> Array:
    """An image of air, fat, soft tissue and the spine."""
    image = np.full(np.broadcast_shapes(*(axis.shape for axis in space)), -1000.0)
    for radii, value in (((9.0, 0.72, 0.94), -100.0), ((9.0, 0.64, 0.86), 45.0)):
        _paint(image, _solid(rng, (0.0, 0.0, 0.0), radii, 0.02, 0.05).distance(space), value)
    _paint(image, _solid(rng, (0.0, 0.42, 0.0), (9.0, 0.13, 0.13), 0.02, 0.1).distance(space), 350.0)
    return image


def liver_scan(rng: np.random.Generator, shape: tuple[int, int, int], tumours: bool) -> Scan:
    """CT of the liver (label 1) with up to three dark tumours (label 2), and vessels, spleen and stomach.

    Args:
        rng: random stream of the case.
        shape: (Z, Y, X).
        tumours: whether there are one to three tumours, or none.
    """
    space = _space(shape)
    image = _torso(rng, space)
    liver = _solid(rng, (0.1, -0.08, -0.34), (0.72, 0.42, 0.42))
    organ = liver.distance(space)
    tissue = rng.uniform(90, 115)
    _paint(image, organ, tissue)
    for centre, radii, value in (
        ((0.2, 0.12, 0.56), (0.5, 0.2, 0.16), tissue),
        ((0.0, -0.25, 0.36), (0.5, 0.2, 0.2), 25.0),
    ):
        _paint(image, _solid(rng, centre, radii).distance(space), value + rng.uniform(-10, 10))
    for _ in range(2):
        vessel = _solid(rng, liver.centre, (0.5, 0.05, 0.05), 0.2).distance(space)
        _paint(image, np.maximum(vessel, organ), tissue + 40)
    tumour = np.full(image.shape, np.inf)
    for radius in rng.uniform(0.14, 0.24, rng.integers(1, 4) if tumours else 0):
        place = rng.normal(size=3)
        lump = _solid(rng, (0.0, 0.0, 0.0), (2.0 * radius, radius, radius)).within(liver, rng.uniform(0.2, 0.6), place)
        tumour = np.minimum(tumour, lump.distance(space))
    _paint(image, np.maximum(tumour, organ), tissue - rng.uniform(40, 60))
    label = np.where((tumour < 0) & (organ < 0), 2, organ < 0)
    return Scan(image + rng.normal(0, 14, image.shape), label.astype(np.uint8))


def kidney_scan(rng: np.random.Generator, shape: tuple[int, int, int]) -> Scan:
    """CT of both kidneys (label 1), a tumour growing out of one (label 2) and a cyst in the other (part of label 1).

    Args:
        rng: random stream of the case.
        shape: (Z, Y, X).
    """
    space = _space(shape)
    image = _torso(rng, space)
    side = rng.choice([-1, 1])
    sick, well = (_solid(rng, (0.0, 0.18, place * 0.48), (0.6, 0.2, 0.17)) for place in (side, -side))
    organ = np.minimum(sick.distance(space), well.distance(space))
    tissue = rng.uniform(150, 200)
    _paint(image, organ, tissue)
    cyst = _solid(rng, (0.0, 0.0, 0.0), (0.15, 0.08, 0.08)).within(well, 0.6, rng.normal(size=3)).distance(space)
    _paint(image, np.maximum(cyst, organ), 10.0)
    radius = rng.uniform(0.15, 0.24)
    outwards = np.array([rng.normal(), rng.uniform(-1, 0), side * rng.uniform(0.3, 1)])
    tumour = _solid(rng, (0.0, 0.0, 0.0), (2.0 * radius, radius, radius)).within(sick, 0.75, outwards).distance(space)
    _paint(image, tumour, rng.uniform(85, 105))
    label = np.where(tumour < 0, 2, organ < 0)
    return Scan(image + rng.normal(0, 18, image.shape), label.astype(np.uint8))


def hippocampus_scan(rng: np.random.Generator, shape: tuple[int, int, int]) -> Scan:
    """MR of the region around a hippocampus, anterior (label 1) and posterior (label 2), in arbitrary units.

    Args:
        rng: random stream of the case.
        shape: (Z, Y, X).
    """
    space = _space(shape)
    image = np.full(shape, 90.0)
    for _ in range(5):
        place = (rng.uniform(-1, 1), rng.uniform(-1.2, 1.2), rng.uniform(-1, 1))
        _paint(image, _solid(rng, place, (0.6, 0.4, 0.4)).distance(space), rng.choice([30.0, 125.0]))
    whole = _solid(rng, (0.0, 0.0, 0.0), (0.4, 0.95, 0.36), 0.12).distance(space)
    _paint(image, whole, 70.0)
    anterior = space[1] < rng.uniform(-0.15, 0.15)
    label = np.where(whole < 0, np.where(anterior, 1, 2), 0)
    return Scan(np.abs(image + rng.normal(0, 7, shape)), label.astype(np.uint8))
