"""MRNet: a network conditioned on a weight for each rater, which also predicts how the raters differ (Ji et al. 2021).

It has three parts, none of which sends gradients into another (as in the authors' code):

- the backbone, a network of segmentation-models-pytorch with the condition at its bottleneck, predicts a coarse mask
  (the paper's expertise-aware inferring);
- a second network predicts each rater's annotation from the image and the coarse mask (multi-rater reconstruction);
- attention to the coarse mask and to the raters' disagreement gives the final prediction (multi-rater perception).

Ji et al., "Learning calibrated medical image segmentation via multi-rater agreement modeling", CVPR 2021.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from dmseg.limits import MRNET_BLOCKS

RATES = (1, 6, 12, 18)
"""Dilations of the pyramid of atrous convolutions."""
BLUR = 31
"""Edge of the attention's blur, in pixels."""


@dataclass(frozen=True)
class Widths:
    """Numbers of channels.

    Attributes:
        bottleneck: of the backbone's ConvLSTM.
        encoder: of the five blocks of the reconstruction network; the last is also the width of its ConvLSTM.
        context: of the reconstruction network's pyramid and decoder.
        detail: of the features of its third block that are passed to its decoder.
        perception: of the features that attention is applied to.
    """

    bottleneck: int
    encoder: tuple[int, ...]
    context: int
    detail: int
    perception: int


@dataclass(frozen=True)
class MRNetOutput:
    """Outputs of the network under one condition, as logits of the foreground.

    Attributes:
        coarse: (B, 1, H, W), output of the backbone.
        raters: (B, R, H, W), each rater's annotation.
        final: (B, 1, H, W), the final prediction.
    """

    coarse: Tensor
    raters: Tensor
    final: Tensor


