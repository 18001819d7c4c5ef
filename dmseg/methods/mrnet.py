"""MRNet: training and prediction with conditions, which are weights of the raters (Ji et al., CVPR 2021)."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn import functional

from dmseg.config.method_options import check_mrnet
from dmseg.config.settings import LossSettings, ModelSettings, OptimSettings
from dmseg.data.batches import Batch
from dmseg.data.case import Task
from dmseg.methods.base import RaterMethod, RaterPredictor
from dmseg.models.build import build_model
from dmseg.models.mrnet_network import MRNet, MRNetOutput, Widths
from dmseg.training.objective import Objective, autocast
from dmseg.training.optim import build_adam
from dmseg.training.predictor import Predictor
from dmseg.training.random_streams import DrawnAhead, Streams

CONDITIONS = {"mean": 3 / 6, "mixed": 2 / 6, "single": 1 / 6}
"""Conditions of a step and the weights of their losses: equal weights, random weights, one random rater."""


class MRNetMethod(RaterMethod):
    """The configured network as backbone of the three modules; the prediction weights all raters equally.

    Args:
        anonymous_raters: see `RaterMethod`.
        adam: ``lr`` and ``weight_decay`` of Adam, which replaces SGD.
        consistency: share of the consistency loss in the backbone's loss, in [0, 1).
        widths: see `Widths`.

    Raises:
        UserError: if an option lies outside its range.
    """

    def __init__(
        self, anonymous_raters: str, adam: Mapping[str, float], consistency: float, widths: Mapping[str, Any]
    ) -> None:
        super().__init__(anonymous_raters)
        check_mrnet(anonymous_raters, adam, consistency, widths)
        self._adam, self._consistency = adam, consistency
        self._widths = Widths(**{**widths, "encoder": tuple(widths["encoder"])})

    def network(self, model: ModelSettings, n_channels: int, task: Task) -> nn.Module:
        """The three modules around the configured network."""
        return MRNet(
            build_model(**model.without_auxiliary, in_channels=n_channels, classes=1),
            n_channels,
            len(task.raters),
            self._widths,
            self.trained_raters,
        )

    def objective(self, loss: LossSettings, streams: Streams) -> Objective:
        """The losses of the three modules; the configured loss is not used."""
        return MRNetObjective(self._consistency, streams("conditions"))

    def optimizer(self, network: nn.Module, settings: OptimSettings) -> optim.Optimizer:
        """One Adam, equivalent to one for each module, as no module sends gradients into another."""
        return build_adam(network, self._adam)

    def predictor(self, network: nn.Module, streams: Streams) -> Predictor:
        """The final prediction, without the raters who annotated no training case."""
        return MRNetPredictor(network, self.trained_raters)


class MRNetObjective(Objective):
    """Binary cross-entropy of all three modules under three conditions, and the consistency loss.

    Only raters who annotated a case have a weight; the label is the raters' mean with these weights.

    Args:
        consistency: share of the consistency loss in the backbone's loss.
        stream: random stream for the conditions.
    """

    def __init__(self, consistency: float, stream: torch.Generator) -> None:
        self._consistency, self._numbers = consistency, DrawnAhead(draw_numbers, stream)

    def losses(self, network: nn.Module, batch: Batch, precision: str) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of the three modules' losses, and its parts: ``coarse, consistency, raters, final``."""
        masks, present = batch.annotations
        keep = batch.mask.unsqueeze(1)
        conditions = form_conditions(present, self._numbers.next(tuple(present.shape), present.device))
        targets = [torch.einsum("br,brhw->bhw", weights, masks).unsqueeze(1) for weights in conditions]
        image = batch.image.contiguous(memory_format=torch.channels_last)
        with autocast(image.device, precision):
            outputs: list[MRNetOutput] = network(image, conditions)
            consistency = image.new_zeros(())
            if self._consistency:  # under equal weights
                prediction = torch.sigmoid(outputs[0].coarse) * keep
                consistency = network.reconstruction.distance(image, prediction, targets[0])  # type: ignore[operator,union-attr]
        annotated = keep & present[:, :, None, None]
        weighted = list(zip(CONDITIONS.values(), outputs, targets, strict=True))
        parts = {
            "coarse": _sum(share * _entropy(output.coarse, target, keep) for share, output, target in weighted),
            "consistency": consistency,
            "raters": _sum(_entropy(output.raters, masks, annotated) for output in outputs) / len(outputs),
            "final": _sum(share * _entropy(output.final, target, keep) for share, output, target in weighted),
        }
        backbone = (1.0 - self._consistency) * parts["coarse"] + self._consistency * consistency
        total = backbone + parts["raters"] + parts["final"]
        return total, {name: value.detach() for name, value in parts.items()}

    def state(self) -> dict[str, Any]:
        """State of the random stream."""
        return {"conditions": self._numbers.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores the random stream."""
        self._numbers.load_state(state["conditions"])


class MRNetPredictor(RaterPredictor):
    """The final prediction under equal weights; each sample is the mask under a single rater."""

    def probability(self, image: Tensor) -> Tensor:
        """Foreground probability (B, H, W)."""
        (logits,) = self._final(image, [self._single().mean(dim=0)])
        return torch.sigmoid(logits)

    def samples(self, image: Tensor) -> Tensor:
        """The masks under each rater, (B, R, H, W) bool."""
        return torch.stack(self._final(image, self._single()), dim=1) >= 0.0

    def _single(self) -> Tensor:
        """The conditions with a single rater, one row for each rater that is used."""
        n_raters: int = self.network.reconstruction.heads.out_channels  # type: ignore[union-attr,assignment]
        return torch.eye(n_raters)[self._chosen]

    def _final(self, image: Tensor, conditions: Iterable[Tensor]) -> list[Tensor]:
        """Logits (B, H, W) of the prediction under each condition (R,)."""
        everywhere = [condition.to(image.device).expand(len(image), -1) for condition in conditions]
        return [output.final[:, 0].float() for output in self.network(image, everywhere)]


def draw_conditions(present: Tensor, stream: torch.Generator) -> list[Tensor]:
    """Draws the raters' weights for each of the `CONDITIONS`, (B, R) each; they sum to 1 over the raters present.

    Args:
        present: (B, R) bool, which raters annotated the case.
        stream: CPU generator of the random numbers. Mixed weights are integers from 1 to 10, normalised.
    """
    return form_conditions(present, draw_numbers(tuple(present.shape), stream).to(present.device))


def draw_numbers(shape: tuple[int, ...], stream: torch.Generator) -> Tensor:
    """Draws what the conditions of one batch need, (2, B, R) float64: mixed weights, and ranks in [0, 1).

    Args:
        shape: (B, R).
        stream: CPU generator.
    """
    mixed = torch.randint(1, 11, shape, generator=stream)
    ranks = torch.rand(shape, generator=stream)
    return torch.stack([mixed.double(), ranks.double()])


def form_conditions(present: Tensor, numbers: Tensor) -> list[Tensor]:
    """The weights of `draw_conditions` from drawn numbers, on the device of both."""
    mixed, ranks = numbers[0].long(), numbers[1].float()
    single = functional.one_hot(ranks.masked_fill(~present, -1.0).argmax(dim=1), present.shape[1])
    return [weights / weights.sum(dim=1, keepdim=True).clamp_min(1) for weights in (present, mixed * present, single)]


def _entropy(logits: Tensor, target: Tensor, keep: Tensor) -> Tensor:
    """Binary cross-entropy, averaged over the kept pixels."""
    kept = keep.expand_as(target).float()
    total = functional.binary_cross_entropy_with_logits(logits.float(), target, weight=kept, reduction="sum")
    return total / kept.sum().clamp_min(1.0)


def _sum(losses: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(losses)).sum()
