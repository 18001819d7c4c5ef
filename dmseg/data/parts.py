"""Parts of a prepared store: one case each, kept until the store is whole, so that an interrupted prepare goes on.

A part is a folder with ``images`` (n, C, S, S), raw uint8 or int16, ``annotations`` (n, r, S, S), raw uint8, r being
the raters of the case, and ``case.json``. It appears whole or not at all.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from dmseg.data.case import Case, CaseFiles
from dmseg.data.fingerprints import fingerprints, paths, unchanged
from dmseg.files import scratch_folder

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
        UserError: if the case cannot be read.
        OSError: if the disk is full or cannot be written to.
    """
    sources = fingerprints(files)
    with scratch_folder(folder) as scratch:
        n_slices, shape = 0, (0, 0, 0)
        with (scratch / "images").open("wb") as images, (scratch / "annotations").open("wb") as annotations:
            for image, masks in slices:
                images.write(image.data)
                annotations.write(masks.data)
                n_slices, shape = n_slices + 1, image.shape
        part = Part(case.case, case.raters, n_slices, shape[0], shape[1], key, sources, case.dtype)
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
    return part if whole and all(unchanged(path, part.sources[str(path.absolute())]) for path in files.files) else None


def part_folder(work: Path, case: str) -> Path:
    """Place of a case's part, whatever signs its id has."""
    return work / hashlib.sha256(case.encode()).hexdigest()[:24]


def _read_array(file: BinaryIO, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
    return np.frombuffer(file.read(math.prod(shape) * np.dtype(dtype).itemsize), dtype).reshape(shape)
