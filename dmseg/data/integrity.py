"""The seal of a prepared store: what its files were when they were written, and whether they still are.

``seal.json`` holds the SHA-256 of ``manifest.json``, length and CRC-32 of both arrays, and a checksum of itself.
`read_store` compares them before a store is used. Arrays are read once for each process: files whose inode, length and
times are those of then are not read again. Nothing is remembered on the disk, so that a store may be read-only, and
bytes that change without the file's times (a failing disk, a copy) are found by the next process.

A store without a seal, written before there were any, counts as whole if its arrays give the digest of its manifest;
`seal_store` then adds the seal.
"""

import hashlib
import io
import json
import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from dmseg.data.manifest import check_manifest
from dmseg.data.sealed_json import MAX_BYTES, parse_json, parse_sealed, sealed_text
from dmseg.errors import DamagedStoreError, UserError
from dmseg.files.atomic import write_whole
from dmseg.files.regular import open_regular, read_regular

SEAL, MANIFEST, IMAGES, ANNOTATIONS = "seal.json", "manifest.json", "images.npy", "annotations.npy"
DTYPES = tuple(map(np.dtype, ("uint8", "int16")))
"""What images are stored as; annotations are uint8."""
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([|<>][ui][12])', 'fortran_order': False, "
    rb"'shape': \((\d{1,12}), (\d{1,6}), (\d{1,6}), (\d{1,6})\), \} *\n",
    re.DOTALL,
)
BLOCK = 1 << 20
"""Bytes that are read at a time."""
SETTLED_SECONDS = 2.0
"""Files that changed less than so long ago are compared again: a second change could have the same time."""

_same: set[tuple[object, ...]] = set()
"""Arrays that this process found as they should be: their `_stamp`, and what they were compared with."""

Seal = dict[str, Any]


class ContentDigest:
    """SHA-256 of the images and masks of each slice and of each case's row; it is part of the ids of runs."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, images: npt.NDArray[Any], masks: npt.NDArray[np.uint8]) -> None:
        """Adds slices: (n, C, S, S) and, of the case's raters only, (n, r, S, S); contiguous."""
        for one_image, one_masks in zip(images, masks, strict=True):
            self._hash.update(one_image.data)
            self._hash.update(one_masks.data)

    def end_case(self, row: dict[str, Any]) -> None:
        """Ends a case; `row` is what the manifest says of it."""
        self._hash.update(json.dumps(row, sort_keys=True).encode())

    def hexdigest(self) -> str:
        """The digest of what was added."""
        return self._hash.hexdigest()


