"""Reads NIfTI volumes as a stream, plane by plane, so that memory use does not grow with the file.

A ``.nii.gz`` has no random access: every pass decompresses it from the start (with igzip). Planes along the file's last
axis are read one at a time; slices along another axis, or of several channels, are gathered in as few passes as
`GATHERED_BYTES` allows. `dmseg.data.nifti` says which files are accepted, and the limits on what a header may declare.
"""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg.data.nifti import GIB, check_pixels, finish, open_stream, read_header, too_large
from dmseg.data.raw import readable
from dmseg.errors import UserError, shown

MAX_GIB = 2.0
"""Default limit of the memory for reading one file, in GiB."""
GATHERED_BYTES = 320 * 2**20
"""Largest part of a volume held in memory if its slices are not contiguous in the file."""
SAMPLED_VOXELS = 2**22
"""Largest number of voxels per channel used for percentiles."""
SAMPLE_BYTES = 16
"""Memory for percentiles, per voxel used."""
THREAD_BYTES = 2**17
"""Smallest plane that is worth reading in a thread."""
AHEAD = 2
"""Number of planes that are read ahead."""

Array = npt.NDArray[np.float32]
Raw = npt.NDArray[Any]


@dataclass(frozen=True)
class Volume:
    """A volume whose voxels have not been read yet.

    Attributes:
        path: the file.
        shape: extents of the three spatial axes, in the file's order.
        n_channels: number of channels, stored one after another in the file.
        dtype: type of the stored values.
        affine: (4, 4) from voxel to mm; NaN if the header has no usable one.
        offset: position of the first voxel in the (decompressed) file.
        scaling: slope and intercept to apply to stored values, or None.
        max_bytes: limit of the memory for reading.
        spacing: distance of voxels along the three axes, in mm; None if the header does not state it.
    """

    path: Path
    shape: tuple[int, int, int]
    n_channels: int
    dtype: np.dtype[Any]
    affine: npt.NDArray[np.float64]
    offset: int = 0
    scaling: tuple[float, float] | None = None
    max_bytes: int = int(MAX_GIB * GIB)
    spacing: tuple[float, float, float] | None = None

    @property
    def in_plane_spacing(self) -> tuple[float, float] | None:
        """Distance in mm along the first two axes with more than one voxel, as `read_nifti` returns them."""
        longer = [axis for axis, extent in enumerate(self.shape) if extent > 1]
        if self.spacing is None or len(longer) < 2:
            return None
        return self.spacing[longer[0]], self.spacing[longer[1]]

    def planes(self) -> Generator[Raw, None, None]:
        """Yields the stored values (X, Y) of each plane; the third axis varies faster than the channels.

        The file is read to its end, so that the checksum of a compressed file is verified.

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

    def slices(self, axis: int, indices: Sequence[int]) -> Iterator[Array | Raw]:
        """Yields slices across one of the file's axes with slope and intercept applied: `stored`, then `scaled`.

        Integers of at most 16 bits without scaling are yielded as they are, which is cheaper.
        """
        as_they_are = self.scaling is None and self.dtype.kind in "iu" and self.dtype.itemsize <= 2
        return self._views(axis, indices) if as_they_are else map(self.scaled, self._views(axis, indices))

    def stored(self, axis: int, indices: Sequence[int]) -> Iterator[Raw]:
        """Yields the stored values of slices across one of the file's axes.

        Args:
            axis: 0, 1 or 2.
            indices: positions of the slices, ascending.

        Yields:
            (C, H, W), the two other axes in the file's order.

        Raises:
            UserError: if the file is damaged.
        """
        # copies, so that keeping one slice does not keep the memory of all slices gathered with it
        return map(np.copy, self._views(axis, indices))

    def scaled(self, values: Raw, working: type[np.floating[Any]] = np.float32) -> Array:
        """Applies slope and intercept to stored values and converts them to float32.

        Args:
            values: the stored values.
            working: type used for the calculation; float64 if slope or intercept needs more digits than float32 has.

        Raises:
            UserError: if there are NaN or infinite values, in the file or after scaling.
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
                f"{shown(self.path)} contains {bad} NaN or infinite values{scaled}; fix the file or leave the case out"
            )
        return data

    def count(self, axis: int, hit: Callable[[Array | Raw], npt.NDArray[np.bool_]]) -> npt.NDArray[np.int64]:
        """Counts, in each slice across an axis, the voxels for which `hit` is true."""
        counts = np.zeros(self.shape[axis], dtype=np.int64)
        for index, plane in enumerate(self.planes()):
            found = hit(self.values(plane))
            if axis == 2:
                counts[index % self.shape[2]] += np.count_nonzero(found)
            else:
                counts += np.count_nonzero(found, axis=1 - axis)
        return counts

    def values(self, plane: Raw) -> Array | Raw:
        """A plane of labels: as stored if they are unscaled integers, which is cheaper than `scaled`."""
        return plane if self.scaling is None and plane.dtype.kind in "iu" else self.scaled(plane)

    def percentiles(self, levels: tuple[float, float]) -> npt.NDArray[np.float64]:
        """Percentiles of each channel; of every k-th voxel of the row-major planes if there are very many.

        Args:
            levels: the lower and the upper percentile, in per cent.

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
        """Yields slices as `stored` does, but as views of an array of many slices."""
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

        What is kept of a plane is contiguous in memory. Writing its rows directly to their slices would place them
        powers of two apart, where they evict each other from the cache.
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
        """Yields the part of each plane that belongs to some slices."""
        consecutive = len(indices) > 0 and indices[-1] - indices[0] == len(indices) - 1
        chosen = slice(indices[0], indices[-1] + 1) if consecutive else list(indices)  # a slice needs no copy
        wanted = set(indices)
        large = self.shape[0] * self.shape[1] * self.dtype.itemsize >= THREAD_BYTES
        # slices across the last axis leave too little to do meanwhile
        for number, plane in enumerate(_ahead(self.planes()) if large and axis < 2 else self.planes()):
            if axis < 2:
                yield plane[chosen] if axis == 0 else plane[:, chosen]
            elif number % self.shape[2] in wanted:
                yield plane


def open_volume(path: Path, max_gib: float = MAX_GIB) -> Volume:
    """Reads the header of a volume.

    Args:
        path: a single-file NIfTI-1 or NIfTI-2, compressed or not, of any name; axes beyond the third are
            channels.
        max_gib: limit of the memory for reading the file, in GiB.

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
        header.spacing,
    )


