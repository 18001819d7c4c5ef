"""Multi-head: one head for each rater on a shared encoder and decoder (Guan et al., AAAI 2018)."""

import torch
from torch import Tensor, nn

from dmseg.config.settings import LossSettings, ModelSettings
from dmseg.data.batches import Batch
from dmseg.data.case import Task
from dmseg.methods.base import RaterMethod, RaterPredictor
from dmseg.models.auxiliary import auxiliary_share
from dmseg.models.build import N_CLASSES, build_model, foreground_probability
from dmseg.training.objective import LabelObjective, Objective, build_loss, forward_both, split_cross_entropy
from dmseg.training.predictor import Predictor
from dmseg.training.random_streams import Streams


class MultiHead(RaterMethod):
    """Each head learns from its own rater; the prediction is the mean of the heads.

    The heads are groups of channels of the architecture's own last convolution, so every architecture has them.

    Args:
        anonymous_raters: see `RaterMethod`.
    """

    def network(self, model: ModelSettings, n_channels: int, task: Task) -> nn.Module:
        """A network with output (B, 2 R, H, W): background and foreground of the first rater, the second, and so on."""
        return build_model(**model.arguments, in_channels=n_channels, classes=N_CLASSES * len(task.raters))

    def objective(self, loss: LossSettings, streams: Streams) -> Objective:
        """The mean over the raters of the configured loss."""
        return HeadsObjective(build_loss(loss))

    def predictor(self, network: nn.Module, streams: Streams) -> Predictor:
        """The mean of the heads, without those of raters who annotated no training case."""
        return HeadsPredictor(network, self.trained_raters)


class HeadsObjective(LabelObjective):
    """Mean loss of the heads, each against the annotations of its own rater.

    A head is not trained on cases that its rater did not annotate; heads without any case in the batch do not count.
    An auxiliary head has as many groups of channels, and its share of each rater's cross-entropy.

    Args:
        loss: compound loss of logits, target and mask.
    """

    def losses(self, network: nn.Module, batch: Batch, precision: str) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss and its terms."""
        raters, present = batch.annotations
        main, auxiliary = forward_both(network, batch.image, precision)
        sides = [("", self._loss, split_heads(main))]
        if auxiliary is not None:
            own, rest = split_cross_entropy(self._loss, auxiliary_share(network))
            sides = [("", own, split_heads(main))]
            if rest is not None:
                sides.append(("auxiliary_", rest, split_heads(auxiliary)))
        found = present.any(dim=0).float()
        total, parts = main.new_zeros(()), dict[str, Tensor]()
        for rater, share in enumerate(found / found.sum().clamp_min(1.0)):
            foreground = raters[:, rater : rater + 1]
            mask = batch.mask & present[:, rater, None, None]
            label = torch.cat([1.0 - foreground, foreground], dim=1)
            for prefix, loss, heads in sides:
                value, terms = loss.forward_parts(heads[:, rater], label, mask)
                total = total + share * value
                named = {f"{prefix}{name}": share * term for name, term in terms.items()}
                parts |= {name: parts.get(name, 0.0) + term for name, term in named.items()}
        return total, parts


class HeadsPredictor(RaterPredictor):
    """Mean of the softmax of the heads, one for each rater; each head's mask is a sample."""

    def probability(self, image: Tensor) -> Tensor:
        """Foreground probability (B, H, W)."""
        return self._heads(image).mean(dim=1)

    def samples(self, image: Tensor) -> Tensor:
        """The masks of the heads, (B, R, H, W) bool."""
        return self._heads(image) >= 0.5

    def _heads(self, image: Tensor) -> Tensor:
        """Foreground probability of each head that is used, (B, R, H, W)."""
        heads = split_heads(self.network(image))[:, self._chosen]
        foreground = foreground_probability(heads.flatten(0, 1))
        return foreground.reshape(*heads.shape[:2], *foreground.shape[1:])


def split_heads(logits: Tensor) -> Tensor:
    """Logits (B, 2 R, H, W) as (B, R, 2, H, W)."""
    return logits.reshape(logits.shape[0], -1, N_CLASSES, *logits.shape[2:])
