"""What the fit loop tells: a small protocol, so that progress bars and trackers are handed in from above."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class RunInfo:
    """What an observer learns at the start.

    Attributes:
        run_id: id of the run.
        experiment_id: id shared by the folds of one configuration.
        title: words for people.
        config: the resolved configuration.
        epochs: number of epochs.
        steps_per_epoch: optimiser steps in an epoch.
    """

    run_id: str
    experiment_id: str
    title: str
    config: dict[str, Any]
    epochs: int
    steps_per_epoch: int


@dataclass(frozen=True)
class EpochReport:
    """What an observer learns after each epoch.

    Attributes:
        epoch: number of epochs done.
        step: number of steps done.
        losses: mean of the loss (``loss``) and of each of its parts over the epoch.
        lr: learning rate of the encoder in the epoch's last step.
    """

    epoch: int
    step: int
    losses: dict[str, float]
    lr: float


class Observer(Protocol):
    """Watches one run. Every method may do nothing."""

    def started(self, info: RunInfo) -> None:
        """The run begins."""

    def stepped(self, step: int) -> None:
        """So many optimiser steps are done; nothing on the device may be waited for."""

    def epoch_ended(self, report: EpochReport) -> None:
        """An epoch is done."""

    def evaluated(self, summary: dict[str, float]) -> None:
        """The validation cases are scored: means over cases."""

    def ended(self, error: BaseException | None) -> None:
        """The run is over; called exactly once, also after an error."""


class Observers:
    """Several observers as one."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self._observers = tuple(observers)

    def started(self, info: RunInfo) -> None:
        """The run begins."""
        for observer in self._observers:
            observer.started(info)

    def stepped(self, step: int) -> None:
        """An optimiser step is done."""
        for observer in self._observers:
            observer.stepped(step)

    def epoch_ended(self, report: EpochReport) -> None:
        """An epoch is done."""
        for observer in self._observers:
            observer.epoch_ended(report)

    def evaluated(self, summary: dict[str, float]) -> None:
        """The validation cases are scored."""
        for observer in self._observers:
            observer.evaluated(summary)

    def ended(self, error: BaseException | None) -> None:
        """The run is over."""
        for observer in self._observers:
            observer.ended(error)
