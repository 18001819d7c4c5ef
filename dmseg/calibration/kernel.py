"""The kernel estimate of E[y | f] of Appendix E: a Dirichlet kernel, which for two classes is the Beta kernel.

With key pixels of prediction f_i and label y_i, and alpha_i = f_i / h + 1, the estimate at a prediction f is the mean
of the labels y_i, weighted by the Dirichlet densities of parameters alpha_i at f (Eqs. 30 to 32; Popordanoska et al.
2022). The weights are formed from logarithms, so that a key at any distance counts as it should: however far all keys
are, the nearest ones give the estimate, and it is always a distribution. A probability of 0 counts as the smallest
normal float32.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from dmseg.calibration._check import check_bandwidth, checked

LOG_TINY = math.log(torch.finfo(torch.float32).tiny)
"""Logarithm of the least probability that is told from 0."""
LEAST_LOG_WEIGHT = -60.0
"""Weights further below the largest one count as this: exp is slow where it underflows."""
BLOCK = 2**19
"""How many kernel values are formed at a time, 4 MiB."""
BANDWIDTHS = (*(10 ** (-5 + 4 * k / 14) for k in range(15)), 0.2, 0.4, 0.6, 0.8, 1.0)
"""Candidates for the bandwidth (ece-kde, `get_bandwidth`)."""


class Keys(NamedTuple):
    """Pixels whose class is known, from which the estimate is made.

    Attributes:
        prob: (n, C) their predictions, distributions.
        label: (n, C) their labels, distributions; one-hot for hard labels.
        counted: (n,) bool, False for rows that only fill the shape; None counts all.
    """

    prob: Tensor
    label: Tensor
    counted: Tensor | None = None


def log_kernel(log_query: Tensor, keys: Keys, bandwidth: float) -> Tensor:
    """Logarithm of the Dirichlet kernel, float64.

    Args:
        log_query: (N, C) logarithms of predictions, at least `LOG_TINY`.
        keys: n keys; those that do not count get minus infinity.
        bandwidth: h, above 0.

    Returns:
        (N, n), up to rounding the log-density of Dir(keys / h + 1) at the predictions.
    """
    excess = keys.prob.double() / bandwidth
    alpha = excess + 1
    constant = torch.lgamma(alpha.sum(1)) - torch.lgamma(alpha).sum(1)
    if keys.counted is not None:
        constant = constant.masked_fill(~keys.counted, -math.inf)
    return torch.addmm(constant, log_query.double(), excess.T)


def kernel_estimate(query: Tensor, keys: Keys, bandwidth: float, own: Tensor | None = None) -> Tensor:
    """Estimates E[y | f] at predictions (Eq. 30).

    Time grows with N n, memory does not: it is done in blocks. For two classes and many predictions see
    `dmseg.calibration.table.BetaTable`.

    Args:
        query: (N, C) predictions, distributions.
        keys: n keys.
        bandwidth: h, above 0.
        own: (N,) for leaving one out: which key each prediction is itself, and is not estimated from.

    Returns:
        (N, C), distributions in float32 or more; the prediction itself where no key is left to estimate it from.
    """
    label = keys.label.double()
    step = max(1, BLOCK // max(1, len(label)))
    parts = []
    for start in range(0, len(query), step):
        part = query[start : start + step]
        log_weight = log_kernel(_log(part), keys, bandwidth)
        if own is not None:
            log_weight.scatter_(1, own[start : start + step, None], -math.inf)
        mean = _weighted_mean(log_weight, label)
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
    """Chooses the bandwidth of the greatest leave-one-out likelihood.

    Args:
        prob: (N, C) predictions, distributions; N at least 2.
        label: (N,) integer classes.
        candidates: bandwidths to choose from; the first of equals is taken.
        of: likelihood of what. ``label``: of each label under the estimate from the other pixels, so it is also the
            choice of the least cross-entropy. ``prediction``: of each prediction under the density of the others, which
            asks for no labels (ece-kde); where predictions repeat, as 0 and 1 do, it favours the smallest bandwidth.
        limit: at most so many pixels are used, evenly spread over the rows; time grows with their square.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape or a value does not fit.
    """
    prob, label = checked(prob, label)
    if len(prob) < 2:
        raise ValueError("leaving one out needs at least 2 pixels")
    chosen = torch.linspace(0, len(prob) - 1, min(limit, len(prob)), device=prob.device).round().long()
    keys = Keys(prob[chosen], functional.one_hot(label[chosen], prob.shape[1]).double())
    scores = [_left_out_likelihood(keys, check_bandwidth(bandwidth), of) for bandwidth in candidates]
    return candidates[int(torch.stack(scores).argmax())]


def _left_out_likelihood(keys: Keys, bandwidth: float, of: str) -> Tensor:
    """Mean log-likelihood of each key under the others, a scalar."""
    if of == "prediction":
        kernel = log_kernel(_log(keys.prob), keys, bandwidth).fill_diagonal_(-math.inf)
        return torch.logsumexp(kernel, 1).mean()
    own = torch.arange(len(keys.prob), device=keys.prob.device)
    estimate = kernel_estimate(keys.prob, keys, bandwidth, own)
    return (estimate.log().clamp_min(LOG_TINY) * keys.label).sum(1).mean()


def _weighted_mean(log_weight: Tensor, label: Tensor) -> Tensor:
    """Mean of labels (n, C) by the weights of each row (N, n), (N, C); NaN where all weights are 0."""
    weight = (log_weight - log_weight.amax(1, keepdim=True)).clamp_min_(LEAST_LOG_WEIGHT).exp_()
    share = weight @ label
    return share / share.sum(1, keepdim=True)


def _log(prob: Tensor) -> Tensor:
    return prob.double().log().clamp_min(LOG_TINY)


def _dtype(prob: Tensor) -> torch.dtype:
    return torch.promote_types(prob.dtype, torch.float32)
