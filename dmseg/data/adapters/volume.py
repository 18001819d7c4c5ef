"""What the adapters of volumes have in common: which slices count, in which order, through which window.

A case is one image and one label volume. Arrays are taken in the file's own order, headers ignored, as the released
code does; ``orientation=canonical`` turns them to RAS+ by the image's affine.
"""

import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

from dmseg.data.case import Adapter, Case, CaseFiles, Slice, Task
from dmseg.data.options import check_choices, check_max_gib, check_whole, read_window
from dmseg.data.readers import TOLERANCE, one_value
from dmseg.data.volumes import MAX_GIB, Volume, open_volume
from dmseg.errors import UserError, shown

PERCENTILES = (0.5, 99.5)
"""Mapped to the full range where no window is given, as for QUBIQ."""
AFFINE_TOLERANCE = 1e-2
"""Affines of image and label that differ by more, in mm, are worth a warning."""
CHOICES = {
    "structure": ("tumour", "organ"),
    "slices": ("target", "all"),
    "orientation": ("file", "canonical"),
    "faulty_cases": ("error", "skip"),
    "dtype": ("uint8", "int16"),
}

Mask = npt.NDArray[np.bool_]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Orientation:
    """How slices are cut from the file's axes and turned.

    Attributes:
        axis: axis of the file that is cut across.
        transpose: whether rows and columns change places; before `flips`.
        flips: whether rows and columns are reversed.
    """

    axis: int
    transpose: bool = False
    flips: tuple[bool, bool] = (False, False)

    def turn(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Turns (..., H, W) as cut from the file."""
        if self.transpose:
            values = values.swapaxes(-1, -2)
        rows, columns = (slice(None, None, -1 if flip else 1) for flip in self.flips)
        return np.ascontiguousarray(values[..., rows, columns])


def canonical(affine: npt.NDArray[np.float64], axis: int) -> Orientation:
    """Orientation after which the axes run to the right, to the front and upwards; `axis` counts in that order."""
    turned = nibabel.io_orientation(affine)
    place = {int(out): position for position, (out, _) in enumerate(turned)}
    rows, columns = (place[out] for out in range(3) if out != axis)
    return Orientation(place[axis], rows > columns, (bool(turned[rows, 1] < 0), bool(turned[columns, 1] < 0)))


@dataclass(frozen=True)
class SliceCount:
    """How many slices a case has, and how many of them hold the target."""

    case: str
    n_slices: int
    n_target: int


class VolumeAdapter(Adapter):
    """Base of the adapters of volumes.

    Args:
        root: folder of the data set.
        structure: ``tumour`` (labels above 1) or ``organ`` (labels above 0, tumours included).
        slices: ``target``: only slices that hold the structure, also in evaluation (the released code); or ``all``.
        slices_per_case: at most so many slices of a case, evenly spread over those; None for all of them.
        window: intensities that are mapped to the ends of the range; None: percentiles of each volume (`PERCENTILES`).
        orientation: ``file``: array order, headers ignored; ``canonical``: turned to RAS+ by the image's affine.
        faulty_cases: what a missing or damaged file means: ``error``, or ``skip`` (the case is left out).
        axis: axis that slices are cut across; None: the data set's own in the file, and 2 (axial) in canonical order.
        dtype: what the window is stored as: ``uint8``, in steps of 1/255 of it, or ``int16``, in steps of 1/32767.
        max_gib: memory that reading one file may take, in GiB; see `dmseg.data.nifti`.

    Raises:
        UserError: if an option has an unknown value.
    """

    name: str
    title: str
    axis = 2
    largest_label: int = 2

    def __init__(
        self,
        root: str | Path,
        structure: str = "tumour",
        slices: str = "target",
        slices_per_case: int | None = None,
        window: Sequence[float] | None = None,
        orientation: str = "file",
        faulty_cases: str = "error",
        axis: int | None = None,
        dtype: str = "uint8",
        max_gib: float = MAX_GIB,
    ) -> None:
        given = {
            "structure": structure,
            "slices": slices,
            "orientation": orientation,
            "faulty_cases": faulty_cases,
            "dtype": dtype,
        }
        check_choices(given, CHOICES)
        check_whole("slices_per_case", slices_per_case, 1, unset="all")
        check_whole("axis", axis, 0, 2, unset="the data set's own")
        check_max_gib(max_gib)
        self.root = Path(root)
        self.structure, self.kept, self.per_case, self.orientation = structure, slices, slices_per_case, orientation
        self.window = read_window(window)
        self.max_gib = max_gib
        self.dtype = dtype
        self.skips_faulty = faulty_cases == "skip"
        own = type(self).axis if orientation == "file" else 2
        self.axis = own if axis is None else axis

    @property
    def tasks(self) -> Mapping[str, Task]:
        """One task, named by the structure."""
        title = self.title if self.structure == "tumour" else f"{self.title} organ"
        return {self.structure: Task(self.structure, title, self.name, ("expert",))}

    @abstractmethod
    def list_cases(self, task: str) -> list[CaseFiles]:
        """Lists all cases; `CaseFiles.files` is (image, label), either may be missing.

        Raises:
            UserError: if there is no case at all, or one is there twice.
        """

    def is_target(self, labels: npt.NDArray[Any]) -> Mask:
        """Whether voxels belong to the structure."""
        hit: Mask = labels > (1 if self.structure == "tumour" else 0)
        return hit

    def read_case(self, task: str, files: CaseFiles) -> Case:
        """Opens one case: finds the slices that count; they are read as they are asked for.

        Raises:
            UserError: if a file is damaged, the shapes differ, or the label holds what it should not.
        """
        image, label = (open_volume(path, self.max_gib) for path in files.files[:2])
        _check_match(files.case, image, label)
        orientation = self._orientation(image)
        kept = self._choose(self._count(label, orientation.axis))
        window = np.zeros((image.n_channels, 2)) if len(kept) == 0 else self._window(image)
        return Case(files.case, (0,), window, self._slices(image, label, orientation, kept), self.dtype)

    def count_slices(self, files: CaseFiles) -> SliceCount:
        """Counts the slices of a case from its label alone.

        Raises:
            UserError: if the label is missing or damaged, or holds what it should not.
        """
        label = open_volume(files.files[1], self.max_gib)
        counts = self._count(label, self._orientation(label).axis)
        return SliceCount(files.case, len(counts), int(np.count_nonzero(counts)))

    def _orientation(self, volume: Volume) -> Orientation:
        if self.orientation == "file":
            return Orientation(self.axis)
        try:
            return canonical(volume.affine, self.axis)
        except (ValueError, KeyError, np.linalg.LinAlgError):
            raise UserError(
                f"{shown(volume.path)} has no usable orientation in its header; fix it, or set data.orientation=file"
            ) from None

    def _count(self, label: Volume, axis: int) -> npt.NDArray[np.int64]:
        """Target voxels of each slice; checks every label on the way."""
        if label.n_channels > 1:
            raise UserError(f"{shown(label.path)} has {label.n_channels} channels; expected one label volume")
        return label.count(axis, lambda values: self.is_target(self._whole(values, label.path)))

    def _whole(self, values: npt.NDArray[Any], path: Path) -> npt.NDArray[Any]:
        """Labels as whole numbers.

        Raises:
            UserError: if they are not, or out of range.
        """
        whole = values if values.dtype.kind in "iu" else np.rint(values)
        is_near = whole is values or np.abs(values - whole).max() <= TOLERANCE
        if not is_near or whole.min() < 0 or whole.max() > self.largest_label:
            odd = (np.abs(values - whole) > TOLERANCE) | (whole < 0) | (whole > self.largest_label)
            found = one_value(values[odd][0])
            raise UserError(
                f"{shown(path)} holds the label {found}; expected whole numbers from 0 to {self.largest_label}"
            )
        return whole

    def _choose(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
        """Positions of the slices that count, rising."""
        candidates = np.flatnonzero(counts) if self.kept == "target" else np.arange(len(counts))
        if self.per_case is None or len(candidates) <= self.per_case:
            return candidates
        spread = (np.arange(self.per_case) + 0.5) * len(candidates) / self.per_case
        return candidates[spread.astype(np.intp)]

    def _window(self, image: Volume) -> npt.NDArray[np.float64]:
        return image.percentiles(PERCENTILES) if self.window is None else np.tile(self.window, (image.n_channels, 1))

    def _slices(
        self, image: Volume, label: Volume, orientation: Orientation, kept: npt.NDArray[np.intp]
    ) -> Iterator[Slice]:
        indices = kept.tolist()
        if not indices:
            return
        pairs = zip(image.slices(orientation.axis, indices), label.stored(orientation.axis, indices), strict=True)
        for values, stored in pairs:
            labels = self._whole(label.values(stored), label.path)
            yield Slice(orientation.turn(values), orientation.turn(self.is_target(labels)).astype(np.uint8))


def _check_match(case: str, image: Volume, label: Volume) -> None:
    if image.shape != label.shape:
        raise UserError(
            f"{shown(label.path)} has shape {label.shape}, but its image has {image.shape}; get both files again"
        )
    if not np.allclose(image.affine, label.affine, rtol=0, atol=AFFINE_TOLERANCE, equal_nan=True):
        log.warning("case %s: the affines of image and label differ; the arrays are taken as they are", case)