def read_nifti(path: Path, max_gib: float = MAX_GIB) -> Array:
    """Reads a whole NIfTI file in array order, without singleton axes; the orientation is ignored.

    Args:
        path: as for `open_volume`.
        max_gib: limit of the memory for reading the file, in GiB.

    Returns:
        float32 array of the file's own axes; axes beyond the third are merged.

    Raises:
        UserError: if the file is missing, damaged, too large or not NIfTI, or contains NaN or infinite values.
    """
    volume = open_volume(path, max_gib)
    width, height, depth = volume.shape
    check_pixels(path, math.prod(volume.shape) * volume.n_channels, volume.max_bytes, "an image")
    data = np.empty((volume.n_channels, depth, height, width), np.float32)
    for number, plane in enumerate(volume.planes()):
        data[divmod(number, depth)] = volume.scaled(plane, np.float64).T
    return np.squeeze(data.T)


def _ahead(planes: Generator[Raw, None, None]) -> Iterator[Raw]:
    """Yields the same planes, read `AHEAD` ahead by a thread; igzip lets other threads run while it works."""
    with closing(planes), ThreadPoolExecutor(1, "planes") as pool:
        coming = deque(pool.submit(next, planes, None) for _ in range(AHEAD))
        while (plane := coming.popleft().result()) is not None:
            coming.append(pool.submit(next, planes, None))
            yield plane
