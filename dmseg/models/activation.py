"""SoftSeg's last activation."""

import torch
from torch import Tensor


def normalized_relu(logits: Tensor, per_image: bool = True) -> Tensor:
    """ReLU over its own maximum: relu(x) / max relu(x) (Gros et al., MedIA 2021; ivadomed, ``models.py``).

    Where no logit is above 0 the result is 0 and so is the gradient; ivadomed replaces the 0 / 0 of the value alone.

    Args:
        logits: (B, C, ...).
        per_image: the maximum of each image, or of the whole batch as ivadomed takes it.

    Returns:
        (B, C, ...) in [0, 1], of the logits' dtype.
    """
    positive = torch.relu(logits)
    over = tuple(range(1 if per_image else 0, logits.ndim))
    largest = positive.amax(dim=over, keepdim=True)
    return positive / torch.where(largest > 0, largest, 1.0)
