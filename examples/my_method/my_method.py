"""A custom method: plain training with the Adam optimizer in place of SGD."""

from torch import nn, optim

from dmseg.config.settings import OptimSettings
from dmseg.methods.base import Method


class AdamMethod(Method):
    """Trains one network with Adam, on the learning rate schedule of the study.

    Args:
        lr: largest learning rate.
    """

    def __init__(self, lr: float = 0.001) -> None:
        self.lr = lr

    def optimizer(self, network: nn.Module, settings: OptimSettings) -> optim.Optimizer:
        """The optimizer of the network's parameters."""
        return optim.Adam(network.parameters(), lr=self.lr, weight_decay=settings.weight_decay)
