"""Pixel-wise losses for soft labels: cross-entropy, Kullback-Leibler divergence and focal cross-entropy."""

import torch
from torch import Tensor, nn

from dmseg.losses._check import check_at_least, check_flag, check_optional_flag
from dmseg.losses._fused import RequiredSums
from dmseg.losses.counts import PixelSumLoss, PixelSums, label_channels, mean_pixels, prepare, require


class SoftCrossEntropyLoss(PixelSumLoss):
    """Cross-entropy, -sum_c y_c log p_c with p the softmax of the logits, averaged over all kept pixels of the batch.

    Call it with ``(input, target, mask=None)``: logits (B, C, ...), and a target as for
    `dmseg.losses.counts.pixel_sums`. For one channel it is the binary cross-entropy of its sigmoid. A batch without
    kept pixels has loss 0. A class whose logit is minus infinity adds nothing where its label is 0, and makes the loss
    infinite where it is not.

    Args:
        kl: Kullback-Leibler divergence, sum_c y_c (log y_c - log p_c), which is smaller by the label's entropy and has
            the same gradient.
        check_values: whether to check values; None checks them on the CPU only.
    """

    def __init__(self, kl: bool = False, *, check_values: bool | None = None) -> None:
        check_flag("kl", kl)
        super().__init__(RequiredSums(cross_entropy=True, entropy=kl), from_logits=True, check_values=check_values)

    def from_sums(self, sums: PixelSums) -> Tensor:
        """Returns the loss, a scalar, from sums over pixels."""
        total = require(sums.cross_entropy)
        if self.required.entropy:
            total = total - require(sums.entropy)
        return total.sum() / sums.pixels.sum().clamp_min(1)

    def extra_repr(self) -> str:
        """Returns the settings, for `print`."""
        return f"kl={self.required.entropy}, check_values={self.check_values}"


class FocalCrossEntropyLoss(nn.Module):
    """Focal cross-entropy, -sum_c y_c (1 - p_c)^gamma log p_c, averaged over all kept pixels (Lin et al. 2017).

    It is called like `SoftCrossEntropyLoss`, which it equals for gamma = 0. For gamma > 0 its minimum is not at a soft
    label.

    Args:
        gamma: the power, at least 0; 2 in the source.
        check_values: whether to check values; None checks them on the CPU only.

    Raises:
        TypeError: if gamma is not a number, or check_values is neither a bool nor None.
        ValueError: if gamma is negative or not finite.
    """

    def __init__(self, gamma: float, *, check_values: bool | None = None) -> None:
        super().__init__()
        self.gamma = check_at_least("gamma", gamma, 0)
        check_optional_flag("check_values", check_values)
        self.check_values = check_values

    def forward(self, input: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the loss, a scalar in float32 or more.

        Args:
            input: (B, C, ...) logits; one channel is the foreground of two classes.
            target: (B, ...) integer classes, or (B, C, ...) soft labels in [0, 1] that sum to 1 over the classes.
            mask: (B, ...) bool or 0 and 1, the pixels to keep; None keeps all.

        Raises:
            TypeError: if a dtype does not fit.
            ValueError: if a shape or a value does not fit.
        """
        logits, target, keep = prepare(input, target, mask, from_logits=True, check_values=self.check_values)
        label = label_channels(target, logits.shape[1], logits.dtype, keep)
        logits = logits if keep is None else torch.where(keep, logits, 0)  # 0 times NaN would be a gradient of NaN
        if logits.shape[1] == 1:
            logits, label = torch.cat((torch.zeros_like(logits), logits), 1), torch.cat((1 - label, label), 1)
        limits = torch.finfo(logits.dtype)
        # 0 log 0 is 0: a class whose logit is minus infinity counts only where its label is not 0
        log_prob = torch.where(label == 0, 0, torch.log_softmax(logits, 1))
        doubt = (-torch.expm1(log_prob.clamp_min(limits.min))).clamp_min(limits.tiny)
        return mean_pixels(-(label * doubt**self.gamma * log_prob), keep)

    def extra_repr(self) -> str:
        """Returns the settings, for `print`."""
        return f"gamma={self.gamma}, check_values={self.check_values}"
