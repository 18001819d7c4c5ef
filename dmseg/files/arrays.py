"""Files of named arrays: zips of ``.npy`` files without pickles or time stamps, read without trusting them."""

import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg.files.schema import SchemaError

LARGEST_HEADER = 1000

Array = npt.NDArray[Any]


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Writes arrays as a file that ``numpy.load`` reads. Equal arrays give equal bytes.

    Args:
        path: the file.
        arrays: by name.
    """
    path.write_bytes(pack_arrays(arrays))


def pack_arrays(arrays: Mapping[str, Array]) -> bytes:
    """Like `write_arrays`, but returns the content of the file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(values).reshape(values.shape), (1, 0), False)
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content.getvalue())
    return packed.getvalue()


def parse_arrays(content: bytes, file: str, dtypes: Mapping[str, tuple[str, ...]], largest: int) -> dict[str, Array]:
    """Parses the bytes of a file of arrays. Nothing is unpickled, and no more is inflated than entries declare.

    Args:
        content: the bytes.
        file: name of the file, for messages.
        dtypes: names of the required arrays, each with the prefixes of its allowed dtypes (``"<i8"``).
        largest: largest total size of the arrays in bytes.

    Raises:
        SchemaError: if it does not contain these arrays.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            names = [entry.filename.removesuffix(".npy") for entry in entries]
            if sorted(names) != sorted(dtypes):
                odd = sorted(set(names) ^ set(dtypes)) or names
                raise SchemaError(f"{file} does not have exactly the expected arrays: {odd[0]!r:.60}")
            if sum(entry.file_size for entry in entries) > largest:
                raise SchemaError(f"{file} has more than {largest / 2**20:g} MiB of arrays")
            return {
                name: _read_array(file, archive, entry, dtypes[name])
                for name, entry in zip(names, entries, strict=True)
            }
    except SchemaError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise SchemaError(f"{file} cannot be read ({error})") from None


def _read_array(file: str, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, dtypes: tuple[str, ...]) -> Array:
    """Reads an ``.npy`` entry, whose declared size and header must match its content."""
    if entry.compress_type not in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        raise SchemaError(f"{file}: {entry.filename!r:.60} is compressed by a method other than deflate")
    with archive.open(entry) as opened:
        content = opened.read(entry.file_size + 1)
    if len(content) != entry.file_size:
        raise SchemaError(f"{file}: {entry.filename!r:.60} does not have the size that it declares")
    name = entry.filename.removesuffix(".npy")
    version = np.lib.format.read_magic(io.BytesIO(content))
    if version != (1, 0):
        raise SchemaError(f"{file}: {name} has format {version}")
    start = 10 + int.from_bytes(content[8:10], "little")
    shape, fortran, dtype = _parsed_header(content[:start])
    whole = all(type(extent) is int and extent >= 0 for extent in shape)
    if fortran or not whole or not dtype.str.startswith(dtypes) or not dtype.itemsize:
        odd = f"{dtype.str!r:.20} {shape!r:.40}"
        raise SchemaError(f"{file}: {name} has the dtype or shape {odd}, which is not allowed")
    data = content[start:]
    if math.prod(shape) * dtype.itemsize != len(data):
        raise SchemaError(f"{file}: {name} has {len(data)} bytes, but the shape {shape!r:.60}")
    return np.frombuffer(data, dtype).reshape(shape)


@lru_cache(maxsize=1024)
def _parsed_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and dtype of an ``.npy`` file; cached, as many files have the same header and parsing it is slow.

    Raises:
        ValueError: if it is not such a header.
    """
    stream = io.BytesIO(header)
    np.lib.format.read_magic(stream)
    return np.lib.format.read_array_header_1_0(stream, max_header_size=LARGEST_HEADER)
