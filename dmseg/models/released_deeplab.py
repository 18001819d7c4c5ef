"""The DeepLabV3+ decoder of the authors' released code, which differs from that of segmentation-models-pytorch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmseg.errors import UserError

RATES = (12, 24, 36)
SHORTCUT = 12
"""Dilations of the pyramid, and channels of the feature map of stride 4 (``configs/models/deeplabv3plus_*.yaml``)."""


class ReleasedDeepLabDecoder(nn.Module):
    """Atrous pyramid, shortcut from stride 4, two separable convolutions (JDTLosses, ``models/methods``).

    In contrast to the decoder of segmentation-models-pytorch, the pyramid is merged by one 3x3 convolution without
    dropout, separable convolutions have normalisation and ReLU after both parts, the shortcut has 12 channels, there
    are two separable convolutions after it, and feature maps are resized without aligned corners.

    Args:
        encoder_channels: channels of the image and of the encoder's feature maps, at least three of these.
        channels: channels of each branch and of the output.
    """

    def __init__(self, encoder_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        deep = encoder_channels[-1]
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), _unit(deep, channels, 1))
        self.branches = nn.ModuleList(
            [_separable(deep, channels, 1), *(_separable(deep, channels, 3, r) for r in RATES)]
        )
        self.merge = _unit((len(RATES) + 2) * channels, channels, 3)
        self.shortcut = _unit(encoder_channels[2], SHORTCUT, 1)
        self.refine = nn.Sequential(_separable(channels + SHORTCUT, channels, 3), _separable(channels, channels, 3))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """The encoder's feature maps to (B, channels, H / 4, W / 4)."""
        deep, fine = features[-1], features[2]
        branches = [_resize(self.pooled(deep), deep), *(branch(deep) for branch in self.branches)]
        context = _resize(self.merge(torch.cat(branches, dim=1)), fine)
        refined: Tensor = self.refine(torch.cat([context, self.shortcut(fine)], dim=1))
        return refined


def use_released_decoder(network: nn.Module, architecture: str) -> None:
    """Replaces the decoder of a DeepLabV3+, and makes its head upsample the logits without aligned corners.

    Args:
        network: a DeepLabV3+ of segmentation-models-pytorch.
        architecture: class name of the network.

    Raises:
        UserError: if the architecture is another one.
    """
    if architecture != "DeepLabV3Plus":
        raise UserError(
            "model.decoder is 'release', which is a decoder of DeepLabV3Plus, but model.architecture is "
            f"{architecture}; set model.decoder=library"
        )
    head: nn.Sequential = network.segmentation_head  # type: ignore[assignment]
    convolution, enlarged, _ = head
    channels = int(convolution.in_channels)  # type: ignore[arg-type]
    network.decoder = ReleasedDeepLabDecoder(network.encoder.out_channels, channels)  # type: ignore[union-attr,arg-type]
    factor = enlarged.scale_factor
    head[1] = nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False)  # type: ignore[arg-type]


def _unit(before: int, after: int, kernel: int, dilation: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution that keeps the size, batch normalisation, ReLU."""
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(before, after, kernel, padding=padding, dilation=dilation, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())


def _separable(before: int, after: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    """Convolution within each channel, then across channels."""
    return nn.Sequential(_unit(before, before, kernel, dilation, groups=before), _unit(before, after, 1))


def _resize(values: Tensor, like: Tensor) -> Tensor:
    """Resizes a map bilinearly to the size of another."""
    return functional.interpolate(values, size=like.shape[2:], mode="bilinear", align_corners=False)
