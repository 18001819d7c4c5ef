"""Temperature scaling: one number that makes a network's probabilities sharper or softer (Guo et al. 2017)."""

from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from dmseg.calibration._check import as_tensor, check_distributions, checked_label, tolerance_of

RANGE = (0.01, 100.0)
"""Minimum and maximum temperature."""
_STEPS = 50


def fit_temperature(logits: Tensor, target: Tensor) -> float:
    """Returns the temperature that minimises the negative log-likelihood of the targets.

    The log-likelihood is concave in 1 / T, so bisection finds its maximum. If the logits separate the classes, the
    smallest temperature in `RANGE` is returned; if they are no better than chance, the largest; if each row has equal
    logits, which tell nothing, 1.

    Args:
        logits: (N, C), N at least 1, C at least 2.
        target: (N,) integer classes, or (N, C) distributions.

    Raises:
        TypeError: if an argument is neither a tensor nor a numpy array, or (N,) targets are not integers.
        ValueError: if a shape does not fit, a value is not finite, a class is out of range, or a row of (N, C) targets
            is not a distribution.
    """
    logits, target = _checked_logits(logits), as_tensor("target", target)
    if not len(logits) or target.shape not in (logits.shape, logits.shape[:1]):
        raise ValueError(
            f"logits have shape {tuple(logits.shape)}, target {tuple(target.shape)}; give (N, C) and (N,) or (N, C), "
            "N at least 1"
        )
    if not bool(logits.isfinite().all() and target.isfinite().all()):
        raise ValueError("logits or targets have values that are not finite")
    if target.ndim == 2:
        check_distributions("target", target.double(), tolerance_of(target.dtype))
    n_classes = logits.shape[1]
    label = functional.one_hot(checked_label("target", target, n_classes), n_classes) if target.ndim == 1 else target
    if bool((logits == logits[:, :1]).all()):
        return 1.0
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
        self.n_classes: int | None = None

    def __repr__(self) -> str:
        """After `fit`, the temperature and the number of classes."""
        fitted = "" if self.temperature is None else f"temperature={self.temperature:g}, n_classes={self.n_classes}"
        return f"TemperatureScaling({fitted})"

    def fit(self, logits: Tensor, target: Tensor) -> Self:
        """Finds the temperature; arguments and errors are those of `fit_temperature`."""
        self.temperature = fit_temperature(logits, target)
        self.n_classes = logits.shape[1]
        return self

    def transform(self, logits: Tensor) -> Tensor:
        """Returns probabilities (N, C) of logits (N, C), in float32 or more.

        Raises:
            RuntimeError: if `fit` was not called.
            TypeError: if the logits are neither a tensor nor a numpy array.
            ValueError: if the shape does not fit, or the number of classes is not that of `fit`.
        """
        if self.temperature is None:
            raise RuntimeError("call fit(logits, target) before transform")
        logits = _checked_logits(logits)
        if logits.shape[1] != self.n_classes:
            raise ValueError(f"logits have {logits.shape[1]} classes, those of fit {self.n_classes}")
        return torch.softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)) / self.temperature, 1)


def _checked_logits(logits: Tensor) -> Tensor:
    """Logits (N, C) as a tensor.

    Raises:
        TypeError: if they are neither a tensor nor a numpy array.
        ValueError: if the shape does not fit.
    """
    logits = as_tensor("logits", logits)
    if logits.ndim != 2:
        raise ValueError(
            f"logits have shape {tuple(logits.shape)}; give rows (N, C); for maps (B, C, H, W) "
            "logits.movedim(1, -1).reshape(-1, C)"
        )
    if logits.shape[1] < 2:
        raise ValueError(
            f"logits have shape {tuple(logits.shape)}; give at least two classes; for sigmoid logits z (N,) "
            "torch.stack([torch.zeros_like(z), z], 1)"
        )
    return logits
