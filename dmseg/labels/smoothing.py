"""Label smoothing of hard label maps, everywhere or at the boundary only."""

import torch
from torch import Tensor
from torch.nn import functional


def boundary(one_hot: Tensor, mask: Tensor, kernel: int = 3) -> Tensor:
    """Finds the pixels whose neighbourhood is not all of their own class.

    With a kernel of 3 that is one pixel on each side of a contour. Beyond the image border everything counts as the
    pixel's own class, and pixels near masked ones are never boundary (JDTLosses, ``train_soft_label.py``).

    Args:
        one_hot: (B, C, H, W), 0 or 1.
        mask: (B, H, W), True where a pixel counts.
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
    """Smooths a label: (1 - epsilon) * label + epsilon / C, everywhere or at the boundary only.

    Args:
        one_hot: (B, C, H, W), 0 or 1.
        mask: (B, H, W), True where a pixel counts.
        epsilon: 0 to 1, the share that all classes get alike.
        kernel: odd edge of the neighbourhood that makes a boundary; None smooths everywhere.

    Returns:
        Soft label (B, C, H, W), summing to 1 over the classes.
    """
    softened = (1.0 - epsilon) * one_hot + epsilon / one_hot.shape[1]
    if kernel is None:
        return softened
    return torch.where(boundary(one_hot, mask, kernel).unsqueeze(1), softened, one_hot)
