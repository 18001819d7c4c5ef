"""Distillation: a teacher's predictions as additional labels."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dmseg.calibration import PixelKernel, fit_temperature, recalibrate_heads
from dmseg.config.settings import DistillSettings, KdeSettings, LossSettings
from dmseg.data.batches import Batch, network_input
from dmseg.data.training_slices import TrainingData
from dmseg.errors import UserError
from dmseg.losses import CompoundLoss
from dmseg.models.auxiliary import auxiliary_share
from dmseg.training.loss_term import takes_classes
from dmseg.training.objective import Objective, build_loss, forward, forward_both, is_static_loss, split_cross_entropy
from dmseg.training.precision import float32_math

MAX_SLICES = 256
"""Maximum number of slices, evenly spaced, that are used to fit a temperature."""
MAX_PIXELS = 2**20
"""Maximum number of their pixels that are used, evenly spaced."""


class Teacher:
    """A trained network that only predicts: in evaluation mode, in float32 without TF32, without gradients.

    Args:
        network: trained, on the device of the batches; it is not changed.
        temperature: its logits are divided by it.
        kernel: how its probabilities are recalibrated after that, or None.
        keys: stream of the key pixels.
        fitted: the teacher's fitted temperature (`teacher_temperature`), which also divides the logits; None for none.
    """

    def __init__(
        self,
        network: nn.Module,
        temperature: float,
        kernel: PixelKernel | None,
        keys: torch.Generator,
        fitted: float | None = None,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.temperature = temperature if fitted is None else fitted * temperature
        self.fitted = fitted
        self.kernel = kernel
        self.keys = keys

    @float32_math(tf32=False)
    @torch.no_grad()
    def targets(self, batch: Batch) -> list[Tensor]:
        """Its probabilities on a batch, (B, 2, H, W) float32, of the main and of the auxiliary head, if it has one."""
        logits = [head for head in forward_both(self.network, batch.image, "fp32") if head is not None]
        probs = [torch.softmax(head / self.temperature, dim=1) for head in logits]
        if self.kernel is None:
            return probs
        return recalibrate_heads(probs, batch.target, batch.mask, self.kernel, self.keys)


class DistillObjective(Objective):
    """Terms against the label and terms against a teacher, with the weights of `DistillSettings.weights`.

    Args:
        settings: which terms, and their temperature.
        loss: cross-entropy and region loss, and their weights on each side.
        teacher: None if no term is against a teacher.

    Raises:
        UserError: if no term has a weight, or an option does not fit the region loss.
    """

    def __init__(self, settings: DistillSettings, loss: LossSettings, teacher: Teacher | None) -> None:
        weights = settings.weights(loss)
        if not weights:
            raise UserError("no term of the loss is left: all terms of distill are off or have weight 0")
        against_teacher, region = loss, loss.terms.get("region")
        if region is not None and takes_classes(region):
            region = replace(region, options=region.options | {"classes": settings.classes})
            against_teacher = replace(loss, terms=loss.terms | {"region": region})
        temperature = settings.temperature
        softened = {"ce": weights.get("teacher_ce", 0.0) * temperature**2}
        sharp = {"region": weights.get("teacher_region", 0.0)}
        self._label = _terms(loss, {name: weights.get(f"label_{name}", 0.0) for name in loss.terms})
        self._soft = _terms(against_teacher, softened)
        self._sharp = _terms(against_teacher, sharp)
        if temperature == 1:  # both share a softmax
            self._soft, self._sharp = None, _terms(against_teacher, softened | sharp)
        self._temperature = temperature
        self._teacher = teacher

    @property
    def is_static(self) -> bool:
        """True if all terms are dmseg's and the teacher, if any, has no kernel, whose keys are drawn at random."""
        terms = [loss for loss in (self._label, self._soft, self._sharp) if loss is not None]
        return all(map(is_static_loss, terms)) and (self._teacher is None or self._teacher.kernel is None)

    def losses(self, network: nn.Module, batch: Batch, precision: str) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of all terms, and each term; a cross-entropy at temperature T is multiplied by T squared.

        An auxiliary head has its share of both cross-entropies, and learns from the teacher's auxiliary head.

        Raises:
            UserError: if the student has an auxiliary head and the teacher has none.
        """
        logits, auxiliary = forward_both(network, batch.image, precision)
        sides = [("label", self._label, 1.0, [batch.target, batch.target])]
        if self._teacher is not None:
            targets = self._teacher.targets(batch)
            sides += [("teacher", self._soft, self._temperature, targets), ("teacher", self._sharp, 1.0, targets)]
        totals: list[Tensor] = []
        parts: dict[str, Tensor] = {}
        for side, loss, temperature, wanted in sides:
            if loss is None:
                continue
            rest = None
            if auxiliary is not None:
                loss, rest = split_cross_entropy(loss, auxiliary_share(network))
            for name, part, given, target in zip(
                (side, f"{side}_auxiliary"), (loss, rest), (logits, auxiliary), wanted, strict=False
            ):
                if part is not None and given is not None:
                    total, terms = part.forward_parts(given / temperature, target, batch.mask)
                    totals.append(total)
                    parts |= {f"{name}_{term}": value for term, value in terms.items()}
        return torch.stack(totals).sum(), parts

    def facts(self) -> dict[str, Any]:
        """The temperature that was fitted for the teacher, if one was."""
        fitted = None if self._teacher is None else self._teacher.fitted
        return {} if fitted is None else {"teacher_temperature": fitted}

    def state(self) -> dict[str, Any]:
        """State of the random stream of the key pixels."""
        return {} if self._teacher is None else {"keys": self._teacher.keys.get_state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores the random stream."""
        if self._teacher is not None:
            self._teacher.keys.set_state(state["keys"])


def _terms(loss: LossSettings, weights: Mapping[str, float]) -> CompoundLoss | None:
    """The terms with these weights, None if none has one."""
    return build_loss(loss.with_weights(weights)) if any(weights.values()) else None


def pixel_kernel(settings: KdeSettings | None) -> PixelKernel | None:
    """The kernel with these settings; None if they switch it off."""
    if settings is None or not settings.bandwidth:
        return None
    return PixelKernel(**vars(settings))


@float32_math(tf32=False)
@torch.no_grad()
def teacher_temperature(network: nn.Module, data: TrainingData, batch_size: int) -> float:
    """The temperature that minimises the negative log-likelihood of some cases' labels, on whole slices.

    Args:
        network: the trained network.
        data: the cases; if a label has several candidates, the first is used.
        batch_size: number of slices in a batch.
    """
    network.eval()
    count = min(MAX_SLICES, len(data))
    chosen = torch.linspace(0, len(data) - 1, count, device=data.images.device).round().long()
    step = max(1, count * data.images[0, 0].numel() // MAX_PIXELS)
    logits, labels = [], []
    for part in chosen.split(batch_size):  # type: ignore[no-untyped-call]
        found = forward(network, network_input(data.images[part], data.images.dtype), "fp32").float()
        logits.append(found.movedim(1, -1).reshape(-1, found.shape[1])[::step])
        foreground = data.labels[part, 0].float().flatten()[::step]
        labels.append(torch.stack([1 - foreground, foreground], 1))
    return fit_temperature(torch.cat(logits), torch.cat(labels))
