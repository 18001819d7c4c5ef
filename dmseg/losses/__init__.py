"""Losses for soft labels: Dice semimetric losses and related ones, cross-entropy, and weighted sums of losses.

All are called with ``(input, target, mask=None)``: logits or probabilities (batch, channels, spatial ...), hard labels
as integers (batch, spatial ...) or soft labels (batch, channels, spatial ...), and a mask of the pixels to keep.
"""

from dmseg.losses.adaptive_wing import AdaptiveWingLoss
from dmseg.losses.compound import CompoundLoss
from dmseg.losses.counts import Confusion, PixelSumLoss, PixelSums, confusion, pixel_sums
from dmseg.losses.cross_entropy import FocalCrossEntropyLoss, SoftCrossEntropyLoss
from dmseg.losses.region import (
    CompatibleFocalTverskyLoss,
    CompatibleTverskyLoss,
    DiceSemimetricLoss,
    JaccardMetricLoss,
    RegionLoss,
    RegionSetting,
    SoftDiceLoss,
    SoftFocalTverskyLoss,
    SoftJaccardLoss,
    SoftTverskyLoss,
    region_loss,
)

__all__ = [
    "AdaptiveWingLoss",
    "CompatibleFocalTverskyLoss",
    "CompatibleTverskyLoss",
    "CompoundLoss",
    "Confusion",
    "DiceSemimetricLoss",
    "FocalCrossEntropyLoss",
    "JaccardMetricLoss",
    "PixelSumLoss",
    "PixelSums",
    "RegionLoss",
    "RegionSetting",
    "SoftCrossEntropyLoss",
    "SoftDiceLoss",
    "SoftFocalTverskyLoss",
    "SoftJaccardLoss",
    "SoftTverskyLoss",
    "confusion",
    "pixel_sums",
    "region_loss",
]
