"""The run store: one folder a run, written beside its place and renamed when whole, so never seen half-written.

``<results>/runs/<run id>/``

- ``config.json``: identity and full settings; ``manifest.json``: versions, hardware, duration
- ``history.csv``: losses and learning rate of each epoch; ``weights.safetensors``: the final network
- ``cases.csv``, ``evaluation.json``: scores of the validation cases, and the id of the evaluation that gave them
- ``evaluations/<id>/cases.csv``: the same under other evaluation settings
- ``predictions/<case>.npy``: foreground probabilities, where asked for
- ``DONE``: written last
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from dmseg.errors import UserError

if TYPE_CHECKING:
    import torch

DONE = "DONE"


class RunStore:
    """Finished runs under one results folder.

    Args:
        results: the results folder.
    """

    def __init__(self, results: Path) -> None:
        self.runs = results / "runs"

    def folder(self, run_id: str) -> Path:
        """Where a run lies, or will lie."""
        return self.runs / run_id

    def is_done(self, run_id: str) -> bool:
        """Whether a run is finished."""
        return (self.folder(run_id) / DONE).is_file()

    def write(self, run_id: str, fill: Callable[[Path], None]) -> Path:
        """Lets `fill` write a run's files and publishes them as finished.

        Args:
            run_id: id of the run.
            fill: called with an empty folder.

        Raises:
            UserError: if the disk is full or the store cannot be written to.
        """
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=f".{run_id}.", dir=self.runs))
        except OSError as error:
            raise UserError(f"results folder {self.runs} cannot be written to: {error.strerror}") from None
        try:
            fill(scratch)
            (scratch / DONE).touch()
            return self._publish(scratch, run_id)
        except OSError as error:
            raise UserError(f"run {run_id} could not be stored in {self.runs}: {error.strerror}") from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _publish(self, scratch: Path, run_id: str) -> Path:
        folder = self.folder(run_id)
        if self.is_done(run_id):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(scratch, folder)
        return folder

    def read_json(self, run_id: str, name: str) -> dict[str, Any]:
        """Reads one of a run's JSON files.

        Raises:
            UserError: if it is missing or damaged.
        """
        return read_json(self.folder(run_id) / name)

    def load_weights(self, run_id: str) -> "dict[str, torch.Tensor]":
        """Reads a run's final weights.

        Raises:
            UserError: if the file is missing or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.folder(run_id) / "weights.safetensors"
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{path} is damaged ({str(error).splitlines()[0]}); delete its folder and run again"
            ) from None

    def evaluation_folder(self, run_id: str, evaluation_id: str) -> Path:
        """Where the scores of one evaluation of a run lie: the first one in the run's own folder."""
        folder = self.folder(run_id)
        first = folder / "evaluation.json"
        if first.is_file() and read_json(first)["id"] == evaluation_id:
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

    def read_cases(self, run_id: str, evaluation_id: str) -> pd.DataFrame:
        """Reads the scores of a run's validation cases.

        Raises:
            UserError: if the file is missing or damaged.
        """
        path = self.evaluation_folder(run_id, evaluation_id) / "cases.csv"
        try:
            return pd.read_csv(path, dtype={"case": str})
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error}); delete its folder and run again") from None

    def add(self, run_id: str, name: str, fill: Callable[[Path], None]) -> None:
        """Adds a folder to a finished run, whole or not at all.

        Args:
            run_id: id of the run.
            name: folder within the run's, for example ``predictions``.
            fill: called with an empty folder.
        """
        place = self.folder(run_id) / name
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".adding.", dir=place.parent))
        try:
            fill(scratch)
            shutil.rmtree(place, ignore_errors=True)
            os.rename(scratch, place)
        except OSError as error:
            raise UserError(f"{place} could not be written: {error.strerror}") from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def write_scores(folder: Path, cases: pd.DataFrame, evaluation_id: str, evaluation: dict[str, Any]) -> None:
    """Writes ``cases.csv`` and ``evaluation.json``; numbers with all their digits."""
    write_json(folder / "evaluation.json", {"id": evaluation_id, "settings": evaluation})
    cases.to_csv(folder / "cases.csv", index=False)


def save_weights(path: Path, model: "torch.nn.Module") -> None:
    """Writes a network's final weights as float32 safetensors."""
    from safetensors.torch import save_file

    save_file({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}, path)


def write_json(path: Path, node: dict[str, Any]) -> None:
    """Writes a JSON file."""
    path.write_text(json.dumps(node, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON file.

    Raises:
        UserError: if it is missing or damaged.
    """
    try:
        return json.loads(path.read_text())  # type: ignore[no-any-return]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); delete its folder and run again") from None
