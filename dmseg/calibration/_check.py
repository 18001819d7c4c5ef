"""Checks of the arguments of calibrators."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dmseg.errors import kind_of, shown
from dmseg.limits import LEAST_BANDWIDTH

_TOLERANCE = {torch.float16: 2e-2, torch.bfloat16: 2e-2}
"""Tolerance for the sum of a row; 1e-3 for other dtypes."""


def check_bandwidth(bandwidth: float) -> float:
    """Returns the bandwidth.

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is not a finite number of at least `LEAST_BANDWIDTH`.
    """
    if isinstance(bandwidth, bool) or not isinstance(bandwidth, int | float | np.number):
        raise TypeError(f"bandwidth is {shown(bandwidth)}, but must be a number above 0")
    if not (math.isfinite(bandwidth) and bandwidth > 0):
        raise ValueError(f"bandwidth is {bandwidth}; it must be a number above 0")
    if bandwidth < LEAST_BANDWIDTH:
        raise ValueError(f"bandwidth is {bandwidth:g}; the smallest that float64 supports is {LEAST_BANDWIDTH:g}")
    return float(bandwidth)


def as_tensor(name: str, values: Tensor | npt.NDArray[Any]) -> Tensor:
    """Returns a tensor unchanged, and a numpy array as a tensor.

    Raises:
        TypeError: if it is neither.
    """
    if isinstance(values, Tensor):
        return values
    if isinstance(values, np.ndarray):
        native = values.dtype.newbyteorder("=")  # that of the machine: PyTorch has no other
        return torch.as_tensor(np.require(values, native, ["C", "W"]))  # copied if it cannot be written to
    raise TypeError(f"{name} is {kind_of(values)}; give a tensor or a numpy array")


def checked(prob: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Returns predictions as `checked_prob` and integer labels as int64.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape or a value does not fit, or there are no rows.
    """
    prob, label = checked_prob(prob), as_tensor("label", label)
    if label.shape != prob.shape[:1] or not len(label):
        raise ValueError(f"label has shape {tuple(label.shape)} for prob {tuple(prob.shape)}; give (N,), N at least 1")
    return prob, checked_label("label", label, prob.shape[1])


def checked_label(name: str, label: Tensor, n_classes: int) -> Tensor:
    """Returns integer labels (N,), N at least 1, as int64.

    Raises:
        TypeError: if they are not integers.
        ValueError: if one is out of range.
    """
    if label.is_floating_point() or label.is_complex():
        raise TypeError(f"{name} is {label.dtype}; give integer classes")
    label = label.long()
    low, high = int(label.min()), int(label.max())
    if low < 0 or high >= n_classes:
        raise ValueError(
            f"{name} has classes {low} to {high}; give 0 to {n_classes - 1}, and leave out pixels without a class"
        )
    return label


def checked_prob(prob: Tensor) -> Tensor:
    """Returns predictions (N, C) in float32 or more, with rows normalised to a sum of exactly 1.

    Raises:
        TypeError: if they are not floating point.
        ValueError: if the shape does not fit, a value is negative or NaN, or a row does not sum to 1.
    """
    prob = as_tensor("prob", prob)
    if not prob.is_floating_point():
        raise TypeError(f"prob is {prob.dtype}; give floating-point probabilities")
    if prob.ndim != 2 or prob.shape[1] < 2:
        raise ValueError(f"prob has shape {tuple(prob.shape)}; give (N, C) with at least two classes")
    tolerance = tolerance_of(prob.dtype)
    prob = prob.detach().to(torch.promote_types(prob.dtype, torch.float32))
    return prob / check_distributions("prob", prob, tolerance)


def check_distributions(name: str, rows: Tensor, tolerance: float) -> Tensor:
    """Returns the sums (N, 1) of rows (N, C), all close to 1.

    Raises:
        ValueError: if a value is negative or NaN, or a row does not sum to 1.
    """
    total = rows.sum(1, keepdim=True)
    if not bool((rows >= 0).all()):
        raise ValueError(f"{name} has values that are negative or not a number; give probabilities")
    if not bool(((total - 1).abs() <= tolerance).all()):
        raise ValueError(
            f"{name} has rows that sum to {float(total.min()):g} or {float(total.max()):g}; give rows that sum to 1"
        )
    return total


def tolerance_of(dtype: torch.dtype) -> float:
    """Tolerance for the sum of a row of this type, which must be 1."""
    return _TOLERANCE.get(dtype, 1e-3)
