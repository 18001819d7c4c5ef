"""The run store: one folder for each run, written under a temporary name and renamed when it is complete.

``<results>/runs/<run id>/``

- ``config.json``: identity and full settings; ``manifest.json``: versions, hardware, duration
- ``history.csv``: losses and learning rate of each epoch; ``weights.safetensors``: the final network
- ``cases.csv``, ``evaluation.json``: scores of the validation cases, and the id of the evaluation that gave them
- ``counts.npz``: counts of these cases, from which further metrics are computed
- ``pack.npz``: pictures of a few of these cases; absent with ``evaluate.pack=false`` and in exports
- ``evaluations/<id>/``: the same four files under other evaluation settings; and those of the first evaluation again,
  if its counts or pictures were added later
- ``predictions/<case>.npy``: foreground probabilities, if requested
- ``DONE``: checksums of all other files, written last

Next to ``runs`` there are ``checkpoints`` and ``leases`` of runs in progress, ``failed`` with the logs of failed runs,
and ``damaged`` with runs that were set aside.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dmseg.errors import UnwritableError, UserError, advice
from dmseg.files.atomic import publish, remove, remove_scratch, scratch_folder
from dmseg.files.names import check_id, is_id
from dmseg.files.regular import is_regular
from dmseg.runs.lease import PATIENCE, is_held, lease
from dmseg.runs.records import SmallFiles, cases_frame, checked_json, parse_cases, read_cases_file
from dmseg.runs.seal import (
    DONE,
    DamagedError,
    additions_of,
    differs,
    faults_of,
    in_words,
    read_json,
    read_seal,
    repair_advice,
    seal,
)

if TYPE_CHECKING:  # most of 'dmseg runs' needs neither of them
    import pandas as pd
    import torch

    from dmseg.metrics.stored_counts import StoredCounts
    from dmseg.training.pictures import Picture

Read = TypeVar("Read")

WEIGHTS = "weights.safetensors"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors that concern the whole disk, not one file."""


