"""The run store: one folder a run, written beside its place and renamed when whole, so never seen half-written.

``<results>/runs/<run id>/``

- ``config.json``: identity and full settings; ``manifest.json``: versions, hardware, duration
- ``history.csv``: losses and learning rate of each epoch; ``weights.safetensors``: the final network
- ``cases.csv``, ``evaluation.json``: scores of the validation cases, and the id of the evaluation that gave them
- ``evaluations/<id>/cases.csv``: the same under other evaluation settings
- ``predictions/<case>.npy``: foreground probabilities, where asked for
- ``DONE``: written last, the checksums of the others

Beside ``runs`` lie ``checkpoints`` and ``leases`` of runs that are being computed, ``failed`` with the logs of those
that failed, and ``damaged`` with entries that were set aside.
"""

import errno
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmseg.errors import UnwritableError, UserError, advice
from dmseg.experiments.lease import PATIENCE, is_held, lease
from dmseg.files import checksum, checksums, publish, remove_scratch, scratch_folder

if TYPE_CHECKING:  # 'dmseg runs' needs neither
    import pandas as pd
    import torch

SCORES = ("dice", "bdice", "ece")
"""The scores that every evaluation has, columns of ``cases.csv``."""
OPTIONAL_SCORES = ("ged",)
"""Those that an evaluation has only if it is asked for them."""
DONE = "DONE"
WEIGHTS = "weights.safetensors"
SMALL_FILES = ("config.json", "manifest.json", "history.csv", "cases.csv", "evaluation.json")
"""What is checked whenever a run is relied on; weights and predictions are checked when they are read."""

ID = re.compile(r"[0-9a-f]{16}")
"""What runs and evaluations are called; what has another name in their folders is not ours, and is ignored."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of a disk, not of one file."""

ADVICE = "'dmseg runs verify aside=true' sets what is damaged aside; then the same command computes it anew"


class DamagedError(UserError):
    """A stored file is missing, or is not what was stored."""


