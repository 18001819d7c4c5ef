"""Objectives: the loss that a training step minimises. The fit loop needs nothing else from a method."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dmseg.config.components import bind
from dmseg.config.settings import LossSettings
from dmseg.data.batches import Batch
from dmseg.errors import UserError
from dmseg.losses import CompoundLoss, SoftCrossEntropyLoss
from dmseg.models.build import N_CLASSES


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
    """The weighted sum of soft cross-entropy and a region loss; terms of weight zero are left out.

    Raises:
        UserError: if an option does not fit the region loss, or both weights are zero.
    """
    options = dict(settings.region)
    target = options.pop("_target_")
    terms: dict[str, tuple[float, nn.Module]] = {}
    if settings.ce_weight:
        terms["ce"] = (settings.ce_weight, SoftCrossEntropyLoss(kl=settings.kl, check_values=False))
    if settings.region_weight:
        try:
            region = bind(target, options | {"check_values": False}, where="loss.region", n_positional=0)()
            region(torch.zeros(1, N_CLASSES, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long))  # as many class weights?
        except (TypeError, ValueError) as error:
            raise UserError(f"loss.region: {error}") from None
        if not getattr(region, "from_logits", True):
            raise UserError("loss.region.from_logits is false, but networks give logits; set it to true")
        terms["region"] = (settings.region_weight, region)
    if not terms:
        raise UserError("loss.ce_weight and loss.region_weight are both 0; give at least one a weight")
    return CompoundLoss(terms)
