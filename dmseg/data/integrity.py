"""The seal of a prepared store: checksums that tell whether its files are still as they were written.

``seal.json`` contains the SHA-256 of ``manifest.json``, the length and CRC-32 of both arrays, and a checksum of itself.
`read_store` checks them before a store is used. Each process reads the arrays once: a file whose inode, length and
times have not changed since is not read again. Nothing is remembered on the disk, so a store may be read-only, and
bytes that change without the file's times (a failing disk, a copy) are found by the next process.

A store without a seal was written by an earlier version. It is accepted if its arrays match the digest in its manifest;
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

from dmseg.activity import activity, track
from dmseg.data.listing import folders
from dmseg.data.manifest import check_manifest
from dmseg.data.sealed_json import MAX_BYTES, parse_sealed, sealed_text
from dmseg.data.split_files import compare_with_seal, read_split_file, split_files
from dmseg.errors import DamagedStoreError, UserError
from dmseg.files.atomic import write_whole
from dmseg.files.regular import open_regular, read_regular
from dmseg.files.schema import parse_json

SEAL, MANIFEST, IMAGES, ANNOTATIONS = "seal.json", "manifest.json", "images.npy", "annotations.npy"
DTYPES = tuple(map(np.dtype, ("uint8", "int16")))
"""Types that images are stored as; annotations are uint8."""
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([|<>][ui][12])', 'fortran_order': False, "
    rb"'shape': \((\d{1,12}), (\d{1,6}), (\d{1,6}), (\d{1,6})\), \} *\n",
    re.DOTALL,
)
BLOCK = 1 << 20
"""Bytes read at a time."""
SETTLED_SECONDS = 2.0
"""Files that changed more recently than this are checked again: a second change could have the same time."""
_STORE = re.compile(r"(?P<task>.+)-\d+-[0-9a-f]{8}")
"""Name of a store's folder: task, size and key."""

Seal = dict[str, Any]

_same: set[tuple[object, ...]] = set()
"""Arrays that this process has checked: their `_stamp`, and what they were compared with."""


class ContentDigest:
    """SHA-256 over the images and masks of each slice and the manifest's row of each case; part of run ids."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, images: npt.NDArray[Any], masks: npt.NDArray[np.uint8]) -> None:
        """Adds slices: images (n, C, S, S) and the masks of the case's raters (n, r, S, S), both contiguous."""
        for one_image, one_masks in zip(images, masks, strict=True):
            self._hash.update(one_image.data)
            self._hash.update(one_masks.data)

    def end_case(self, row: dict[str, Any]) -> None:
        """Ends a case; `row` describes it in the manifest."""
        self._hash.update(json.dumps(row, sort_keys=True).encode())

    def hexdigest(self) -> str:
        """The digest of everything added so far."""
        return self._hash.hexdigest()


class ArrayFile:
    """A ``.npy`` file that is written piece by piece; a context manager.

    Args:
        path: the file.
        shape: of the whole array.
        dtype: of its values.

    Attributes:
        row: the file's entry in the seal, for what has been written so far.
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
    """Writes the seal of a store.

    Args:
        folder: the store.
        arrays: the entries of both arrays (`ArrayFile.row`).
        manifest: content of its manifest.

    Raises:
        OSError: if it cannot be written.
    """
    body = {MANIFEST: {"size": len(manifest), "sha256": hashlib.sha256(manifest).hexdigest()}, **arrays}
    write_whole(folder / SEAL, sealed_text(body))


def read_store(folder: Path, thorough: bool = False) -> dict[str, Any]:
    """Checks all files of a store against its seal and returns its manifest.

    Args:
        folder: the store.
        thorough: whether to read arrays that this process has read before, and also to compare them with the SHA-256
            of slices and cases in the manifest.

    Raises:
        DamagedStoreError: if a file is missing, not a regular file, or not as it was written.
        UserError: if there is no store.
    """
    if not any(os.path.lexists(folder / name) for name in (MANIFEST, SEAL, IMAGES, ANNOTATIONS)):
        raise UserError(f"{folder} is not prepared; run 'dmseg prepare' with the same data settings")
    seal: Seal | None = None
    if is_sealed(folder):
        with _naming(folder / SEAL):
            seal = parse_sealed(read_regular(folder / SEAL, 1 << 16))
            if seal.keys() != {MANIFEST, IMAGES, ANNOTATIONS} or not all(
                isinstance(row, dict) for row in seal.values()
            ):
                raise ValueError("it does not list the three files of a store")
    with _naming(folder / MANIFEST):
        content = read_regular(folder / MANIFEST, MAX_BYTES)
        known = hashlib.sha256(content).hexdigest()
        if seal is not None and seal[MANIFEST] != {"size": len(content), "sha256": known}:
            raise ValueError("its checksum does not match")
        manifest = check_manifest(parse_json(content))
    _check_shapes(folder, manifest)
    if seal is not None:
        for name in (IMAGES, ANNOTATIONS):
            with _naming(folder / name), open_regular(folder / name) as file:
                key = (*_stamp(file), json.dumps(seal[name]))
                if key in _same and not thorough:
                    continue
                if _describe(file, name) != seal[name]:
                    raise ValueError("its checksum does not match")
                _remember(key, file)
    if seal is None or thorough:
        _compare_content(folder, manifest, known, thorough)
    return manifest


def is_sealed(folder: Path) -> bool:
    """Whether a store has a seal, valid or not."""
    return os.path.lexists(folder / SEAL)


def seal_store(folder: Path) -> None:
    """Seals an intact store that has no seal, if its folder can be written to.

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


