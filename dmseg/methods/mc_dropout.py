"""Monte Carlo dropout: dropout stays on at test time, and several passes are averaged (Gal and Ghahramani 2016)."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from dmseg.config.method_options import check_dropout
from dmseg.config.settings import ModelSettings
from dmseg.data.case import Task
from dmseg.methods.base import Method
from dmseg.models.build import build_model, foreground_probability
from dmseg.models.dropout import ChannelDropout, insert_dropout
from dmseg.training.predictor import Predictor
from dmseg.training.random_streams import Streams


class MCDropout(Method):
    """Plain training of a network with dropout; the prediction is the mean softmax of several thinned networks.

    Args:
        sites: where to insert dropout, see `insert_dropout`.
        rate: share of channels that are dropped, in [0, 1).
        passes: number of thinned networks.

    Raises:
        UserError: if an option lies outside its range.
    """

    def __init__(self, sites: Sequence[str], rate: float, passes: int) -> None:
        check_dropout(sites, rate, passes)
        self._sites, self._rate, self._passes = sites, rate, passes

    def network(self, model: ModelSettings, n_channels: int, task: Task) -> nn.Module:
        """The plain network with dropout; at the site ``head`` it replaces the dropout of ``model.head_dropout``."""
        own = {"head_dropout": 0.0} if "head" in self._sites else {}
        network = build_model(**model.arguments | own, in_channels=n_channels)
        insert_dropout(network, self._sites, self._rate)
        return network

    def predictor(self, network: nn.Module, streams: Streams) -> Predictor:
        """The mean of the passes, with masks from the stream ``mc_dropout``."""
        seeds = torch.randint(2**62, (self._passes,), generator=streams("mc_dropout"))
        return DropoutPredictor(network, seeds.tolist())


class DropoutPredictor(Predictor):
    """Mean softmax of thinned networks, which are the same for all images, so predictions do not depend on batches.

    The encoder, which has no dropout, runs once for all of them.

    Args:
        network: network with `ChannelDropout` modules.
        seeds: seed of the masks of each thinned network.
    """

    def __init__(self, network: nn.Module, seeds: Sequence[int]) -> None:
        super().__init__(network)
        self._seeds = seeds
        self._dropouts = [module for module in network.modules() if isinstance(module, ChannelDropout)]

    def probability(self, image: Tensor) -> Tensor:
        """Mean over the passes, (B, H, W)."""
        passes = self._passes(image)
        total = next(passes)
        for values in passes:
            total = total + values
        return total / len(self._seeds)

    def samples(self, image: Tensor) -> Tensor:
        """The masks of the passes, (B, S, H, W) bool."""
        return torch.stack([values >= 0.5 for values in self._passes(image)], dim=1)

    def _passes(self, image: Tensor) -> Iterator[Tensor]:
        """Foreground probability of each thinned network."""
        network = self.network
        network.check_input_shape(image)  # type: ignore[operator]
        features = network.encoder(image)  # type: ignore[operator]
        for seed in self._seeds:
            stream = torch.Generator().manual_seed(seed)
            try:
                for dropout in self._dropouts:
                    dropout.stream = stream
                logits = network.segmentation_head(network.decoder(features))  # type: ignore[operator]
            finally:
                for dropout in self._dropouts:
                    dropout.stream = None
            yield foreground_probability(logits)
