"""Named streams of random numbers that depend only on seed, fold and name, and numbers drawn for many steps at once."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from dmseg.data.batches import send

AHEAD = 256
"""Number of steps drawn at once."""
Draw = Callable[[tuple[int, ...], torch.Generator], Tensor]
Streams = Callable[[str], torch.Generator]
"""Returns a run's stream of random numbers by name."""


def stream_seed(seed: int, fold: int, name: str) -> int:
    """Seed of a stream, in [0, 2**63)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{fold}/{name}".encode()).digest()[:8], "big") >> 1


def stream(seed: int, fold: int, name: str) -> torch.Generator:
    """CPU generator of the stream with a name, such as ``order`` or ``augmentation``."""
    return torch.Generator().manual_seed(stream_seed(seed, fold, name))


class DrawnAhead:
    """Numbers of a stream that are drawn for many steps at once and sent to the device in one copy.

    Both the numbers and the state between two steps are the same as if they were drawn step by step.

    Args:
        draw: draws the numbers of one step from a shape and a CPU generator; the result has the same shape each time.
        stream: CPU generator.
        steps: number of steps drawn at once.
    """

    def __init__(self, draw: Draw, stream: torch.Generator, steps: int = AHEAD) -> None:
        self._draw, self._stream, self._steps = draw, stream, steps
        self._kind: tuple[tuple[int, ...], torch.device] | None = None
        self._start, self._taken = stream.get_state(), 0
        self._drawn = torch.empty(0)

    def next(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """The numbers of the next step.

        Args:
            shape: passed to `draw`.
            device: device of the result.
        """
        if (shape, device) != self._kind:
            self.load_state(self.state())
            self._kind = shape, device
        if self._taken == len(self._drawn):
            self._start = self._stream.get_state()
            drawn = torch.stack([self._draw(shape, self._stream) for _ in range(self._steps)])
            self._drawn, self._taken = send(drawn, device), 0
        self._taken += 1
        return self._drawn[self._taken - 1]

    def state(self) -> Tensor:
        """State of the stream as if no step had been drawn ahead."""
        if self._kind is None or self._taken == len(self._drawn):
            return self._stream.get_state()
        again = torch.Generator()
        again.set_state(self._start)
        for _ in range(self._taken):
            self._draw(self._kind[0], again)
        return again.get_state()

    def load_state(self, state: Tensor) -> None:
        """Sets the state of the stream."""
        self._stream.set_state(state)
        self._kind, self._taken, self._drawn = None, 0, torch.empty(0)
