"""Single-file NIfTI: reads the header, checks it against the file, and opens the file as a stream.

Accepted are NIfTI-1 and NIfTI-2 (magic ``n+1`` and ``n+2``), uncompressed or gzip, of either byte order; the content
decides, not the name. Other formats are named and refused: a reader that guesses may fill in what is missing. The size
that a header declares is compared with the length of the file before any memory is allocated.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import nibabel
import numpy as np
import numpy.typing as npt
from isal import igzip
from nibabel.spatialimages import HeaderDataError

from dmseg.data.raw import open_file, readable
from dmseg.errors import UserError, shown

GIB = 2**30
BYTES_PER_PIXEL = 64
"""Memory for reading, per pixel of a slice: as stored, as float32, and for intermediate results."""
INFLATED_SHARE = 16
"""A file may decompress to this many times the memory limit for reading it."""
MOST_PLANES = 2**20
"""Largest number of planes over all axes beyond the second."""
MOST_INFLATED = 1032
"""A gzip file decompresses to at most this many times its length."""
PADDING = 2**20
"""Largest number of zeros that may follow the last voxel."""

_HEADERS = (
    (348, nibabel.Nifti1Header, slice(344, 348), (b"n+1\0",)),
    (540, nibabel.Nifti2Header, slice(4, 12), (b"n+2\0\r\n\032\n", b"n+2\0\0\0\0\0")),
)
"""Size, class, position of the magic and its values. A NIfTI-2 file copied as text has other line ends in it."""
_OTHER_FORMATS = (
    (0, b"version https://git-lfs", "a Git LFS pointer, not the data; get the file itself"),
    (0, b"/annex/objects/", "a git-annex pointer, not the data; get the file itself"),
    (0, b"../.git/annex/", "a git-annex pointer, not the data; get the file itself"),
    (344, b"ni1", "one half of a pair (.hdr, .img); convert it to .nii.gz"),
    (4, b"ni2", "one half of a pair (.hdr, .img); convert it to .nii.gz"),
    (0, b"NRRD", "an NRRD file; convert it to .nii.gz"),
    (0, b"ObjectType", "a MetaImage header; convert it to .nii.gz"),
    (0, b"NDims", "a MetaImage header; convert it to .nii.gz"),
    (128, b"DICM", "a DICOM file; convert the series to .nii.gz"),
    (0, b"\x89HDF", "an HDF5 file; convert it to .nii.gz"),
    (0, b"CDF", "a MINC file; convert it to .nii.gz"),
    (0, b"\x89PNG", "a PNG image; convert it to .nii.gz"),
    (0, b"\x93NUMPY", "a NumPy array; convert it to .nii.gz"),
    (0, b"PK\3\4", "a ZIP archive; unpack it"),
    (0, b"BZh", "compressed with bzip2; unpack it, or compress it with gzip"),
    (0, b"\xfd7zXZ", "compressed with xz; unpack it, or compress it with gzip"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it, or compress it with gzip"),
    (257, b"ustar", "a tar archive; unpack it"),
    (0, b"<", "a web page or XML, not the data; download it again"),
)

_MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Length of a spatial unit in mm by its code in a header: unknown, m, mm, micrometres."""

_UNKNOWN = "not a NIfTI file (.nii or .nii.gz), whatever its name; download it again, or convert it"


@dataclass(frozen=True)
class NiftiHeader:
    """The checked header of a NIfTI file.

    Attributes:
        extents: extents of all axes, each at least 1.
        dtype: type of the stored values, real numbers.
        offset: position of the first voxel in the (decompressed) file.
        scaling: slope and intercept to apply to stored values, or None.
        affine: (4, 4) from voxel to mm; NaN if the header has no usable one.
        spacing: distance of voxels along the three spatial axes, in mm; None if the header does not state it.
    """

    extents: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    scaling: tuple[float, float] | None
    affine: npt.NDArray[np.float64]
    spacing: tuple[float, float, float] | None = None

    @property
    def n_bytes(self) -> int:
        """Length of the (decompressed) file up to its last voxel."""
        return self.offset + math.prod(self.extents) * self.dtype.itemsize


def read_header(path: Path, max_bytes: int) -> NiftiHeader:
    """Reads and checks the header of a NIfTI file.

    Args:
        path: the file.
        max_bytes: limit of the memory for reading the file.

    Raises:
        UserError: if the file is missing, not a regular file, not NIfTI, damaged, shorter than its header says, not of
            real numbers, or too large.
    """
    with readable(path), open_stream(path) as file:
        block = file.read(_HEADERS[-1][0])
        if len(block) < _HEADERS[0][0] and _format(block) == _UNKNOWN:
            raise EOFError("it ends within its header" if block else "it is empty")
        orders = {"<": int.from_bytes(block[:4], "little"), ">": int.from_bytes(block[:4], "big")}
        for size, kind, place, magics in _HEADERS:
            order = next((order for order, found in orders.items() if found == size), None)
            if order is not None and len(block) >= size and block[place] in magics:
                header = _checked(path, kind(block[:size], endianness=order, check=False), size)
                break
        else:
            raise UserError(f"{shown(path)} is {_format(block)}")
        with open_file(path) as raw:
            length = raw.seek(0, 2)
            raw.seek(0)
            most = length * MOST_INFLATED if _is_packed(raw) else length
        if header.n_bytes > most:
            raise UserError(
                f"{shown(path)} cannot be read (it is too short for the {header.extents} voxels of its header); "
                "the file is damaged: download it again"
            )
    most = INFLATED_SHARE * max_bytes
    if header.n_bytes > most:
        raise too_large(path, f"{header.n_bytes / GIB:.3g} GiB of voxels", f"{most / GIB:.3g}")
    if math.prod(header.extents[2:]) > MOST_PLANES:
        raise UserError(
            f"{shown(path)} has the shape {header.extents}: more than {MOST_PLANES} planes; merge or remove some"
        )
    return header


