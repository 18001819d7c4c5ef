"""NIfTI volumes read as a stream, plane by plane, so that memory does not grow with the file.

A ``.nii.gz`` cannot be entered in its middle: every pass inflates it from the start (with igzip). Planes along the
file's last axis come one at a time; slices along another axis, or of several channels, are gathered in as few passes as
`GATHERED_BYTES` allows. Files that are not a plain single NIfTI-1 or NIfTI-2 are read whole, by nibabel or SimpleITK.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import nibabel
import numpy as np
import numpy.typing as npt
from isal import igzip
from nibabel.spatialimages import HeaderDataError

from dmseg.data.readers import readable
from dmseg.errors import UserError

GATHERED_BYTES = 320 * 2**20
"""At most so much is held of a volume whose slices do not lie one after another in the file."""
SAMPLED_VOXELS = 2**22
"""At most so many voxels a channel are looked at for percentiles."""
DRAIN_BYTES = 2**20
MOST_INFLATED = 1032
"""A gzip file inflates to at most so many times its length."""

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
        whole: the stored values (X, Y, Z, C), of a file that cannot be streamed.
    """

    path: Path
    shape: tuple[int, int, int]
    n_channels: int
    dtype: np.dtype[Any]
    affine: npt.NDArray[np.float64]
    offset: int = 0
    scaling: tuple[float, float] | None = None
    whole: Raw | None = field(default=None, repr=False)

    def planes(self) -> Iterator[Raw]:
        """Yields the stored values (X, Y) of each plane, the third axis running faster than the channels.

        The file is read to its end, so that the checksum of a compressed one is checked.

        Raises:
            UserError: if the file is truncated or damaged.
        """
        if self.whole is not None:
            for channel in range(self.n_channels):
                yield from np.moveaxis(self.whole[..., channel], 2, 0)
            return
        n_bytes = self.shape[0] * self.shape[1] * self.dtype.itemsize
        with readable(self.path), _open(self.path) as file:
            file.seek(self.offset)
            for _ in range(self.shape[2] * self.n_channels):
                data = file.read(n_bytes)
                if len(data) < n_bytes:
                    raise EOFError("it ends before its last voxel")
                yield np.frombuffer(data, self.dtype).reshape(self.shape[:2], order="F")
            while file.read(DRAIN_BYTES):
                pass

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

    def scaled(self, values: Raw) -> Array:
        """Stored values as what they stand for, float32.

        Raises:
            UserError: if there are NaN or infinite ones.
        """
        data: Array = values.astype(np.float32)
        if self.scaling is not None:
            data = data * np.float32(self.scaling[0]) + np.float32(self.scaling[1])
        if values.dtype.kind == "f" and not np.isfinite(data).all():
            raise UserError(f"{self.path} holds NaN or infinite values; mend the file or leave the case out")
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
        sampled = [self.scaled(plane.ravel(order="F")[::step]) for plane in self.planes()]
        channels = np.concatenate(sampled).reshape(self.n_channels, -1)
        return np.percentile(channels, levels, axis=1).T.astype(np.float64)

    def _views(self, axis: int, indices: Sequence[int]) -> Iterator[Raw]:
        """Yields slices as `stored` does, as parts of an array of many of them."""
        if axis == 2 and self.n_channels == 1:
            yield from (plane[np.newaxis] for plane in self._kept(axis, indices))
            return
        extent = math.prod(self.shape) // self.shape[axis] * self.n_channels * self.dtype.itemsize
        step = max(1, GATHERED_BYTES // extent)
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


def open_volume(path: Path) -> Volume:
    """Reads the header of a volume.

    Whether the file is compressed is seen from its content, not its name.

    Args:
        path: NIfTI-1 or NIfTI-2, plain or compressed; 2-D to 4-D, further axes of length 1 are ignored.

    Raises:
        UserError: if the file is missing, damaged, or not a volume of real numbers.
    """
    with readable(path):
        with _open(path) as file:
            block = file.read(540)
        if block.startswith(b"version https://git-lfs"):
            raise UserError(f"{path} is a pointer of Git LFS, not the data; get the file itself")
        header = _header(block)
        volume = _read_whole(path) if header is None else _from_header(path, header)
    shape = (*volume.shape, volume.n_channels)
    if volume.dtype.kind not in "iuf" or min(shape) < 1:
        raise UserError(f"{path} holds {volume.dtype} values of shape {shape}; expected a volume of real numbers")
    return volume


def read_nifti(path: Path) -> Array:
    """Reads a NIfTI file whole, in array order, singleton axes dropped, orientation ignored.

    Args:
        path: NIfTI-1 or NIfTI-2, plain or compressed, whatever its name says.

    Returns:
        float32 array of the file's own axes; axes beyond the third are joined.

    Raises:
        UserError: if the file is missing, damaged, not NIfTI, or holds NaN or infinite values.
    """
    volume = open_volume(path)
    if volume.whole is not None:
        raise UserError(f"{path} is not a NIfTI file of one piece (.nii or .nii.gz); convert it")
    width, height, depth = volume.shape
    planes = np.stack(list(volume.planes()), axis=-1).reshape(width, height, volume.n_channels, depth)
    with np.errstate(over="ignore"):
        if volume.scaling is not None:
            planes = planes * np.float64(volume.scaling[0]) + np.float64(volume.scaling[1])
        data: Array = planes.astype(np.float32)
    if not np.isfinite(data).all():
        bad = int(np.count_nonzero(~np.isfinite(data)))
        raise UserError(f"{path} holds {bad} NaN or infinite values; mend the file or leave the case out")
    return np.squeeze(np.moveaxis(data, 2, 3))


def _open(path: Path) -> IO[bytes]:
    opened: IO[bytes] = igzip.open(path, "rb") if _is_compressed(path) else path.open("rb")
    return opened


def _is_compressed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _header(block: bytes) -> Any:  # noqa: ANN401
    """The header of a single-file NIfTI, None for anything else."""
    sizes = int.from_bytes(block[:4], "little"), int.from_bytes(block[:4], "big")
    for size, kind, magic in (
        (348, nibabel.Nifti1Header, (344, b"n+1")),
        (540, nibabel.Nifti2Header, (4, b"n+2")),
    ):
        if size in sizes and len(block) >= size and block[magic[0] : magic[0] + 3] == magic[1]:
            return kind(block[:size], check=False)
    return None


def _from_header(path: Path, header: Any) -> Volume:  # noqa: ANN401
    try:
        dtype = header.get_data_dtype()
    except KeyError as error:
        raise HeaderDataError(f"its header names an unknown data type, {error}") from None
    extents = [int(extent) for extent in header.get_data_shape()]
    # a damaged header may ask for more than any memory holds
    if math.prod(extents) * dtype.itemsize > path.stat().st_size * (MOST_INFLATED if _is_compressed(path) else 1):
        raise EOFError(f"it is too short for the {tuple(extents)} voxels of its header")
    shape, channels = (*extents, 1, 1, 1)[:3], math.prod(extents[3:])
    slope, intercept = header.get_slope_inter()
    scaling = None if slope is None or (slope, intercept) == (1.0, 0.0) else (float(slope), float(intercept or 0.0))
    smallest = int(header["sizeof_hdr"]) + 4
    return Volume(
        path,
        (shape[0], shape[1], shape[2]),
        channels,
        dtype,
        _affine(header),
        max(int(header["vox_offset"]), smallest),
        scaling,
    )


def _affine(header: Any) -> npt.NDArray[np.float64]:  # noqa: ANN401
    try:
        return np.asarray(header.get_best_affine(), dtype=np.float64)
    except (HeaderDataError, ValueError, np.linalg.LinAlgError):
        return np.full((4, 4), np.nan)


def _read_whole(path: Path) -> Volume:
    """Reads a file that is not a plain NIfTI: by nibabel (pairs, Analyze, ...), else by SimpleITK (NRRD, ...)."""
    try:
        image = nibabel.load(path)
        array, affine = np.asarray(image.dataobj), np.asarray(image.affine, dtype=np.float64)
    except nibabel.filebasedimages.ImageFileError as error:
        array, affine = _read_with_itk(path, error), np.full((4, 4), np.nan)
    array = array.reshape((*array.shape, 1, 1, 1)[: max(3, array.ndim)])
    shape = (array.shape[0], array.shape[1], array.shape[2])
    channels = math.prod(array.shape[3:])
    return Volume(path, shape, channels, array.dtype, affine, whole=array.reshape((*shape, channels), order="F"))


def _read_with_itk(path: Path, error: Exception) -> Raw:
    import SimpleITK

    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError:
        raise error from None
    array = SimpleITK.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    return np.asarray(array.T)
