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
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from dmseg.files import checksum, checksums, publish, scratch_folder, sweep, writing

SUMS = "sums.json"
FINISHED = "-finished"
"""Ending of the name of a checkpoint whose training is over."""
PLACE = re.compile(rf"[0-9]{{9,}}({FINISHED})?")

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
            shutil.rmtree(place, ignore_errors=True)
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

    def restore(self) -> State | None:
        """Reads the newest checkpoint; one that is damaged is named, removed and passed over.

        Its `rest` is a course where `is_finished`, else where the training stands.
        """
        sweep(self._folder, alone=True)  # whoever restores has the run's lease
        for place in reversed(self._whole()):
            try:
                state = _read(place)
                self.is_finished = place.name.endswith(FINISHED)
                return state
            except (OSError, ValueError, KeyError, RuntimeError, UnpicklingError) as error:
                log.warning("checkpoint %s cannot be used (%s); it is removed", place, str(error).splitlines()[0])
                shutil.rmtree(place, ignore_errors=True)
        return None

    def remove(self) -> None:
        """Removes the run's checkpoints."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _whole(self) -> list[Path]:
        """The checkpoints, oldest first."""
        return sorted(path for path in self._folder.glob("[0-9]*") if PLACE.fullmatch(path.name) and path.is_dir())


def _read(place: Path) -> State:
    sums: dict[str, str] = json.loads((place / SUMS).read_text())
    for name, known in sums.items():
        if checksum(place / name) != known:
            raise ValueError(f"checksum of {name} differs")
    rest = torch.load(place / "rest.pt", map_location="cpu", weights_only=True)
    return State(load_file(place / "weights.safetensors"), rest)
