"""The kernel estimate on the pixels of a training batch: which are keys, and which are recalibrated."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from dmseg.calibration.kernel import Keys, kernel_estimate
from dmseg.calibration.table import BetaTable
from dmseg.labels.smoothing import boundary


@dataclass(frozen=True)
class PixelKernel:
    """How a batch's probabilities are recalibrated.

    Attributes:
        bandwidth: h of the kernel (paper, Table 8: 1e-3 is best).
        n_key: number of key pixels of a batch or an image; ceil(n_key / classes present) of each class if balanced.
        keys: drawn from the whole ``batch`` (paper, Appendix E) or from each ``image`` (JDTLosses `kde.py`).
        balanced: as many keys of each class that is present; else as the pixels come.
        leave_one_out: a key is estimated from the other keys.
        boundary: odd edge of the neighbourhood that makes a boundary pixel.
    """

    bandwidth: float = 1e-3
    n_key: int = 1000
    keys: Literal["batch", "image"] = "batch"
    balanced: bool = True
    leave_one_out: bool = False
    boundary: int = 3


def draw_keys(
    label: Tensor, keep: Tensor, n_classes: int, n_key: int, balanced: bool, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draws key pixels without replacement; the shape of what it returns depends on shapes alone, so nothing waits.

    Args:
        label: (M,) integer classes.
        keep: (M,) bool, the pixels that may be drawn.
        n_classes: number of classes.
        n_key: number of keys wanted.
        balanced: ceil(n_key / classes present) of each class that is present, or all of it; else n_key of all pixels.
        generator: CPU stream; one number is drawn from it.

    Returns:
        Positions (n,) and which of them are keys (n,) bool; the others fill the shape.
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
        prob: (B, C, H, W) predictions, distributions, float32.
        target: (B, C, H, W) labels, distributions.
        mask: (B, H, W) bool, the pixels that count; no other is a key or is changed.
        settings: kernel and keys.
        generator: CPU stream of the keys; one number is drawn for each set of keys.

    Returns:
        (B, C, H, W) distributions.
    """
    if settings.keys == "image":
        images = zip(prob.split(1), target.split(1), mask.split(1), strict=True)  # type: ignore[no-untyped-call]
        return torch.cat([_recalibrate(*image, settings, generator) for image in images])
    return _recalibrate(prob, target, mask, settings, generator)


def _recalibrate(
    prob: Tensor, target: Tensor, mask: Tensor, settings: PixelKernel, generator: torch.Generator
) -> Tensor:
    """The same with one set of keys."""
    n_classes = prob.shape[1]
    hard = target.argmax(1)
    rows, labels = (item.movedim(1, -1).reshape(-1, n_classes) for item in (prob, target))
    index, counted = draw_keys(hard.flatten(), mask.flatten(), n_classes, settings.n_key, settings.balanced, generator)
    keys = Keys(rows[index], labels[index], counted)
    one_hot = functional.one_hot(hard, n_classes).movedim(-1, 1).to(prob.dtype)
    chosen = mask & ((prob.argmax(1) != hard) | boundary(one_hot, mask, settings.boundary))
    found = _estimate(rows, keys, chosen.flatten(), settings.bandwidth)
    if settings.leave_one_out:
        left_out = kernel_estimate(keys.prob, keys, settings.bandwidth, torch.arange(len(index), device=index.device))
        found = found.index_copy(0, index[counted], left_out[counted].to(found.dtype))
    found = found.reshape(*mask.shape, n_classes).movedim(-1, 1)
    return torch.where(chosen.unsqueeze(1), found, prob)


def _estimate(rows: Tensor, keys: Keys, chosen: Tensor, bandwidth: float) -> Tensor:
    """The estimate at predictions (N, C); of more than two classes only where it is wanted."""
    if rows.shape[1] == 2:
        return BetaTable(keys, bandwidth).estimate(rows)
    found = rows.clone()
    found[chosen] = kernel_estimate(rows[chosen], keys, bandwidth).to(rows.dtype)
    return found
