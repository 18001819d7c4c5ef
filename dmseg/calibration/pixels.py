"""The kernel estimate on the pixels of a training batch: choice of keys and of recalibrated pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from dmseg.calibration._check import check_bandwidth
from dmseg.calibration.kernel import Keys, kernel_estimate
from dmseg.calibration.table import BetaTable
from dmseg.errors import is_whole, kind_of, shown
from dmseg.labels.smoothing import boundary


@dataclass(frozen=True)
class PixelKernel:
    """Settings for recalibrating the probabilities of a batch.

    Attributes:
        bandwidth: h of the kernel (paper, Table 8: 1e-3 is best).
        n_key: number of key pixels of a batch or an image; ceil(n_key / classes present) of each class if balanced.
        keys: draw keys from the whole ``batch`` (paper, Appendix E) or from each ``image`` (JDTLosses `kde.py`).
        balanced: whether to draw equally many keys from each class that is present, or uniformly from all pixels.
        leave_one_out: whether a key is estimated from the other keys only.
        boundary: odd edge length of the neighbourhood that defines boundary pixels.

    Raises:
        TypeError: if the bandwidth is not a number.
        ValueError: if another setting has a value that it must not have.
    """

    bandwidth: float = 1e-3
    n_key: int = 1000
    keys: Literal["batch", "image"] = "batch"
    balanced: bool = True
    leave_one_out: bool = False
    boundary: int = 3

    def __post_init__(self) -> None:
        """Checks the settings."""
        check_bandwidth(self.bandwidth)
        if self.keys not in ("batch", "image"):
            raise ValueError(f"keys is {shown(self.keys)}, but must be batch or image")
        if not is_whole(self.n_key) or self.n_key < 1:
            raise ValueError(f"n_key is {shown(self.n_key)}, but must be a whole number of at least 1")
        if not is_whole(self.boundary) or self.boundary < 1 or self.boundary % 2 == 0:
            raise ValueError(f"boundary is {shown(self.boundary)}, but must be an odd whole number of at least 1")


def draw_keys(
    label: Tensor, keep: Tensor, n_classes: int, n_key: int, balanced: bool, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draws key pixels without replacement.

    Output shapes depend only on input shapes, so the device is not synchronised.

    Args:
        label: (M,) integer classes.
        keep: (M,) bool, the pixels to draw from.
        n_classes: number of classes.
        n_key: number of keys to draw.
        balanced: whether to draw up to ceil(n_key / classes present) keys of each class, or n_key of all pixels.
        generator: CPU stream; one number is drawn from it.

    Returns:
        Positions (n,), and bool (n,) that is False for padding.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    own = torch.Generator(label.device).manual_seed(seed)
    score = torch.rand(label.shape, generator=own, device=label.device).masked_fill_(~keep, -1.0)
    if not balanced:
        top = score.topk(min(n_key, len(label)))
        return top.indices, top.values >= 0
    inside = [label == k for k in range(n_classes)]
    found = [score.where(mask, -1.0).topk(min(n_key, len(label))) for mask in inside]
    present = torch.stack([values[0] >= 0 for values, _ in found]).sum()
    quota = (n_key + present - 1) // present.clamp_min(1)
    rank = torch.arange(len(found[0].values), device=label.device)
    counted = [(values >= 0) & (rank < quota) for values, _ in found]
    return torch.cat([indices for _, indices in found]), torch.cat(counted)


@torch.no_grad()
def recalibrate(
    prob: Tensor, target: Tensor, mask: Tensor, settings: PixelKernel, generator: torch.Generator
) -> Tensor:
    """Replaces misclassified pixels and those near a boundary by the kernel estimate of E[y | f].

    Args:
        prob: (B, C, H, W) or (B, C, D, H, W) predictions, distributions, C at least 2; values are not checked.
        target: labels of the same shape, distributions.
        mask: (B, *spatial) bool, the pixels that count; others are neither keys nor changed.
        settings: kernel and keys.
        generator: CPU stream of the keys; one number is drawn for each set of keys.

    Returns:
        Distributions of the same shape.

    Raises:
        TypeError: if an argument is not a tensor, or a dtype does not fit.
        ValueError: if a shape does not fit.
    """
    return recalibrate_heads([prob], target, mask, settings, generator)[0]


@torch.no_grad()
def recalibrate_heads(
    probs: Sequence[Tensor], target: Tensor, mask: Tensor, settings: PixelKernel, generator: torch.Generator
) -> list[Tensor]:
    """Like `recalibrate`, for several heads of a network, with the same key pixels and the same recalibrated pixels.

    Args:
        probs: predictions of each head; the first determines which pixels are recalibrated (JDTLosses `kde.py`).
        target: see `recalibrate` for this and the following.
        mask: the pixels that count.
        settings: kernel and keys.
        generator: CPU stream of the keys.

    Raises:
        TypeError: as for `recalibrate`.
        ValueError: as for `recalibrate`.
    """
    for prob in probs:
        _check_maps(prob, target, mask)
    if not target.numel():
        return [prob.clone() for prob in probs]
    if settings.keys == "batch":
        return _recalibrate(probs, target, mask, settings, generator)
    found = [
        _recalibrate([prob[index] for prob in probs], target[index], mask[index], settings, generator)
        for index in map(slice, range(len(target)), range(1, len(target) + 1))
    ]
    return [torch.cat(images) for images in zip(*found, strict=True)]


def _recalibrate(
    probs: Sequence[Tensor], target: Tensor, mask: Tensor, settings: PixelKernel, generator: torch.Generator
) -> list[Tensor]:
    """Like `recalibrate_heads`, with one set of keys and without checks."""
    n_classes = target.shape[1]
    hard = target.argmax(1)
    index, counted = draw_keys(hard.flatten(), mask.flatten(), n_classes, settings.n_key, settings.balanced, generator)
    classes = torch.arange(n_classes, device=hard.device).reshape(-1, *(1,) * (hard.ndim - 1))
    one_hot = (hard.unsqueeze(1) == classes).to(probs[0].dtype)  # functional.one_hot reads the largest class
    chosen = mask & ((probs[0].argmax(1) != hard) | boundary(one_hot, mask, settings.boundary))
    replaced = []
    for prob in probs:
        rows, labels = (item.movedim(1, -1).reshape(-1, n_classes) for item in (prob, target))
        keys = Keys(rows[index], labels[index], counted)
        if n_classes == 2:
            found = BetaTable(keys, settings.bandwidth).estimate(rows)
        else:  # without a table only the chosen pixels are worth the time
            found, inside = rows.clone(), chosen.flatten()
            found[inside] = kernel_estimate(rows[inside], keys, settings.bandwidth).to(rows.dtype)
        if settings.leave_one_out:
            own = torch.arange(len(index), device=index.device)
            left_out = kernel_estimate(keys.prob, keys, settings.bandwidth, own)
            spare = functional.pad(found, (0, 0, 0, 1))  # padding is written to a row that is cut off, not selected
            place = torch.where(counted, index, len(found))
            found = spare.index_copy(0, place, left_out.to(found.dtype))[:-1]
        found = found.reshape(*chosen.shape, n_classes).movedim(-1, 1)
        replaced.append(torch.where(chosen.unsqueeze(1), found, prob))
    return replaced


def _check_maps(prob: Tensor, target: Tensor, mask: Tensor) -> None:
    """Checks types and shapes, which does not synchronise the device."""
    for name, value in (("prob", prob), ("target", target), ("mask", mask)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} is {kind_of(value)}; give a tensor")
    if not prob.is_floating_point():
        raise TypeError(f"prob is {prob.dtype}; give floating-point probabilities")
    if mask.dtype != torch.bool:
        raise TypeError(f"mask is {mask.dtype}; give bool, True for the pixels that count")
    if prob.ndim not in (4, 5) or prob.shape[1] < 2:
        raise ValueError(
            f"prob has shape {tuple(prob.shape)}; give (B, C, H, W) or (B, C, D, H, W) with at least two classes: for "
            "one channel p, torch.cat([1 - p, p], 1)"
        )
    if target.shape != prob.shape:
        raise ValueError(
            f"target has shape {tuple(target.shape)}; give a distribution for each pixel, of the shape of prob, "
            f"{tuple(prob.shape)}"
        )
    if mask.shape != (pixels := (len(prob), *prob.shape[2:])):
        raise ValueError(f"mask has shape {tuple(mask.shape)}; give (B, *spatial) = {pixels}")
