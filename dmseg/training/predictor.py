"""Predictors: predictions of a trained network. Evaluation needs nothing else from a method."""

import torch
from torch import Tensor, nn

from dmseg.metrics.levels import BDICE_LEVELS
from dmseg.models.build import foreground_probability


class Predictor:
    """Predictions of one network; here the softmax of its logits (B, 2, H, W).

    Args:
        network: the trained network, which is put in evaluation mode.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval()

    def probability(self, image: Tensor) -> Tensor:
        """Foreground probability.

        Args:
            image: (B, C, H, W) float32 in [-1, 1].

        Returns:
            (B, H, W) float32 in [0, 1].
        """
        return foreground_probability(self.network(image))

    def samples(self, image: Tensor) -> Tensor:
        """Masks that sample the distribution of annotations; here the probability thresholded at 0.1 to 0.9.

        Args:
            image: (B, C, H, W) float32 in [-1, 1].

        Returns:
            (B, S, H, W) bool with S samples.
        """
        probability = self.probability(image)
        levels = torch.tensor(BDICE_LEVELS, dtype=probability.dtype, device=probability.device)
        return probability.unsqueeze(1) >= levels[:, None, None]
