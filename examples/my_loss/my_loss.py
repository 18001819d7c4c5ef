"""A loss of one's own: a power of the difference between predicted probability and soft label."""

from torch import Tensor, nn


class PowerErrorLoss(nn.Module):
    """Computes the mean of ``|p - y| ** power`` over classes and pixels; it is 0 where the prediction is the label.

    Args:
        power: 2 for the Brier score; more for more weight on large differences.
        unused: dmseg passes options of its own losses too (``check_values``); they have no effect here.
    """

    def __init__(self, power: float = 2.0, **unused: object) -> None:
        super().__init__()
        self.power = power

    def forward(self, input: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the loss, a scalar.

        Args:
            input: logits (B, C, H, W).
            target: soft labels (B, C, H, W), or classes (B, H, W) of hard ones.
            mask: (B, H, W), True for the pixels that count; None counts all. Padding must not count.
        """
        if not target.is_floating_point():
            target = nn.functional.one_hot(target, input.shape[1]).movedim(-1, 1)
        error = (input.softmax(1) - target).abs().pow(self.power).mean(1)
        return error.mean() if mask is None else (error * mask).sum() / mask.sum().clamp_min(1)
