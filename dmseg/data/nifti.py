"""NIfTI files of one piece: the header, checked against the file, and its bytes as a stream.

Accepted: NIfTI-1 and NIfTI-2 (magic ``n+1`` and ``n+2``), plain or compressed with gzip, either byte order; the content
decides, not the name. Anything else is refused by name: a reader that guesses may fill in what is missing. Whatever a
header asks for is compared with the length of the file before anything is allocated.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
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
"""Memory that reading takes for each pixel of a slice: as stored, as float32, and what is computed on the way."""
INFLATED_SHARE = 16
"""A file may inflate to so many times the memory that reading it may take."""
MOST_PLANES = 2**20
MOST_INFLATED = 1032
"""A gzip file inflates to at most so many times its length."""
PADDING = 2**20
"""So many zeros may follow the last voxel."""

_HEADERS = (
    (348, nibabel.Nifti1Header, slice(344, 348), (b"n+1\0",)),
    (540, nibabel.Nifti2Header, slice(4, 12), (b"n+2\0\r\n\032\n", b"n+2\0\0\0\0\0")),
)
"""Size, class, place of the magic and what it may be. A NIfTI-2 file copied as text has other line ends in it."""
_OTHER_FORMATS = (
    (0, b"version https://git-lfs", "a pointer of Git LFS, not the data; get the file itself"),
    (0, b"/annex/objects/", "a pointer of git-annex, not the data; get the file itself"),
    (0, b"../.git/annex/", "a pointer of git-annex, not the data; get the file itself"),
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
    (0, b"<", "a web page or XML, not the data; get it again"),
)

_UNKNOWN = "not a NIfTI file (.nii or .nii.gz), whatever its name says; get it again, or convert it"


@dataclass(frozen=True)
class NiftiHeader:
    """What the header of a NIfTI file says, checked.

    Attributes:
        extents: all extents, at least one, each at least 1.
        dtype: type of the stored values, real numbers.
        offset: position of the first voxel in the (inflated) file.
        scaling: slope and intercept that stored values are to be transformed with, or None.
        affine: (4, 4) from voxel to mm, NaN where the header has none that can be used.
    """

    extents: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    scaling: tuple[float, float] | None
    affine: npt.NDArray[np.float64]

    @property
    def n_bytes(self) -> int:
        """Length of the (inflated) file up to its last voxel."""
        return self.offset + math.prod(self.extents) * self.dtype.itemsize


def read_header(path: Path, max_bytes: int) -> NiftiHeader:
    """Reads and checks the header of a NIfTI file.

    Args:
        path: the file.
        max_bytes: memory that reading the file may take.

    Raises:
        UserError: if the file is missing, no regular file, no NIfTI, damaged, shorter than its header says, does not
            hold real numbers, or is too large.
    """
    with readable(path), open_stream(path) as file:
        block = file.read(_HEADERS[-1][0])
        if len(block) < _HEADERS[0][0] and _format(block) == _UNKNOWN:
            raise EOFError("it ends within its header" if block else "it is empty")
        parsed = _parse(block)
        if parsed is None:
            raise UserError(f"{shown(path)} is {_format(block)}")
        header = _checked(path, *parsed)
        _check_length(path, header, max_bytes)
    return header


@contextmanager
def open_stream(path: Path) -> Iterator[IO[bytes]]:
    """Opens a regular file for reading, inflated where its content is compressed.

    Raises:
        OSError: if it is missing or may not be read.
        UserError: if there is something else of that name.
    """
    with open_file(path) as raw:
        packed = _is_packed(raw)
        if not packed:
            yield raw
            return
        with igzip.open(raw, "rb") as inflated:
            yield inflated


def finish(path: Path, file: IO[bytes]) -> None:
    """Reads a stream after its last voxel to its end, so that checksums and lengths of all gzip members are compared.

    Raises:
        UserError: if something else than a few zeros follows.
        OSError: if a checksum or length is wrong.
    """
    followed = 0
    while data := file.read(2**16):
        followed += len(data)
        if followed > PADDING or data.count(0) < len(data):
            raise UserError(
                f"{shown(path)} goes on after the last voxel of its header; the file is damaged: get it again"
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
        return "a header without NIfTI's magic (Analyze, or damaged); get it again, or convert it to .nii.gz"
    return _UNKNOWN


def _parse(block: bytes) -> tuple[Any, int] | None:
    """Header and its size; None if it is no NIfTI file of one piece. The header's size tells the byte order."""
    sizes = {"<": int.from_bytes(block[:4], "little"), ">": int.from_bytes(block[:4], "big")}
    for size, kind, place, magics in _HEADERS:
        order = next((order for order, found in sizes.items() if found == size), None)
        if order is not None and len(block) >= size and block[place] in magics:
            return kind(block[:size], endianness=order, check=False), size
    return None


