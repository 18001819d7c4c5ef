"""NIfTI volumes read as a stream, plane by plane, so that memory does not grow with the file.

A ``.nii.gz`` cannot be entered in its middle: every pass inflates it from the start (with igzip). Planes along the
file's last axis come one at a time; slices along another axis, or of several channels, are gathered in as few passes as
`GATHERED_BYTES` allows. What is accepted, and what a header may ask for: `dmseg.data.nifti`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg.data.nifti import GIB, check_pixels, finish, open_stream, read_header, too_large
from dmseg.data.raw import readable
from dmseg.errors import UserError, shown

MAX_GIB = 2.0
"""Memory that reading one file may take, in GiB, unless the user allows more."""
GATHERED_BYTES = 320 * 2**20
"""At most so much is held of a volume whose slices do not lie one after another in the file."""
SAMPLED_VOXELS = 2**22
"""At most so many voxels a channel are looked at for percentiles."""
SAMPLE_BYTES = 16
"""Memory that percentiles take for each voxel that they look at."""

Array = npt.NDArray[np.float32]
Raw = npt.NDArray[Any]


@dataclass(frozen=True)
class Volume:
    """A volume that is not read yet.

    Attributes:
        path: the file.
        shape: extents of the three spatial axes, in the file's order.
        n_channels: number of channels, which follow one another in the file.
        dtype: type of the stored values.
        affine: (4, 4) from voxel to mm, NaN where the header has none that can be used.
        offset: position of the first voxel in the (inflated) file.
        scaling: slope and intercept that stored values are to be transformed with, or None.
        max_bytes: memory that reading may take.
    """

    path: Path
    shape: tuple[int, int, int]
    n_channels: int
    dtype: np.dtype[Any]
    affine: npt.NDArray[np.float64]
    offset: int = 0
    scaling: tuple[float, float] | None = None
    max_bytes: int = int(MAX_GIB * GIB)

    def planes(self) -> Iterator[Raw]:
        """Yields the stored values (X, Y) of each plane, the third axis running faster than the channels.

        The file is read to its end, so that the checksum of a compressed one is checked.

        Raises:
            UserError: if the file is truncated or damaged.
        """
        n_bytes = self.shape[0] * self.shape[1] * self.dtype.itemsize
        with readable(self.path), open_stream(self.path) as file:
            file.seek(self.offset)
            for _ in range(self.shape[2] * self.n_channels):
                data = file.read(n_bytes)
                if len(data) < n_bytes:
                    raise EOFError("it ends before its last voxel")
                yield np.frombuffer(data, self.dtype).reshape(self.shape[:2], order="F")
            finish(self.path, file)

    def slices(self, axis: int, indices: Sequence[int]) -> Iterator[Array]:
        """Yields slices across one of the file's axes, as what the stored values stand for: `stored`, `scaled`."""
        return map(self.scaled, self._views(axis, indices))

    def stored(self, axis: int, indices: Sequence[int]) -> Iterator[Raw]:
        """Yields the stored values of slices across one of the file's axes.

        Args:
            axis: 0, 1 or 2.
            indices: which slices, rising.

        Yields:
            (C, H, W), the two other axes in the file's order.

        Raises:
            UserError: if the file is damaged.
        """
        # copies: whoever keeps one slice must not keep all of them while the next ones are gathered
        return map(np.copy, self._views(axis, indices))

    def scaled(self, values: Raw, working: type[np.floating[Any]] = np.float32) -> Array:
        """Stored values as what they stand for, float32.

        Args:
            values: the stored values.
            working: type that slope and intercept are applied in; float64 where either has more digits than float32.

        Raises:
            UserError: if there are NaN or infinite ones, be it in the file, by its scaling, or in float32.
        """
        if self.scaling is None and values.dtype.kind != "f":
            return values.astype(np.float32)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            if self.scaling is None:
                data: Array = values.astype(np.float32)
            else:
                exact = all(float(np.float32(number)) == number for number in self.scaling)
                slope, intercept = map(working if exact else np.float64, self.scaling)
                data = (values.astype(slope.dtype) * slope + intercept).astype(np.float32, copy=False)
        finite = np.isfinite(data)
        if not finite.all():
            bad = finite.size - int(np.count_nonzero(finite))
            scaled = "" if self.scaling is None else ", scaled by {:g} and {:g}".format(*self.scaling)
            raise UserError(
                f"{shown(self.path)} holds {bad} NaN or infinite values{scaled}; fix the file or leave the case out"
            )
        return data

    def count(self, axis: int, hit: Callable[[Array | Raw], npt.NDArray[np.bool_]]) -> npt.NDArray[np.int64]:
        """Counts the voxels of each slice across an axis for which `hit` says so."""
        counts = np.zeros(self.shape[axis], dtype=np.int64)
        for index, plane in enumerate(self.planes()):
            found = hit(self.values(plane))
            if axis == 2:
                counts[index % self.shape[2]] += np.count_nonzero(found)
            else:
                counts += np.count_nonzero(found, axis=1 - axis)
        return counts

    def values(self, plane: Raw) -> Array | Raw:
        """A plane of labels: as stored where they are whole numbers, which is cheaper than `scaled`."""
        return plane if self.scaling is None and plane.dtype.kind in "iu" else self.scaled(plane)

    def percentiles(self, levels: tuple[float, float]) -> npt.NDArray[np.float64]:
        """Percentiles of each channel, of every k-th voxel of a row-major plane where there are very many.

        Args:
            levels: per cent, the lower and the upper one.

        Returns:
            (C, 2).
        """
        step = math.ceil(math.prod(self.shape) / SAMPLED_VOXELS)
        n_samples = self.n_channels * self.shape[2] * math.ceil(self.shape[0] * self.shape[1] / step)
        if n_samples * SAMPLE_BYTES > self.max_bytes:
            what = f"{self.n_channels} channels, {n_samples} voxels for percentiles"
            raise too_large(self.path, what, f"{self.max_bytes // SAMPLE_BYTES}")
        sampled = [self.scaled(plane.ravel(order="F")[::step]) for plane in self.planes()]
        channels = np.concatenate(sampled).reshape(self.n_channels, -1)
        return np.percentile(channels, levels, axis=1).T.astype(np.float64)

    def _views(self, axis: int, indices: Sequence[int]) -> Iterator[Raw]:
        """Yields slices as `stored` does, as parts of an array of many of them."""
        if axis == 2 and self.n_channels == 1:
            yield from (plane[np.newaxis] for plane in self._kept(axis, indices))
            return
        n_pixels = math.prod(self.shape) // self.shape[axis] * self.n_channels
        check_pixels(self.path, n_pixels, self.max_bytes, f"slices across axis {axis}")
        step = max(1, min(GATHERED_BYTES, self.max_bytes // 6) // (n_pixels * self.dtype.itemsize))
        for start in range(0, len(indices), step):
            yield from self._gather(axis, indices[start : start + step])

    def _gather(self, axis: int, indices: Sequence[int]) -> Raw:
        """Stored values of some slices, (n, C, H, W).

        All that is kept of a plane lies together in memory. If its rows went to their slices at once, they would lie
        powers of two apart and push each other out of the cache.
        """
        width, height, depth = (len(indices) if place == axis else size for place, size in enumerate(self.shape))
        if axis == 0:
            gathered = np.empty((self.n_channels, depth, width, height), self.dtype)
        else:
            gathered = np.empty((self.n_channels, depth, height, width), self.dtype).swapaxes(2, 3)
        for place, part in enumerate(self._kept(axis, indices)):
            gathered[divmod(place, depth)] = part
        return np.moveaxis(np.moveaxis(gathered, 1, 3), axis + 1, 0)

    def _kept(self, axis: int, indices: Sequence[int]) -> Iterator[Raw]:
        """Yields what some slices hold of each plane that they meet."""
        chosen, wanted = _selection(indices), set(indices)
        for number, plane in enumerate(self.planes()):
            if axis < 2:
                yield plane[chosen] if axis == 0 else plane[:, chosen]
            elif number % self.shape[2] in wanted:
                yield plane


def _selection(indices: Sequence[int]) -> slice | list[int]:
    """Rising indices into an array; a slice, which needs no copy, where they have no gap."""
    if len(indices) > 0 and indices[-1] - indices[0] == len(indices) - 1:
        return slice(indices[0], indices[-1] + 1)
    return list(indices)


def open_volume(path: Path, max_gib: float = MAX_GIB) -> Volume:
    """Reads the header of a volume.

    Args:
        path: NIfTI-1 or NIfTI-2 of one piece, plain or compressed, whatever its name says; the axes beyond the third
            are channels.
        max_gib: memory that reading the file may take, in GiB.

    Raises:
        UserError: if the file is missing, damaged, too large, or not a volume of real numbers.
    """
    max_bytes = int(max_gib * GIB)
    header = read_header(path, max_bytes)
    width, height, depth = (*header.extents, 1, 1, 1)[:3]
    check_pixels(path, width * height, max_bytes, "planes")
    return Volume(
        path,
        (width, height, depth),
        math.prod(header.extents[3:]),
        header.dtype,
        header.affine,
        header.offset,
        header.scaling,
        max_bytes,
    )


def read_nifti(path: Path, max_gib: float = MAX_GIB) -> Array:
    """Reads a NIfTI file whole, in array order, singleton axes dropped, orientation ignored.

    Args:
        path: as for `open_volume`.
        max_gib: memory that reading the file may take, in GiB.

    Returns:
        float32 array of the file's own axes; axes beyond the third are joined.

    Raises:
        UserError: if the file is missing, damaged, too large, not NIfTI, or holds NaN or infinite values.
    """
    volume = open_volume(path, max_gib)
    width, height, depth = volume.shape
    check_pixels(path, math.prod(volume.shape) * volume.n_channels, volume.max_bytes, "an image")
    data = np.empty((volume.n_channels, depth, height, width), np.float32)
    for number, plane in enumerate(volume.planes()):
        data[divmod(number, depth)] = volume.scaled(plane, np.float64).T
    return np.squeeze(data.T)
