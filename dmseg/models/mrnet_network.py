"""MRNet: a network that is told which raters to follow, and how the raters differ (Ji et al., CVPR 2021).

Three parts, of which none sends gradients into another (as in the authors' code): the host, a network of
segmentation-models-pytorch with the condition at its bottleneck (expertise-aware inferring), gives a coarse
prediction; a second network guesses each rater's annotation from image and coarse prediction (multi-rater
reconstruction); and attention on where the prediction and the raters' disagreement lie gives the final prediction
(multi-rater perception).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from dmseg.limits import MRNET_BLOCKS
from dmseg.models.conv_lstm import ConditionedStep

RATES = (1, 6, 12, 18)
"""Dilations of its pyramid of atrous convolutions."""

BLUR = 31
"""Edge of the attention's blur, in pixels."""


@dataclass(frozen=True)
class Widths:
    """Numbers of channels.

    Attributes:
        bottleneck: of the host's ConvLSTM.
        encoder: of the second network's five blocks; the last one's is also that of its ConvLSTM.
        context: of its pyramid and decoder.
        detail: of the features of its third block that its decoder sees.
        perception: of the features that attention is paid to.
    """

    bottleneck: int
    encoder: tuple[int, ...]
    context: int
    detail: int
    perception: int


@dataclass(frozen=True)
class MRNetOutput:
    """What the network says under one condition, as logits of the foreground.

    Attributes:
        coarse: (B, 1, H, W), of the host.
        raters: (B, R, H, W), each rater's annotation.
        final: (B, 1, H, W), the prediction.
    """

    coarse: Tensor
    raters: Tensor
    final: Tensor


class MRNet(nn.Module):
    """The three parts together.

    Args:
        host: a network of segmentation-models-pytorch to one channel.
        n_channels: image channels.
        n_raters: R.
        widths: numbers of channels.
    """

    def __init__(self, host: nn.Module, n_channels: int, n_raters: int, widths: Widths) -> None:
        super().__init__()
        self.host = host
        bottleneck: int = host.encoder.out_channels[-1]  # type: ignore[union-attr,index,assignment]
        decoded: int = host.segmentation_head[0].in_channels  # type: ignore[index,union-attr]
        self.expertise = ConditionedStep(n_raters, bottleneck, widths.bottleneck)
        self.reconstruction = Reconstruction(n_channels, n_raters, widths)
        self.perception = Perception(decoded, widths.perception)

    def forward(self, image: Tensor, conditions: Sequence[Tensor]) -> list[MRNetOutput]:
        """What it says under each condition; the host's encoder, which sees none, runs once.

        Args:
            image: (B, C, H, W).
            conditions: weights of the raters, each (B, R), that sum to 1 over the raters.
        """
        self.host.check_input_shape(image)  # type: ignore[operator]
        features = self.host.encoder(image)  # type: ignore[operator]
        return [self._answer(image, features, condition) for condition in conditions]

    def _answer(self, image: Tensor, features: Sequence[Tensor], condition: Tensor) -> MRNetOutput:
        conditioned = [*features[:-1], self.expertise(features[-1], condition)]
        decoded: Tensor = self.host.decoder(conditioned)  # type: ignore[operator]
        coarse: Tensor = self.host.segmentation_head(decoded)  # type: ignore[operator]
        given = coarse.detach()
        raters: Tensor = self.reconstruction(image, torch.sigmoid(given), condition)
        final: Tensor = self.perception(decoded.detach(), given, raters.detach())
        return MRNetOutput(coarse, raters, final)


class Reconstruction(nn.Module):
    """Guesses each rater's annotation from the image, a prediction and the condition it was made under.

    Args:
        n_channels: image channels.
        n_raters: R.
        widths: numbers of channels.
    """

    def __init__(self, n_channels: int, n_raters: int, widths: Widths) -> None:
        super().__init__()
        deep, context = widths.encoder[-1], widths.context
        self.encoder = Encoder(n_channels + 1, widths.encoder)
        self.expertise = ConditionedStep(n_raters, deep, deep)
        self.upscale = nn.ConvTranspose2d(deep, deep, 2, stride=2)
        self.pyramid = Pyramid(deep, context)
        self.detail = _convolution(widths.encoder[2], widths.detail, 1)
        self.decoder = nn.Sequential(_convolution(context + widths.detail, context), _convolution(context, context))
        self.heads = nn.Conv2d(context, n_raters, 1)

    def forward(self, image: Tensor, prediction: Tensor, condition: Tensor) -> Tensor:
        """Logits of the raters' annotations, (B, R, H, W).

        Args:
            image: (B, C, H, W).
            prediction: (B, 1, H, W) in [0, 1].
            condition: (B, R).
        """
        maps, detail = self.encoder(torch.cat([image, prediction], dim=1))
        context = self.pyramid(self.upscale(self.expertise(maps[-1], condition)))
        merged = torch.cat([_resize(context, detail), self.detail(detail)], dim=1)
        raters: Tensor = self.heads(_resize(self.decoder(merged), image))
        return raters

    def distance(self, image: Tensor, prediction: Tensor, label: Tensor) -> Tensor:
        """How far the encoder's maps of a prediction lie from those of the label: the consistency loss.

        Squared distances of rows, averaged over the batch, channels and rows of a map, added over the six maps, divided
        by 1000. The gradient reaches the prediction; the encoder is a fixed measure.

        Args:
            image: (B, C, H, W).
            prediction: (B, 1, H, W) in [0, 1].
            label: likewise, the mean of the raters.
        """
        fixed = {name: value.detach() for name, value in self.encoder.named_parameters()}
        kept = {name: value.clone() for name, value in self.encoder.named_buffers()}
        inputs = (torch.cat([image, foreground], dim=1) for foreground in (prediction, label))
        (first, _), (second, _) = (functional_call(self.encoder, fixed | kept, (item,)) for item in inputs)
        pairs = zip(first, second, strict=True)
        rows = [(a.float() - b.float()).square().sum(dim=-1).mean() for a, b in pairs]
        return torch.stack(rows).sum() / 1000.0


