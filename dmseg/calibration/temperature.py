"""Temperature scaling: one number that makes a network's probabilities sharper or softer (Guo et al. 2017)."""

from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from dmseg.calibration._check import as_tensor, checked_label

RANGE = (0.01, 100.0)
"""Smallest and largest temperature."""
_STEPS = 50


def fit_temperature(logits: Tensor, target: Tensor) -> float:
    """Returns the temperature that minimises the negative log-likelihood of the targets.

    The log-likelihood is concave in 1 / T, so bisection finds its maximum. If the logits separate the classes, the
    smallest temperature in `RANGE` is returned; if they are no better than chance, the largest.

    Args:
        logits: (N, C), N at least 1.
        target: (N,) integer classes, or (N, C) distributions.

    Raises:
        TypeError: if an argument is neither a tensor nor a numpy array, or (N,) targets are not integers.
        ValueError: if a shape does not fit, a value is not finite, or a class is out of range.
    """
    logits, target = as_tensor("logits", logits), as_tensor("target", target)
    if logits.ndim != 2 or not len(logits) or target.shape not in (logits.shape, logits.shape[:1]):
        raise ValueError(f"logits have shape {tuple(logits.shape)}, target {tuple(target.shape)}; give (N, C) and (N,)")
    if not bool(logits.isfinite().all() and target.isfinite().all()):
        raise ValueError("logits or targets have values that are not finite")
    n_classes = logits.shape[1]
    label = functional.one_hot(checked_label(target, n_classes), n_classes) if target.ndim == 1 else target
    logits, label = logits.detach().double(), label.double()
    observed = (label * logits).sum() / len(logits)
    low, high = (torch.tensor(edge, dtype=torch.float64).log() for edge in RANGE)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        expected = (torch.softmax(logits / middle.exp(), 1) * logits).sum(1).mean()
        # the mean logit under the scaled probabilities decreases with T; at the optimum it is that of the targets
        low, high = (middle, high) if expected > observed else (low, middle)
    return float(((low + high) / 2).exp())


class TemperatureScaling:
    """Temperature scaling fitted by the negative log-likelihood.

    Example:
        >>> prob = TemperatureScaling().fit(logits, label).transform(other_logits)
    """

    def __init__(self) -> None:
        self.temperature: float | None = None

    def fit(self, logits: Tensor, target: Tensor) -> Self:
        """Finds the temperature; arguments and errors are those of `fit_temperature`."""
        self.temperature = fit_temperature(logits, target)
        return self

    def transform(self, logits: Tensor) -> Tensor:
        """Returns probabilities (N, C) of logits (N, C).

        Raises:
            RuntimeError: if `fit` was not called.
        """
        if self.temperature is None:
            raise RuntimeError("call fit(logits, target) before transform")
        return torch.softmax(as_tensor("logits", logits).float() / self.temperature, 1)
