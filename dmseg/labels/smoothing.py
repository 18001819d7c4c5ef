"""Label smoothing: everywhere, only at boundaries, or in proportion to the classes nearby.

Labels have two or three spatial dimensions. Floating-point labels keep their dtype; bool and integers give float32.
Shapes and settings are checked always, values only on the CPU, as reading them would wait for a GPU.
"""

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from dmseg.errors import is_number, is_whole, kind_of, shown

_MAX_POOL = {2: functional.max_pool2d, 3: functional.max_pool3d}
_CONVOLVE = {2: functional.conv2d, 3: functional.conv3d}
_SUM_TOLERANCE = {torch.float16: 2e-2, torch.bfloat16: 2e-2}
"""Tolerance for the sum of a label over the classes; 1e-3 for other dtypes."""


def boundary(one_hot: Tensor, mask: Tensor | None = None, kernel: int = 3) -> Tensor:
    """Finds the pixels whose neighbourhood contains another class.

    With a kernel of 3 this is one pixel on each side of a contour. Positions outside the image count as the pixel's own
    class, and pixels near masked ones are never boundary pixels (JDTLosses, ``train_soft_label.py``).

    Args:
        one_hot: (B, C, H, W) or (B, C, D, H, W), 0 or 1; a single channel is the foreground.
        mask: (B, *spatial), True or 1 for pixels to use; None uses all.
        kernel: odd edge length of the neighbourhood; 1 contains no other pixel.

    Returns:
        (B, *spatial) bool.

    Raises:
        TypeError: if an argument has a wrong type.
        ValueError: if a shape or a value does not fit.
    """
    kernel = _checked_kernel(kernel, 1)
    label, used = _checked_one_hot(one_hot, mask)
    return _boundary(label, used, kernel)


def smooth(one_hot: Tensor, mask: Tensor | None, epsilon: float, kernel: int | None = None) -> Tensor:
    """Smooths a label: (1 - epsilon) * label + epsilon / C, everywhere or only at boundaries.

    Args:
        one_hot: (B, C, H, W) or (B, C, D, H, W), 0 or 1. A single channel is the foreground of two classes.
        mask: (B, *spatial), True or 1 for pixels to use; None uses all. It matters for boundaries only (`boundary`).
        epsilon: 0 to 1, probability that is distributed equally over all classes.
        kernel: odd edge length of the neighbourhood that defines a boundary; None smooths everywhere.

    Returns:
        Soft label of the same shape, which sums to 1 over the classes.

    Raises:
        TypeError: if an argument has a wrong type.
        ValueError: if a shape or a value does not fit.
    """
    if not is_number(epsilon):
        raise TypeError(f"epsilon is {shown(epsilon)}; give a number from 0 to 1")
    if not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon is {shown(epsilon)}, but must lie between 0 and 1")
    kernel, epsilon = None if kernel is None else _checked_kernel(kernel, 1), float(epsilon)
    label, used = _checked_one_hot(one_hot, mask)
    softened = (1.0 - epsilon) * label + epsilon / max(label.shape[1], 2)
    if kernel is None:
        return softened
    return torch.where(_boundary(label, used, kernel).unsqueeze(1), softened, label)


def svls(label: Tensor, sigma: float = 1.0, kernel: int = 3) -> Tensor:
    """Spatially varying label smoothing (Islam and Glocker, IPMI 2021, section 2.2; code: mobarakol/SVLS).

    Each pixel keeps half of its own label; the other half is the average of the neighbours' labels with Gaussian
    weights. The paper writes this as a Gaussian whose central weight is replaced by the sum of the others, divided by
    the sum of all. A pixel that has the class of all its neighbours is not changed. Positions outside the image repeat
    its border. In three dimensions, the distance between neighbours is the same along all axes.

    Smoothing the mean of several raters' masks gives the mean of their smoothed masks (mSVLS of the paper).

    Args:
        label: (B, C, H, W) or (B, C, D, H, W), one-hot or soft; channels are smoothed one by one.
        sigma: standard deviation of the Gaussian in pixels, above 0.
        kernel: odd edge length of the neighbourhood, at least 3.

    Returns:
        Soft label of the same shape, whose sum over the classes is that of `label`.

    Raises:
        TypeError: if an argument has a wrong type.
        ValueError: if a shape or a value does not fit.
    """
    if not is_number(sigma):
        raise TypeError(f"sigma is {shown(sigma)}; give a number above 0")
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma is {shown(sigma)}, but must be above 0 and finite")
    kernel = _checked_kernel(kernel, 3)
    label = _checked_label(label, "label")
    _check_range(label, "label", None)
    label = label if label.is_floating_point() else label.float()
    reach, channels, dimensions = kernel // 2, label.shape[1], label.ndim - 2
    weights = _svls_filter(float(sigma), kernel, dimensions, str(label.device))
    filters = weights.expand(channels, 1, *weights.shape)
    padded = functional.pad(label.double(), (reach,) * (2 * dimensions), mode="replicate")
    return _CONVOLVE[dimensions](padded, filters, groups=channels).clamp(0.0, 1.0).to(label.dtype)