class RunStore:
    """Runs under one results folder.

    Args:
        results: the results folder.
    """

    def __init__(self, results: Path) -> None:
        self.results = results
        self.runs = results / "runs"

    def folder(self, run_id: str) -> Path:
        """Where a run lies, or will lie."""
        return self.runs / run_id

    def checkpoints(self, run_id: str) -> Path:
        """Where a run's checkpoints lie while it is trained."""
        return self.results / "checkpoints" / run_id

    def log(self, run_id: str) -> Path:
        """Where the log of a failed run lies."""
        return self.results / "failed" / f"{run_id}.log"

    def lease_file(self, run_id: str) -> Path:
        """Where the lease of a run lies while a process works on it."""
        return self.results / "leases" / f"{run_id}.json"

    def run_ids(self) -> list[str]:
        """Ids of all finished runs."""
        return [run_id for run_id in self.stored() if self.is_done(run_id)]

    def stored(self) -> list[str]:
        """Ids of all runs that have a folder; one without `DONE` is damaged."""
        return sorted(path.name for path in self.runs.glob("*") if ID.fullmatch(path.name) and path.is_dir())

    def is_done(self, run_id: str) -> bool:
        """Whether a run is finished."""
        return (self.folder(run_id) / DONE).is_file()

    @contextmanager
    def working_on(self, run_id: str, patience: float = PATIENCE) -> Iterator[None]:
        """Keeps other processes from working on a run while the block runs.

        Raises:
            Held: if another one does.
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
        """Removes what a process left that was killed just after it had finished a run: lease, checkpoints, log."""
        if is_held(self.lease_file(run_id)):
            return
        shutil.rmtree(self.checkpoints(run_id), ignore_errors=True)
        with suppress(OSError):
            self.lease_file(run_id).unlink(missing_ok=True)
            self.log(run_id).unlink(missing_ok=True)

    def write(self, run_id: str, fill: Callable[[Path], None]) -> Path:
        """Lets `fill` write a run's files and publishes them as finished; what is finished already stays.

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
                _seal(scratch)
                if not self.is_done(run_id):
                    shutil.rmtree(place, ignore_errors=True)
                    publish(scratch, place)
        except OSError as error:
            said = f"run {run_id} could not be stored in {self.runs}: {error.strerror or error}; {advice(error)}"
            raise (UnwritableError if error.errno in FULL else UserError)(said) from error
        return place

    def add(self, run_id: str, name: str, fill: Callable[[Path], None]) -> None:
        """Adds a folder to a finished run, whole or not at all.

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
                _seal(scratch)
                shutil.rmtree(place, ignore_errors=True)
                publish(scratch, place)
        except OSError as error:
            said = f"{place} could not be written: {error.strerror or error}; {advice(error)}"
            raise (UnwritableError if error.errno in FULL else UserError)(said) from error

    def damage(self, run_id: str, every_file: bool = False) -> list[str]:
        """What is wrong with a finished run: one line for each file that is missing or not what was stored.

        Files that were never stored do not matter.

        Args:
            run_id: id of the run.
            every_file: weights and predictions too; by default only what is small.
        """
        try:
            folders = [self.folder(run_id), *self.additions(run_id)]
            seals = {folder: _read_seal(folder / DONE) for folder in folders}
        except DamagedError as error:
            return [str(error)]
        found = []
        for folder, known in seals.items():
            unknown = [name for name in SMALL_FILES if name not in known and (folder / name).exists()]
            found += [f"{folder / DONE} has no checksum of {name}" for name in unknown]
            for name in known:
                if every_file or Path(name).name in SMALL_FILES:
                    found += _differs(folder / name, known[name])
        return found

    def additions(self, run_id: str) -> list[Path]:
        """Folders of a run that have checksums of their own: later evaluations, and predictions kept later."""
        folder = self.folder(run_id)
        later = sorted(path for path in folder.glob("evaluations/*") if ID.fullmatch(path.name) and path.is_dir())
        predictions = folder / "predictions"
        with_run = any(name.startswith("predictions/") for name in _read_seal(folder / DONE))
        return later if with_run or not predictions.is_dir() else [*later, predictions]

    def set_aside(self, run_id: str) -> Path:
        """Moves a damaged run out of the way, so that it counts as missing; returns where it lies."""
        aside = self.results / "damaged"
        aside.mkdir(parents=True, exist_ok=True)
        number = 1
        while (aside / f"{run_id}-{number}").exists():
            number += 1
        return self.folder(run_id).rename(aside / f"{run_id}-{number}")

    def remove(self, run_id: str) -> None:
        """Removes a run; it never looks finished while it goes."""
        (self.folder(run_id) / DONE).unlink(missing_ok=True)
        shutil.rmtree(self.folder(run_id))

    def read_json(self, run_id: str, name: str) -> dict[str, Any]:
        """Reads one of a run's JSON files.

        Raises:
            UserError: if it is missing or damaged.
        """
        return read_json(self.folder(run_id) / name)

    def load_weights(self, run_id: str) -> "dict[str, torch.Tensor]":
        """Reads a run's final weights.

        Raises:
            UserError: if the run was imported without them, or the file is missing or damaged.
        """
        from safetensors.torch import load_file

        if not self.has_weights(run_id):
            raise UserError(
                f"run {run_id} was imported without its weights: it can neither be scored anew nor teach\n"
                f"export it with weights=true, or remove it (dmseg runs prune {run_id} confirm=true) and train it here"
            )
        return load_file(self._sound(self.folder(run_id) / WEIGHTS))

    def has_weights(self, run_id: str) -> bool:
        """Whether a finished run has weights; one that was imported may have none."""
        return WEIGHTS in _read_seal(self.folder(run_id) / DONE)

    def evaluation_folder(self, run_id: str, evaluation_id: str) -> Path:
        """Where the scores of one evaluation of a finished run lie: the first one in the run's own folder.

        Raises:
            DamagedError: if the file that says so is missing or damaged.
        """
        folder = self.folder(run_id)
        if read_json(self._sound(folder / "evaluation.json"))["id"] == evaluation_id:
            return folder
        return folder / "evaluations" / evaluation_id

    def has_evaluation(self, run_id: str, evaluation_id: str) -> bool:
        """Whether a finished run has been scored this way."""
        return self.is_done(run_id) and (self.evaluation_folder(run_id, evaluation_id) / "cases.csv").is_file()

    def has_predictions(self, run_id: str) -> bool:
        """Whether a finished run's predictions are kept."""
        return self.is_done(run_id) and (self.folder(run_id) / "predictions").is_dir()

    def is_complete(self, run_id: str, evaluation_id: str, predictions: bool) -> bool:
        """Whether a run is trained, scored this way, and its predictions are kept if they are wanted."""
        return self.has_evaluation(run_id, evaluation_id) and (not predictions or self.has_predictions(run_id))

    def read_cases(self, run_id: str, evaluation_id: str) -> "pd.DataFrame":
        """Reads the scores of a run's validation cases.

        Raises:
            UserError: if the file is missing or damaged.
        """
        import pandas as pd

        path = self._sound(self.evaluation_folder(run_id, evaluation_id) / "cases.csv")
        try:
            return pd.read_csv(path, dtype={"case": str}, keep_default_na=False, na_values=[""])  # a case may be "NA"
        except ValueError as error:
            raise DamagedError(f"{path} is damaged ({error}); {ADVICE}") from None

    def _sound(self, path: Path) -> Path:
        """A stored file that is what was stored.

        Raises:
            DamagedError: if it is missing or damaged.
        """
        seal = _read_seal(path.parent / DONE)
        if path.name not in seal:
            raise DamagedError(f"{path.parent / DONE} has no checksum of {path.name}; {ADVICE}")
        if wrong := _differs(path, seal[path.name]):
            raise DamagedError(f"{wrong[0]}; {ADVICE}")
        return path


