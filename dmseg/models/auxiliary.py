"""The auxiliary head of the authors' released code: a second prediction from the encoder, used in training only."""

from segmentation_models_pytorch.base import SegmentationModel
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from torch import Tensor, nn
from torch.nn import functional

from dmseg.errors import UserError


class AuxiliaryHead(nn.Sequential):
    """Logits from the second-to-last feature map of an encoder (JDTLosses, ``models/segmentor.py``).

    A 3x3 convolution with batch normalisation and ReLU, dropout of channels, and a 1x1 convolution. For an encoder of
    stride 32 the feature map has stride 16, for DeepLabV3+ with an output stride of 8 it has stride 8. The first
    convolution is initialised by uniform Kaiming, the last by uniform Xavier, its bias is 0.

    Args:
        in_channels: channels of the feature map.
        channels: channels between the convolutions.
        classes: channels of the output.
        dropout: probability of dropping a channel in training.
        share: its share of the cross-entropy, in (0, 1), which objectives read.
    """

    def __init__(self, in_channels: int, channels: int, classes: int, dropout: float, share: float) -> None:
        super().__init__(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Dropout2d(dropout) if dropout else nn.Identity(),
            nn.Conv2d(channels, classes, 1),
        )
        self.share = share
        initialize_decoder(self[0])
        initialize_head(self[-1])


def add_auxiliary_head(
    network: nn.Module, name: str, channels: int, classes: int, dropout: float, share: float
) -> None:
    """Adds an auxiliary head to a network, which predicts as before; `forward_heads` computes both heads.

    Args:
        network: a network of segmentation-models-pytorch.
        name: its architecture and encoder, for the message.
        channels: see `AuxiliaryHead`.
        classes: channels of the output.
        dropout: see `AuxiliaryHead`.
        share: see `AuxiliaryHead`.

    Raises:
        UserError: if the encoder lacks the feature map, or the network does not consist of encoder, decoder and head.
    """
    advice = "set model.auxiliary.weight=0, or choose another network"
    if getattr(type(network), "forward", None) is not SegmentationModel.forward:
        raise UserError(
            f"{name} cannot have an auxiliary head, as it is not made of an encoder, a decoder and a head; {advice}"
        )
    features = list(network.encoder.out_channels)[1:]  # type: ignore[union-attr,arg-type]
    if len(features) < 2 or features[-2] < 1:
        raise UserError(
            f"{name} cannot have an auxiliary head, because its encoder has no feature map before the last one "
            f"(channels of its feature maps: {', '.join(map(str, features))}); {advice}"
        )
    network.auxiliary_head = AuxiliaryHead(features[-2], channels, classes, dropout, share)


def forward_heads(network: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the main and of the auxiliary head, both (B, classes, H, W); the encoder runs once.

    Args:
        network: a network with an auxiliary head.
        image: (B, C, H, W).
    """
    network.check_input_shape(image)  # type: ignore[operator]
    features = network.encoder(image)  # type: ignore[operator]
    main: Tensor = network.segmentation_head(network.decoder(features))  # type: ignore[operator]
    small = network.auxiliary_head(features[-2])  # type: ignore[operator]
    return main, functional.interpolate(small, size=image.shape[2:], mode="bilinear", align_corners=False)


def auxiliary_share(network: nn.Module) -> float:
    """The share of a network's auxiliary head in the cross-entropy; 0 if it has no such head."""
    head = getattr(network, "auxiliary_head", None)
    return head.share if isinstance(head, AuxiliaryHead) else 0.0
