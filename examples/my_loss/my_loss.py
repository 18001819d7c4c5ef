"""A custom loss: a power of the difference between predicted probability and soft label."""

from torch import Tensor, nn


class PowerErrorLoss(nn.Module):
    """Computes the mean of ``|p - y| ** power`` over classes and pixels; it is 0 if the prediction equals the label.

    Args:
        power: 2 for the Brier score; larger values give more weight to large differences.
    """

    def __init__(self, power: float = 2.0) -> None:
        super().__init__()
        self.power = power

    def forward(self, input: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the loss, a scalar.

        Args:
            input: logits (B, C, H, W).
            target: probabilities (B, C, H, W); 0 or 1 for hard labels.
            mask: (B, H, W), True for the pixels that count, which excludes padding; None counts all.
        """
        error = (input.softmax(1) - target).abs().pow(self.power).mean(1)
        return error.mean() if mask is None else (error * mask).sum() / mask.sum().clamp_min(1)
