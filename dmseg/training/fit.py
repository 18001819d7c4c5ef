"""The fit loop: one network, one fold, one objective."""

import math
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from dmseg.data.batches import BatchSource
from dmseg.errors import UserError
from dmseg.training.checkpoint import Session, State
from dmseg.training.objective import Objective
from dmseg.training.observers import EpochReport, Observers
from dmseg.training.precision import float32_math

PRECISIONS = ("fp32", "tf32", "bf16", "auto")


def resolve_device(name: str) -> torch.device:
    """``auto`` is the first CUDA device where there is one, else the CPU.

    Raises:
        UserError: if the device is unknown or absent.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError:
        raise UserError(f"device '{name}' is unknown; it may be auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device '{name}' cannot be used; it may be auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device '{name}' is not there: torch sees no CUDA; set device=cpu")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise UserError(f"device '{name}' is not there: torch sees {count} CUDA devices, cuda:0 to cuda:{count - 1}")
    return device


def resolve_precision(name: str, device: str) -> str:
    """``auto`` is bf16 where the hardware computes it natively, else fp32.

    Raises:
        UserError: if the precision is unknown.
    """
    if name not in PRECISIONS:
        raise UserError(f"precision is '{name}', but may be {', '.join(PRECISIONS)}")
    if name != "auto":
        return name
    if resolve_device(device).type == "cuda":
        return "bf16" if torch.cuda.get_device_capability()[0] >= 8 else "fp32"
    return "bf16" if _cpu_has_bf16() else "fp32"


def _cpu_has_bf16() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if platform.system() == "Linux" and cpuinfo.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


class Keeper(Protocol):
    """Keeps where a training stands, so that another process can go on with it."""

    def restore(self) -> State | None:
        """The last state that was kept, or None."""

    def after_step(self, steps: int, state: Callable[[], State]) -> None:
        """A step is done; keeps the state where it is time to, and may raise to stop the training."""


def fit(
    model: nn.Module,
    source: BatchSource,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    precision: str,
    observers: Observers,
    keeper: Keeper | None = None,
) -> list[Session]:
    """Trains a network in place.

    The device is waited for only at the end of an epoch, when its mean losses are read, and when a state is kept. That
    comes before the observers, so that one that fails costs nothing. The state after the last step is the caller's to
    keep.

    Args:
        model: network on the device of the data.
        source: batches of the training cases.
        objective: the loss of one step.
        optimizer: of the network's parameters.
        schedule: its learning rates, stepped once an iteration.
        precision: ``fp32``, ``tf32`` or ``bf16``.
        observers: told of every step and epoch.
        keeper: keeps the state now and then, and gives back an earlier one to go on from.

    Returns:
        The sessions that the training took: one, or more if it was interrupted.

    Raises:
        UserError: if there are fewer slices than one batch, or the loss is not finite.
    """
    per_epoch = source.steps_per_epoch
    total = per_epoch * source.epochs
    model.train()
    model.to(memory_format=torch.channels_last)
    training = _Training(model, source, objective, optimizer, schedule)
    if keeper is not None and (state := keeper.restore()) is not None:
        training.load(state)
        for earlier in training.reports:
            observers.epoch_ended(earlier)
    for steps in range(training.steps + 1, total + 1):
        _step(training, precision)
        report = training.end_epoch(steps // per_epoch) if steps % per_epoch == 0 else None
        if keeper is not None and steps < total:
            keeper.after_step(steps, training.state)
        observers.stepped(steps)
        if report is not None:
            observers.epoch_ended(report)
    return training.sessions


def _step(training: "_Training", precision: str) -> None:
    with float32_math(tf32=precision == "tf32"):
        total, parts = training.objective.losses(training.model, training.source.next(), precision)
        training.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        training.optimizer.step()
    training.advance({"loss": total.detach(), **parts})


class _Training:
    """Everything that the next step depends on, and the losses so far."""

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
        self._names: list[str] = []
        self._losses: list[Tensor] = []
        self._earlier: list[Session] = []
        self._first, self._start = 0, time.monotonic()

    @property
    def sessions(self) -> list[Session]:
        """The sessions so far, the current one last; one without a step does not count."""
        if self._earlier and self.steps == self._first:
            return self._earlier
        seconds = time.monotonic() - self._start
        return [*self._earlier, Session(self._first, seconds, torch.get_num_threads(), str(torch.__version__))]

    def advance(self, losses: dict[str, Tensor]) -> None:
        """Counts a step with these losses, still on the device."""
        self._names = list(losses)
        self._losses.append(torch.stack(list(losses.values())))
        self._lr = float(self.schedule.get_last_lr()[0])
        self.schedule.step()
        self.steps += 1

    def end_epoch(self, epoch: int) -> EpochReport:
        """Reads the epoch's mean losses.

        Raises:
            UserError: if one is not finite.
        """
        means = dict(zip(self._names, torch.stack(self._losses).mean(dim=0).tolist(), strict=True))
        report = EpochReport(epoch, self.steps, means, self._lr)
        if not all(map(math.isfinite, means.values())):
            raise UserError(f"the loss is not finite after epoch {epoch} ({asdict(report)}); lower optim.lr")
        self.reports.append(report)
        self._losses = []
        return report

    def state(self) -> State:
        """A copy of everything, on the CPU where it is small, to be written at once."""
        losses = torch.stack(self._losses).cpu() if self._losses else torch.empty(0, len(self._names))
        return State(
            weights=self.model.state_dict(),
            rest={
                "steps": self.steps,
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "source": self.source.state(),
                "objective": self.objective.state(),
                "random": _random_state(self._device),
                "reports": [asdict(report) for report in self.reports],
                "losses": losses,
                "names": self._names,
                "sessions": [asdict(session) for session in self.sessions],
            },
        )

    def load(self, state: State) -> None:
        """Goes on from a state of an equal training."""
        rest = state.rest
        self.model.load_state_dict(state.weights)
        self.optimizer.load_state_dict(rest["optimizer"])
        self.schedule.load_state_dict(rest["schedule"])
        self.source.load_state(rest["source"])
        self.objective.load_state(rest.get("objective", {}))  # {}: checkpoints of earlier versions
        self.steps, self._names = rest["steps"], rest["names"]
        self._first, self._earlier = self.steps, [Session(**session) for session in rest["sessions"]]
        self.reports = [EpochReport(**report) for report in rest["reports"]]
        self._losses = list(rest["losses"].to(self._device).unbind(0))
        _set_random_state(rest["random"], self._device)

    @property
    def _device(self) -> torch.device:
        """Where the network is trained."""
        return next(self.model.parameters()).device


def _random_state(device: torch.device) -> dict[str, Tensor]:
    """Torch's global random numbers, which dropout on this device draws from."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _set_random_state(states: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
