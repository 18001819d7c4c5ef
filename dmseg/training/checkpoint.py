"""Checkpoints: where a training stands, on disk, so that a killed one goes on and ends in the same numbers."""

import io
import json
import logging
import re
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

from dmseg.files.atomic import publish, remove, scratch_folder, sweep, writing
from dmseg.files.regular import checksum, checksums, inside, open_regular
from dmseg.files.schema import GROUP, TEXT, Misfit, list_of, mapping, number, read_json, record, whole

SUMS = "sums.json"
FILES = ("weights.safetensors", "rest.pt")
"""What a checkpoint consists of, beside their checksums."""
LARGEST_SUMS = 2**16
FINISHED = "-finished"
"""Ending of the name of a checkpoint whose training is over."""
PLACE = re.compile(rf"[0-9]{{9,}}({FINISHED})?")

REPORTS = list_of(
    record(
        {"epoch": whole(1), "step": whole(1), "losses": mapping(TEXT, number()), "lr": number()},
        others=None,
    )
)
SESSIONS = list_of(
    record({"steps": whole(), "seconds": number(0, 1e12), "threads": whole(1), "torch": TEXT}, others=None)
)
"""What is read back of `EpochReport` and `Session`."""

UNUSABLE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, EOFError,
    UnpicklingError, SafetensorError,
)  # fmt: skip
"""What reading a checkpoint may raise that was not written by this training."""

Used = TypeVar("Used")

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """A training was asked to stop, and has kept its state."""


@dataclass(frozen=True)
class State:
    """Where a training stands between two steps.

    Attributes:
        weights: the network's parameters and buffers.
        rest: optimiser, schedule, random streams, order of the data, losses so far: plain containers and tensors.
    """

    weights: Mapping[str, Tensor]
    rest: Mapping[str, Any]


@dataclass(frozen=True)
class Session:
    """A stretch of a training without interruption.

    Attributes:
        steps: steps taken before it.
        seconds: how long it took, up to the last checkpoint if it was interrupted.
        threads: CPU threads; bitwise equality needs the same in all sessions.
        torch: version of torch, likewise.
    """

    steps: int
    seconds: float
    threads: int
    torch: str


