"""Parts of a prepared store: one case each, kept until the store is whole, so that an interrupted prepare goes on.

A part is a folder with ``images`` (n, C, S, S), raw uint8 or int16, ``annotations`` (n, r, S, S), raw uint8, r being
the raters of the case, and ``case.json``. It appears whole or not at all.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from dmseg.data.case import Case, CaseFiles
from dmseg.errors import UserError
from dmseg.files import checksum, scratch_folder

CHUNK = 32
"""Slices that are held at a time."""

Bytes = npt.NDArray[np.uint8]
Levels = npt.NDArray[np.integer[Any]]
"""Intensities as they are stored: from 0 to the largest value of their type, uint8 or int16."""


@dataclass(frozen=True)
class Part:
    """One prepared case on the disk.

    Attributes:
        case: id of the case.
        raters: positions in the rater axis of those who annotated it.
        n_slices: number of its slices, may be 0.
        n_channels: image channels.
        size: edge of a slice in pixels.
        key: what else the part depends on.
        sources: fingerprint of each source file, by absolute path.
        dtype: of the images.
    """

    case: str
    raters: tuple[int, ...]
    n_slices: int
    n_channels: int
    size: int
    key: str
    sources: dict[str, Any]
    dtype: str = "uint8"

    def is_whole(self, folder: Path) -> bool:
        """Whether the arrays are as long as they should be; they may not be after a loss of power."""
        pixels = self.n_slices * self.size**2
        lengths = pixels * self.n_channels * np.dtype(self.dtype).itemsize, pixels * len(self.raters)
        files = [folder / "images", folder / "annotations"]
        return all(path.exists() for path in files) and tuple(path.stat().st_size for path in files) == lengths

    def chunks(self, folder: Path) -> Iterator[tuple[Levels, Bytes]]:
        """Yields images (n, C, S, S) and annotations (n, r, S, S), a few slices at a time."""
        with (folder / "images").open("rb") as images, (folder / "annotations").open("rb") as annotations:
            for start in range(0, self.n_slices, CHUNK):
                n = min(CHUNK, self.n_slices - start)
                levels = _read_array(images, (n, self.n_channels, self.size, self.size), self.dtype)
                yield levels, _read_array(annotations, (n, len(self.raters), self.size, self.size), "uint8")


def write_part(case: Case, slices: Iterator[tuple[Levels, Bytes]], files: CaseFiles, key: str, folder: Path) -> Part:
    """Writes a part.

    Args:
        case: the case.
        slices: image (C, S, S) of the case's `dtype`, and annotations (r, S, S), of each slice.
        files: the case's sources.
        key: what else the part depends on.
        folder: where the part goes.

    Raises:
        UserError: if the case cannot be read, or its slices differ in shape.
    """
    with scratch_folder(folder) as scratch:
        n_slices, shape = 0, (0, 0, 0)
        with (scratch / "images").open("wb") as images, (scratch / "annotations").open("wb") as annotations:
            for image, masks in slices:
                if n_slices and image.shape != shape:
                    raise UserError(f"case {case.case} has slices of {shape[0]} and of {len(image)} channels")
                images.write(image.data)
                annotations.write(masks.data)
                n_slices, shape = n_slices + 1, image.shape
        part = Part(case.case, case.raters, n_slices, shape[0], shape[1], key, fingerprints(files), case.dtype)
        (scratch / "case.json").write_text(json.dumps(asdict(part)))
        scratch.rename(folder)
    return part


def read_part(folder: Path, files: CaseFiles, key: str) -> Part | None:
    """Reads what a part holds; None where there is none, or it is of other sources or another key."""
    try:
        row = json.loads((folder / "case.json").read_text())
        part = Part(**{**row, "raters": tuple(row["raters"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    same = part.key == key and part.case == files.case and list(part.sources) == paths(files)
    whole = same and part.is_whole(folder)
    return part if whole and all(map(partial(unchanged, known=part.sources), files.files)) else None


def paths(files: CaseFiles) -> list[str]:
    """Absolute paths of a case's files."""
    return [str(path.absolute()) for path in files.files]


def fingerprints(files: CaseFiles) -> dict[str, Any]:
    """Fingerprint of each file of a case by its absolute path; None for a missing one."""
    return {str(path.absolute()): _fingerprint(path) for path in files.files}


def unchanged(path: Path, known: dict[str, Any]) -> bool:
    """Whether a file is as its fingerprint says: same size, and same time or same checksum."""
    then = known[str(path.absolute())]
    if then is None or not path.exists():
        return then is None and not path.exists()
    status = path.stat()
    if status.st_size != then["size"]:
        return False
    return bool(status.st_mtime_ns == then["mtime_ns"] or checksum(path) == then["sha256"])


def part_folder(work: Path, case: str) -> Path:
    """Place of a case's part, whatever signs its id has."""
    return work / hashlib.sha256(case.encode()).hexdigest()[:24]


def _read_array(file: BinaryIO, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
    return np.frombuffer(file.read(math.prod(shape) * np.dtype(dtype).itemsize), dtype).reshape(shape)


def _fingerprint(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": checksum(path)}
