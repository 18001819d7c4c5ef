"""Label smoothing of hard labels, everywhere or only at boundaries."""

import torch
from torch import Tensor
from torch.nn import functional


def boundary(one_hot: Tensor, mask: Tensor, kernel: int = 3) -> Tensor:
    """Finds the pixels whose neighbourhood contains another class.

    With a kernel of 3 this is one pixel on each side of a contour. Positions outside the image count as the pixel's own
    class, and pixels near masked ones are never boundary pixels (JDTLosses, ``train_soft_label.py``).

    Args:
        one_hot: (B, C, H, W), 0 or 1.
        mask: (B, H, W), True for pixels to use.
        kernel: odd edge of the neighbourhood.

    Returns:
        (B, H, W) bool.
    """
    pad = kernel // 2
    eroded = -functional.max_pool2d(-one_hot, kernel, stride=1, padding=pad)
    interior = (eroded * one_hot).sum(dim=1) > 0.5
    ignored = (~mask).to(one_hot.dtype).unsqueeze(1)
    near_ignored = functional.max_pool2d(ignored, kernel, stride=1, padding=pad).squeeze(1) > 0.5
    return ~interior & ~near_ignored


def smooth(one_hot: Tensor, mask: Tensor, epsilon: float, kernel: int | None = None) -> Tensor:
    """Smooths a label: (1 - epsilon) * label + epsilon / C, everywhere or only at boundaries.

    Args:
        one_hot: (B, C, H, W), 0 or 1.
        mask: (B, H, W), True for pixels to use.
        epsilon: 0 to 1, probability that is distributed equally over all classes.
        kernel: odd edge of the neighbourhood that defines a boundary; None smooths everywhere.

    Returns:
        Soft label (B, C, H, W), which sums to 1 over the classes.
    """
    softened = (1.0 - epsilon) * one_hot + epsilon / one_hot.shape[1]
    if kernel is None:
        return softened
    return torch.where(boundary(one_hot, mask, kernel).unsqueeze(1), softened, one_hot)