def write_scores(folder: Path, cases: "pd.DataFrame", evaluation_id: str, evaluation: dict[str, Any]) -> None:
    """Writes ``cases.csv`` and ``evaluation.json``; numbers with all their digits."""
    write_json(folder / "evaluation.json", {"id": evaluation_id, "settings": evaluation})
    cases.to_csv(folder / "cases.csv", index=False)


def mean_scores(cases: "pd.DataFrame") -> dict[str, float]:
    """Mean of each score that there is over the cases that have one; not a number where none has."""
    return {name: float(cases[name].mean()) for name in (*SCORES, *OPTIONAL_SCORES) if name in cases}


def save_weights(path: Path, model: "torch.nn.Module") -> None:
    """Writes a network's final weights as float32 safetensors."""
    from safetensors.torch import save

    path.write_bytes(save({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}))


def write_json(path: Path, node: dict[str, Any]) -> None:
    """Writes a JSON file."""
    path.write_text(json.dumps(node, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON file.

    Raises:
        DamagedError: if it is missing or damaged.
    """
    try:
        node = json.loads(path.read_text())
    except FileNotFoundError:
        raise DamagedError(f"{path} is missing; {ADVICE}") from None
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path} is damaged ({error}); {ADVICE}") from None
    if not isinstance(node, dict):
        raise DamagedError(f"{path} is damaged (it holds no keys); {ADVICE}")
    return node


def _seal(folder: Path) -> None:
    """Writes DONE: the checksums of all files that are there."""
    write_json(folder / DONE, checksums(folder))


def _read_seal(path: Path) -> dict[str, str]:
    """Checksums by file name.

    Raises:
        DamagedError: if they are missing or damaged; then nothing that they are about can be trusted.
    """
    return read_json(path)


def _differs(path: Path, known: str) -> list[str]:
    """Says what is wrong with a stored file, in no or one line."""
    try:
        return [] if checksum(path) == known else [f"{path} is damaged: its checksum differs"]
    except OSError as error:
        return [f"{path} cannot be read: {error.strerror}"]
