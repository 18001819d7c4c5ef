"""A region loss of one's own: a Dice loss whose denominator holds powers of prediction and label."""

from typing import Any

import torch
from torch import Tensor, nn


class PowerDiceLoss(nn.Module):
    """Computes 1 - Dice, with the sums of the denominator raised to a power, averaged over the classes.

    Args:
        power: 1 for the usual soft Dice loss, 2 for V-Net's.
        smooth: added to numerator and denominator.
        unused: dmseg passes options of its own losses too (``check_values``); they have no effect here.
    """

    def __init__(self, power: float = 2.0, smooth: float = 1.0, **unused: Any) -> None:
        super().__init__()
        self.power = power
        self.smooth = smooth

    def forward(self, input: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the loss, a scalar.

        Args:
            input: logits (B, C, H, W).
            target: soft labels (B, C, H, W), or classes (B, H, W) of hard ones.
            mask: (B, H, W), True for the pixels that count; padding does not.
        """
        prob = input.softmax(1)
        if not target.is_floating_point():
            target = nn.functional.one_hot(target, input.shape[1]).movedim(-1, 1)
        keep = torch.ones_like(prob[:, :1]) if mask is None else mask.unsqueeze(1)
        prob, target = prob * keep, target * keep
        axes = (0, 2, 3)
        overlap = 2 * (prob * target).sum(axes) + self.smooth
        total = (prob**self.power + target**self.power).sum(axes) + self.smooth
        return (1 - overlap / total).mean()
