"""Parts of a prepared store: one case each, kept until the store is complete, so that `prepare` can be resumed.

A part is a folder with ``images`` (n, C, S, S), raw uint8 or int16, ``annotations`` (n, r, S, S), raw uint8, where r is
the number of raters of the case, and ``case.json``, which contains checksums of the three. It is published atomically.

Also puts a finished store in its place, and removes what killed processes left beside it.
"""

import glob
import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from dmseg.data.case import Case, CaseFiles
from dmseg.data.fingerprints import fingerprints, paths, unchanged
from dmseg.data.integrity import file_crc
from dmseg.data.sealed_json import MAX_BYTES, parse_sealed, sealed_text
from dmseg.data.split_files import copy_split_files
from dmseg.files.atomic import exclusive, remove_scratch, scratch_folder
from dmseg.files.regular import open_regular, read_regular

CHUNK = 32
"""Slices in memory at a time."""

Bytes = npt.NDArray[np.uint8]
Intensities = npt.NDArray[np.integer[Any]]
"""Stored intensities: from 0 to the largest value of their type, uint8 or int16."""
Resized = tuple[Intensities, Bytes, tuple[float, ...] | None]
"""Image (C, S, S), annotations (r, S, S), and spacing in mm of a resized slice."""


@dataclass(frozen=True)
class Part:
    """One prepared case on the disk.

    Attributes:
        case: id of the case.
        raters: positions, on the rater axis, of the raters who annotated it.
        n_slices: number of its slices, possibly 0.
        n_channels: number of image channels.
        size: edge length of a slice in pixels.
        key: everything else that the part depends on.
        sources: fingerprint of each source file, by absolute path.
        dtype: of the images.
        crc32: of the two arrays' files.
        spacing: distance of rows, of columns and, if known, of slices as stored, in mm; None if it is unknown or
            differs between slices.
        contiguous: whether the slices form one volume.
        sizes_differ: whether the spacing differs between slices, as they had different sizes.
    """

    case: str
    raters: tuple[int, ...]
    n_slices: int
    n_channels: int
    size: int
    key: str
    sources: dict[str, Any]
    dtype: str = "uint8"
    crc32: tuple[int, int] = (0, 0)
    spacing: tuple[float, ...] | None = None
    contiguous: bool = False
    sizes_differ: bool = False

    def is_whole(self, folder: Path) -> bool:
        """Whether the arrays are as they were written; after a power failure they may not be."""
        pixels = self.n_slices * self.size**2
        lengths = pixels * self.n_channels * np.dtype(self.dtype).itemsize, pixels * len(self.raters)
        for name, length, crc in zip(("images", "annotations"), lengths, self.crc32, strict=True):
            with open_regular(folder / name) as file:
                if os.fstat(file.fileno()).st_size != length or file_crc(file) != crc:
                    return False
        return True

    def chunks(self, folder: Path) -> Iterator[tuple[Intensities, Bytes]]:
        """Yields images (n, C, S, S) and annotations (n, r, S, S), a few slices at a time."""
        with (folder / "images").open("rb") as images, (folder / "annotations").open("rb") as annotations:
            for start in range(0, self.n_slices, CHUNK):
                n = min(CHUNK, self.n_slices - start)
                levels = _read_array(images, (n, self.n_channels, self.size, self.size), self.dtype)
                yield levels, _read_array(annotations, (n, len(self.raters), self.size, self.size), "uint8")


def write_part(case: Case, slices: Iterator[Resized], files: CaseFiles, key: str, folder: Path) -> Part:
    """Writes the part of a case.

    Args:
        case: the case.
        slices: image (C, S, S) of the case's `dtype`, annotations (r, S, S) and spacing of each slice.
        files: the case's sources.
        key: everything else that the part depends on.
        folder: the part's folder.

    Raises:
        UserError: if the case cannot be read.
        OSError: if the disk is full or cannot be written to.
    """
    sources = fingerprints(files)
    with scratch_folder(folder) as scratch:
        n_slices, shape, crc = 0, (0, 0, 0), (0, 0)
        spacings: set[tuple[float, ...] | None] = set()
        with (scratch / "images").open("wb") as images, (scratch / "annotations").open("wb") as annotations:
            for image, masks, spacing in slices:
                spacings.add(spacing)
                images.write(image.data)
                annotations.write(masks.data)
                crc = isal_zlib.crc32(image.data, crc[0]), isal_zlib.crc32(masks.data, crc[1])
                n_slices, shape = n_slices + 1, image.shape
        differ = len(spacings) > 1
        common = spacings.pop() if len(spacings) == 1 else None
        part = Part(
            case.case,
            case.raters,
            n_slices,
            n_channels=shape[0],
            size=shape[1],
            key=key,
            sources=sources,
            dtype=case.dtype,
            crc32=crc,
            spacing=common,
            contiguous=case.contiguous,
            sizes_differ=differ,
        )
        (scratch / "case.json").write_text(sealed_text(asdict(part)))
        scratch.rename(folder)
    return part


def read_part(folder: Path, files: CaseFiles, key: str) -> Part | None:
    """Reads a part; None if it is missing or damaged, or was made from other sources or with another key."""
    try:
        row = parse_sealed(read_regular(folder / "case.json", MAX_BYTES))
        tuples = {name: tuple(row[name]) for name in ("raters", "crc32", "spacing") if row[name] is not None}
        part = Part(**(row | tuples))
        same = part.key == key and part.case == files.case and list(part.sources) == paths(files)
        whole = same and part.is_whole(folder)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return part if whole and all(unchanged(path, part.sources[str(path.absolute())]) for path in files.files) else None


def part_folder(work: Path, case: str) -> Path:
    """Folder of a case's part; a digest names it, as an id may contain any character."""
    return work / hashlib.sha256(case.encode()).hexdigest()[:24]


def swap(scratch: Path, folder: Path) -> None:
    """Replaces an outdated store by a complete one, which takes over its split files.

    If the process is killed in between, the outdated store stays beside `folder`, where the next process finds it.
    """
    outdated = list(folder.parent.glob(f".{glob.escape(folder.name)}.old.*"))
    if os.path.lexists(folder):
        outdated = [Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))]
        os.rename(folder, outdated[0] / "store")
    for place in outdated:
        copy_split_files(place / "store", scratch)
    os.rename(scratch, folder)
    for place in outdated:
        shutil.rmtree(place, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Removes the leftovers of a process that was killed right after publishing a store.

    Nothing is removed while another process prepares the same store.
    """
    remove_scratch(folder)
    work = folder.parent / f".{folder.name}.parts"
    left = list(folder.parent.glob(f".{glob.escape(folder.name)}.old.*"))
    if not left and not work.is_dir():
        return
    with suppress(OSError), exclusive(work, wait=False) as alone:
        for place in (*left, work) if alone else ():
            shutil.rmtree(place, ignore_errors=True)


def _read_array(file: BinaryIO, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
    return np.frombuffer(file.read(math.prod(shape) * np.dtype(dtype).itemsize), dtype).reshape(shape)