class MRNet(nn.Module):
    """The three parts together.

    Args:
        backbone: a network of segmentation-models-pytorch with one output channel.
        n_channels: image channels.
        n_raters: R.
        widths: numbers of channels.
        trained: positions of the raters whose predicted annotations count as the raters' disagreement, at least two;
            None for all.
    """

    def __init__(
        self,
        backbone: nn.Module,
        n_channels: int,
        n_raters: int,
        widths: Widths,
        trained: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self._trained = None if trained is None else list(trained)
        self.backbone = backbone
        bottleneck: int = backbone.encoder.out_channels[-1]  # type: ignore[union-attr,index,assignment]
        head: nn.Module = backbone.segmentation_head  # type: ignore[assignment]
        decoded = next(module.in_channels for module in head.modules() if isinstance(module, nn.Conv2d))
        self.expertise = ConditionedStep(n_raters, bottleneck, widths.bottleneck)
        self.reconstruction = Reconstruction(n_channels, n_raters, widths)
        self.perception = Perception(decoded, widths.perception)

    def forward(self, image: Tensor, conditions: Sequence[Tensor]) -> list[MRNetOutput]:
        """Outputs under each condition; the backbone's encoder, which no condition enters, runs once.

        Args:
            image: (B, C, H, W).
            conditions: weights of the raters, each (B, R), that sum to 1 over the raters.
        """
        self.backbone.check_input_shape(image)  # type: ignore[operator]
        features = self.backbone.encoder(image)  # type: ignore[operator]
        outputs = []
        for condition in conditions:
            conditioned = [*features[:-1], self.expertise(features[-1], condition)]
            decoded: Tensor = self.backbone.decoder(conditioned)  # type: ignore[operator]
            coarse: Tensor = self.backbone.segmentation_head(decoded)  # type: ignore[operator]
            given = coarse.detach()
            raters: Tensor = self.reconstruction(image, torch.sigmoid(given), condition)
            agreeing = raters if self._trained is None else raters[:, self._trained]
            outputs.append(MRNetOutput(coarse, raters, self.perception(decoded.detach(), given, agreeing.detach())))
        return outputs

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401
        """Like torch's method; also loads weights stored when the backbone was called ``host``."""
        return super().load_state_dict(self.current_names(state_dict), strict, assign)

    @staticmethod
    def current_names(weights: Mapping[str, Any]) -> dict[str, Any]:
        """Stored weights under the names that the parameters and buffers have now."""
        return {
            f"backbone.{name.removeprefix('host.')}" if name.startswith("host.") else name: value
            for name, value in weights.items()
        }


class Reconstruction(nn.Module):
    """Predicts each rater's annotation from the image, a coarse prediction and the condition it was made under.

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
        """Distance between the encoder's maps of a prediction and those of the label: the consistency loss.

        Squared distances between rows, averaged over the batch, channels and rows of a map, summed over the six maps
        and divided by 1000. Gradients reach the prediction, but not the encoder's parameters.

        Args:
            image: (B, C, H, W).
            prediction: (B, 1, H, W) in [0, 1].
            label: (B, 1, H, W) in [0, 1], the mean of the raters.
        """
        fixed = {name: value.detach() for name, value in self.encoder.named_parameters()}
        kept = {name: value.clone() for name, value in self.encoder.named_buffers()}
        inputs = (torch.cat([image, foreground], dim=1) for foreground in (prediction, label))
        (first, _), (second, _) = (functional_call(self.encoder, fixed | kept, (item,)) for item in inputs)
        pairs = zip(first, second, strict=True)
        rows = [(a.float() - b.float()).square().sum(dim=-1).mean() for a, b in pairs]
        return torch.stack(rows).sum() / 1000.0


class Encoder(nn.Module):
    """VGG16 with batch normalisation and PReLU after a convolution to three channels; its output has 1/16 of the size.

    Args:
        channels: of the input.
        widths: channels of the five blocks.
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 3, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(_convolution(before, width), *(_convolution(width, width) for _ in range(count - 1)))
            for before, width, count in zip((3, *widths[:-1]), widths, MRNET_BLOCKS, strict=True)
        )

    def forward(self, values: Tensor) -> tuple[list[Tensor], Tensor]:
        """Six maps (first convolution, four pooled blocks, last block), and the third block's map before pooling."""
        maps = [self.stem(values)]
        for index, block in enumerate(self.blocks):
            values = block(maps[-1])
            if index == 2:
                detail = values
            last = index == len(self.blocks) - 1
            maps.append(values if last else functional.max_pool2d(values, 2, ceil_mode=True))
        return maps, detail


class Pyramid(nn.Module):
    """Atrous convolutions of increasing dilation and a pooled branch; each is added to the sum before it, then merged.

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
    """The final prediction, with attention to the coarse prediction and to the raters' disagreement.

    Args:
        channels: of the backbone's features.
        width: of the features that attention is applied to.
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
        attended = []
        for values in (torch.sigmoid(coarse), spread):
            blurred: Tensor = self.blur(values)
            low, high = blurred.amin(dim=(2, 3), keepdim=True), blurred.amax(dim=(2, 3), keepdim=True)
            attention = torch.maximum((blurred - low) / (high - low + 1e-8), values)
            attended.append(refined * (1.0 + attention))
        final: Tensor = self.head(torch.cat(attended, dim=1))
        return final


State = tuple[Tensor, Tensor]
"""Hidden and cell state of a ConvLSTM, each (B, C, H, W)."""