def _checked(path: Path, header: Any, size: int) -> NiftiHeader:  # noqa: ANN401
    """The header's fields.

    Raises:
        UserError: if they cannot be used.
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
        raise UserError(f"{shown(path)} holds {name} values (data type {code}); expected a volume of real numbers")
    offset = float(header["vox_offset"])
    if not (math.isfinite(offset) and offset >= size + 4):  # readers disagree on what a smaller one means
        raise _cannot_be(path, f"places its first voxel at byte {offset:g} (vox_offset), not behind the header")
    extents = tuple(int(extent) for extent in header.get_data_shape())
    return NiftiHeader(extents, dtype, int(header["vox_offset"]), _scaling(path, header), _affine(header))


def _scaling(path: Path, header: Any) -> tuple[float, float] | None:  # noqa: ANN401
    """Slope and intercept; None where there is none: a slope of 0, or NaN as nibabel writes it."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope) or (slope, intercept) == (1.0, 0.0):
        return None
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise _cannot_be(path, f"scales its values by {slope:g} and {intercept:g} (scl_slope, scl_inter)")
    return slope, intercept


def _check_length(path: Path, header: NiftiHeader, max_bytes: int) -> None:
    """Compares what a header asks for with the file's length and with what may be read."""
    with open_file(path) as file:
        length = file.seek(0, 2)
        file.seek(0)
        most = length * MOST_INFLATED if _is_packed(file) else length
    if header.n_bytes > most:
        raise UserError(
            f"{shown(path)} cannot be read (it is too short for the {header.extents} voxels of its header); "
            "the file is damaged: get it again"
        )
    if header.n_bytes > INFLATED_SHARE * max_bytes:
        raise too_large(path, f"{header.n_bytes / GIB:.3g} GiB of voxels", f"{INFLATED_SHARE * max_bytes / GIB:.3g}")
    if math.prod(header.extents[2:]) > MOST_PLANES:
        raise UserError(
            f"{shown(path)} has the shape {header.extents}: more than {MOST_PLANES} planes; join or leave out some"
        )


def check_pixels(path: Path, n_pixels: int, max_bytes: int, what: str = "a slice") -> None:
    """Refuses images of which one slice would take more memory than a file may.

    Args:
        path: the file.
        n_pixels: pixels of a slice, of all channels.
        max_bytes: memory that reading the file may take.
        what: has these pixels.

    Raises:
        UserError: if there are more than ``max_bytes / BYTES_PER_PIXEL``.
    """
    if n_pixels * BYTES_PER_PIXEL > max_bytes:
        raise too_large(path, f"{what} of {n_pixels} pixels", f"{max_bytes // BYTES_PER_PIXEL}")


def too_large(path: Path, what: str, most: str) -> UserError:
    """What is said of a file that would take too much memory or time, and how to allow it.

    Args:
        path: the file.
        what: it has.
        most: how much is read at most.
    """
    return UserError(
        f"{shown(path)} has {what}, but at most {most} are read; if the file is right, raise data.max_gib "
        "(memory for one file in GiB)"
    )


def _cannot_be(path: Path, what: str) -> UserError:
    return UserError(f"{shown(path)} cannot be read: its header {what}; the file is damaged: get it again")


def _affine(header: Any) -> npt.NDArray[np.float64]:  # noqa: ANN401
    try:
        return np.asarray(header.get_best_affine(), dtype=np.float64)
    except (HeaderDataError, ValueError, np.linalg.LinAlgError):
        return np.full((4, 4), np.nan)
