"""Dropout of channels that can stay on at test time, with the same masks for all images."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmseg.errors import UserError
from dmseg.limits import DROPOUT_SITES


class ChannelDropout(nn.Module):
    """Drops whole channels in training, with torch's global random numbers, and at test time if it has a stream.

    Args:
        rate: share of channels to drop, in [0, 1).

    Attributes:
        stream: CPU generator of the masks in evaluation mode; None for no dropout.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.stream: torch.Generator | None = None

    def forward(self, values: Tensor) -> Tensor:
        """Drops channels of (B, C, H, W); in evaluation mode the same ones for all B, as of one thinned network."""
        if self.training:
            return functional.dropout2d(values, self.rate)
        if self.stream is None:
            return values
        kept = torch.rand(values.shape[1], generator=self.stream) >= self.rate
        scale = kept.to(values.device, values.dtype) / (1.0 - self.rate)
        return values * scale[None, :, None, None]


def insert_dropout(network: nn.Module, sites: Sequence[str], rate: float) -> list[ChannelDropout]:
    """Inserts dropout into a network of segmentation-models-pytorch without renaming its parameters.

    Args:
        network: network with ``encoder``, ``decoder`` and ``segmentation_head``.
        sites: ``bottleneck`` (the encoder's last feature map), ``decoder`` (after each of its blocks), ``head`` (before
            the last convolution).
        rate: share of channels to drop.

    Returns:
        The dropout modules, in the order of the sites.

    Raises:
        UserError: if a site is unknown or missing in the architecture.
    """
    found: list[ChannelDropout] = []
    for site in sites:
        if site == "bottleneck":
            dropout = ChannelDropout(rate)
            network.decoder.register_forward_pre_hook(partial(_drop_last, dropout))  # type: ignore[union-attr]
            found.append(dropout)
        elif site == "head":
            found.append(_after(network.decoder, rate))  # type: ignore[arg-type]
        elif site == "decoder":
            blocks = getattr(network.decoder, "blocks", None)
            if not isinstance(blocks, nn.ModuleList | nn.ModuleDict):
                raise UserError(
                    f"method.sites has 'decoder', but the decoder of {type(network).__name__} is not made of blocks; "
                    "leave it out: method.sites=[bottleneck,head]"
                )
            every = blocks.values() if isinstance(blocks, nn.ModuleDict) else blocks
            found += [_after(block, rate) for block in every]
        else:
            raise UserError(f"method.sites has '{site}', but may have {', '.join(DROPOUT_SITES)}")
    network.dropouts = nn.ModuleList(found)
    return found


def _after(module: nn.Module, rate: float) -> ChannelDropout:
    """Adds dropout to a module's output."""
    dropout = ChannelDropout(rate)
    module.register_forward_hook(partial(_drop, dropout))
    return dropout


def _drop(dropout: ChannelDropout, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
    dropped: Tensor = dropout(output)
    return dropped


def _drop_last(dropout: ChannelDropout, module: nn.Module, inputs: tuple[Sequence[Tensor]]) -> tuple[list[Tensor]]:
    """Applies dropout to the last feature map that enters a decoder."""
    (features,) = inputs
    return ([*features[:-1], dropout(features[-1])],)
