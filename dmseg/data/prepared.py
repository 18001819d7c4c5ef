"""The prepared store of one task: memory-mapped arrays, a list of cases and a manifest.

A store is a folder with ``images.npy`` (N, C, S, S) uint8, ``annotations.npy`` (N, R, S, S) uint8 with values 0 and 1,
and ``manifest.json`` (cases with their slices and raters, options, checksums of the sources, digest of the arrays).
It is written beside its final place and renamed when whole.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg import __version__
from dmseg.data.case import Adapter, Case, CaseFiles, Task
from dmseg.errors import UserError

REVISION = 1
"""Raised when a change gives other arrays for the same sources and options."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedCase:
    """A case in the store.

    Attributes:
        case: id.
        first: index of its first slice.
        n_slices: number of its slices.
        raters: positions in the rater axis of those who annotated it.
    """

    case: str
    first: int
    n_slices: int
    raters: tuple[int, ...]

    @property
    def span(self) -> slice:
        """The case's slices in the arrays."""
        return slice(self.first, self.first + self.n_slices)


class PreparedTask:
    """An opened store.

    Args:
        folder: the store's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = _read_manifest(folder)
        self.cases = [
            PreparedCase(row["case"], row["first"], row["n_slices"], tuple(row["raters"]))
            for row in self.manifest["cases"]
        ]

    @property
    def digest(self) -> str:
        """Names the content: arrays, case ids and raters."""
        return str(self.manifest["digest"])

    @property
    def task(self) -> Task:
        """The task."""
        row = self.manifest["task"]
        return Task(row["name"], row["title"], row["cohort"], tuple(row["raters"]), row["anonymous_raters"])

    @cached_property
    def images(self) -> npt.NDArray[np.uint8]:
        """(N, C, S, S) uint8, memory-mapped; 0 and 255 are the ends of the case's intensity window."""
        return np.load(self.folder / "images.npy", mmap_mode="r")  # type: ignore[no-any-return]

    @cached_property
    def annotation_arrays(self) -> npt.NDArray[np.uint8]:
        """(N, R, S, S) uint8, 0 or 1, memory-mapped; raters absent from a case are blank."""
        return np.load(self.folder / "annotations.npy", mmap_mode="r")  # type: ignore[no-any-return]

    @property
    def n_channels(self) -> int:
        """Number of image channels."""
        return int(self.images.shape[1])

    def annotations(self, case: PreparedCase) -> npt.NDArray[np.uint8]:
        """Annotations of a whole case: (R, n_slices, S, S), only raters who annotated it."""
        return np.moveaxis(self.annotation_arrays[case.span][:, list(case.raters)], 1, 0)


def store_folder(parent: Path, data: str, task: Task, root: str, size: int, options: dict[str, Any]) -> Path:
    """Place of a store: one folder for each task, size, source folder and set of options."""
    key = json.dumps([str(Path(root).absolute()), options], sort_keys=True)
    return parent / data / f"{task.name}-{size}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def is_current(folder: Path, files: list[CaseFiles], options: dict[str, Any]) -> bool:
    """Whether the store was made from these very sources with these options.

    A source whose size and time are unchanged counts as the same; otherwise its checksum decides.
    """
    try:
        manifest = _read_manifest(folder)
    except UserError:
        return False
    if manifest["revision"] != REVISION or manifest["options"] != options:
        return False
    listed = [[case.case, [str(path.absolute()) for path in case.files]] for case in files]
    known = manifest["sources"]
    if listed != manifest["source_files"]:
        return False
    return all(_unchanged(path, known[str(path.absolute())]) for case in files for path in case.files)


