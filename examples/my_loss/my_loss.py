"""A loss of one's own: a power of the difference between predicted probability and soft label."""

from torch import Tensor, nn


class PowerErrorLoss(nn.Module):
    """Computes the mean of ``|p - y| ** power`` over classes and pixels; it is 0 where the prediction is the label.

    Args:
        power: 2 for the Brier score; more for more weight on large differences.
    """

    def __init__(self, power: float = 2.0) -> None:
        super().__init__()
        self.power = power

    def forward(self, input: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the loss, a scalar.

        Args:
            input: logits (B, C, H, W).
            target: probabilities (B, C, H, W), those of hard labels 0 or 1.
            mask: (B, H, W), True for the pixels that count; None counts all. Padding must not count.
        """
        error = (input.softmax(1) - target).abs().pow(self.power).mean(1)
        return error.mean() if mask is None else (error * mask).sum() / mask.sum().clamp_min(1)
