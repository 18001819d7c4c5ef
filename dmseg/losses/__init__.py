"""Losses on soft labels: Dice semimetric losses and their kin, cross-entropy, and weighted sums of them.

All are called with ``(input, target, mask=None)``: logits or probabilities (batch, channels, spatial ...), hard labels
as integers (batch, spatial ...) or soft ones (batch, channels, spatial ...), and the pixels to keep.
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