class Checkpoints:
    """Checkpoints of one run; only the newest is kept, each appears whole or not at all.

    Args:
        folder: of this run alone; ``<folder>/<steps>/``, after the last step ``<steps>-finished``, holds the weights
            (safetensors), the rest, and their checksums.
        minutes: a checkpoint is written when so many minutes have passed since the last one; None for never.
        steps: the same in steps.
        should_stop: asked after each step; if it says yes, the state is kept and the training stops.
    """

    def __init__(
        self,
        folder: Path,
        minutes: float | None,
        steps: int | None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._folder = folder
        self._minutes, self._steps = minutes, steps
        self._should_stop = should_stop
        self._last = time.monotonic()
        self.is_finished = False
        """Whether the training is over and its weights are kept."""

    def after_step(self, steps: int, state: Callable[[], State]) -> None:
        """Writes a checkpoint where it is time to.

        Raises:
            Interrupted: if the training was asked to stop.
            UnwritableError: if the checkpoint cannot be written.
        """
        stop = self._should_stop()
        if stop or self._is_time(steps):
            self.save(steps, state())
        if stop:
            raise Interrupted(f"stopped after {steps} steps; a checkpoint is kept, run the same command to resume")

    def _is_time(self, steps: int) -> bool:
        by_steps = self._steps is not None and steps % self._steps == 0
        return by_steps or (self._minutes is not None and time.monotonic() - self._last >= 60 * self._minutes)

    def save(self, steps: int, state: State, ending: str = "") -> None:
        """Writes a checkpoint and removes the older ones."""
        place = self._folder / f"{steps:09d}{ending}"
        with writing(place, "the last checkpoint is kept" if self._whole() else ""), scratch_folder(place) as scratch:
            weights = {name: value.detach().cpu().contiguous() for name, value in state.weights.items()}
            (scratch / "weights.safetensors").write_bytes(save(weights))
            rest = io.BytesIO()
            torch.save(dict(state.rest), rest)
            (scratch / "rest.pt").write_bytes(rest.getvalue())
            (scratch / SUMS).write_text(json.dumps(checksums(scratch)))
            remove(place)
            publish(scratch, place)
        for older in self._whole():
            if older != place:
                shutil.rmtree(older, ignore_errors=True)
        self._last = time.monotonic()

    def finish(self, steps: int, weights: Mapping[str, Tensor], course: Mapping[str, Any]) -> None:
        """Keeps the weights of a training that is over, which no further step is taken from.

        Args:
            steps: number of steps that it took.
            weights: final parameters and buffers.
            course: what else is to be known of it: plain containers.
        """
        self.save(steps, State(weights, course), FINISHED)
        self.is_finished = True

    def restore(self, use: Callable[[State], Used], finished: bool = False) -> Used | None:
        """Hands the newest checkpoint over; one that is damaged or refused is named, removed and passed over.

        Args:
            use: loads a state, whose `rest` is a course if `finished`, else where the training stands. What it raises
                because the state does not fit (`UNUSABLE`) refuses the checkpoint, so it does nothing but load.
            finished: whether the training must be over, or must not.

        Returns:
            What `use` returns; None if there is no checkpoint that can be used.
        """
        sweep(self._folder, alone=True)  # whoever restores has the run's lease
        for place in reversed(self._whole()):
            if place.name.endswith(FINISHED) != finished:
                continue
            try:
                used = use(_read(place))
                self.is_finished = finished
                return used
            except UNUSABLE as error:
                if _is_of_device(error):
                    raise
                said = (str(error) or type(error).__name__).splitlines()[0]
                log.warning("checkpoint %s cannot be used (%s); it is removed", place, said)
                shutil.rmtree(place, ignore_errors=True)
        return None

    @property
    def has_finished(self) -> bool:
        """Whether there is a checkpoint of a training that is over; it may be damaged."""
        return any(place.name.endswith(FINISHED) for place in self._whole())

    def remove(self) -> None:
        """Removes the run's checkpoints."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _whole(self) -> list[Path]:
        """The checkpoints, oldest first; links are none."""
        found = (path for path in self._folder.glob("[0-9]*") if PLACE.fullmatch(path.name))
        return sorted(path for path in found if path.is_dir() and not path.is_symlink())


def load_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Loads parameters and buffers, which must have the network's own names, shapes and types.

    Raises:
        Misfit: if they have others; the network then stays as it is.
    """
    weights = getattr(network, "current_names", dict)(weights)
    known = {name: (value.shape, value.dtype) for name, value in network.state_dict().items()}
    if known != {name: (value.shape, value.dtype) for name, value in weights.items()}:
        raise Misfit("its weights are those of another network")
    network.load_state_dict(weights)


def _read(place: Path) -> State:
    """Reads a checkpoint; raises one of `UNUSABLE` if it is damaged."""
    sums = read_json(inside(place, SUMS), mapping(TEXT, TEXT), LARGEST_SUMS)
    if set(sums) != set(FILES):
        raise Misfit(f"{SUMS} names other files than {' and '.join(FILES)}")
    for name in FILES:
        if checksum(inside(place, name), follow=False) != sums[name]:
            raise Misfit(f"checksum of {name} differs")
    with open_regular(place / "rest.pt") as file:
        rest = torch.load(file, map_location="cpu", weights_only=True)
    GROUP(rest, "rest.pt")
    weights = load_file(place / "weights.safetensors")
    for name, value in weights.items():
        if not torch.isfinite(value).all():
            raise Misfit(f"{name} holds numbers that are not finite")
    return State(weights, rest)


def _is_of_device(error: Exception) -> bool:
    """Whether a device failed, or its memory is full: no fault of the checkpoint."""
    return isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and "CUDA" in str(error))