def find_stores(parent: Path, data: str | None = None, task: str | None = None) -> Iterator[Path]:
    """Yields the folders of prepared stores, damaged or not.

    Args:
        parent: folder of the prepared stores.
        data: name of a data set; None for all.
        task: name of a task; None for all.

    Raises:
        UserError: if a folder cannot be listed.
    """
    for place in folders(parent):
        for folder in folders(place) if data in (None, place.name) else []:
            found = _STORE.fullmatch(folder.name)
            if found and task in (None, found["task"]):
                yield folder


def verify_store(folder: Path) -> list[str]:
    """Compares all files of a store with their seals, and the arrays also with the SHA-256 in the manifest.

    Returns:
        One line for each file that is damaged; empty if none is.
    """
    faults = []
    try:
        read_store(folder, thorough=True)
    except UserError as error:
        faults.append(getattr(error, "fault", str(error)))
    for path in split_files(folder):
        try:
            compare_with_seal(path, read_split_file(path), write=False)
        except UserError as error:
            faults.append(str(error).replace("\n", " "))
    return faults


def describe_store(folder: Path) -> str:
    """Says whether an intact store is sealed."""
    return (
        "intact"
        if is_sealed(folder)
        else "intact, no checksums yet (written by an earlier version; training adds them)"
    )


def _blocks(file: BinaryIO) -> Iterator[memoryview]:
    """Yields the rest of a file in blocks; each block is overwritten by the next."""
    block = memoryview(bytearray(BLOCK))
    while n := file.readinto(block):  # type: ignore[attr-defined]
        yield block[:n]


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turns errors of reading a file into messages that name it."""
    try:
        yield
    except FileNotFoundError:
        raise DamagedStoreError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        raise DamagedStoreError(f"{path} is damaged ({str(why)[:200]})") from None


def _check_shapes(folder: Path, manifest: dict[str, Any]) -> None:
    """Checks the headers and lengths of the arrays against the manifest."""
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


def _describe(file: BinaryIO, name: str) -> dict[str, Any]:
    """The entry of an array in the seal.

    Raises:
        ValueError: if it holds values that a store cannot have.
    """
    _, dtype = _read_header(file)
    size = file.tell()
    file.seek(0)
    crc = isal_zlib.crc32(file.read(size))
    with activity(f"checking {name}", os.fstat(file.fileno()).st_size, "B") as advance:
        for block in _blocks(file):
            crc, size = isal_zlib.crc32(block, crc), size + len(block)
            values = np.frombuffer(block[: len(block) // dtype.itemsize * dtype.itemsize], dtype)
            if name == ANNOTATIONS and values.max() > 1:
                raise ValueError(f"it holds the value {values.max()}; annotations are 0 or 1")
            if dtype.kind == "i" and values.min() < 0:
                raise ValueError(f"it holds the value {values.min()}; images have none below 0")
            advance(len(block))
    return {"size": size, "crc32": f"{crc:08x}"}


def _compare_content(folder: Path, manifest: dict[str, Any], known: str, again: bool) -> None:
    """Compares the arrays with the manifest's digest unless done before; `known` is the manifest's checksum.

    Raises:
        DamagedStoreError: if they do not match, or a rater who did not annotate a case has marked something in it.
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
            said = f"{IMAGES} and {ANNOTATIONS} do not match the digest in {MANIFEST}"
            raise DamagedStoreError(f"{folder} is damaged ({said})")
        _remember(key, *files.values())


def _content_digest(folder: Path, rows: list[dict[str, Any]]) -> str:
    """The digest of arrays whose headers have been checked.

    Raises:
        ValueError: if a rater who did not annotate a case has marked something in it.
    """
    images, masks = (np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in (IMAGES, ANNOTATIONS))
    digest, everybody = ContentDigest(), list(range(masks.shape[1]))
    for row in track(rows, "comparing checksums", len(rows), "cases"):
        absent = sorted(set(everybody) - set(row["raters"]))
        for index in range(row["first"], row["first"] + row["n_slices"]):
            if absent and masks[index, absent].any():
                raise ValueError(f"raters who did not annotate case {row['case']} have marked something in it")
            chosen = masks[index] if row["raters"] == everybody else masks[index, row["raters"]]
            digest.add(images[index][None], chosen[None])
        digest.end_case(row)
    return digest.hexdigest()


def _stamp(file: BinaryIO) -> tuple[int, ...]:
    """Values that change when a file is written to; the last one cannot be set back."""
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _remember(key: tuple[object, ...], *files: BinaryIO) -> None:
    if all(time.time() - os.fstat(file.fileno()).st_ctime > SETTLED_SECONDS for file in files):
        _same.add(key)