class ArrayFile:
    """A ``.npy`` file whose values are written one after another, as a context.

    Args:
        path: the file.
        shape: of the whole array.
        dtype: of its values.

    Attributes:
        row: the file's row of the seal, of what was written so far.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str) -> None:
        self.row: dict[str, Any] = {}
        self._file, self._size, self._crc = path.open("wb"), 0, 0
        header = io.BytesIO()
        layout = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, layout)
        self.write(header.getbuffer())

    def write(self, content: memoryview) -> None:
        """Appends contiguous bytes or values."""
        self._file.write(content)
        self._crc, self._size = isal_zlib.crc32(content, self._crc), self._size + content.nbytes
        self.row = {"size": self._size, "crc32": f"{self._crc:08x}"}

    def __enter__(self) -> "ArrayFile":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def write_seal(folder: Path, arrays: dict[str, dict[str, Any]], manifest: bytes) -> None:
    """Seals a store that has been written.

    Args:
        folder: the store.
        arrays: the rows of both arrays (`ArrayFile.row`).
        manifest: content of its manifest.

    Raises:
        OSError: if it cannot be written.
    """
    body = {MANIFEST: {"size": len(manifest), "sha256": hashlib.sha256(manifest).hexdigest()}, **arrays}
    write_whole(folder / SEAL, sealed_text(body))


def read_store(folder: Path, thorough: bool = False) -> dict[str, Any]:
    """Reads the manifest of a store after comparing all its files with its seal.

    Args:
        folder: the store.
        thorough: whether arrays are read even if this process has read them, and also compared with the SHA-256 of
            slices and cases that the manifest holds.

    Raises:
        DamagedStoreError: if a file is missing, no regular file, or not as it was written.
        UserError: if there is no store.
    """
    if not any(os.path.lexists(folder / name) for name in (MANIFEST, SEAL, IMAGES, ANNOTATIONS)):
        raise UserError(f"{folder} is not prepared; run 'dmseg prepare' with the same data settings")
    seal = _read_seal(folder)
    with _naming(folder / MANIFEST):
        content = read_regular(folder / MANIFEST, MAX_BYTES)
        known = hashlib.sha256(content).hexdigest()
        if seal is not None and seal[MANIFEST] != {"size": len(content), "sha256": known}:
            raise ValueError("its checksum does not match")
        manifest = check_manifest(parse_json(content))
    _check_shapes(folder, manifest)
    if seal is not None:
        for name in (IMAGES, ANNOTATIONS):
            _compare(folder / name, seal[name], thorough)
    if seal is None or thorough:
        _compare_content(folder, manifest, known, thorough)
    return manifest


def is_sealed(folder: Path) -> bool:
    """Whether a store has a seal, right or not."""
    return os.path.lexists(folder / SEAL)


def seal_store(folder: Path) -> None:
    """Seals a store that has no seal, if it is whole (`read_store`) and its folder can be written to.

    Raises:
        UserError: as `read_store` does.
    """
    if is_sealed(folder):
        return
    read_store(folder)
    arrays = {}
    for name in (IMAGES, ANNOTATIONS):
        with _naming(folder / name), open_regular(folder / name) as file:
            arrays[name] = _describe(file, name)
    with suppress(OSError):
        write_seal(folder, arrays, read_regular(folder / MANIFEST, MAX_BYTES))


def file_crc(file: BinaryIO) -> int:
    """CRC-32 of the rest of a file."""
    crc = 0
    for block in _blocks(file):
        crc = isal_zlib.crc32(block, crc)
    return crc


def _blocks(file: BinaryIO) -> Iterator[memoryview]:
    """The rest of a file; each block is overwritten by the next."""
    block = memoryview(bytearray(BLOCK))
    while n := file.readinto(block):  # type: ignore[attr-defined]
        yield block[:n]


def _read_seal(folder: Path) -> Seal | None:
    if not is_sealed(folder):
        return None
    with _naming(folder / SEAL):
        seal = parse_sealed(read_regular(folder / SEAL, 1 << 16))
        if seal.keys() != {MANIFEST, IMAGES, ANNOTATIONS} or not all(isinstance(row, dict) for row in seal.values()):
            raise ValueError("it does not name the three files of a store")
        return seal


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Names the file in what is wrong with it."""
    try:
        yield
    except FileNotFoundError:
        raise DamagedStoreError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        raise DamagedStoreError(f"{path} is damaged ({str(why)[:200]})") from None


