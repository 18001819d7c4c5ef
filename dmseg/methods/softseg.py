"""SoftSeg: soft labels, a normalised ReLU and the adaptive wing loss (Gros et al., MedIA 2021; code: ivadomed)."""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn, optim

from dmseg.config.method_options import check_softseg
from dmseg.config.settings import LossSettings, ModelSettings, OptimSettings
from dmseg.data.batches import Batch
from dmseg.data.case import Task
from dmseg.losses.adaptive_wing import AdaptiveWingLoss
from dmseg.methods.base import Method
from dmseg.models.build import build_model
from dmseg.models.softseg_activation import normalized_relu
from dmseg.training.objective import Objective, forward
from dmseg.training.optim import build_adam
from dmseg.training.predictor import Predictor
from dmseg.training.random_streams import Streams


class SoftSeg(Method):
    """One output channel whose activation is the soft prediction; at test time each image is normalised on its own.

    Args:
        maximum: whether, in training, the activation is divided by the maximum of each ``image`` or of the ``batch``.
        theta: threshold, see `AdaptiveWingLoss` for this and the next three.
        alpha: power.
        omega: height.
        epsilon: width.
        reduction: ``mean`` or ``sum`` over pixels.
        adam: ``lr`` and ``weight_decay`` of Adam, which replaces SGD.

    Raises:
        UserError: if an option lies outside its range.
    """

    def __init__(
        self,
        maximum: str,
        theta: float,
        alpha: float,
        omega: float,
        epsilon: float,
        reduction: Literal["mean", "sum"],
        adam: Mapping[str, float],
    ) -> None:
        check_softseg(maximum, theta, alpha, omega, epsilon, reduction, adam)
        self._loss = AdaptiveWingLoss(
            theta, alpha, omega, epsilon, reduction=reduction, from_logits=False, check_values=False
        )
        self._per_image, self._adam = maximum == "image", adam

    def network(self, model: ModelSettings, n_channels: int, task: Task) -> nn.Module:
        """A network with output (B, 1, H, W)."""
        return build_model(**model.without_auxiliary, in_channels=n_channels, classes=1)

    def objective(self, loss: LossSettings, streams: Streams) -> Objective:
        """The adaptive wing loss of the activation; the configured loss is not used."""
        return WingObjective(self._loss, self._per_image)

    def optimizer(self, network: nn.Module, settings: OptimSettings) -> optim.Optimizer:
        """Adam."""
        return build_adam(network, self._adam)

    def predictor(self, network: nn.Module, streams: Streams) -> Predictor:
        """The activation."""
        return SoftPredictor(network)


class WingObjective(Objective):
    """Adaptive wing loss between the normalised ReLU and the foreground label.

    Args:
        loss: loss of probabilities (B, 1, H, W).
        per_image: see `normalized_relu`.
    """

    def __init__(self, loss: AdaptiveWingLoss, per_image: bool) -> None:
        self._loss, self._per_image = loss, per_image

    @property
    def is_static(self) -> bool:
        """True, as the adaptive wing loss is dmseg's."""
        return True

    def losses(self, network: nn.Module, batch: Batch, precision: str) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, which has no parts; padding does not affect the maximum."""
        logits = forward(network, batch.image, precision).float()
        kept = logits.masked_fill(~batch.mask.unsqueeze(1), 0.0)
        value = self._loss(normalized_relu(kept, self._per_image), batch.target[:, 1:], batch.mask)
        return value, {}


class SoftPredictor(Predictor):
    """The normalised ReLU of each image."""

    def probability(self, image: Tensor) -> Tensor:
        """Soft prediction (B, H, W) in [0, 1]."""
        return normalized_relu(self.network(image).float())[:, 0]
