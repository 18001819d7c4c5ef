"""Observers: the protocol through which progress bars and trackers follow a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class RunInfo:
    """Information for observers at the start of a run.

    Attributes:
        run_id: id of the run.
        experiment_id: id shared by the folds of one configuration.
        title: title for display.
        config: the resolved configuration.
        epochs: number of epochs.
        steps_per_epoch: optimiser steps in an epoch.
        validate: scores the current network on the validation cases without affecting training; returns means by
            name, none if the process was asked to stop. None if nothing is trained.
    """

    run_id: str
    experiment_id: str
    title: str
    config: dict[str, Any]
    epochs: int
    steps_per_epoch: int
    validate: Callable[[], dict[str, float]] | None = None


@dataclass(frozen=True)
class EpochReport:
    """Information for observers after each epoch.

    Attributes:
        epoch: number of finished epochs.
        step: number of finished steps.
        losses: mean of the loss (``loss``) and of each of its parts over the epoch.
        lr: learning rate of the encoder in the epoch's last step.
    """

    epoch: int
    step: int
    losses: dict[str, float]
    lr: float


class Observer(Protocol):
    """Follows one run."""

    def started(self, info: RunInfo) -> None:
        """Called at the start of the run."""

    def stepped(self, step: int) -> None:
        """Called after each optimiser step with the number of steps; must not synchronise the device."""

    def epoch_ended(self, report: EpochReport) -> None:
        """Called after each epoch."""

    def evaluated(self, summary: dict[str, float]) -> None:
        """Called with the mean scores over the validation cases."""

    def ended(self, error: BaseException | None) -> None:
        """Called exactly once at the end of the run, also after an error."""


class Observers:
    """Several observers as one."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self._observers = tuple(observers)

    def started(self, info: RunInfo) -> None:
        """Notifies all observers."""
        for observer in self._observers:
            observer.started(info)

    def stepped(self, step: int) -> None:
        """Notifies all observers."""
        for observer in self._observers:
            observer.stepped(step)

    def epoch_ended(self, report: EpochReport) -> None:
        """Notifies all observers."""
        for observer in self._observers:
            observer.epoch_ended(report)

    def evaluated(self, summary: dict[str, float]) -> None:
        """Notifies all observers."""
        for observer in self._observers:
            observer.evaluated(summary)

    def ended(self, error: BaseException | None) -> None:
        """Notifies all observers."""
        for observer in self._observers:
            observer.ended(error)
