"""The kernel estimate as a calibrator with `fit` and `transform`."""

from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dmseg.calibration._check import check_bandwidth, checked, checked_prob
from dmseg.calibration.kernel import Keys, choose_bandwidth, kernel_estimate
from dmseg.calibration.table import BetaTable, n_estimated
from dmseg.errors import shown


class KernelCalibrator:
    """Recalibrates predictions with the kernel estimate of E[y | f] from predictions with known classes.

    Example:
        >>> calibrated = KernelCalibrator(bandwidth=1e-3).fit(prob, label).transform(other_prob)

    Args:
        bandwidth: h; larger values give a smoother estimate. None chooses it in `fit` with `choose_bandwidth`.
        exact: whether to compute the estimate of every prediction. By default many predictions of two classes are
            looked up in a `BetaTable`, which is a hundred times faster and differs by at most 3e-4 (for bandwidths of
            3e-6 or more).

    Raises:
        TypeError: if the bandwidth is neither a number nor None, or `exact` is not a bool.
        ValueError: if the bandwidth is not above 0.
    """

    def __init__(self, bandwidth: float | None = 1e-3, *, exact: bool = False) -> None:
        if isinstance(bandwidth, str):
            raise TypeError(f"bandwidth is {shown(bandwidth)}; give a number above 0, or None to choose it in fit")
        if not isinstance(exact, bool | np.bool_):
            raise TypeError(f"exact is {shown(exact)}, but must be True or False")
        self.bandwidth = None if bandwidth is None else check_bandwidth(bandwidth)
        self.exact = bool(exact)
        self.keys: Keys | None = None
        self.fitted_bandwidth: float | None = None

    def __repr__(self) -> str:
        """Settings, and after `fit` the bandwidth in use and the numbers of keys and classes."""
        text = f"bandwidth={self.bandwidth}, exact={self.exact}"
        if self.keys is not None:
            n_keys, n_classes = self.keys.prob.shape
            text += f", fitted_bandwidth={self.fitted_bandwidth:g}, n_keys={n_keys}, n_classes={n_classes}"
        return f"KernelCalibrator({text})"

    def fit(self, prob: Tensor, label: Tensor) -> Self:
        """Stores the predictions with known classes, the keys of the estimate.

        Args:
            prob: (N, C) predictions, at least one, rows summing to 1; a thousand are usually enough.
            label: (N,) integer classes from 0. A class that does not occur gets probability 0.

        Raises:
            TypeError: if a dtype does not fit.
            ValueError: if a shape or a value does not fit.
        """
        prob, label = checked(prob, label)
        self.keys = Keys(prob, functional.one_hot(label, prob.shape[1]).double())
        self.fitted_bandwidth = self.bandwidth or choose_bandwidth(prob, label)
        return self

    def transform(self, prob: Tensor, *, leave_one_out: bool = False) -> Tensor:
        """Returns the estimate at predictions, (N, C), in float32 or more: finite, in [0, 1], rows summing to 1.

        Args:
            prob: (N, C) predictions, rows summing to 1.
            leave_one_out: whether these are the predictions of `fit`, in the same order, and each is estimated from the
                others.

        Raises:
            RuntimeError: if `fit` was not called.
            TypeError: if the dtype does not fit.
            ValueError: if a shape or a value does not fit.
        """
        if self.keys is None or self.fitted_bandwidth is None:
            raise RuntimeError("call fit(prob, label) before transform")
        prob = checked_prob(prob)
        if prob.shape[1] != self.keys.prob.shape[1]:
            raise ValueError(f"prob has {prob.shape[1]} classes, those of fit {self.keys.prob.shape[1]}")
        if leave_one_out:
            if len(prob) != len(self.keys.prob):
                raise ValueError(
                    f"leave_one_out takes the {len(self.keys.prob)} predictions given to fit, not {len(prob)}"
                )
            return kernel_estimate(prob, self.keys, self.fitted_bandwidth, torch.arange(len(prob), device=prob.device))
        if self.exact or prob.shape[1] != 2 or len(prob) <= n_estimated(self.fitted_bandwidth):
            return kernel_estimate(prob, self.keys, self.fitted_bandwidth)
        return BetaTable(self.keys, self.fitted_bandwidth).estimate(prob)
