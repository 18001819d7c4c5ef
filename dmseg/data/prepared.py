"""The prepared store of one task: memory-mapped arrays, a list of cases and a manifest.

A store is a folder with ``images.npy`` (N, C, S, S) uint8 or int16, ``annotations.npy`` (N, R, S, S) uint8, 0 or 1,
``manifest.json`` (cases with their slices and raters, options, checksums of the sources, digest of the arrays) and
``seal.json`` (checksums of these three). It is written beside its final place and renamed once complete. Split files
and ``times.json`` (see `all_unchanged`) may be added later.
"""

import hashlib
import inspect
import json
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg import __version__
from dmseg.activity import track
from dmseg.data.case import Adapter, CaseFiles, Task
from dmseg.data.contract import cases_of, check_task, checked_case, reading
from dmseg.data.fingerprints import all_unchanged, fingerprints, former_paths, missing_files, paths
from dmseg.data.integrity import (
    ANNOTATIONS,
    IMAGES,
    MANIFEST,
    ArrayFile,
    ContentDigest,
    read_store,
    seal_store,
    write_seal,
)
from dmseg.data.manifest import GEOMETRY, SIZES_DIFFER, SKIPPED, as_task
from dmseg.data.parts import Intensities, Part, part_folder, read_part, remove_leftovers, swap, write_part
from dmseg.data.resize import stored_slices
from dmseg.data.suspicions import Suspicions
from dmseg.errors import AdapterError, DamagedStoreError, UserError, some
from dmseg.files.atomic import discard, exclusive, scratch_folder, sweep, writing
from dmseg.files.names import check_name
from dmseg.files.schema import parse_json
from dmseg.text import counted

REVISION = 1
"""Incremented when a change produces different arrays from the same sources and options."""
KEY_LENGTH = 8
"""Number of hexadecimal digits at the end of a store's name."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedCase:
    """A case in the store.

    Attributes:
        case: id.
        first: index of its first slice.
        n_slices: number of its slices.
        raters: positions, on the rater axis, of the raters who annotated it.
        spacing: distance of rows, of columns and, if known, of slices as stored, in mm; None if unknown.
        contiguous: whether the slices form one volume.
        sizes_differ: whether resizing gave the slices different spacing, as they differ in size.
    """

    case: str
    first: int
    n_slices: int
    raters: tuple[int, ...]
    spacing: tuple[float, ...] | None = None
    contiguous: bool = False
    sizes_differ: bool = False

    @property
    def span(self) -> slice:
        """The case's slices in the arrays."""
        return slice(self.first, self.first + self.n_slices)


