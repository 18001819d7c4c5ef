"""The seven tasks of the phantom with the parameters of their raters, and the generation of one case.

All random numbers come from streams named by seed, data set, case, task and rater, so a case does not depend on how
many others are generated.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from dmseg.phantom.anatomy import Anatomy, BrainGrowth, BrainTumor, Kidney, Prostate
from dmseg.phantom.fields import Array, Grid, resample
from dmseg.phantom.raters import (
    RaterModel,
    Reading,
    Structure,
    annotate,
    draw_habit,
    draw_reading,
    presence,
    probability,
)

WORKING_WIDTH = 256
"""Maximum number of columns on which anatomy is evaluated; it is then interpolated to the image's own."""


@dataclass(frozen=True)
class Cohort:
    """One data set of the phantom.

    Attributes:
        anatomy: anatomy shown in its images.
        cases: number of its cases in the paper, section 3.1.
        width: width of an image in pixels, as distributed.
        spacing: edge length of a pixel in mm.
        models: model of the raters for each of the tasks T1, T2, ...
    """

    anatomy: type[Prostate] | type[BrainGrowth] | type[BrainTumor] | type[Kidney]
    cases: int
    width: int
    spacing: float
    models: tuple[RaterModel, ...]


# `spread` (and `miss` of Brain Tumor T2) come from scripts/calibrate_phantom.py, so that the agreement of raters with
# their majority is as in the paper's Table 1. The other numbers are chosen for plausible outlines.
COHORTS = {
    "prostate": Cohort(Prostate, 55, 640, 0.3125, (RaterModel(6, 0.0489), RaterModel(6, 0.1075))),
    "brain-growth": Cohort(BrainGrowth, 39, 256, 0.7, (RaterModel(7, 0.0354, length=0.08),)),
    "brain-tumor": Cohort(
        BrainTumor,
        32,
        240,
        1.0,
        (RaterModel(3, 0.0778), RaterModel(3, 0.5, bias=0.3, habit=0.1, miss=0.2624), RaterModel(3, 0.1428)),
    ),
    "kidney": Cohort(Kidney, 24, 497, 0.78, (RaterModel(3, 0.0448),)),
}


def stream(*name: int | str) -> np.random.Generator:
    """A separate random stream for each name, which consists of non-negative integers and words."""
    return np.random.default_rng([part if isinstance(part, int) else zlib.crc32(part.encode()) for part in name])


class PhantomCase:
    """One case, generated lazily.

    Args:
        seed: seed of the whole phantom, not negative.
        cohort: key of `COHORTS`.
        number: number of the case, from 1.
        scale: factor on the image's native size in pixels.
        view: width of the image in diameters of task T1's structure, which it is centred on; None for the whole image.
            The number of pixels stays the same, so that pixels are smaller.
        spread: factor on the spread of the raters.
    """

    def __init__(
        self,
        seed: int,
        cohort: str,
        number: int,
        scale: float = 1.0,
        view: float | None = None,
        spread: float = 1.0,
    ) -> None:
        self._name: tuple[int | str, ...] = (seed, cohort, number)
        self.cohort = COHORTS[cohort]
        self.models = tuple(replace(model, spread=model.spread * spread) for model in self.cohort.models)
        self.anatomy: Anatomy = self.cohort.anatomy(stream(*self._name, "anatomy"), number)
        height, width = (round(self.cohort.width * scale * half) for half in self.anatomy.half)
        self.shape = (height, width)
        self._centre, self._half = self.anatomy.view(view)

    @property
    def spacing(self) -> float:
        """Edge length of a pixel in mm."""
        return 2 * self._half[1] * self._unit / self.shape[1]

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of the image in mm, downwards and to the right of the whole image's."""
        return self._centre[0] * self._unit, self._centre[1] * self._unit

    @property
    def _unit(self) -> float:
        """The unit of length in mm: half the width of the whole image."""
        return self.cohort.spacing * self.cohort.width / 2

    def _grid(self, shape: tuple[int, int]) -> Grid:
        return Grid.over(shape, self._half, self._centre)

    @cached_property
    def _working(self) -> tuple[Grid, tuple[Structure, ...]]:
        """The grid on which anatomy is evaluated, and the structures on it."""
        shrink = min(1.0, WORKING_WIDTH / self.shape[1])
        grid = self._grid((round(self.shape[0] * shrink), round(self.shape[1] * shrink)))
        return grid, self.anatomy.structures(grid)

    @cached_property
    def structures(self) -> tuple[Structure, ...]:
        """The structures of the tasks on the image's own pixels."""
        return tuple(
            Structure(np.stack([resample(part, self.shape) for part in coarse.distances]), coarse.size)
            for coarse in self._working[1]
        )

    def image(self) -> Array:
        """(C, H, W) image with noise: whole numbers in the units of the modality."""
        grid, structures = self._working
        presences = [presence(part, model) for part, model in zip(structures, self.models, strict=True)]
        clean = np.stack([resample(part, self.shape) for part in self.anatomy.paint(grid, presences)])
        noise = stream(*self._name, "noise").standard_normal(clean.shape)
        return np.rint(self.anatomy.develop(clean, noise))

    def probability(self, task: int) -> npt.NDArray[np.float32]:
        """(H, W) float32 in [0, 1]: probability that a rater marks the pixel; tasks count from 1."""
        return probability(self.structures[task - 1], self.models[task - 1]).astype(np.float32)

    def readings(self, task: int) -> Iterator[Reading]:
        """Each rater's reading of the case, in the order of raters; tasks count from 1."""
        seed, cohort, _ = self._name
        model, structure = self.models[task - 1], self.structures[task - 1]
        for rater in range(1, model.raters + 1):
            habit = draw_habit(stream(seed, cohort, "habit", task, rater))
            rng = stream(*self._name, "reading", task, rater)
            yield draw_reading(rng, structure, model, habit, self.anatomy.half)

    def annotations(self, task: int) -> Iterator[npt.NDArray[np.bool_]]:
        """Each rater's (H, W) mask, in the order of raters; tasks count from 1."""
        model, structure = self.models[task - 1], self.structures[task - 1]
        grid = self._grid(self.shape)
        return (annotate(structure, model, reading, grid) for reading in self.readings(task))
