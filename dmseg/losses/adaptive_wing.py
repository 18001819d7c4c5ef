"""The adaptive wing loss, with which SoftSeg is trained on soft labels."""

from typing import Literal

import torch
from torch import Tensor, nn

from dmseg.losses._check import check_at_least, check_choice, check_flag, check_optional_flag
from dmseg.losses.counts import label_channels, mean_pixels, prepare


class AdaptiveWingLoss(nn.Module):
    """Adaptive wing loss (Wang et al. 2019) of the foreground, with the constants of ivadomed's AdapWingLoss.

    With d = abs(p - y), it is omega log(1 + (d / epsilon)^(alpha - y)) for d < theta, and for larger d the straight
    line A d - C that continues it with the same value and slope.

    Args:
        theta: difference at which the curve becomes a line, more than 0.
        alpha: power for y = 0, more than 2, so that the gradient is continuous at the label for every y up to 1.
        omega: height of the curve, more than 0.
        epsilon: width of the curve, more than 0.
        reduction: ``mean`` over kept pixels (of the sum over foreground classes), or ``sum`` over them as in ivadomed.
        from_logits: whether the input holds logits; SoftSeg's own activation gives probabilities.
        check_values: whether to check values; None checks them on the CPU only.

    Raises:
        TypeError: if a setting is not a number or flag.
        ValueError: if a setting lies outside its range.
    """

    def __init__(
        self,
        theta: float = 0.5,
        alpha: float = 2.1,
        omega: float = 14.0,
        epsilon: float = 1.0,
        *,
        reduction: Literal["mean", "sum"] = "mean",
        from_logits: bool = True,
        check_values: bool | None = None,
    ) -> None:
        super().__init__()
        check_choice("reduction", reduction, ("mean", "sum"))
        self.theta = check_at_least("theta", theta, 0, strictly=True)
        self.alpha = check_at_least("alpha", alpha, 2, strictly=True)
        self.omega = check_at_least("omega", omega, 0, strictly=True)
        self.epsilon = check_at_least("epsilon", epsilon, 0, strictly=True)
        check_flag("from_logits", from_logits)
        check_optional_flag("check_values", check_values)
        self.reduction = reduction
        self.from_logits = from_logits
        self.check_values = check_values

    def forward(self, input: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the loss, a scalar in float32 or more.

        Args:
            input: (B, C, ...) logits (C = 1: sigmoid, else softmax) or probabilities in [0, 1]; if there are
                several channels, the first (background) is left out.
            target: (B, ...) integer classes, or (B, C, ...) soft labels in [0, 1] that sum to 1 over the classes.
            mask: (B, ...) bool or 0 and 1, the pixels to keep; None keeps all.

        Raises:
            TypeError: if a dtype does not fit.
            ValueError: if a shape or a value does not fit.
        """
        input, target, keep = prepare(input, target, mask, from_logits=self.from_logits, check_values=self.check_values)
        channels = input.shape[1]
        label = label_channels(target, channels, input.dtype, keep)
        input = input if keep is None else torch.where(keep, input, 0)  # 0 times NaN would be a gradient of NaN
        if self.from_logits:
            input = torch.sigmoid(input) if channels == 1 else torch.softmax(input, 1)
        first = min(1, channels - 1)
        prob, label = input[:, first:], label[:, first:]
        # above 0, where the second derivative of the power would be infinite, and times 0 NaN
        difference = (prob - label).abs().clamp_min(torch.finfo(prob.dtype).tiny)
        power = self.alpha - label
        ratio = self.theta / self.epsilon
        slope = self.omega * power * ratio ** (power - 1) / (self.epsilon * (1 + ratio**power))
        curve = self.omega * torch.log1p((difference / self.epsilon) ** power)
        line = slope * (difference - self.theta) + self.omega * torch.log1p(ratio**power)
        wings = torch.where(difference < self.theta, curve, line)
        if self.reduction == "mean":
            return mean_pixels(wings, keep)
        return (wings if keep is None else torch.where(keep, wings, 0)).sum()

    def extra_repr(self) -> str:
        """Returns the settings, for `print`."""
        return (
            f"theta={self.theta}, alpha={self.alpha}, omega={self.omega}, epsilon={self.epsilon}, "
            f"reduction={self.reduction!r}, from_logits={self.from_logits}, check_values={self.check_values}"
        )
