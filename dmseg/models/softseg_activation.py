"""The output activation of SoftSeg."""

import torch
from torch import Tensor


def normalized_relu(logits: Tensor, per_image: bool = True) -> Tensor:
    """ReLU divided by its maximum: relu(x) / max relu(x) (Gros et al., MedIA 2021; ivadomed, ``models.py``).

    If no logit is above 0 the result is 0 and the gradient is that of the identity, so that a network which predicts
    only 0 can still learn. ivadomed also returns 0 then, but its gradient is NaN (0 / 0).

    Args:
        logits: (B, C, ...).
        per_image: whether to use the maximum of each image, or that of the whole batch as ivadomed does.

    Returns:
        (B, C, ...) in [0, 1], in the dtype of the logits.
    """
    positive = torch.relu(logits)
    over = tuple(range(1 if per_image else 0, logits.ndim))
    largest = positive.amax(dim=over, keepdim=True)
    alive = largest > 0
    return torch.where(alive, positive / torch.where(alive, largest, 1.0), logits - logits.detach())