@cache
def _svls_filter(sigma: float, kernel: int, dimensions: int, device: str) -> Tensor:
    """Weights of the neighbours, (kernel, ...) float64; kept on the device, so that each is copied there once."""
    reach = kernel // 2
    with torch.inference_mode(False):
        offset = torch.arange(-reach, reach + 1, dtype=torch.float64)
        distance = offset**2
        for _ in range(dimensions - 1):
            distance = distance[..., None] + offset**2
        width = max(2.0 * min(sigma, 1e150) ** 2, 1e-300)
        weights = torch.exp((1.0 - distance) / width)  # 1 for the nearest neighbours: the sum is above 0
        centre = (reach,) * dimensions
        weights[centre] = 0.0
        weights /= 2.0 * weights.sum()
        weights[centre] = 0.5
        return weights.to(device)


def _boundary(label: Tensor, used: Tensor | None, kernel: int) -> Tensor:
    """`boundary` of checked arguments."""
    if label.shape[1] == 1:
        label = torch.cat([1.0 - label, label], dim=1)
    pool, pad = _MAX_POOL[label.ndim - 2], kernel // 2
    eroded = -pool(-label, kernel, stride=1, padding=pad)
    interior = (eroded * label).sum(dim=1) > 0.5
    if used is None:
        return ~interior
    ignored = (~used).to(label.dtype).unsqueeze(1)
    near_ignored = pool(ignored, kernel, stride=1, padding=pad).squeeze(1) > 0.5
    return ~interior & ~near_ignored


def _checked_kernel(kernel: object, least: int) -> int:
    if not is_whole(kernel):
        raise TypeError(f"kernel is {shown(kernel)}; give an odd whole number")
    if kernel < least or kernel % 2 == 0:
        raise ValueError(f"kernel is {kernel}, but must be odd and at least {least}")
    return int(kernel)


def _checked_one_hot(one_hot: object, mask: object) -> tuple[Tensor, Tensor | None]:
    """Checks a label and its mask, values only on the CPU, and converts them to floats and to bool."""
    label, used = _checked_label(one_hot, "one_hot"), None
    if mask is not None:
        if not isinstance(mask, Tensor):
            advice = ": torch.from_numpy(mask)" if hasattr(mask, "__array__") else ", or None"
            raise TypeError(f"mask is {kind_of(mask)}; give a tensor{advice}")
        pixels = (label.shape[0], *label.shape[2:])
        if mask.is_complex():
            raise TypeError(f"mask is {mask.dtype}; give bool, or the numbers 0 and 1")
        if mask.shape != pixels:
            raise ValueError(f"mask has shape {tuple(mask.shape)}; give (batch, spatial ...) = {pixels}")
        if mask.device != label.device:
            raise ValueError(f"mask is on {mask.device} and the label on {label.device}; move them to one device")
        if mask.dtype != torch.bool and _reads_values(mask) and bool(((mask != 0) & (mask != 1)).any()):
            raise ValueError("mask holds values other than 0 and 1; give a bool mask, True for the pixels to use")
        used = mask if mask.dtype == torch.bool else mask != 0
    _check_range(label, "one_hot", used)
    if label.shape[1] > 1 and label.numel() and _reads_values(label):
        total = label.detach().sum(1, dtype=torch.promote_types(label.dtype, torch.float32))
        slack = _SUM_TOLERANCE.get(label.dtype, 1e-3)
        found = _outside(total, used, 1 - slack, 1 + slack)
        if found is not None:
            raise ValueError(
                f"one_hot does not sum to 1 over its {label.shape[1]} channels, but to {found:g}; give all classes, "
                "background included, one channel alone, or leave pixels without a label out with mask"
            )
    return label if label.is_floating_point() else label.float(), used


def _checked_label(label: object, name: str) -> Tensor:
    """Checks a label's type and shape."""
    if not isinstance(label, Tensor):
        advice = f": torch.from_numpy({name})" if hasattr(label, "__array__") else ""
        raise TypeError(f"{name} is {kind_of(label)}; give a tensor{advice}")
    if label.is_complex() or (label.is_floating_point() and label.dtype.itemsize < 2):
        raise TypeError(f"{name} is {label.dtype}; give floats of at least 16 bits, integers or bool")
    if label.ndim not in (4, 5) or 0 in label.shape[1:]:
        raise ValueError(
            f"{name} has shape {tuple(label.shape)}; give (batch, channels, height, width) or (batch, channels, depth, "
            "height, width); torch.nn.functional.one_hot(classes, C).movedim(-1, 1) makes channels of classes"
        )
    return label


def _check_range(label: Tensor, name: str, used: Tensor | None) -> None:
    """Checks on the CPU that the label lies in [0, 1] in the pixels to use, up to rounding."""
    if not label.numel() or label.dtype == torch.bool or not _reads_values(label):
        return
    label = label.detach() if label.is_floating_point() else label.long()
    slack = max(4 * torch.finfo(label.dtype).eps, 1e-6) if label.is_floating_point() else 0.0
    found = _outside(label, None if used is None else used.unsqueeze(1), -slack, 1 + slack)
    if found is not None:
        raise ValueError(f"{name} holds {found:g}, outside [0, 1]; give a one-hot or soft label")


def _outside(values: Tensor, used: Tensor | None, low: float, high: float) -> float | None:
    """A value of the pixels to use that lies outside [low, high] or is NaN; None if there is none."""
    smallest, largest = (float(value) for value in torch.aminmax(values))
    if smallest >= low and largest <= high:
        return None
    if used is not None:  # rarely needed, so that pixels are usually read once
        return _outside(torch.where(used, values, (low + high) / 2), None, low, high)
    return largest if smallest >= low else smallest


def _reads_values(values: Tensor) -> bool:
    return values.device.type == "cpu" and not torch.compiler.is_compiling()