def prepare(
    adapter: Adapter,
    task: Task,
    folder: Path,
    size: int,
    options: dict[str, Any],
) -> bool:
    """Writes the store of a task, unless it is there and current.

    Args:
        adapter: reads the raw files.
        task: the task.
        folder: where the store goes (`store_folder`).
        size: edge that slices are resized to: images bilinearly, annotations to the nearest pixel.
        options: everything beside the sources that the arrays depend on; kept in the manifest.

    Returns:
        Whether anything was written.

    Raises:
        UserError: if a source is damaged or not what it should be; nothing is left behind then.
    """
    files = adapter.list_cases(task.name)
    if is_current(folder, files, options):
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        manifest = _write_arrays(adapter, task, files, scratch, size)
        manifest |= {
            "options": options,
            "revision": REVISION,
            "version": __version__,
            **_describe_sources(files),
        }
        (scratch / "manifest.json").write_text(json.dumps(manifest, indent=1))
        _swap(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return True


def _write_arrays(
    adapter: Adapter,
    task: Task,
    files: list[CaseFiles],
    folder: Path,
    size: int,
) -> dict[str, Any]:
    """Reads every case and writes its slices; returns the manifest's part about the content."""
    digest = hashlib.sha256()
    total, first, cases = sum(case.n_slices for case in files), 0, []
    images: npt.NDArray[np.uint8] | None = None
    annotations = _create(folder / "annotations.npy", (total, len(task.raters), size, size))
    for case_files in files:
        case = adapter.read_case(task.name, case_files)
        count = 0
        for image, masks in _prepared_slices(case, size):
            if images is None:
                images = _create(folder / "images.npy", (total, *image.shape))
            if image.shape != images.shape[1:]:
                raise UserError(f"case {case.case} has {len(image)} channels, the cases before {images.shape[1]}")
            images[first + count] = image
            annotations[first + count, list(case.raters)] = masks
            digest.update(image.tobytes() + masks.tobytes())
            count += 1
        row = {"case": case.case, "first": first, "n_slices": count, "raters": list(case.raters)}
        digest.update(json.dumps(row, sort_keys=True).encode())
        cases.append(row)
        first += count
    return {"cases": cases, "task": asdict(task), "size": size, "digest": digest.hexdigest()}


def _create(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    array: npt.NDArray[np.uint8] = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    return array


def _prepared_slices(case: Case, size: int) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
    for item in case.slices:
        yield quantise(resize_image(item.image, size), case.window), resize_mask(item.annotations, size)


def resize_image(image: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    """Resizes (C, H, W) to (C, size, size) bilinearly, pixel centres aligned, aspect ratio not kept."""
    if image.shape[1:] == (size, size):
        return image
    rows, row_weight = _linear_positions(image.shape[1], size)
    columns, column_weight = _linear_positions(image.shape[2], size)
    halfway = image[:, rows] * (1 - row_weight[:, None]) + image[:, rows + 1] * row_weight[:, None]
    resized = halfway[:, :, columns] * (1 - column_weight) + halfway[:, :, columns + 1] * column_weight
    return resized.astype(np.float32)


def resize_mask(masks: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Resizes (R, H, W) to (R, size, size), each pixel from the nearest one (pixel centres aligned)."""
    rows, columns = (np.floor((np.arange(size) + 0.5) * extent / size).astype(int) for extent in masks.shape[1:])
    return np.ascontiguousarray(masks[:, rows[:, None], columns])


def _linear_positions(extent: int, size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Left neighbour and weight of the right one, for each of `size` samples of `extent` pixels (at least two)."""
    position = np.clip((np.arange(size) + 0.5) * extent / size - 0.5, 0, extent - 1)
    left = np.minimum(position.astype(np.int64), extent - 2)
    return left, (position - left).astype(np.float32)


def quantise(image: npt.NDArray[np.float32], window: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Maps each channel's window to 0..255, clipping beyond; a channel without any range becomes 0."""
    low, high = (window[:, index, None, None].astype(np.float32) for index in (0, 1))
    extent = np.where(high > low, high - low, np.float32(1.0))
    scaled = np.where(high > low, (image - low) / extent, np.float32(0.0))
    return np.asarray(np.rint(np.clip(scaled, 0, 1) * 255), dtype=np.uint8)


def _describe_sources(files: list[CaseFiles]) -> dict[str, Any]:
    return {
        "source_files": [[case.case, [str(path.absolute()) for path in case.files]] for case in files],
        "sources": {str(path.absolute()): _fingerprint(path) for case in files for path in case.files},
    }


def _fingerprint(path: Path) -> dict[str, Any]:
    status = path.stat()
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": checksum}


def _unchanged(path: Path, known: dict[str, Any]) -> bool:
    status = path.stat()
    if status.st_size != known["size"]:
        return False
    return bool(status.st_mtime_ns == known["mtime_ns"] or _fingerprint(path)["sha256"] == known["sha256"])


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "manifest.json").read_text())  # type: ignore[no-any-return]
    except FileNotFoundError:
        raise UserError(f"{folder} is not prepared; run 'dmseg prepare' with the same data settings") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder / 'manifest.json'} is damaged ({error}); delete the folder and prepare anew"
        ) from None


def _swap(scratch: Path, folder: Path) -> None:
    """Puts a whole store in place of an outdated one; another process that was first with the same is fine."""
    if folder.exists():
        retired = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
        os.rename(folder, retired / "store")
        shutil.rmtree(retired, ignore_errors=True)
    os.rename(scratch, folder)