class Encoder(nn.Module):
    """VGG16 with batch normalisation and PReLU, after a convolution to three channels; 1/16 of the size at its end.

    Args:
        channels: of the input.
        widths: channels of the five blocks.
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 3, 3, padding=1)
        before = (3, *widths[:-1])
        self.blocks = nn.ModuleList(map(_block, before, widths, MRNET_BLOCKS))

    def forward(self, values: Tensor) -> tuple[list[Tensor], Tensor]:
        """Six maps: of the first convolution, of four blocks after pooling, and of the last; and the third unpooled."""
        maps = [self.stem(values)]
        for index, block in enumerate(self.blocks):
            values = block(maps[-1])
            if index == 2:
                detail = values
            last = index == len(self.blocks) - 1
            maps.append(values if last else functional.max_pool2d(values, 2, ceil_mode=True))
        return maps, detail


class Pyramid(nn.Module):
    """Atrous convolutions of growing dilation and a pooled branch, each added to those before, then merged.

    Args:
        channels: of the input.
        width: of each branch and of the output.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_convolution(channels, width, 1 if rate == 1 else 3, rate) for rate in RATES)
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, width, 1), nn.PReLU())
        self.merge = _convolution(width * (len(RATES) + 1), width, 1)

    def forward(self, values: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, width, H, W)."""
        sums = [self.branches[0](values)]
        for branch in [*self.branches[1:], self.pooled]:
            sums.append(sums[-1] + branch(values))
        merged: Tensor = self.merge(torch.cat(sums, dim=1))
        return merged


class Perception(nn.Module):
    """The final prediction, from the host's features where the coarse prediction and the raters' disagreement lie.

    Args:
        channels: of the features.
        width: of the features that attention is paid to.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.refine = nn.Sequential(
            _convolution(channels, width), _convolution(width, width), _convolution(width, width)
        )
        self.blur = Blur(BLUR)
        self.head = nn.Conv2d(2 * width, 1, 3, padding=1)

    def forward(self, features: Tensor, coarse: Tensor, raters: Tensor) -> Tensor:
        """Logits (B, 1, H, W).

        Args:
            features: (B, C, h, w), enlarged where they are smaller than the image.
            coarse: (B, 1, H, W) logits.
            raters: (B, R, H, W) logits.
        """
        refined = self.refine(_resize(features, coarse))
        spread = torch.sigmoid(raters).std(dim=1, keepdim=True)
        seen = [refined * (1.0 + self._attention(values)) for values in (torch.sigmoid(coarse), spread)]
        final: Tensor = self.head(torch.cat(seen, dim=1))
        return final

    def _attention(self, values: Tensor) -> Tensor:
        """Values, or their blur stretched to [0, 1] where that is larger."""
        blurred: Tensor = self.blur(values)
        low, high = blurred.amin(dim=(2, 3), keepdim=True), blurred.amax(dim=(2, 3), keepdim=True)
        return torch.maximum((blurred - low) / (high - low + 1e-8), values)


class Blur(nn.Module):
    """Convolution of a map with one large learnable kernel, at first a Gaussian; zeros beyond the border.

    It is computed in the frequency domain, which takes 1/30 to 1/50 of the time on a CPU.

    Args:
        edge: odd edge of the kernel.
    """

    def __init__(self, edge: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(gaussian_kernel(edge))

    def forward(self, values: Tensor) -> Tensor:
        """(B, 1, H, W) to the same, float32."""
        edge = len(self.weight)
        height, width = values.shape[2:]
        size = (height + edge - 1, width + edge - 1)
        spectrum = torch.fft.rfft2(values.float(), s=size) * torch.fft.rfft2(self.weight.float(), s=size).conj()
        blurred: Tensor = torch.fft.irfft2(spectrum, s=size).roll((edge // 2, edge // 2), dims=(2, 3))
        return blurred[..., :height, :width]


def gaussian_kernel(edge: int, reach: float = 4.0) -> Tensor:
    """Weights of a blur, (edge, edge), that sum to 1: square roots of the normal mass of pixels out to +-`reach`.

    The authors' code takes the root, which makes the Gaussian wider by the square root of 2.
    """
    pixel = (2.0 * reach + 1.0) / edge
    bounds = torch.linspace(-reach - pixel / 2, reach + pixel / 2, edge + 1, dtype=torch.float64)
    mass = torch.special.ndtr(bounds).diff()
    kernel = torch.outer(mass, mass).sqrt()
    return (kernel / kernel.sum()).float()


def _block(before: int, width: int, count: int) -> nn.Sequential:
    """Convolutions of one size."""
    return nn.Sequential(*(_convolution(before if index == 0 else width, width) for index in range(count)))


def _convolution(before: int, width: int, kernel: int = 3, dilation: int = 1) -> nn.Sequential:
    """Convolution that keeps the size, batch normalisation, PReLU."""
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(before, width, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.PReLU())


def _resize(values: Tensor, like: Tensor) -> Tensor:
    """Resized bilinearly to the size of another map."""
    if values.shape[2:] == like.shape[2:]:
        return values
    return functional.interpolate(values, size=like.shape[2:], mode="bilinear", align_corners=True)
