"""Training steps as a CUDA graph: recorded once and replayed, so that the host launches one graph per step.

The graph reads the batch's row (`BatchSource.next_row`) from a buffer, which is filled before each replay; weights,
optimiser state, learning rates and gradients are tensors that stay where they are. What a step reads from the host
would be frozen in the graph. Its first replays are therefore compared with plain steps from the same state, and if they
disagree, or a step cannot be recorded, training continues with plain steps.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from dmseg.errors import first_line

WARM_UP = 3
"""Number of plain steps before recording, during which libraries choose their algorithms."""
COMPARED = 2
"""Number of replays that are compared with plain steps. One is not enough: the first has the
batch that was recorded."""
TOLERANCE = 0.05
"""Largest difference of a replay from a plain step: of the weights, relative to their change; of the loss, relative to
its size. Parallel sums differ by less, a frozen batch or learning rate by more."""

log = logging.getLogger(__name__)


class Graph(Protocol):
    """A recorded function. Its tensors stay at the same addresses, so a replay uses their current values."""

    def warm_up(self, function: Callable[[], None]) -> None:
        """Calls a function under the conditions of the recording."""

    def record(self, function: Callable[[], None]) -> None:
        """Records what a function does on the device, without executing it."""

    def replay(self) -> None:
        """Executes what was recorded."""


class CudaGraph:
    """`torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def warm_up(self, function: Callable[[], None]) -> None:
        """Calls a function on another stream than the default one, as recording needs."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            function()
        torch.cuda.current_stream().wait_stream(self._stream)

    def record(self, function: Callable[[], None]) -> None:
        """Records a function."""
        with torch.cuda.graph(self._graph):
            function()

    def replay(self) -> None:
        """Replays it on the current stream."""
        self._graph.replay()


class GraphedSteps:
    """Takes training steps: some plain ones, then replays of a graph.

    Args:
        take: takes a step on a row, (B, 6), and returns its losses, (L,).
        optimizer: takes the steps; its learning rates are tensors.
        state: what a step changes: parameters, buffers and optimiser state; called after the first step.
        graph: an empty graph.
    """

    def __init__(
        self,
        take: Callable[[Tensor], Tensor],
        optimizer: torch.optim.Optimizer,
        state: Callable[[], Sequence[Tensor]],
        graph: Graph,
    ) -> None:
        self._take, self._optimizer, self._state = take, optimizer, state
        self._graph: Graph | None = graph
        self._row = self._losses = torch.empty(0)
        self._steps = 0

    def step(self, row: Tensor) -> Tensor:
        """Takes a step on a row and returns its losses."""
        if self._graph is None:
            return self._take(row)
        if not self._steps:
            self._row = row.clone()
        self._row.copy_(row)
        self._steps += 1
        if self._steps <= WARM_UP:
            self._graph.warm_up(self._run)
            return self._losses
        if self._steps == WARM_UP + 1:
            try:
                self._optimizer.zero_grad(set_to_none=True)
                self._graph.record(self._run)
            except RuntimeError as error:
                self._give_up(first_line(error))
                return self._take(row)
        if self._steps > WARM_UP + COMPARED:
            self._graph.replay()
            return self._losses.clone()
        # compare a replay with a plain step from the same state, with half of the learning rates, and restore all
        state = [*self._state(), *(group["lr"] for group in self._optimizer.param_groups)]
        weights = [value for value in state if isinstance(value, nn.Parameter)]
        before, unchanged = _copies(state), _copies(weights)
        _halve_rates(self._optimizer)
        self._graph.replay()
        replayed, losses = _copies(weights), self._losses.clone()
        _restore(state, before)
        _halve_rates(self._optimizer)
        plain = self._take(row)
        change, difference = _distance(weights, unchanged), _distance(weights, replayed)
        loss_error = (losses - plain).abs().max() / plain.abs().max().clamp_min(1e-12)
        _restore(state, before)
        if not (bool(difference <= TOLERANCE * change) and bool(loss_error <= TOLERANCE)):
            self._give_up(
                f"a replay differs from a plain step, in the weights by {float(difference / change):.2g} of their "
                f"change and in the loss by {float(loss_error):.2g}"
            )
        return self._take(row)

    def _run(self) -> None:
        self._losses = self._take(self._row)

    def _give_up(self, reason: str) -> None:
        log.warning("training continues without a CUDA graph: %s", reason)
        self._graph = None
        self._optimizer.zero_grad(set_to_none=True)


def _copies(values: Sequence[Tensor]) -> list[Tensor]:
    return [value.detach().clone() for value in values]


@torch.no_grad()
def _restore(values: Sequence[Tensor], kept: Sequence[Tensor]) -> None:
    """Writes earlier values into tensors, in place."""
    for value, earlier in zip(values, kept, strict=True):
        value.copy_(earlier)


def _halve_rates(optimizer: torch.optim.Optimizer) -> None:
    """Halves the learning rates; a graph that has frozen them then takes a step of twice the size."""
    for group in optimizer.param_groups:
        group["lr"].mul_(0.5)


@torch.no_grad()
def _distance(values: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """Euclidean distance between two lists of tensors, a scalar."""
    pairs = zip(values, others, strict=True)
    return torch.stack([(value.double() - other.double()).square().sum() for value, other in pairs]).sum().sqrt()
