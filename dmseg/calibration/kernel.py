"""The kernel estimate of E[y | f] of Appendix E, with a Dirichlet kernel, which for two classes is the Beta kernel.

For key pixels with predictions f_i and labels y_i, and alpha_i = f_i / h + 1, the estimate at a prediction f is the
mean of the labels y_i, weighted by the densities of Dir(alpha_i) at f (Eqs. 30 to 32; Popordanoska et al. 2022).
Weights are computed from logarithms, so they do not underflow: even if all keys are far away, the nearest ones
determine the estimate, which is always a distribution. A probability of 0 counts as the smallest normal float32.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from dmseg.calibration._check import check_bandwidth, checked
from dmseg.errors import either, is_whole, shown

LOG_TINY = math.log(torch.finfo(torch.float32).tiny)
"""Logarithm of the smallest probability that is distinguished from 0."""
LEAST_LOG_WEIGHT = -60.0
"""Lower limit of logarithmic weights relative to the largest one, as exp is slow where it underflows."""
BLOCK = 2**19
"""Number of kernel values computed at a time, 4 MiB."""
BANDWIDTHS = (*(10 ** (-5 + 4 * k / 14) for k in range(15)), 0.2, 0.4, 0.6, 0.8, 1.0)
"""Candidate bandwidths (ece-kde, `get_bandwidth`)."""

LIKELIHOODS = ("label", "prediction")
"""What the likelihood of `choose_bandwidth` can be of."""


class Keys(NamedTuple):
    """Pixels with known labels, from which the estimate is computed.

    Attributes:
        prob: (n, C) their predictions, distributions.
        label: (n, C) their labels, distributions; one-hot for hard labels.
        counted: (n,) bool, False for rows that are padding; None counts all.
    """

    prob: Tensor
    label: Tensor
    counted: Tensor | None = None


def log_kernel(log_query: Tensor, keys: Keys, bandwidth: float) -> Tensor:
    """Logarithm of the Dirichlet kernel, float64.

    Args:
        log_query: (N, C) logarithms of predictions, at least `LOG_TINY`.
        keys: n keys; padding gets minus infinity.
        bandwidth: h, above 0.

    Returns:
        (N, n), the log-density of Dir(keys / h + 1) at the predictions.
    """
    excess = keys.prob.double() / bandwidth
    alpha = excess + 1
    constant = torch.lgamma(alpha.sum(1)) - torch.lgamma(alpha).sum(1)
    if keys.counted is not None:
        constant = constant.masked_fill(~keys.counted, -math.inf)
    return torch.addmm(constant, log_query.double(), excess.T)


def kernel_estimate(query: Tensor, keys: Keys, bandwidth: float, own: Tensor | None = None) -> Tensor:
    """Estimates E[y | f] at predictions (Eq. 30).

    Time grows with N n; memory does not, as it is computed in blocks. `dmseg.calibration.table.BetaTable` is faster
    for many predictions of two classes.

    Args:
        query: (N, C) predictions, distributions.
        keys: n keys.
        bandwidth: h, above 0.
        own: (N,) for leave-one-out: index of the key that each prediction is and that its estimate leaves out.

    Returns:
        (N, C), distributions in float32 or more; the prediction itself if no key is left.
    """
    label = keys.label.double()
    step = max(1, BLOCK // max(1, len(label)))
    parts = []
    for start in range(0, len(query), step):
        part = query[start : start + step]
        log_weight = log_kernel(_log(part), keys, bandwidth)
        if own is not None:
            log_weight.scatter_(1, own[start : start + step, None], -math.inf)
        weight = (log_weight - log_weight.amax(1, keepdim=True)).clamp_min_(LEAST_LOG_WEIGHT).exp_()
        share = weight @ label
        mean = share / share.sum(1, keepdim=True)  # NaN where all weights are 0
        parts.append(torch.where(mean.isfinite().all(1, keepdim=True), mean, part).to(_dtype(query)))
    return torch.cat(parts) if parts else query.to(_dtype(query))


def choose_bandwidth(
    prob: Tensor,
    label: Tensor,
    candidates: Sequence[float] = BANDWIDTHS,
    *,
    of: Literal["label", "prediction"] = "label",
    limit: int = 2048,
) -> float:
    """Chooses the bandwidth with the largest leave-one-out likelihood.

    Args:
        prob: (N, C) predictions, distributions; N at least 2.
        label: (N,) integer classes.
        candidates: bandwidths to choose from; the first of equally good ones is chosen.
        of: what the likelihood is of. ``label``: each label under the estimate from the other pixels, which also
            minimises the cross-entropy. ``prediction``: each prediction under the density of the others, which needs
            no labels (ece-kde); if predictions repeat, as 0 and 1 often do, it favours the smallest bandwidth.
        limit: largest number of pixels to use, at least 2, evenly spaced over the rows; time grows with its square.

    Raises:
        TypeError: if a dtype does not fit, or a bandwidth is not a number.
        ValueError: if a shape, a value or a setting does not fit.
    """
    if of not in LIKELIHOODS:
        raise ValueError(f"of is {shown(of)}, but must be {either(LIKELIHOODS)}")
    if not is_whole(limit) or limit < 2:
        raise ValueError(f"limit is {shown(limit)}, but must be a whole number of pixels, at least 2")
    try:
        bandwidths = [check_bandwidth(bandwidth) for bandwidth in candidates]
    except TypeError as fault:
        raise TypeError(f"candidates is {shown(candidates)}, but must be a list of numbers above 0") from fault
    if not bandwidths:
        raise ValueError("candidates is empty; give at least one bandwidth")
    prob, label = checked(prob, label)
    if len(prob) < 2:
        raise ValueError(
            "choosing a bandwidth needs at least 2 pixels, but there is 1; give more, or set the bandwidth"
        )
    chosen = torch.linspace(0, len(prob) - 1, min(int(limit), len(prob)), device=prob.device).round().long()
    keys = Keys(prob[chosen], functional.one_hot(label[chosen], prob.shape[1]).double())
    own = torch.arange(len(keys.prob), device=keys.prob.device)
    scores = []  # mean log-likelihood of each key under the others
    for bandwidth in bandwidths:
        if of == "prediction":
            kernel = log_kernel(_log(keys.prob), keys, bandwidth).fill_diagonal_(-math.inf)
            scores.append(torch.logsumexp(kernel, 1).mean())
        else:
            estimate = kernel_estimate(keys.prob, keys, bandwidth, own)
            scores.append((estimate.log().clamp_min(LOG_TINY) * keys.label).sum(1).mean())
    return bandwidths[int(torch.stack(scores).argmax())]


def _log(prob: Tensor) -> Tensor:
    return prob.double().log().clamp_min(LOG_TINY)


def _dtype(prob: Tensor) -> torch.dtype:
    return torch.promote_types(prob.dtype, torch.float32)