@contextmanager
def open_stream(path: Path) -> Iterator[IO[bytes]]:
    """Opens a regular file for reading and decompresses it if its content is gzip.

    Raises:
        OSError: if it is missing or may not be read.
        UserError: if it is not a regular file.
    """
    with open_file(path) as raw:
        if not _is_packed(raw):
            yield raw
            return
        with igzip.open(raw, "rb") as inflated:
            yield inflated


def finish(path: Path, file: IO[bytes]) -> None:
    """Reads a stream from the last voxel to its end, so that the checksums of all gzip members are verified.

    Raises:
        UserError: if anything but a few zeros follows.
        OSError: if a checksum or length is wrong.
    """
    followed = 0
    while data := file.read(2**16):
        followed += len(data)
        if followed > PADDING or data.count(0) < len(data):
            raise UserError(
                f"{shown(path)} continues after the last voxel of its header; the file is damaged: download it again"
            )


def check_pixels(path: Path, n_pixels: int, max_bytes: int, what: str = "a slice") -> None:
    """Refuses images whose slices need more memory than allowed.

    Args:
        path: the file.
        n_pixels: pixels of a slice, over all channels.
        max_bytes: limit of the memory for reading the file.
        what: the message's word for what has these pixels.

    Raises:
        UserError: if there are more than ``max_bytes / BYTES_PER_PIXEL``.
    """
    if n_pixels * BYTES_PER_PIXEL > max_bytes:
        raise too_large(path, f"{what} of {n_pixels} pixels", f"{max_bytes // BYTES_PER_PIXEL}")


def too_large(path: Path, what: str, most: str) -> UserError:
    """The error for a file that needs too much memory or time; says how to allow it.

    Args:
        path: the file.
        what: what it has.
        most: the limit.
    """
    return UserError(
        f"{shown(path)} has {what}, but at most {most} are allowed; if the file is right, raise data.max_gib "
        "(memory for one file in GiB)"
    )


def _is_packed(file: IO[bytes]) -> bool:
    start = file.read(2)
    file.seek(0)
    return start == b"\x1f\x8b"


def _format(block: bytes) -> str:
    for position, magic, name in _OTHER_FORMATS:
        if block[position : position + len(magic)] == magic:
            return name
    analyze = len(block) >= 348 and 348 in (int.from_bytes(block[:4], "little"), int.from_bytes(block[:4], "big"))
    if analyze:
        return "a header without the NIfTI magic (Analyze, or damaged); download it again, or convert it to .nii.gz"
    return _UNKNOWN


def _checked(path: Path, header: Any, size: int) -> NiftiHeader:  # noqa: ANN401
    """Checks the fields of a header.

    Raises:
        UserError: if one of them is not usable.
    """
    n_axes = int(header["dim"][0])
    if not 1 <= n_axes <= 7:
        raise _cannot_be(path, f"has {n_axes} axes; a NIfTI file has 1 to 7")
    given = [int(extent) for extent in header["dim"][1 : n_axes + 1]]
    if min(given) < 1:
        raise _cannot_be(path, f"has the shape {tuple(given)}; every extent must be at least 1")
    try:
        dtype = np.dtype(header.get_data_dtype())
    except (KeyError, HeaderDataError, ValueError):
        raise _cannot_be(path, f"names an unknown data type, {int(header['datatype'])}") from None
    if dtype.kind not in "iuf":
        name = "complex" if dtype.kind == "c" else "colour" if dtype.names else "unsupported"
        code = int(header["datatype"])
        raise UserError(f"{shown(path)} has {name} values (data type {code}); expected a volume of real numbers")
    offset = float(header["vox_offset"])
    if not (math.isfinite(offset) and offset >= size + 4):  # readers disagree on what a smaller one means
        raise _cannot_be(path, f"places its first voxel at byte {offset:g} (vox_offset), not after the header")
    extents = tuple(int(extent) for extent in header.get_data_shape())
    affine = np.full((4, 4), np.nan)
    if header["qform_code"] > 0 or header["sform_code"] > 0:  # otherwise it says nothing about left and right
        with suppress(HeaderDataError, ValueError, np.linalg.LinAlgError):
            affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    scaling = None  # for a slope of 0 too, or NaN as nibabel writes it
    if slope != 0 and not math.isnan(slope) and (slope, intercept) != (1.0, 0.0):
        if not (math.isfinite(slope) and math.isfinite(intercept)):
            raise _cannot_be(path, f"scales its values by {slope:g} and {intercept:g} (scl_slope, scl_inter)")
        scaling = slope, intercept
    return NiftiHeader(extents, dtype, int(header["vox_offset"]), scaling, affine, _spacing(header))


def _spacing(header: Any) -> tuple[float, float, float] | None:  # noqa: ANN401
    """Distance of voxels in mm (``pixdim``), or None if the header does not state a usable one.

    Without a unit, numbers are taken as mm, except 1 along all axes: programs write that if they know no spacing.
    """
    unit = int(header["xyzt_units"]) & 7
    if unit not in _MILLIMETRES:
        return None
    # the shortest decimal number that gives this float32: 0.7, not 0.699999988
    sizes = [abs(float(str(size))) for size in header["pixdim"][1:4]]
    if not all(0 < size < 1e3 for size in sizes) or (unit == 0 and set(sizes) == {1.0}):
        return None
    first, second, third = (size * _MILLIMETRES[unit] for size in sizes)
    return first, second, third


def _cannot_be(path: Path, what: str) -> UserError:
    return UserError(f"{shown(path)} cannot be read: its header {what}; the file is damaged: download it again")
