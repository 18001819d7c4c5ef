"""Image sizes that an architecture accepts. Does not import torch, so that planning can use it."""

from collections.abc import Mapping
from typing import Any

DEFAULTS = {
    "DeepLabV3": 8,
    "DeepLabV3Plus": 16,
    "FPN": 32,
    "Linknet": 32,
    "MAnet": 32,
    "PAN": 16,
    "PSPNet": 8,
    "Segformer": 32,
    "UPerNet": 32,
    "UnetPlusPlus": 32,
}
"""Architectures of segmentation-models-pytorch whose image edges must be multiples of the encoder's stride, with the
default stride; `Unet` accepts any size."""

MOST_STAGES = 16


def edge_multiple(architecture: str, options: Mapping[str, Any]) -> int:
    """Number of pixels that image edges must be a multiple of; 1 if any size works or the architecture is unknown.

    Args:
        architecture: class name in segmentation_models_pytorch.
        options: its keyword arguments, of which ``encoder_output_stride`` and ``encoder_depth`` matter.
    """
    if architecture not in DEFAULTS:
        return 1
    stride, depth = options.get("encoder_output_stride"), options.get("encoder_depth")
    found = stride if isinstance(stride, int) else DEFAULTS[architecture]
    if found < 1 or not isinstance(depth, int) or not 0 <= depth <= MOST_STAGES:
        return max(found, 1)  # invalid options are refused when the network is built
    reduction: int = 2**depth
    return reduction if architecture == "PSPNet" else min(found, reduction)
