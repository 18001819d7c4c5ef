"""Checkpoints: the state of a training run on disk, so that an interrupted run resumes and gives the same numbers."""

import io
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from dmseg.errors import first_line
from dmseg.files.atomic import publish, remove, scratch_folder, sweep, writing
from dmseg.files.regular import checksum, checksums, inside, open_regular
from dmseg.files.schema import GROUP, TEXT, SchemaError, list_of, mapping, number, read_json, record, whole
from dmseg.training.checkpoint_folder import FINISHED, checkpoints_in, title_file

SUMS = "sums.json"
FILES = ("weights.safetensors", "rest.pt")
"""The files of a checkpoint, besides their checksums."""
LARGEST_SUMS = 2**16

REPORTS = list_of(
    record(
        {"epoch": whole(1), "step": whole(1), "losses": mapping(TEXT, number()), "lr": number()},
        others=None,
    )
)
SESSIONS = list_of(
    record({"steps": whole(), "seconds": number(0, 1e12), "threads": whole(1), "torch": TEXT}, others=None)
)
"""Schemas of stored `EpochReport` and `Session` objects."""

UNUSABLE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, EOFError,
    UnpicklingError, SafetensorError,
)  # fmt: skip
"""Errors raised on reading a checkpoint that is damaged or from another run."""

Used = TypeVar("Used")

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """Training was asked to stop and has saved its state."""


@dataclass(frozen=True)
class State:
    """State of a training run between two steps.

    Attributes:
        weights: the network's parameters and buffers.
        rest: optimiser, schedule, random streams, order of the data and losses so far, as plain containers and tensors.
    """

    weights: Mapping[str, Tensor]
    rest: Mapping[str, Any]


@dataclass(frozen=True)
class Session:
    """A part of a training run without interruption.

    Attributes:
        steps: number of steps taken before it.
        seconds: its duration, up to the last checkpoint if it was interrupted.
        threads: number of CPU threads; bitwise equal results need the same number in all sessions.
        torch: version of torch; likewise.
    """

    steps: int
    seconds: float
    threads: int
    torch: str