class RunStore:
    """Runs under one results folder.

    Args:
        results: the results folder.
    """

    def __init__(self, results: Path) -> None:
        self.results = results
        self.runs = results / "runs"

    def folder(self, run_id: str) -> Path:
        """Path of a run's folder, whether it exists or not.

        Raises:
            UserError: if the id is not valid.
        """
        return self.runs / check_id(run_id, "the id of a run")

    def checkpoints(self, run_id: str) -> Path:
        """Path of a run's checkpoints during training."""
        return self.results / "checkpoints" / run_id

    def log(self, run_id: str) -> Path:
        """Path of the log of a failed run."""
        return self.results / "failed" / f"{run_id}.log"

    def lease_file(self, run_id: str) -> Path:
        """Path of a run's lease while a process is working on it."""
        return self.results / "leases" / f"{run_id}.json"

    def run_ids(self) -> list[str]:
        """Ids of all finished runs."""
        return [run_id for run_id in self.stored() if self.is_done(run_id)]

    def stored(self) -> list[str]:
        """Ids of all runs that have a folder; a run without `DONE`, or whose folder is a link, is damaged."""
        found = (path for path in self.runs.glob("*") if is_id(path.name))
        return sorted(path.name for path in found if path.is_dir() or path.is_symlink())

    def is_done(self, run_id: str) -> bool:
        """Whether a run is finished."""
        return is_regular(self.folder(run_id) / DONE)

    @contextmanager
    def working_on(self, run_id: str, patience: float = PATIENCE) -> Iterator[None]:
        """Keeps other processes from working on a run while the block runs.

        Raises:
            RunLocked: if another process is working on it.
            UnwritableError: if the store cannot be written to.
        """
        with ExitStack() as stack:
            try:
                self.runs.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lease(self.lease_file(run_id), patience))
            except OSError as error:
                said = f"results folder {self.results} cannot be written to: {error.strerror or error}; {advice(error)}"
                raise UnwritableError(said) from None
            remove_scratch(self.folder(run_id), alone=True)
            yield

    def tidy(self, run_id: str) -> None:
        """Removes lease, checkpoints and log left by a process that was killed just after it finished a run."""
        if is_held(self.lease_file(run_id)):
            return
        shutil.rmtree(self.checkpoints(run_id), ignore_errors=True)
        with suppress(OSError):
            self.lease_file(run_id).unlink(missing_ok=True)
            self.log(run_id).unlink(missing_ok=True)

    def write(self, run_id: str, fill: Callable[[Path], None]) -> Path:
        """Lets `fill` write a run's files and publishes them; a run that is finished already is not replaced.

        Args:
            run_id: id of the run.
            fill: called with an empty folder.

        Raises:
            UnwritableError: if the disk is full or read-only.
            UserError: if a file cannot be written for another reason.
        """
        place = self.folder(run_id)
        try:
            with scratch_folder(place) as scratch:
                fill(scratch)
                seal(scratch)
                if place.is_symlink() or not self.is_done(run_id):
                    remove(place)
                    publish(scratch, place)
        except OSError as error:
            said = f"run {run_id} could not be stored in {self.runs}: {error.strerror or error}; {advice(error)}"
            raise (UnwritableError if error.errno in FULL else UserError)(said) from error
        return place

    def add(self, run_id: str, name: str, fill: Callable[[Path], None]) -> None:
        """Adds a folder to a finished run, either completely or not at all.

        Args:
            run_id: id of the run.
            name: folder within the run's, for example ``predictions``.
            fill: called with an empty folder.

        Raises:
            UnwritableError: if the disk is full or read-only.
            UserError: if a file cannot be written for another reason.
        """
        place = self.folder(run_id) / name
        try:
            with scratch_folder(place) as scratch:
                fill(scratch)
                seal(scratch)
                remove(place)
                publish(scratch, place)
        except OSError as error:
            said = f"{place} could not be written: {error.strerror or error}; {advice(error)}"
            raise (UnwritableError if error.errno in FULL else UserError)(said) from error

    def add_to_evaluation(
        self, run_id: str, evaluation_id: str, counts: "Mapping[str, StoredCounts]", pictures: "Sequence[Picture]" = ()
    ) -> None:
        """Adds counts and pictures to a stored evaluation; its scores, and counts or pictures that it has, are kept.

        Raises:
            UserError: if the evaluation is damaged, or the files cannot be written.
        """
        from dmseg.runs.counts_file import write_counts
        from dmseg.runs.pack_file import write_pack

        place = self.evaluation_folder(run_id, evaluation_id)
        kept = {name: self._sound(place / name).read_bytes() for name in ("evaluation.json", "cases.csv")}
        for name in ("counts.npz", "pack.npz"):
            if (stored := self.folder_with(name, run_id, evaluation_id)) is not None:
                kept[name] = self._sound(stored / name).read_bytes()

        def fill(folder: Path) -> None:
            write_counts(folder / "counts.npz", counts)
            if pictures:
                write_pack(folder / "pack.npz", pictures)
            for name, content in kept.items():
                (folder / name).write_bytes(content)

        self.add(run_id, f"evaluations/{evaluation_id}", fill)

    def damage(self, run_id: str, every_file: bool = False) -> list[str]:
        """What is wrong with a finished run: one line for each file that is missing or has changed.

        Files that were never stored are ignored. If no small file has changed, their content is checked too
        (`records.check_run`), as an imported run may have valid checksums of invalid content.

        Args:
            run_id: id of the run.
            every_file: whether to check weights and predictions too; by default only small files are checked.
        """
        return faults_of(self.folder(run_id), run_id, every_file, SmallFiles())

    def additions(self, run_id: str) -> list[Path]:
        """Folders of a run with checksums of their own: later evaluations, and predictions saved later.

        Raises:
            DamagedError: if the run's own checksums are missing or damaged.
        """
        folder = self.folder(run_id)
        return additions_of(folder, read_seal(folder))

    def evaluations(self, run_id: str) -> dict[str, Path]:
        """Folders of all evaluations of a finished run by id; that of the first evaluation is the run's own folder.

        Raises:
            DamagedError: if the file that names the first one is missing or damaged.
        """
        first = str(self.read_json(run_id, "evaluation.json")["id"])
        later = {place.name: place for place in self.additions(run_id) if is_id(place.name)}
        return later | {first: self.folder(run_id)}

    def is_imported(self, run_id: str) -> bool:
        """Whether a run was computed elsewhere and imported."""
        with suppress(DamagedError):
            return self.is_done(run_id) and bool(self.read_json(run_id, "manifest.json").get("imported"))
        return False

    def set_aside(self, run_id: str) -> Path:
        """Moves a damaged run aside, so that it counts as missing; returns its new path."""
        aside = self.results / "damaged"
        aside.mkdir(parents=True, exist_ok=True)
        number = 1
        while os.path.lexists(aside / f"{run_id}-{number}"):
            number += 1
        return self.folder(run_id).rename(aside / f"{run_id}-{number}")

    def remove(self, run_id: str) -> None:
        """Removes a run; it never looks finished in the meantime."""
        (self.folder(run_id) / DONE).unlink(missing_ok=True)
        remove(self.folder(run_id))

    def read_json(self, run_id: str, name: str) -> dict[str, Any]:
        """Reads one of a run's JSON files.

        Raises:
            DamagedError: if it is missing, damaged or has invalid content.
        """
        return read_json(self.folder(run_id), name)

    def load_weights(self, run_id: str) -> "dict[str, torch.Tensor]":
        """Reads a run's final weights.

        Raises:
            UserError: if the run was imported without them, or the file is missing or damaged.
        """
        from dmseg.runs.written import read_weights

        if not self.has_weights(run_id):
            raise UserError(
                f"run {run_id} was imported without its weights, so it can neither be scored again nor be a teacher\n"
                f"export it with weights=true, or remove it (dmseg runs prune {run_id} confirm=true) and train it here"
            )
        return self._read_sound(self.folder(run_id), WEIGHTS, read_weights)

    def has_weights(self, run_id: str) -> bool:
        """Whether a finished run has weights; one that was imported may have none."""
        return WEIGHTS in read_seal(self.folder(run_id))

    def evaluation_folder(self, run_id: str, evaluation_id: str) -> Path:
        """Folder with the scores of one evaluation of a finished run.

        Raises:
            DamagedError: if the file that names the first evaluation is missing or damaged.
        """
        folder = self.folder(run_id)
        self._sound(folder / "evaluation.json")
        if read_json(folder, "evaluation.json")["id"] == evaluation_id:
            return folder
        return folder / "evaluations" / check_id(evaluation_id, "the id of an evaluation")

    def has_evaluation(self, run_id: str, evaluation_id: str) -> bool:
        """Whether a finished run has this evaluation."""
        return self.is_done(run_id) and is_regular(self.evaluation_folder(run_id, evaluation_id) / "cases.csv")

    def has_predictions(self, run_id: str) -> bool:
        """Whether a finished run's predictions are saved."""
        return self.is_done(run_id) and (self.folder(run_id) / "predictions").is_dir()

    def folder_with(self, name: str, run_id: str, evaluation_id: str) -> Path | None:
        """Folder with ``counts.npz`` or ``pack.npz`` of an evaluation, perhaps added later; None if it has none."""
        added = self.folder(run_id) / "evaluations" / check_id(evaluation_id, "the id of an evaluation")
        places = (self.evaluation_folder(run_id, evaluation_id), added)
        return next((place for place in places if is_regular(place / name)), None)

    def lacks(self, name: str, run_id: str, evaluation_id: str) -> bool:
        """Whether a finished run has no such file for an evaluation, but weights to compute it with."""
        return self.folder_with(name, run_id, evaluation_id) is None and self.has_weights(run_id)

    def read_counts(self, run_id: str, evaluation_id: str) -> "dict[str, StoredCounts] | None":
        """Reads the counts of an evaluation by case; None if they are not stored.

        Raises:
            DamagedError: if the file is damaged.
        """
        from dmseg.runs.counts_file import read_counts

        def read(place: Path) -> "dict[str, StoredCounts]":
            return read_counts(place, read_json(place, "evaluation.json")["settings"])

        place = self.folder_with("counts.npz", run_id, evaluation_id)
        return None if place is None else self._read_sound(place, "counts.npz", read)

    def read_pack(self, run_id: str, evaluation_id: str) -> "list[Picture] | None":
        """Reads the pictures of an evaluation; None if they are not stored.

        Raises:
            DamagedError: if the file is damaged.
        """
        from dmseg.runs.pack_file import read_pack

        place = self.folder_with("pack.npz", run_id, evaluation_id)
        return None if place is None else self._read_sound(place, "pack.npz", read_pack)

    def _read_sound(self, place: Path, name: str, read: Callable[[Path], Read]) -> Read:
        """Reads a file of a folder after its checksum was compared."""
        path = self._sound(place / name)
        try:
            return read(place)
        except (OSError, ValueError) as error:
            raise DamagedError(f"{path} is damaged ({in_words(error)}); {repair_advice(place)}") from None

    def sound_cases(self, run_id: str, evaluation_id: str) -> str | None:
        """The text of the ``cases.csv`` of an evaluation, after all small files of the run were checked (`damage`).

        Each file is read once. None if the run has no such evaluation.

        Raises:
            DamagedError: if a small file is missing or damaged.
        """
        read = SmallFiles()
        if faults := faults_of(self.folder(run_id), run_id, False, read):
            raise DamagedError(faults[0])
        folder = self.folder(run_id)
        if checked_json(read(folder, "evaluation.json"), "evaluation.json")["id"] != evaluation_id:
            folder = folder / "evaluations" / check_id(evaluation_id, "the id of an evaluation")
            if not is_regular(folder / "cases.csv"):
                return None
        return read(folder, "cases.csv").decode("utf-8")

    def read_cases(self, run_id: str, evaluation_id: str) -> "pd.DataFrame":
        """Reads the scores of a run's validation cases.

        Raises:
            UserError: if the file is missing or damaged.
        """

        def read(place: Path) -> "pd.DataFrame":
            content = read_cases_file(place)
            parse_cases(content)
            return cases_frame(content)

        return self._read_sound(self.evaluation_folder(run_id, evaluation_id), "cases.csv", read)

    def _sound(self, path: Path) -> Path:
        """The path of a stored file, after its checksum was compared.

        Raises:
            DamagedError: if the file is missing or damaged.
        """
        known = read_seal(path.parent)
        if path.name not in known:
            raise DamagedError(f"{path.parent / DONE} has no checksum of {path.name}; {repair_advice(path.parent)}")
        if wrong := differs(path.parent, path.name, known[path.name]):
            raise DamagedError(f"{wrong[0]}; {repair_advice(path.parent)}")
        return path
