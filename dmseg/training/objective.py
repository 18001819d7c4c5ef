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
from dmseg.models.auxiliary import auxiliary_share, forward_heads
from dmseg.training.loss_term import build_term


class Objective(ABC):
    """The loss of one step, computed from a network and a batch.

    An objective with a state that the next step depends on (such as a random stream) returns it from `state`; frozen
    teachers and settings are not part of it. Trainable parameters must belong to the network, not to the objective.
    """

    @property
    def is_static(self) -> bool:
        """Whether the loss is computed on the device alone, with the same operations for every batch of one shape.

        A step can then be recorded as a CUDA graph. False where it draws random numbers or reads values on the host.
        """
        return False

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

    @property
    def is_static(self) -> bool:
        """True unless a term is from outside dmseg."""
        return is_static_loss(self._loss)

    def losses(self, network: nn.Module, batch: Batch, precision: str) -> tuple[Tensor, dict[str, Tensor]]:
        """The compound loss and its terms; an auxiliary head takes its share of the cross-entropy."""
        main, auxiliary = forward_both(network, batch.image, precision)
        if auxiliary is None:
            return self._loss.forward_parts(main, batch.target, batch.mask)
        own, rest = split_cross_entropy(self._loss, auxiliary_share(network))
        total, parts = own.forward_parts(main, batch.target, batch.mask)
        if rest is not None:
            value, terms = rest.forward_parts(auxiliary, batch.target, batch.mask)
            total, parts = total + value, parts | {f"auxiliary_{name}": term for name, term in terms.items()}
        return total, parts


def forward(network: nn.Module, image: Tensor, precision: str) -> Tensor:
    """Runs a network in channels-last layout, with autocast for ``bf16``, in which case the output may be bf16."""
    with autocast(image.device, precision):
        output: Tensor = network(image.contiguous(memory_format=torch.channels_last))
    return output


def forward_both(network: nn.Module, image: Tensor, precision: str) -> tuple[Tensor, Tensor | None]:
    """Float32 logits of the main head and of the auxiliary head; None if the network has none."""
    if not auxiliary_share(network):
        return forward(network, image, precision).float(), None
    with autocast(image.device, precision):
        main, auxiliary = forward_heads(network, image.contiguous(memory_format=torch.channels_last))
    return main.float(), auxiliary.float()


def split_cross_entropy(loss: CompoundLoss, share: float) -> tuple[CompoundLoss, CompoundLoss | None]:
    """Divides the term ``ce`` of a loss between two heads; all other terms are the main head's.

    Args:
        loss: the whole loss.
        share: share of the cross-entropy that the auxiliary head takes, in (0, 1).

    Returns:
        The loss of the main head, and that of the auxiliary head; None if there is no cross-entropy.
    """
    terms = {name: (loss.weights[name], term) for name, term in zip(loss.weights, loss.losses, strict=True)}
    if "ce" not in terms:
        return loss, None
    weight, term = terms["ce"]
    main = CompoundLoss(terms | {"ce": ((1.0 - share) * weight, term)})
    return main, CompoundLoss({"ce": (share * weight, term)})


def is_static_loss(loss: nn.Module) -> bool:
    """Whether all terms of a loss are dmseg's, which neither read values on the host nor have shapes that vary."""
    return all(type(module).__module__.startswith(("dmseg.losses.", "torch.nn.")) for module in loss.modules())


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
