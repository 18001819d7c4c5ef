"""Which image sizes an architecture takes. Imports no torch, so that planning may ask."""

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
"""Architectures of segmentation-models-pytorch whose image edges must be multiples of the encoder's stride, and that
stride by default; `Unet` takes any size."""

MOST_STAGES = 16


def edge_multiple(architecture: str, options: Mapping[str, Any]) -> int:
    """Number of which image edges must be a multiple, in pixels; 1 where any size works or nothing is known.

    Args:
        architecture: class name in segmentation_models_pytorch.
        options: its keyword arguments, of which ``encoder_output_stride`` and ``encoder_depth`` matter.
    """
    if architecture not in DEFAULTS:
        return 1
    stride, depth = options.get("encoder_output_stride"), options.get("encoder_depth")
    found = stride if isinstance(stride, int) else DEFAULTS[architecture]
    if found < 1 or not isinstance(depth, int) or not 0 <= depth <= MOST_STAGES:
        return max(found, 1)  # what the network does not take is refused when it is built
    reduction: int = 2**depth
    return reduction if architecture == "PSPNet" else min(found, reduction)