class Checkpoints:
    """Checkpoints of one run; only the newest is kept, and each is written completely or not at all.

    Args:
        folder: folder of this run alone. ``<folder>/<steps>/``, or ``<folder>/<steps>-finished/`` after the last step,
            contains the weights (safetensors), the rest of the state and their checksums.
        minutes: minutes between two checkpoints; None for no limit.
        steps: steps between two checkpoints; None for no limit.
        should_stop: called after each step; if it returns True, the state is saved and training stops.
        title: title of the run, stored beside the checkpoints.
    """

    def __init__(
        self,
        folder: Path,
        minutes: float | None,
        steps: int | None,
        should_stop: Callable[[], bool] = lambda: False,
        title: str = "",
    ) -> None:
        self._folder, self._title = folder, title
        self._minutes, self._steps = minutes, steps
        self._should_stop = should_stop
        self._last = time.monotonic()
        self.training_is_finished = False
        """Whether training is finished and its weights are saved."""

    def after_step(self, steps: int, state: Callable[[], State]) -> None:
        """Writes a checkpoint if one is due.

        Raises:
            Interrupted: if training was asked to stop.
            UnwritableError: if the checkpoint cannot be written.
        """
        stop = self._should_stop()
        by_steps = self._steps is not None and steps % self._steps == 0
        by_time = self._minutes is not None and time.monotonic() - self._last >= 60 * self._minutes
        if stop or by_steps or by_time:
            self.save(steps, state())
        if stop:
            raise Interrupted(f"stopped after {steps} steps (a checkpoint is kept); run the same command to resume")

    def save(self, steps: int, state: State, ending: str = "") -> None:
        """Writes a checkpoint and removes the older ones."""
        place = self._folder / f"{steps:09d}{ending}"
        kept = "the last checkpoint is kept" if checkpoints_in(self._folder) else ""
        with writing(place, kept), scratch_folder(place) as scratch:
            title_file(self._folder).write_text(self._title, encoding="utf-8", errors="backslashreplace")
            weights = {name: value.detach().cpu().contiguous() for name, value in state.weights.items()}
            (scratch / "weights.safetensors").write_bytes(save(weights))
            rest = io.BytesIO()
            torch.save(dict(state.rest), rest)
            (scratch / "rest.pt").write_bytes(rest.getvalue())
            (scratch / SUMS).write_text(json.dumps(checksums(scratch)))
            remove(place)
            publish(scratch, place)
        for older in checkpoints_in(self._folder):
            if older != place:
                shutil.rmtree(older, ignore_errors=True)
        self._last = time.monotonic()

    def finish(self, steps: int, weights: Mapping[str, Tensor], course: Mapping[str, Any]) -> None:
        """Saves the final weights once training is finished.

        Args:
            steps: number of steps that it took.
            weights: final parameters and buffers.
            course: further facts about the training, in plain containers.
        """
        self.save(steps, State(weights, course), FINISHED)
        self.training_is_finished = True

    def restore(self, use: Callable[[State], Used], finished: bool = False) -> Used | None:
        """Loads the newest usable checkpoint; unusable ones are logged and removed.

        Args:
            use: loads a state and does nothing else. It raises one of `UNUSABLE` if the state does not fit. If
                training is finished, `rest` is the `course` given to `finish`.
            finished: whether to load the checkpoint of finished training, or of training in progress.

        Returns:
            The return value of `use`; None if there is no usable checkpoint.
        """
        sweep(self._folder, alone=True)  # safe, as this process holds the run's lease
        for place in reversed(checkpoints_in(self._folder)):
            if place.name.endswith(FINISHED) != finished:
                continue
            try:
                used = use(_read(place))
                self.training_is_finished = finished
                return used
            except UNUSABLE as error:
                of_device = isinstance(error, RuntimeError) and "CUDA" in str(error)
                if of_device or isinstance(error, torch.OutOfMemoryError):  # no fault of the checkpoint
                    raise
                reason = first_line(error)
                log.warning("checkpoint %s cannot be used (%s); it is removed", place, reason)
                shutil.rmtree(place, ignore_errors=True)
        return None

    @property
    def has_finished_checkpoint(self) -> bool:
        """Whether there is a checkpoint of finished training, which may be damaged."""
        return any(place.name.endswith(FINISHED) for place in checkpoints_in(self._folder))

    def remove(self) -> None:
        """Removes the run's checkpoints."""
        shutil.rmtree(self._folder, ignore_errors=True)


def load_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Loads parameters and buffers, whose names, shapes and types must be those of the network.

    Raises:
        SchemaError: if they are not; the network is then left unchanged.
    """
    weights = getattr(network, "current_names", dict)(weights)
    known = {name: (value.shape, value.dtype) for name, value in network.state_dict().items()}
    if known != {name: (value.shape, value.dtype) for name, value in weights.items()}:
        raise SchemaError("its weights belong to another network")
    network.load_state_dict(weights)


def _read(place: Path) -> State:
    """Reads a checkpoint; raises one of `UNUSABLE` if it is damaged."""
    sums = read_json(inside(place, SUMS), mapping(TEXT, TEXT), LARGEST_SUMS)
    if set(sums) != set(FILES):
        raise SchemaError(f"{SUMS} names other files than {' and '.join(FILES)}")
    for name in FILES:
        if checksum(inside(place, name), follow=False) != sums[name]:
            raise SchemaError(f"checksum of {name} differs")
    with open_regular(place / "rest.pt") as file:
        rest = torch.load(file, map_location="cpu", weights_only=True)
    GROUP(rest, "rest.pt")
    weights = load_file(place / "weights.safetensors")
    for name, value in weights.items():
        if not torch.isfinite(value).all():
            raise SchemaError(f"{name} holds numbers that are not finite")
    return State(weights, rest)