def _check_shapes(folder: Path, manifest: dict[str, Any]) -> None:
    """Compares the arrays' headers and lengths with the manifest."""
    count, edge = sum(row["n_slices"] for row in manifest["cases"]), manifest["size"]
    for name, dtypes in ((IMAGES, DTYPES), (ANNOTATIONS, DTYPES[:1])):
        with _naming(folder / name), open_regular(folder / name) as file:
            shape, dtype = _read_header(file)
            known = (count, shape[1] if name == IMAGES else len(manifest["task"]["raters"]), edge, edge)
            if shape != known or dtype not in dtypes or shape[1] < 1:
                raise ValueError(f"it holds {dtype} of shape {shape}; the manifest says {known}")
            expected = file.tell() + math.prod(shape) * dtype.itemsize
            if (size := os.fstat(file.fileno()).st_size) != expected:
                raise ValueError(f"it has {size} bytes instead of {expected}")


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array as `ArrayFile` writes them; the file is left at its first value."""
    start = file.read(10)
    found = _HEADER.fullmatch(start + file.read(int.from_bytes(start[8:], "little")))
    if found is None:
        raise ValueError("its header is not that of a prepared array")
    return tuple(map(int, found.groups()[1:])), np.dtype(found[1].decode())


def _compare(path: Path, row: dict[str, Any], again: bool) -> None:
    """Compares an array with its row of the seal, unless that was done."""
    with _naming(path), open_regular(path) as file:
        key = (*_stamp(file), json.dumps(row))
        if key in _same and not again:
            return
        if _describe(file, path.name) != row:
            raise ValueError("its checksum does not match")
        _remember(key, file)


def _describe(file: BinaryIO, name: str) -> dict[str, Any]:
    """The row that an array has in the seal.

    Raises:
        ValueError: if it holds values that no store has.
    """
    _, dtype = _read_header(file)
    size = file.tell()
    file.seek(0)
    crc = isal_zlib.crc32(file.read(size))
    for block in _blocks(file):
        crc, size = isal_zlib.crc32(block, crc), size + len(block)
        values = np.frombuffer(block[: len(block) // dtype.itemsize * dtype.itemsize], dtype)
        if name == ANNOTATIONS and values.max() > 1:
            raise ValueError(f"it holds the value {values.max()}; annotations are 0 or 1")
        if dtype.kind == "i" and values.min() < 0:
            raise ValueError(f"it holds the value {values.min()}; images have none below 0")
    return {"size": size, "crc32": f"{crc:08x}"}


def _compare_content(folder: Path, manifest: dict[str, Any], known: str, again: bool) -> None:
    """Compares the arrays with the manifest's digest, unless that was done; `known` is the manifest's checksum.

    Raises:
        DamagedStoreError: if they do not give it, or a rater who is absent from a case has marked something.
    """
    with ExitStack() as stack:
        files = {name: stack.enter_context(open_regular(folder / name)) for name in (IMAGES, ANNOTATIONS)}
        key = (*map(_stamp, files.values()), known)
        if key in _same and not again:
            return
        for name, file in files.items():
            with _naming(folder / name):
                _describe(file, name)
        with _naming(folder / ANNOTATIONS):
            digest = _content_digest(folder, manifest["cases"])
        if digest != manifest["digest"]:
            said = f"{IMAGES} and {ANNOTATIONS} do not give the digest in {MANIFEST}"
            raise DamagedStoreError(f"{folder} is damaged ({said})")
        _remember(key, *files.values())


def _content_digest(folder: Path, rows: list[dict[str, Any]]) -> str:
    """The digest of arrays whose headers have been checked.

    Raises:
        ValueError: if a rater who is absent from a case has marks.
    """
    images, masks = (np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in (IMAGES, ANNOTATIONS))
    digest, everybody = ContentDigest(), list(range(masks.shape[1]))
    for row in rows:
        absent = sorted(set(everybody) - set(row["raters"]))
        for index in range(row["first"], row["first"] + row["n_slices"]):
            if absent and masks[index, absent].any():
                raise ValueError(f"raters who are absent from case {row['case']} have marks")
            chosen = masks[index] if row["raters"] == everybody else masks[index, row["raters"]]
            digest.add(images[index][None], chosen[None])
        digest.end_case(row)
    return digest.hexdigest()


def _stamp(file: BinaryIO) -> tuple[int, ...]:
    """What changes when somebody writes to a file; the last of them cannot be set back."""
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _remember(key: tuple[object, ...], *files: BinaryIO) -> None:
    if all(time.time() - os.fstat(file.fileno()).st_ctime > SETTLED_SECONDS for file in files):
        _same.add(key)
