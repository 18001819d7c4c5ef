"""The kernel estimate of two classes as a table of one number, which serves a whole image or batch."""

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from dmseg.calibration.kernel import BLOCK, LOG_TINY, Keys, log_kernel

TAIL = 0.002
"""Weight of the log-odds in the coordinate of the table, see `_position`."""
LARGEST = 60.0
"""Log-odds are kept within this of 0: the rest is certain to 26 digits."""


def n_nodes(bandwidth: float) -> int:
    """Length of the table, 3072 for 1e-3: its step is a 25th of the kernel's width, up to 16384 nodes."""
    return min(16384, max(2048, math.ceil(3072 * math.sqrt(1e-3 / bandwidth))))


class BetaTable:
    """E[y | f] of two classes for given keys, tabulated once in float64 and read off by linear interpolation.

    The coordinate is asin(sqrt p), in which the Beta kernel has the same width everywhere, plus a little of the
    log-odds of p, so that the many predictions near 0 and 1 of a confident network are told apart too. Tabulated are
    the log-odds of the estimate, which stay smooth where no key is near. The error is at most 3e-4 for a bandwidth of
    4e-5 or more; no key that counts makes it the identity.

    Args:
        keys: keys of two classes.
        bandwidth: h, above 0.
    """

    def __init__(self, keys: Keys, bandwidth: float) -> None:
        device = keys.prob.device
        nodes = _nodes(n_nodes(bandwidth), str(device))
        step = max(1, BLOCK // max(1, len(keys.prob)))
        odds = torch.cat([_log_odds(part, keys, bandwidth) for part in torch.split(nodes, step)])
        self._values = odds.clamp_(-LARGEST, LARGEST).float()

    def log_odds(self, log_odds: Tensor) -> Tensor:
        """Returns the log-odds of the estimate, float32, at predictions given by their log-odds, infinite ones too."""
        last = len(self._values) - 1
        first, length = -_edge(), 2 * _edge() + math.pi / 2
        x = _position(log_odds.float().clamp(LOG_TINY, -LOG_TINY)).sub_(first).mul_(last / length)
        below = x.floor().clamp_(0, last - 1)
        share = x.sub_(below)
        index = below.int()
        return torch.lerp(self._values[index], self._values[index + 1], share)

    def estimate(self, prob: Tensor) -> Tensor:
        """Returns the estimate at predictions (N, 2), distributions in float32 or more."""
        log = prob.float().log().clamp_min_(LOG_TINY)
        odds = self.log_odds(log[:, 1] - log[:, 0])
        found = torch.sigmoid(torch.stack([-odds, odds], 1))
        return found.to(torch.promote_types(prob.dtype, torch.float32))


def _position(log_odds: Tensor) -> Tensor:
    """Coordinate of the table: asin(sqrt p) + `TAIL` log(p / (1 - p))."""
    return (log_odds / 2).exp_().atan_().add_(log_odds, alpha=TAIL)


def _edge() -> float:
    """How far the coordinate reaches below 0 and above pi / 2."""
    return -TAIL * LOG_TINY


@cache
def _nodes(n: int, device: str) -> Tensor:
    """Log-odds of equally spaced coordinates, by bisection, (n,) float64."""
    with torch.inference_mode(False):
        wanted = torch.linspace(-_edge(), math.pi / 2 + _edge(), n, dtype=torch.float64, device=device)
        low, high = torch.full_like(wanted, LOG_TINY), torch.full_like(wanted, -LOG_TINY)
        for _ in range(60):
            middle = (low + high) / 2
            above = _position(middle) > wanted
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return (low + high) / 2


def _log_odds(nodes: Tensor, keys: Keys, bandwidth: float) -> Tensor:
    """Log-odds of the estimate at log-odds (N,), (N,) float64; infinite where a class has no key."""
    log_prob = torch.stack([-functional.softplus(nodes), -functional.softplus(-nodes)], 1)
    log_weight = log_kernel(log_prob, keys, bandwidth)
    # Logarithms need float64, their differences do not. Far from the least float32, near which exp is slow, and far
    # enough beyond `LARGEST` for exp(20) keys.
    weight = log_weight.sub_(log_weight.amax(1, keepdim=True)).float().clamp_min_(-LARGEST - 20).exp_()
    share = (weight @ keys.label.float()).double().log()
    return torch.where(share.isnan().any(1), nodes, share[:, 1] - share[:, 0])