class ConvLSTMCell(nn.Module):
    """One step of an LSTM whose gates are a convolution of input and hidden state (Shi et al., NeurIPS 2015).

    There are no peephole connections. The gates have the order of `torch.nn.LSTMCell`: input, forget, cell, output.

    Args:
        inputs: channels of the input.
        hidden: channels of the state.
        kernel: odd edge length of the convolution.
    """

    def __init__(self, inputs: int, hidden: int, kernel: int = 3) -> None:
        super().__init__()
        self.gates = nn.Conv2d(inputs + hidden, 4 * hidden, kernel, padding=kernel // 2)

    def forward(self, values: Tensor, state: State) -> State:
        """The next state.

        Args:
            values: (B, inputs, H, W).
            state: hidden and cell state, (B, hidden, H, W) each.
        """
        hidden, cell = state
        input_gate, forget_gate, cell_gate, output_gate = self.gates(torch.cat([values, hidden], dim=1)).chunk(4, dim=1)
        cell = torch.sigmoid(forget_gate) * cell + torch.sigmoid(input_gate) * torch.tanh(cell_gate)
        return torch.sigmoid(output_gate) * torch.tanh(cell), cell


class ConditionedStep(nn.Module):
    """One step of a ConvLSTM on features; the embedded condition is its initial hidden and cell state.

    If the features and the LSTM differ in their number of channels, 1x1 convolutions project the features to the LSTM
    and back. An LSTM with the 2048 channels of a ResNet50 would have 302 million weights in its gates alone.

    Args:
        conditions: length of the condition.
        channels: of the features.
        width: channels of the LSTM.
    """

    def __init__(self, conditions: int, channels: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(conditions, width, 3, padding=1)
        self.cell = ConvLSTMCell(width, width)
        self.enter = nn.Identity() if channels == width else nn.Conv2d(channels, width, 1)
        self.leave = nn.Identity() if channels == width else nn.Conv2d(width, channels, 1)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Returns the conditioned features, (B, channels, H, W).

        Args:
            features: (B, channels, H, W).
            condition: (B, conditions).
        """
        everywhere = condition[:, :, None, None].expand(-1, -1, *features.shape[2:])
        first = self.embed(everywhere)
        hidden, _ = self.cell(self.enter(features), (first, first))
        conditioned: Tensor = self.leave(hidden)
        return conditioned


class Blur(nn.Module):
    """Convolution of a zero-padded map with one large learnable kernel, initialised as a Gaussian.

    It is computed in the frequency domain, which takes 1/30 to 1/50 of the time on a CPU.

    Args:
        edge: odd edge length of the kernel.
    """

    def __init__(self, edge: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(gaussian_kernel(edge))

    def forward(self, values: Tensor) -> Tensor:
        """(B, 1, H, W) to the same shape, float32."""
        edge = len(self.weight)
        height, width = values.shape[2:]
        size = (height + edge - 1, width + edge - 1)
        spectrum = torch.fft.rfft2(values.float(), s=size) * torch.fft.rfft2(self.weight.float(), s=size).conj()
        blurred: Tensor = torch.fft.irfft2(spectrum, s=size).roll((edge // 2, edge // 2), dims=(2, 3))
        return blurred[..., :height, :width]


def gaussian_kernel(edge: int, reach: float = 4.0) -> Tensor:
    """Weights (edge, edge) of a blur that sum to 1: square roots of the normal probability of each pixel.

    The square root follows the authors' code; it makes the Gaussian wider by a factor of sqrt(2).

    Args:
        edge: odd edge length.
        reach: half the width of the kernel in standard deviations.
    """
    pixel = (2.0 * reach + 1.0) / edge
    bounds = torch.linspace(-reach - pixel / 2, reach + pixel / 2, edge + 1, dtype=torch.float64)
    mass = torch.special.ndtr(bounds).diff()
    kernel = torch.outer(mass, mass).sqrt()
    return (kernel / kernel.sum()).float()


def _convolution(before: int, width: int, kernel: int = 3, dilation: int = 1) -> nn.Sequential:
    """Convolution that keeps the size, batch normalisation, PReLU."""
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(before, width, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.PReLU())


def _resize(values: Tensor, like: Tensor) -> Tensor:
    """Resizes a map bilinearly to the size of another."""
    if values.shape[2:] == like.shape[2:]:
        return values
    return functional.interpolate(values, size=like.shape[2:], mode="bilinear", align_corners=True)
