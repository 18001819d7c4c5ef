"""Objectives: the loss that a training step minimises. The fit loop needs nothing else from a method."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dmseg.config.settings import LossSettings
from dmseg.data.batches import Batch
from dmseg.errors import UserError
from dmseg.losses import CompoundLoss
from dmseg.training.loss_term import build_term


class Objective(ABC):
    """The loss of one step, computed from a network and a batch.

    An objective with a state that the next step depends on (such as a random stream) returns it from `state`; frozen
    teachers and settings are not part of it. Trainable parameters must belong to the network, not to the objective.
    """

    @abstractmethod
    def losses(self, network: nn.Module, batch: Batch, precision: str) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the loss of one step.

        Args:
            network: in training mode, on the device of the batch.
            batch: what to train on.
            precision: ``fp32``, ``tf32`` or ``bf16``, of the network; losses are computed in float32.

        Returns:
            The loss, a scalar to differentiate, and its parts by name, detached scalars for the history.
        """

    def facts(self) -> dict[str, Any]:
        """Facts determined before the first step, by name, for the run's manifest; empty for most objectives."""
        return {}

    def state(self) -> dict[str, Any]:
        """Plain containers and tensors, for `load_state`; empty for most objectives."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Restores the state of an objective with equal settings."""


class LabelObjective(Objective):
    """Plain training: the loss of the logits (B, C, H, W) against the fused label.

    Args:
        loss: compound loss of logits, soft target and mask.
    """

    def __init__(self, loss: CompoundLoss) -> None:
        self._loss = loss

    def losses(self, network: nn.Module, batch: Batch, precision: str) -> tuple[Tensor, dict[str, Tensor]]:
        """The compound loss and its terms."""
        logits = forward(network, batch.image, precision).float()
        return self._loss.forward_parts(logits, batch.target, batch.mask)


def forward(network: nn.Module, image: Tensor, precision: str) -> Tensor:
    """Runs a network in channels-last layout, with autocast for ``bf16``, in which case the output may be bf16."""
    with autocast(image.device, precision):
        output: Tensor = network(image.contiguous(memory_format=torch.channels_last))
    return output


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The autocast context of a precision: bf16, or disabled."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def build_loss(settings: LossSettings) -> CompoundLoss:
    """The weighted sum of the terms; those of weight 0 are left out.

    The terms of dmseg share one pass over the pixels; each other term is called by itself (`build_term`).

    Raises:
        UserError: if an option does not fit its term, a term cannot be used, or all weights are 0.
    """
    terms = {name: (term.weight, build_term(term, f"loss.terms.{name}")) for name, term in settings.active.items()}
    if not terms:
        raise UserError("loss.terms has no term with a weight above 0; give at least one a weight")
    return CompoundLoss(terms)
