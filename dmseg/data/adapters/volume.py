"""The base class of adapters for volumes: selection and orientation of slices, and the intensity window.

A case is one image and one label volume. Arrays are used in the order of the file and headers are ignored, as in the
released code; ``orientation=canonical`` turns each slice to RAS+ by the image's affine. The order of the slices is
always the file's.
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
"""Percentiles that are mapped to the full range if no window is given, as for QUBIQ."""
AFFINE_TOLERANCE = 1e-2
"""Largest difference between the affines of image and label, in mm, without a warning."""
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
    """How slices are taken from a volume and reoriented.

    Attributes:
        axis: axis of the file across which slices are taken.
        transpose: whether rows and columns are swapped, before `flips`.
        flips: whether rows and columns are reversed.
    """

    axis: int
    transpose: bool = False
    flips: tuple[bool, bool] = (False, False)

    def turn_spacing(self, spacing: tuple[float, float, float]) -> tuple[float, float, float]:
        """Spacing of rows, columns and slices from that of the file's axes."""
        rows, columns = (size for axis, size in enumerate(spacing) if axis != self.axis)
        return (columns, rows, spacing[self.axis]) if self.transpose else (rows, columns, spacing[self.axis])

    def turn(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Reorients (..., H, W) as taken from the file."""
        if self.transpose:
            values = values.swapaxes(-1, -2)
        rows, columns = (slice(None, None, -1 if flip else 1) for flip in self.flips)
        return np.ascontiguousarray(values[..., rows, columns])


def canonical(affine: npt.NDArray[np.float64], axis: int) -> Orientation:
    """Orientation that makes rows and columns run right, anterior and superior (RAS+); `axis` refers to that order."""
    turned = nibabel.io_orientation(affine)
    place = {int(out): position for position, (out, _) in enumerate(turned)}
    rows, columns = (place[out] for out in range(3) if out != axis)
    return Orientation(place[axis], rows > columns, (bool(turned[rows, 1] < 0), bool(turned[columns, 1] < 0)))


@dataclass(frozen=True)
class SliceCount:
    """Number of slices of a case, and of those that contain the target."""

    case: str
    n_slices: int
    n_target: int


class VolumeAdapter(Adapter):
    """Base class of adapters for volumes.

    Args:
        root: folder of the data set.
        structure: ``tumour`` (labels above 1) or ``organ`` (labels above 0, including tumours).
        slices: ``target`` for slices that contain the structure, also in evaluation (as in the released code), or
            ``all``.
        slices_per_case: largest number of slices per case, evenly spread over the selected ones; None for all of them.
        window: intensities mapped to the ends of the range; None for percentiles of each volume (`PERCENTILES`).
        orientation: ``file`` for array order, ignoring headers; ``canonical`` for slices turned to RAS+ by the
            image's affine.
        faulty_cases: what to do about missing or damaged files: ``error``, or ``skip`` to leave the case out.
        axis: axis across which slices are taken; None for the data set's own, or for 2 (axial) in canonical order.
        dtype: stored type: ``uint8`` divides the window into 255 steps, ``int16`` into 32767.
        max_gib: limit of the memory for reading one file, in GiB; see `dmseg.data.nifti`.

    Raises:
        UserError: if an option is invalid.
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
        """One task, named after the structure."""
        title = self.title if self.structure == "tumour" else f"{self.title} organ"
        return {self.structure: Task(self.structure, title, self.name, ("expert",))}

    @abstractmethod
    def list_cases(self, task: str) -> list[CaseFiles]:
        """Lists all cases; `CaseFiles.files` is (image, label), either of which may be missing.

        Raises:
            UserError: if there are no cases, or one exists twice.
        """

    def is_target(self, labels: npt.NDArray[Any]) -> Mask:
        """Whether voxels belong to the structure."""
        hit: Mask = labels > (1 if self.structure == "tumour" else 0)
        return hit

    def read_case(self, task: str, files: CaseFiles) -> Case:
        """Opens one case and selects its slices, which are read lazily.

        Raises:
            UserError: if a file is damaged, the shapes differ, or the label has unexpected values.
        """
        image, label = (open_volume(path, self.max_gib) for path in files.files[:2])
        if image.shape != label.shape:
            raise UserError(
                f"{shown(label.path)} has shape {label.shape}, but its image has {image.shape}; download both files "
                "again"
            )
        if not np.allclose(image.affine, label.affine, rtol=0, atol=AFFINE_TOLERANCE, equal_nan=True):
            log.warning("case %s: the affines of image and label differ; the arrays are used as they are", files.case)
        orientation = self._orientation(image)
        counts = self._count(label, orientation.axis)
        kept = np.flatnonzero(counts) if self.kept == "target" else np.arange(len(counts))
        if self.per_case is not None and len(kept) > self.per_case:
            spread = (np.arange(self.per_case) + 0.5) * len(kept) / self.per_case
            kept = kept[spread.astype(np.intp)]
        if len(kept) == 0:
            window = np.zeros((image.n_channels, 2))
        elif self.window is None:
            window = image.percentiles(PERCENTILES)
        else:
            window = np.tile(self.window, (image.n_channels, 1))
        spacing = None if image.spacing is None else orientation.turn_spacing(image.spacing)
        contiguous = len(kept) > 0 and int(kept[-1] - kept[0]) == len(kept) - 1
        slices = self._slices(image, label, orientation, kept)
        return Case(files.case, (0,), window, slices, self.dtype, spacing, contiguous)

    def count_slices(self, files: CaseFiles) -> SliceCount:
        """Counts the slices of a case from its label alone.

        Raises:
            UserError: if the label is missing or damaged, or has unexpected values.
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
                f"{shown(volume.path)} has no valid orientation in its header; fix it, or set data.orientation=file"
            ) from None

    def _count(self, label: Volume, axis: int) -> npt.NDArray[np.int64]:
        """Number of target voxels of each slice; also checks all labels."""
        if label.n_channels > 1:
            raise UserError(f"{shown(label.path)} has {label.n_channels} channels; expected a single label volume")
        return label.count(axis, lambda values: self.is_target(self._whole(values, label.path)))

    def _whole(self, values: npt.NDArray[Any], path: Path) -> npt.NDArray[Any]:
        """Converts labels to whole numbers.

        Raises:
            UserError: if they are not whole numbers, or out of range.
        """
        whole = values if values.dtype.kind in "iu" else np.rint(values)
        is_near = whole is values or np.abs(values - whole).max() <= TOLERANCE
        if not is_near or whole.min() < 0 or whole.max() > self.largest_label:
            odd = (np.abs(values - whole) > TOLERANCE) | (whole < 0) | (whole > self.largest_label)
            found = one_value(values[odd][0])
            raise UserError(
                f"{shown(path)} has the label {found}; expected whole numbers from 0 to {self.largest_label}"
            )
        return whole

    def _slices(
        self, image: Volume, label: Volume, orientation: Orientation, kept: npt.NDArray[np.intp]
    ) -> Iterator[Slice]:
        indices = kept.tolist()
        if not indices:
            return
        pairs = zip(image.slices(orientation.axis, indices), label.stored(orientation.axis, indices), strict=True)
        for values, stored in pairs:
            labels = self._whole(label.values(stored), label.path)
            yield Slice(orientation.turn(values), orientation.turn(self.is_target(labels)))
