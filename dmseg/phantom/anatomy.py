"""The four anatomies of the phantom: position, shape and appearance of everything in an image.

An anatomy is drawn from one stream of random numbers and is independent of pixels: `structures` gives the signed
distances of the tasks' structures on any grid, `paint` the noise-free image on the same grid. Structures are blended
in with their presence Phi(-d/w), so the image is ambiguous where raters disagree.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from dmseg.phantom.fields import Array, Blob, GaussianField, Grid, random_waves
from dmseg.phantom.raters import Structure

ABSENT = 1e3
"""Distance of all pixels from a structure that is absent."""
AIR = -1025.0
"""Intensity of the kidney CT outside the body."""
CASES_WITHOUT_CORE = (1, 3, 6, 7, 11)
"""Brain tumour cases with empty T3 annotations in the real data."""


class Anatomy(ABC):
    """The anatomy of one patient in one image.

    Attributes:
        half: half height and half width of the image; the half width is the unit of length.
        noise: standard deviation of the pixel noise, in the units of the modality.
        target: outline of task T1's structure, or the blob that contains it.
    """

    half: tuple[float, float] = (1.0, 1.0)
    noise: float
    target: Blob

    def view(self, diameters: float | None) -> tuple[tuple[float, float], tuple[float, float]]:
        """The part of the image around the target.

        Args:
            diameters: width of the part in diameters of the target; None for the whole image.

        Returns:
            Centre of the part, and its half height and half width; it never reaches beyond the image, and has the
            image's aspect ratio.
        """
        share = 1.0 if diameters is None else min(1.0, diameters * self.target.size)
        height, width = (share * extent for extent in self.half)
        room = self.half[0] - height, self.half[1] - width
        y, x = (min(max(middle, -most), most) for middle, most in zip(self.target.centre, room, strict=True))
        return (y, x), (height, width)

    @abstractmethod
    def structures(self, grid: Grid) -> tuple[Structure, ...]:
        """The structures of the tasks T1, T2, ... on a grid."""

    @abstractmethod
    def paint(self, grid: Grid, presences: Sequence[Array]) -> Array:
        """The noise-free image.

        Args:
            grid: pixels.
            presences: presence of each task's structure, (H, W) in [0, 1].

        Returns:
            (C, H, W), in the units of the modality.
        """

    def develop(self, clean: Array, noise: Array) -> Array:
        """Adds noise to the image.

        Args:
            clean: (C, H, W), as returned by `paint`.
            noise: (C, H, W), standard normal numbers.

        Returns:
            (C, H, W), in the units of the modality; magnitudes, so never negative.
        """
        developed: Array = np.abs(clean + self.noise * noise)
        return developed


def blend(image: Array, share: Array, value: float | Array) -> None:
    """Blends a value into an image (..., H, W) in place, by a fraction in [0, 1] for each pixel."""
    image += share * (value - image)


def _blob(
    rng: np.random.Generator,
    centre: tuple[float, float],
    radii: tuple[float, float],
    wave: float = 0.03,
    move: float = 0.03,
    turn: float = 0.1,
) -> Blob:
    """A random blob near a typical position and of about a typical size."""
    y, x = (middle + rng.uniform(-move, move) for middle in centre)
    size = 1 + rng.uniform(-0.12, 0.12)
    aspect = 1 + rng.uniform(-0.12, 0.12) / 2
    return Blob(
        (y, x), (radii[0] * size * aspect, radii[1] * size / aspect), rng.uniform(-turn, turn), random_waves(rng, wave)
    )


def _channels(*values: float) -> Array:
    """One value per channel, (C, 1, 1)."""
    return np.array(values)[:, None, None]


class Prostate(Anatomy):
    """T2-weighted MR of the pelvis. T1: the whole gland; T2: the zone inside it.

    Args:
        rng: random stream of the case.
        case: number of the case; every third image is 1.5 times as high as it is wide.
    """

    noise = 13.0

    def __init__(self, rng: np.random.Generator, case: int) -> None:
        self.half = (1.5, 1.0) if case % 3 == 0 else (1.0, 1.0)
        self.body = _blob(rng, (0.0, 0.0), (1.22, 1.65), wave=0.02)
        self.target = self.gland = _blob(rng, (0.02, 0.0), (0.29, 0.36), wave=0.05, move=0.05)
        y, x = self.gland.centre
        self.zone = _blob(rng, (y - 0.055, x), (0.17, 0.235), wave=0.06, move=0.015)
        self.muscles = [_blob(rng, (0.0, side * 0.72), (0.5, 0.13), turn=0.25) for side in (-1, 1)]
        self.bones = [_blob(rng, (-0.72, side * 0.3), (0.13, 0.25), turn=0.3) for side in (-1, 1)]
        self.rectum = _blob(rng, (y + 0.52, x), (0.16, 0.2), wave=0.06)
        self.lumen = Blob(self.rectum.centre, (0.10, 0.13), self.rectum.turn, self.rectum.waves)
        self.lumen_value = rng.choice([50.0, 420.0])
        self.nodules = [_blob(rng, self.zone.centre, (0.05, 0.06), move=0.11) for _ in range(4)]
        self.veins = [_blob(rng, (y, x + side * 0.46), (0.09, 0.04), move=0.06) for side in (-1, 1, 1, -1)]
        self.values = rng.normal([215.0, 425.0, 265.0], [12.0, 15.0, 12.0])
        self.coarse = GaussianField.draw(rng, self.half, 0.12)
        self.fine = GaussianField.draw(rng, self.half, 0.035)
        self.coil = GaussianField.draw(rng, self.half, 0.9)

    def structures(self, grid: Grid) -> tuple[Structure, ...]:
        """Whole gland and zone."""
        return tuple(Structure(blob.distance(grid)[None], blob.size) for blob in (self.gland, self.zone))

    def paint(self, grid: Grid, presences: Sequence[Array]) -> Array:
        """(1, H, W) in scanner units, about 0 to 600."""
        gland, zone = presences
        fine = self.fine.on(grid)
        image = self.values[0] + 18 * self.coarse.on(grid) + 8 * fine
        for muscle in self.muscles:
            blend(image, muscle.inside(grid), 110.0)
        for bone in self.bones:
            blend(image, bone.inside(grid), 70.0)
            blend(image, Blob(bone.centre, (0.09, 0.2), bone.turn).inside(grid), 290.0)
        for vein in self.veins:
            blend(image, vein.inside(grid), 400.0)
        blend(image, self.rectum.inside(grid), 130.0)
        blend(image, self.lumen.inside(grid), self.lumen_value)
        blend(image, gland, self.values[1] + 22 * fine)
        blend(image, zone, self.values[2] + 22 * fine)
        for nodule, value in zip(self.nodules, (330.0, 215.0, 315.0, 225.0), strict=True):
            blend(image, 0.7 * zone * nodule.inside(grid), value)
        blend(image, 1 - self.body.inside(grid), 12.0)
        shaded: Array = image * np.exp(0.1 * self.coil.on(grid))
        return shaded[None]


class BrainGrowth(Anatomy):
    """T2-weighted MR of a newborn's brain. T1: the white matter, which is bright at that age and deeply folded.

    Args:
        rng: random stream of the case.
        case: number of the case (not used: all cases are alike).
    """

    noise = 16.0

    def __init__(self, rng: np.random.Generator, case: int) -> None:
        self.head = _blob(rng, (0.0, 0.0), (0.88, 0.74), wave=0.015)
        centre = self.head.centre
        self.target = self.brain = Blob(
            centre,
            (self.head.radii[0] * 0.81, self.head.radii[1] * 0.79),
            self.head.turn,
            random_waves(rng, 0.015),
        )
        y, x = self.brain.centre
        down, across = self.brain.radii
        folds = random_waves(rng, 0.02, 3)
        phases = np.exp(2j * np.pi * rng.random(9))
        folds += tuple(map(complex, rng.uniform(0.01, 0.045, 9) * phases))  # waves 5 to 13: the folds of the cortex
        self.matter = [
            Blob((y, x + side * 0.455 * across), (0.82 * down, 0.40 * across), self.brain.turn, tuple(folds))
            for side in (-1, 1)
        ]
        self.deep = [_blob(rng, (y + 0.03, x + side * 0.15), (0.17, 0.1), move=0.015, turn=0.4) for side in (-1, 1)]
        self.ventricles = [
            _blob(rng, (y + end * 0.25, x + side * 0.07), (0.14, 0.045), wave=0.05, move=0.015, turn=0.15)
            for side in (-1, 1)
            for end in (-1, 1)
        ]
        self.values = rng.normal([250.0, 455.0, 610.0], [14.0, 14.0, 20.0])
        self.coarse = GaussianField.draw(rng, self.half, 0.15)
        self.fine = GaussianField.draw(rng, self.half, 0.04)
        self.coil = GaussianField.draw(rng, self.half, 0.8)

    def structures(self, grid: Grid) -> tuple[Structure, ...]:
        """White matter of both hemispheres without ventricles and deep nuclei."""
        outer = np.minimum(*(blob.distance(grid) for blob in self.matter))
        holes = np.min([blob.distance(grid) for blob in (*self.deep, *self.ventricles)], axis=0)
        return (Structure(np.maximum(outer, -holes)[None], self.brain.size),)

    def paint(self, grid: Grid, presences: Sequence[Array]) -> Array:
        """(1, H, W) in scanner units, about 0 to 800."""
        fine = self.fine.on(grid)
        cortex, matter, fluid = self.values
        image = np.full(fine.shape, 8.0)
        blend(image, self.head.inside(grid), 480.0)
        skull = Blob(self.head.centre, (self.head.radii[0] * 0.93, self.head.radii[1] * 0.92), self.head.turn)
        blend(image, skull.inside(grid), 90.0)
        blend(
            image,
            Blob(skull.centre, (self.head.radii[0] * 0.88, self.head.radii[1] * 0.86)).inside(grid),
            fluid,
        )
        blend(image, self.brain.inside(grid), cortex + 14 * fine)
        blend(image, presences[0], matter + 16 * self.coarse.on(grid) + 8 * fine)
        for ventricle in self.ventricles:
            blend(image, ventricle.inside(grid), fluid)
        shaded: Array = image * np.exp(0.08 * self.coil.on(grid))
        return shaded[None]


class BrainTumor(Anatomy):
    """FLAIR, T1, contrast-enhanced T1 and T2 MR of a brain, skull removed.

    T1: the whole tumour; T2: faint foci around it that raters disagree on; T3: a small enhancing core, absent
    in `CASES_WITHOUT_CORE`.

    Args:
        rng: random stream of the case.
        case: number of the case.
    """

    noise = 17.0

    def __init__(self, rng: np.random.Generator, case: int) -> None:
        self.has_core = case not in CASES_WITHOUT_CORE
        self.brain = _blob(rng, (0.0, 0.0), (0.78, 0.62), wave=0.015)
        self.matter = [_blob(rng, (0.0, side * 0.27), (0.58, 0.22), wave=0.12, turn=0.1) for side in (-1, 1)]
        self.ventricles = [_blob(rng, (0.0, side * 0.1), (0.22, 0.055), wave=0.08, turn=0.25) for side in (-1, 1)]
        side = rng.choice([-1, 1])
        place = (rng.uniform(-0.3, 0.3), side * rng.uniform(0.17, 0.25))
        self.target = self.tumour = _blob(rng, place, (0.28, 0.24), wave=0.08, move=0.0, turn=1.5)
        self.core = _blob(rng, self.tumour.centre, (0.12, 0.105), wave=0.08, move=0.06, turn=1.5)
        count = int(rng.integers(6, 9))  # foci around the tumour, some at its edge
        angles = 2 * np.pi * (np.arange(count) + rng.uniform(-0.2, 0.2, count)) / count + rng.uniform(0, 2 * np.pi)
        reach = self.tumour.size * rng.uniform(0.6, 0.95, count)
        y, x = self.tumour.centre
        places = [(y + far * np.cos(angle), x + far * np.sin(angle)) for angle, far in zip(angles, reach, strict=True)]
        self.foci = [_blob(rng, place, (0.075, 0.07), wave=0.06, move=0.0, turn=1.5) for place in places]
        self.contrasts = rng.uniform(0.6, 1.0, len(self.foci))
        self.spots = [_blob(rng, (0.0, 0.0), (0.025, 0.02), move=0.45) for _ in range(5)]
        self.gain = rng.normal(1.0, 0.06, 4)[:, None, None]
        self.coarse = [GaussianField.draw(rng, self.half, 0.1) for _ in range(4)]
        self.coil = [GaussianField.draw(rng, self.half, 0.8) for _ in range(4)]

    def structures(self, grid: Grid) -> tuple[Structure, ...]:
        """Whole tumour, disputed foci (one part each) and core."""
        foci = np.stack([blob.distance(grid) for blob in self.foci])
        core = self.core.distance(grid) if self.has_core else np.full(foci.shape[1:], ABSENT)
        return (
            Structure(self.tumour.distance(grid)[None], self.tumour.size),
            Structure(foci, float(np.mean([blob.size for blob in self.foci]))),
            Structure(core[None], self.core.size),
        )

    def paint(self, grid: Grid, presences: Sequence[Array]) -> Array:
        """(4, H, W) in scanner units, about 0 to 1000; exactly 0 outside the brain."""
        tumour, foci, core = presences
        coarse = np.stack([field.on(grid) for field in self.coarse])
        image = _channels(330, 350, 360, 350) + 14 * coarse
        for blob in self.matter:
            blend(image, blob.inside(grid, 0.03), _channels(290, 450, 460, 260) + 12 * coarse)
        for blob in self.ventricles:
            blend(image, blob.inside(grid), _channels(90, 160, 160, 640))
        for blob in self.spots:
            blend(image, 0.8 * blob.inside(grid), _channels(470, 400, 560, 470))
        blend(image, tumour, _channels(640, 280, 300, 560) + 26 * coarse)
        nearest = np.argmin([blob.distance(grid) for blob in self.foci], axis=0)
        blend(image, foci * self.contrasts[nearest], _channels(560, 170, 400, 690))
        blend(image, core, _channels(600, 250, 300, 520))
        blend(image, 4 * core * (1 - core), _channels(620, 300, 780, 500))
        image *= self.gain * np.exp(0.08 * np.stack([field.on(grid) for field in self.coil]))
        return np.where(self.brain.distance(grid) < 0, np.maximum(image, 1.0), 0.0)

    def develop(self, clean: Array, noise: Array) -> Array:
        """Adds noise inside the brain only; the skull-stripped background remains 0."""
        return np.where(clean > 0, np.maximum(clean + self.noise * noise, 1.0), 0.0)


class Kidney(Anatomy):
    """Contrast-enhanced CT of the abdomen. T1: one kidney; spleen, liver, vessels and bowel look similar.

    Args:
        rng: random stream of the case.
        case: number of the case (not used: all cases are alike).
    """

    noise = 14.0

    def __init__(self, rng: np.random.Generator, case: int) -> None:
        self.body = _blob(rng, (0.0, 0.0), (0.66, 0.86), wave=0.015)
        y, x = self.body.centre
        self.wall = Blob(self.body.centre, (self.body.radii[0] * 0.83, self.body.radii[1] * 0.86), self.body.turn)
        self.cavity = Blob(self.body.centre, (self.body.radii[0] * 0.76, self.body.radii[1] * 0.8), self.body.turn)
        self.target = self.kidney = _blob(rng, (y + 0.2, x + 0.36), (0.19, 0.13), wave=0.05, turn=0.4)
        down, across = self.kidney.centre
        self.sinus = _blob(rng, (down - 0.01, across - 0.05), (0.075, 0.04), wave=0.1, move=0.01, turn=0.4)
        self.liver = _blob(rng, (y - 0.08, x - 0.4), (0.33, 0.25), wave=0.07, turn=0.3)
        self.spleen = _blob(rng, (y - 0.16, x + 0.5), (0.16, 0.09), wave=0.06, turn=0.3)
        self.spine = _blob(rng, (y + 0.28, x), (0.13, 0.14))
        self.muscles = [_blob(rng, (y + 0.36, x + side * 0.2), (0.13, 0.11)) for side in (-1, 1)]
        self.vessels = [_blob(rng, (y + 0.07, x + side * 0.06), (0.045, 0.045), move=0.01) for side in (-1, 1)]
        self.bowel = [_blob(rng, (y - 0.28, x + shift), (0.085, 0.1), wave=0.1, move=0.05) for shift in (0.0, 0.25)]
        self.values = rng.normal([185.0, 105.0, 120.0], [12.0, 8.0, 8.0])
        self.coarse = GaussianField.draw(rng, self.half, 0.08)
        self.fine = GaussianField.draw(rng, self.half, 0.03)

    def structures(self, grid: Grid) -> tuple[Structure, ...]:
        """The kidney."""
        return (Structure(self.kidney.distance(grid)[None], self.kidney.size),)

    def paint(self, grid: Grid, presences: Sequence[Array]) -> Array:
        """(1, H, W) in Hounsfield units, `AIR` outside the body."""
        coarse, fine = self.coarse.on(grid), self.fine.on(grid)
        fat = -100 + 8 * coarse
        image = fat.copy()
        blend(image, self.wall.inside(grid), 55 + 8 * fine)
        blend(image, self.cavity.inside(grid), fat + 25 * np.maximum(fine, 0))
        blend(image, self.liver.inside(grid), self.values[1] + 9 * fine)
        blend(image, self.spleen.inside(grid), self.values[2] + 9 * fine)
        for bowel in self.bowel:
            blend(image, bowel.inside(grid), 40 + 15 * fine)
            blend(image, Blob(bowel.centre, (0.045, 0.055)).inside(grid), -850.0)
        for muscle in self.muscles:
            blend(image, muscle.inside(grid), 60 + 8 * fine)
        for vessel in self.vessels:
            blend(image, vessel.inside(grid), 170.0)
        blend(image, self.spine.inside(grid), 560.0)
        blend(image, Blob(self.spine.centre, (0.1, 0.11)).inside(grid), 230 + 40 * fine)
        blend(image, presences[0], self.values[0] + 14 * fine)
        blend(image, presences[0] * self.sinus.inside(grid), 20.0)
        blend(image, 1 - self.body.inside(grid, 0.006), AIR)
        return image[None]

    def develop(self, clean: Array, noise: Array) -> Array:
        """Adds noise; no value is below `AIR`."""
        return np.maximum(clean + self.noise * noise, AIR)
