"""SoftSeg's last activation."""

import torch
from torch import Tensor


def normalized_relu(logits: Tensor, per_image: bool = True) -> Tensor:
    """ReLU over its own maximum: relu(x) / max relu(x) (Gros et al., MedIA 2021; ivadomed, ``models.py``).

    Where no logit is above 0 the result is 0 and the gradient that of the identity, so that a network which says
    nothing is still told where it should; ivadomed has 0 there too, but its gradient, of 0 / 0, is not a number.

    Args:
        logits: (B, C, ...).
        per_image: the maximum of each image, or of the whole batch as ivadomed takes it.

    Returns:
        (B, C, ...) in [0, 1], of the logits' dtype.
    """
    positive = torch.relu(logits)
    over = tuple(range(1 if per_image else 0, logits.ndim))
    largest = positive.amax(dim=over, keepdim=True)
    alive = largest > 0
    return torch.where(alive, positive / torch.where(alive, largest, 1.0), logits - logits.detach())
