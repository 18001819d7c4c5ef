"""Label smoothing: everywhere, only at boundaries, or in proportion to the classes nearby."""

from functools import cache

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


def svls(label: Tensor, sigma: float = 1.0, kernel: int = 3) -> Tensor:
    """Spatially varying label smoothing (Islam and Glocker, IPMI 2021, section 2.2; code: mobarakol/SVLS).

    Each pixel keeps half of its own label; the other half is the average of the neighbours' labels with Gaussian
    weights. The paper writes this as a Gaussian whose central weight is replaced by the sum of the others, divided by
    the sum of all. A pixel that has the class of all its neighbours is not changed. Positions outside the image repeat
    its border.

    Smoothing the mean of several raters' masks gives the mean of their smoothed masks (mSVLS of the paper).

    Args:
        label: (B, C, H, W), one-hot or soft; channels are smoothed one by one.
        sigma: standard deviation of the Gaussian in pixels, above 0.
        kernel: odd edge of the neighbourhood, at least 3.

    Returns:
        Soft label (B, C, H, W), whose sum over the classes is that of `label`.
    """
    reach, channels = kernel // 2, label.shape[1]
    filters = _svls_filter(sigma, kernel, str(label.device)).expand(channels, 1, kernel, kernel)
    padded = functional.pad(label.double(), (reach,) * 4, mode="replicate")
    return functional.conv2d(padded, filters, groups=channels).clamp(0.0, 1.0).to(label.dtype)


@cache
def _svls_filter(sigma: float, kernel: int, device: str) -> Tensor:
    """Weights of the neighbours, (kernel, kernel) float64; kept on the device, so that each is copied there once."""
    reach = kernel // 2
    with torch.inference_mode(False):
        offset = torch.arange(-reach, reach + 1, dtype=torch.float64)
        distance = offset[:, None] ** 2 + offset**2
        weights = torch.exp((1.0 - distance) / (2.0 * sigma**2))  # 1 for the nearest neighbours: the sum is above 0
        weights[reach, reach] = 0.0
        weights /= 2.0 * weights.sum()
        weights[reach, reach] = 0.5
        return weights.to(device)