class PreparedTask:
    """An opened store, after its files have been checked against its seal (`dmseg.data.integrity`).

    Args:
        folder: the store's folder.

    Raises:
        DamagedStoreError: if a file is missing or not as it was written.
        UserError: if there is no store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = read_store(folder)
        geometry = self.manifest.get(GEOMETRY, {})
        self.cases = []
        for row in self.manifest["cases"]:
            found = geometry.get(row["case"], {"spacing": None, "contiguous": False})
            spacing = None if found["spacing"] is None else tuple(found["spacing"])
            raters, contiguous, differ = tuple(row["raters"]), found["contiguous"], found.get(SIZES_DIFFER, False)
            self.cases.append(
                PreparedCase(row["case"], row["first"], row["n_slices"], raters, spacing, contiguous, differ)
            )

    @property
    def digest(self) -> str:
        """SHA-256 of the content: arrays, case ids and raters."""
        return str(self.manifest["digest"])

    @property
    def has_geometry(self) -> bool:
        """Whether spacing and position of slices are recorded; stores written by earlier versions lack them."""
        return GEOMETRY in self.manifest

    @property
    def listed(self) -> list[str]:
        """Ids of all cases of the data set, from which folds are made; cases without slices are not in `cases`."""
        return list(self.manifest.get("listed") or [case.case for case in self.cases])

    @property
    def without_slices(self) -> list[str]:
        """Ids of the cases that count in folds, but have no slices: none to keep, or skipped because of a fault."""
        stored = {case.case for case in self.cases}
        return [case for case in self.listed if case not in stored]

    @property
    def task(self) -> Task:
        """The task."""
        return as_task(self.manifest["task"])

    @cached_property
    def images(self) -> Intensities:
        """(N, C, S, S), memory-mapped; the case's intensity window runs from 0 to the type's largest value."""
        return np.load(self.folder / IMAGES, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]

    @cached_property
    def annotation_arrays(self) -> npt.NDArray[np.uint8]:
        """(N, R, S, S) uint8, 0 or 1, memory-mapped; blank for raters who did not annotate the case."""
        return np.load(self.folder / ANNOTATIONS, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]

    @property
    def n_channels(self) -> int:
        """Number of image channels."""
        return int(self.images.shape[1])

    def annotations(self, case: PreparedCase) -> npt.NDArray[np.uint8]:
        """Annotations of a whole case by the raters who annotated it: (R, n_slices, S, S)."""
        return np.moveaxis(self.annotation_arrays[case.span][:, list(case.raters)], 1, 0)


def store_folder(parent: Path, data: str, task: Task, root: str, size: int, options: dict[str, Any]) -> Path:
    """Folder of a store: one for each task, size, source folder and set of options.

    Raises:
        UserError: if the name of the data set or of the task cannot name a folder.
    """
    check_name(data, "data.name")
    check_name(task.name, f"the name of a task of data set '{data}'")
    key = json.dumps([str(Path(root).absolute()), options], sort_keys=True)
    return parent / data / f"{task.name}-{size}-{hashlib.sha256(key.encode()).hexdigest()[:KEY_LENGTH]}"


def is_current(folder: Path, task: Task, files: list[CaseFiles], options: dict[str, Any]) -> bool:
    """Whether the store is intact and was prepared for this task, from these sources and with these options.

    A source whose size and time have not changed counts as the same; otherwise, and where the data are now in another
    folder, its checksum decides. A different title alone does not make a store outdated.
    """
    try:
        manifest = read_store(folder)
    except UserError:
        return False
    if manifest["revision"] != REVISION or manifest["options"] != options:
        return False
    if as_task(manifest["task"] | {"title": task.title}) != task:
        return False
    former = former_paths(files, manifest["source_files"])
    return former is not None and all_unchanged(files, manifest["sources"], folder / "times.json", former)


def prepare(
    adapter: Adapter,
    task: Task,
    folder: Path,
    size: int,
    options: dict[str, Any],
    workers: int = 1,
    complete: bool = False,
) -> bool:
    """Writes the store of a task unless it is there, intact and current; seals it if it has no seal.

    Finished cases are kept beside the store until it is complete: when called again after an interruption, or after
    damaged files were replaced, it continues with the missing cases.

    Args:
        adapter: reads the raw files.
        task: the task.
        folder: the store's folder (`store_folder`).
        size: edge length that slices are resized to: images bilinearly, annotations to the nearest pixel.
        options: everything else that the arrays depend on; kept in the manifest.
        workers: number of cases read in parallel.
        complete: whether to prepare again what an earlier version wrote without the spacing of its slices; this
            changes nothing else, so ids stay.

    Returns:
        Whether anything was written.

    Raises:
        UserError: if a source is missing, damaged or unsuitable, the adapter breaks its contract
            (`dmseg.data.contract`; the other faulty cases are logged first), or there are no slices.
        AdapterError: if the adapter raises an exception that is neither a UserError nor an OSError.
        UnwritableError: if the disk is full or cannot be written to; finished cases are kept.
    """
    check_task(task)
    files = cases_of(adapter, task)

    def is_ready() -> bool:
        return is_current(folder, task, files, options) and (not complete or GEOMETRY in read_store(folder))

    if is_ready():
        seal_store(folder)
        remove_leftovers(folder)
        return False
    work = folder.parent / f".{folder.name}.parts"
    with writing(folder, kept="finished cases are kept"), exclusive(work):
        sweep(work)
        if is_ready():
            return False
        try:
            read_store(folder)
        except DamagedStoreError as error:
            log.warning("%s; the store is prepared again", error.fault)
        except UserError:
            pass
        parts = _make_parts(adapter, task, files, folder, work, size, options, workers)
        with scratch_folder(folder) as scratch:
            content, arrays = _assemble(parts, task, size, work, scratch)
            known = {part.case: part.sources for part in parts}
            described = [known.get(case.case) or fingerprints(case) for case in files]  # also of cases left out
            sources = {path: value for each in described for path, value in each.items()}
            content |= {
                "options": options,
                "revision": REVISION,
                "version": __version__,
                "listed": [case.case for case in files],
                SKIPPED: [case.case for case in files if case.case not in known],
                "source_files": [[case.case, paths(case)] for case in files],
                "sources": sources,
            }
            manifest = json.dumps(content, indent=1).encode()
            try:
                parse_json(manifest)
            except ValueError as error:
                raise UserError(
                    f"task {task.name} has too many source files for a store ({error}); merge some of them"
                ) from None
            (scratch / MANIFEST).write_bytes(manifest)
            write_seal(scratch, arrays, manifest)
            swap(scratch, folder)
        shutil.rmtree(work, ignore_errors=True)
    return True


def _make_parts(
    adapter: Adapter,
    task: Task,
    files: list[CaseFiles],
    folder: Path,
    work: Path,
    size: int,
    options: dict[str, Any],
    workers: int,
) -> list[Part]:
    """Prepares the cases that are not finished yet; returns all that could be read, in their order."""
    key = json.dumps([REVISION, asdict(task), size, options, GEOMETRY], sort_keys=True)
    missing = [] if adapter.skips_faulty else missing_files(files)
    if missing:
        others = f" and {len(missing) - 1} more files are" if len(missing) > 1 else " is"
        skip = "\nto continue without such cases, set data.faulty_cases=skip"
        takes_skip = "faulty_cases" in inspect.signature(type(adapter)).parameters
        raise UserError(
            f"{missing[0]}{others} missing\nhow to get the data: {adapter.about.source}{skip if takes_skip else ''}"
        )

    def make(case: CaseFiles) -> Part | UserError:
        place = part_folder(work, case.case)
        try:
            if (part := read_part(place, case, key)) is not None:
                return part
            discard(place)
            opened = checked_case(reading(partial(adapter.read_case, task.name, case), case), case, task)
            return write_part(opened, stored_slices(opened, size), case, key, place)
        except UserError as error:
            return error

    pool = ThreadPoolExecutor(workers)  # decompression and array arithmetic release the GIL
    try:
        results = list(track(pool.map(make, files), "reading cases", len(files), "cases"))
    finally:
        pool.shutdown(cancel_futures=True)
    _report_faults(
        {case.case: result for case, result in zip(files, results, strict=True) if isinstance(result, UserError)},
        f"{folder.parent.name}/{task.name}",
        len(files),
        adapter.skips_faulty,
    )
    return [result for result in results if isinstance(result, Part)]


def _report_faults(faults: dict[str, UserError], title: str, n_cases: int, skip: bool) -> None:
    """Logs the faults of cases; unless they are skipped, one of them is raised instead of logged.

    Args:
        faults: the faults by case.
        title: data set and task.
        n_cases: number of their cases.
        skip: whether to skip cases with faults, except those that the adapter did not expect.

    Raises:
        AdapterError: if the adapter has raised an unexpected exception.
        UserError: if there is a fault that is not skipped.
    """
    said = {
        case: str(fault) if str(fault).startswith(f"case {case}") else f"case {case}: {fault}"
        for case, fault in faults.items()
    }
    unexpected = [case for case, fault in faults.items() if isinstance(fault, AdapterError)]
    stopping = unexpected if skip else list(faults)
    lead = next(iter(unexpected or stopping), None)
    for case, line in said.items():
        if case != lead:
            log.log(logging.ERROR if case in stopping else logging.WARNING, "%s", line)
    if lead is None:
        return
    message = (
        f"{said[lead]}\n{title}: {len(stopping)} of {n_cases} cases cannot be read: {some(stopping)}; "
        "fix them and run the command again; finished cases are kept"
    )
    fault = faults[lead]
    raise AdapterError(message, fault.trace) if isinstance(fault, AdapterError) else UserError(message)


def _assemble(
    parts: list[Part], task: Task, size: int, work: Path, folder: Path
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Joins the parts into the store's arrays; returns the manifest's entries about them, and their seals."""
    kept = [part for part in parts if part.n_slices]
    if not kept:
        cases = counted(len(parts), "case")
        raise UserError(f"task {task.name} has no slices to keep in {cases}; check the labels of the data")
    odd = next((part for part in kept if _kind(part) != _kind(kept[0])), None)
    if odd is not None:
        raise UserError(
            f"case {odd.case} has {_kind(odd)}, but case {kept[0].case} has {_kind(kept[0])}; make them the same"
        )
    suspicions, n_raters = Suspicions(task, len(kept)), len(task.raters)
    total, digest, first, rows = sum(part.n_slices for part in kept), ContentDigest(), 0, []
    with (
        ArrayFile(folder / IMAGES, (total, kept[0].n_channels, size, size), kept[0].dtype) as images,
        ArrayFile(folder / ANNOTATIONS, (total, n_raters, size, size), "uint8") as annotations,
    ):
        for part in track(kept, "writing arrays", len(kept), "cases"):
            for image, masks in suspicions.inspect(part, part.chunks(part_folder(work, part.case))):
                images.write(image.data)
                if part.raters == tuple(range(n_raters)):
                    annotations.write(masks.data)
                else:  # masks of absent raters are blank
                    padded = np.zeros((len(masks), n_raters, size, size), dtype=np.uint8)
                    padded[:, list(part.raters)] = masks
                    annotations.write(padded.data)
                    del padded
                digest.add(image, masks)
            row = {"case": part.case, "first": first, "n_slices": part.n_slices, "raters": list(part.raters)}
            digest.end_case(row)
            rows.append(row)
            first += part.n_slices
    suspicions.warn()
    # not in the rows of the cases, which are part of the digest
    geometry = {
        part.case: {"spacing": part.spacing, "contiguous": part.contiguous}
        | ({SIZES_DIFFER: True} if part.sizes_differ else {})
        for part in kept
    }
    content = {
        "cases": rows,
        GEOMETRY: geometry,
        "task": asdict(task),
        "size": size,
        "digest": digest.hexdigest(),
    }
    return content, {IMAGES: images.row, ANNOTATIONS: annotations.row}


def _kind(part: Part) -> str:
    return f"{part.n_channels} channels stored as {part.dtype}"
