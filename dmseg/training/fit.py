"""The fit loop: one network, one fold, one objective."""

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dmseg.data.batches import Batch, BatchSource
from dmseg.errors import UserError
from dmseg.files.schema import GROUP, TEXT, SchemaError, anything, list_of, record, whole
from dmseg.training.checkpoint import REPORTS, SESSIONS, Checkpoints, Session, State, load_weights
from dmseg.training.graph import Graph, GraphedSteps
from dmseg.training.objective import Objective
from dmseg.training.observers import EpochReport, Observers
from dmseg.training.precision import float32_math

REST = record(
    {
        "steps": whole(1),
        **dict.fromkeys(("optimizer", "schedule", "source", "random"), GROUP),
        "reports": REPORTS,
        "losses": anything,
        "names": list_of(TEXT, unique=True, least=1),
        "sessions": SESSIONS,
    }
)
"""Schema of a checkpoint's state besides the weights."""

IMPLEMENTATION = ("foreach", "fused", "capturable")
"""Settings of an optimiser that choose among equivalent implementations; they depend on the device."""

log = logging.getLogger(__name__)


def fit(
    model: nn.Module,
    source: BatchSource,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    precision: str,
    observers: Observers,
    checkpoints: Checkpoints | None = None,
    graph: Callable[[], Graph] | None = None,
) -> tuple[list[EpochReport], list[Session]]:
    """Trains a network in place.

    The device is synchronised only at the end of an epoch, when its mean losses are read, and when the state is saved.
    With fused optimisers, learning rates are tensors on the device, which the schedule sets without waiting.
    Observers are called after that, so that no state is lost if one fails. The caller saves the final weights.

    Args:
        model: network on the device of the data.
        source: batches of the training cases.
        objective: the loss of one step.
        optimizer: optimiser of the network's parameters.
        schedule: its learning rates, stepped once per iteration.
        precision: ``fp32``, ``tf32`` or ``bf16``.
        observers: notified after every step and epoch.
        checkpoints: save the state regularly and restore an earlier one.
        graph: makes a graph, which replaces the plain steps if `can_be_graphed`; None for plain steps.

    Returns:
        The reports of all epochs and the sessions of the run; more than one if it was interrupted.

    Raises:
        UserError: if there are fewer slices than one batch, or the loss is not finite.
    """
    per_epoch = source.steps_per_epoch
    total = per_epoch * source.epochs
    model.train()
    model.to(memory_format=torch.channels_last)
    training = _Training(model, source, objective, optimizer, schedule)
    if checkpoints is not None and checkpoints.restore(partial(training.load, per_epoch=per_epoch, total=total)):
        log.info("training resumes after step %d of %d", training.steps, total)
        for earlier in training.reports:
            observers.epoch_ended(earlier)
    graphed = None
    if graph is not None and can_be_graphed(model, source, objective, optimizer):

        def take_row(row: Tensor) -> Tensor:
            return _take(training, source.batch(row), precision)

        graphed = GraphedSteps(take_row, optimizer, training.changed, graph())
    for steps in range(training.steps + 1, total + 1):
        if graphed is None:
            training.advance(_take(training, source.next(), precision))
        else:
            training.advance(graphed.step(source.next_row()))
        report = training.end_epoch(steps // per_epoch) if steps % per_epoch == 0 else None
        if checkpoints is not None and steps < total:
            checkpoints.after_step(steps, training.state)
        observers.stepped(steps)
        if report is not None:
            observers.epoch_ended(report)
    return training.reports, training.sessions


def can_be_graphed(
    model: nn.Module, source: BatchSource, objective: Objective, optimizer: torch.optim.Optimizer
) -> bool:
    """Whether a step does the same each time on the device, apart from its batch.

    False if the data are not resident, the objective is not static (`Objective.is_static`), the optimiser is not fused,
    or a module drops values at random.
    """
    dropouts = [module for module in model.modules() if "drop" in type(module).__name__.lower()]
    rates = [getattr(module, name, 0.0) for module in dropouts for name in ("p", "rate", "drop_prob", "dropout")]
    drops = any(isinstance(rate, float) and rate > 0 for rate in rates)
    return source.is_resident and objective.is_static and _is_fused(optimizer) and not drops


def _is_fused(optimizer: torch.optim.Optimizer) -> bool:
    return all(group.get("fused") for group in optimizer.param_groups)


def _take(training: "_Training", batch: Batch, precision: str) -> Tensor:
    """Takes a step; returns its losses, (L,), on the device."""
    with float32_math(tf32=precision == "tf32"):
        total, parts = training.objective.losses(training.model, batch, precision)
        training.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        training.optimizer.step()
    losses = {"loss": total.detach(), **parts}
    training.names = list(losses)
    return torch.stack(list(losses.values()))


class _Training:
    """The state that the next step depends on, and the losses so far."""

    def __init__(
        self,
        model: nn.Module,
        source: BatchSource,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LambdaLR,
    ) -> None:
        self.model, self.source, self.objective = model, source, objective
        self.optimizer, self.schedule = optimizer, schedule
        self.steps = 0
        self.reports: list[EpochReport] = []
        self._lr = 0.0
        self.names: list[str] = []
        self._losses: list[Tensor] = []
        self._earlier: list[Session] = []
        self._first, self._start = 0, time.monotonic()
        self._rates_to_device()

    @property
    def sessions(self) -> list[Session]:
        """The sessions so far, the current one last unless it has no step yet."""
        if self._earlier and self.steps == self._first:
            return self._earlier
        seconds = time.monotonic() - self._start
        return [*self._earlier, Session(self._first, seconds, torch.get_num_threads(), str(torch.__version__))]

    def advance(self, losses: Tensor) -> None:
        """Counts a step; its losses, (L,), stay on the device."""
        self._losses.append(losses)
        self._lr = self._rates(self.schedule.last_epoch)[0]
        self.schedule.step()
        self.steps += 1

    def changed(self) -> list[Tensor]:
        """The tensors on the device that a step changes."""
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        kept = [value for value in states if isinstance(value, Tensor)]
        return [*self.model.parameters(), *self.model.buffers(), *kept]

    def _rates(self, step: int) -> list[float]:
        """The learning rate of each group at a step."""
        factors = zip(self.schedule.base_lrs, self.schedule.lr_lambdas, strict=True)
        return [float(base) * factor(step) for base, factor in factors]

    def _rates_to_device(self) -> None:
        """Makes the learning rates tensors on the device, which a fused optimiser reads there."""
        if _is_fused(self.optimizer):
            for group in self.optimizer.param_groups:
                group["lr"] = torch.tensor(float(group["lr"]), device=self._device)

    def end_epoch(self, epoch: int) -> EpochReport:
        """Reads the epoch's mean losses.

        Raises:
            UserError: if one is not finite.
        """
        means = dict(zip(self.names, torch.stack(self._losses).mean(dim=0).tolist(), strict=True))
        report = EpochReport(epoch, self.steps, means, self._lr)
        if not all(map(math.isfinite, means.values())):
            raise UserError(f"the loss is not finite after epoch {epoch} ({asdict(report)}); lower optim.lr")
        self.reports.append(report)
        self._losses = []
        return report

    def state(self) -> State:
        """The current state; it is valid until the next step."""
        losses = torch.stack(self._losses).cpu() if self._losses else torch.empty(0, len(self.names))
        rates = self._rates(self.schedule.last_epoch)  # as numbers, on any device
        optimizer = self.optimizer.state_dict()
        groups = zip(optimizer["param_groups"], rates, strict=True)
        return State(
            weights=self.model.state_dict(),
            rest={
                "steps": self.steps,
                "optimizer": optimizer | {"param_groups": [group | {"lr": rate} for group, rate in groups]},
                "schedule": self.schedule.state_dict() | {"_last_lr": rates},
                "source": self.source.state(),
                "objective": self.objective.state(),
                "random": _random_state(self._device),
                "reports": [asdict(report) for report in self.reports],
                "losses": losses,
                "names": self.names,
                "sessions": [asdict(session) for session in self.sessions],
            },
        )

    def load(self, state: State, per_epoch: int, total: int) -> bool:
        """Restores the state of a training run with equal settings; returns True.

        Args:
            state: the state.
            per_epoch: number of steps in an epoch.
            total: number of steps in the whole run.

        Raises:
            Exception: if the state is from another run; nothing is changed then.
        """
        rest = state.rest
        REST(rest, "rest.pt")
        steps, into_epoch = rest["steps"], rest["steps"] % per_epoch
        if not 0 < steps < total:
            raise SchemaError(f"it is at step {steps}, but the run has {total} steps")
        if [report["step"] for report in rest["reports"]] != list(range(per_epoch, steps + 1, per_epoch)):
            raise SchemaError("its epoch reports do not match its step")
        if rest["source"].get("position", into_epoch) != into_epoch:
            raise SchemaError("its position in the epoch does not match its step")
        if not isinstance(rest["losses"], Tensor) or rest["losses"].shape != (into_epoch, len(rest["names"])):
            raise SchemaError("its losses do not match its step")
        initial, settings = copy.deepcopy(self.state()), self._settings()
        rates = self._rates(steps)
        try:
            self._load(state)
            if [group["lr"] for group in self.optimizer.param_groups] != rates:
                raise SchemaError("its learning rates do not match its step")
            values = [(like, value) for like, known in self.optimizer.state.items() for value in known.values()]
            tensors = [(like, value) for like, value in values if isinstance(value, Tensor)]
            if not all(value.shape in (like.shape, ()) and value.isfinite().all() for like, value in tensors):
                raise SchemaError("its optimiser state does not match the network or is not finite")
            self._rates_to_device()
            if self._settings() != settings or self.schedule.last_epoch != self.steps:
                raise SchemaError("its optimiser settings differ")
        except Exception:
            self._load(initial)
            self._rates_to_device()
            self._earlier = []
            raise
        return True

    def _settings(self) -> list[Any]:
        """Settings of the optimiser without the current learning rates, and without how the device computes a step."""
        others = ("lr", "params", *IMPLEMENTATION)
        groups = self.optimizer.param_groups
        return [{key: value for key, value in group.items() if key not in others} for group in groups]

    def _load(self, state: State) -> None:
        rest, own = state.rest, self.optimizer.param_groups
        load_weights(self.model, state.weights)
        flags = ({key: group[key] for key in IMPLEMENTATION if key in group} for group in own)  # of this device
        groups = [stored | here for stored, here in zip(rest["optimizer"]["param_groups"], flags, strict=True)]
        self.optimizer.load_state_dict({**rest["optimizer"], "param_groups": groups})
        self.schedule.load_state_dict(rest["schedule"])
        self.source.load_state(rest["source"])
        self.objective.load_state(rest.get("objective", {}))  # {}: checkpoints of earlier versions
        self.steps, self.names = rest["steps"], rest["names"]
        self._first, self._earlier = self.steps, [Session(**session) for session in rest["sessions"]]
        self.reports = [EpochReport(**report) for report in rest["reports"]]
        self._losses = list(rest["losses"].to(self._device).unbind(0))
        _set_random_state(rest["random"], self._device)

    @property
    def _device(self) -> torch.device:
        """Device of the network."""
        return next(self.model.parameters()).device


def _random_state(device: torch.device) -> dict[str, Tensor]:
    """State of torch's global random numbers, which dropout on this device uses."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _set_random_state(states: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
