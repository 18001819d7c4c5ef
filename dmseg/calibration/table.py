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
FINE = 3
"""How many nodes an interval gets on average."""
EVEN = 0.25
"""Share of the nodes that is spread evenly, the others going where the estimate bends."""
START = TAIL * LOG_TINY
"""Where the coordinate begins."""
REACH = math.pi / 2 - 2 * START
"""Length of the coordinate."""


def n_intervals(bandwidth: float) -> int:
    """How many intervals a table has, 768 for 1e-3: their length is a sixth of the kernel's width, up to 16384."""
    return min(16384, max(384, math.ceil(768 * math.sqrt(1e-3 / bandwidth))))


def n_estimated(bandwidth: float) -> int:
    """How many predictions are estimated to make a table."""
    return (1 + FINE) * n_intervals(bandwidth) + 2


class BetaTable:
    """E[y | f] of two classes for given keys, tabulated once in float64 and read off by linear interpolation.

    The coordinate is asin(sqrt p), in which the Beta kernel has the same width everywhere, plus a little of the
    log-odds of p, so that the many predictions near 0 and 1 of a confident network are told apart too. Tabulated are
    the log-odds of the estimate, which stay smooth where no key is near. Somewhere between keys that are far apart the
    estimate changes more abruptly than the kernel is wide; so it is made at equal steps first, and then at nodes that
    are dense where it bends. The error is at most 3e-4 for a bandwidth of 3e-6 or more; no key that counts makes it
    the identity.

    Args:
        keys: keys of two classes.
        bandwidth: h, above 0.
    """

    def __init__(self, keys: Keys, bandwidth: float) -> None:
        edges = _edges(n_intervals(bandwidth), str(keys.prob.device))
        first = _allocate_nodes(_curvature(_log_odds(edges, keys, bandwidth)))
        odds = _log_odds(_inverse(_node_positions(first), edges), keys, bandwidth).float()
        interval = torch.arange(len(first) - 1, device=first.device)
        # two lines, each (value at 0, slope): in an interval the number of the node, between two nodes the log-odds
        self._nodes = first[:-1] - interval * first.diff(), first.diff()
        self._odds = odds[:-1].contiguous(), odds.diff()

    def estimate(self, prob: Tensor) -> Tensor:
        """Returns the estimate at predictions (N, 2), distributions in float32 or more."""
        odds = self._read(prob)
        found = torch.sigmoid(torch.stack([-odds, odds], 1))
        return found.to(torch.promote_types(prob.dtype, torch.float32))

    def _read(self, prob: Tensor) -> Tensor:
        """Log-odds of the estimate at predictions (N, 2), (N,) float32."""
        ratio = prob[:, 1].double() / prob[:, 0].double()
        tail = ratio.float().log().clamp_(LOG_TINY, -LOG_TINY)
        place = ratio.sqrt_().atan_().add_(tail, alpha=TAIL).sub_(START).mul_(len(self._nodes[0]) / REACH)
        node = _on_line(self._nodes, place.floor(), place)
        below = node.floor().clamp_(0, len(self._odds[0]) - 1)
        return _on_line(self._odds, below, node.sub_(below).float())


def _on_line(lines: tuple[Tensor, Tensor], number: Tensor, x: Tensor) -> Tensor:
    """Value at x of the line of a number, or of the nearest number that has one, (N,)."""
    at_zero, slope = lines
    index = number.clamp(0, len(slope) - 1).int()
    return torch.addcmul(at_zero.index_select(0, index), x, slope.index_select(0, index))


def _position(log_odds: Tensor) -> Tensor:
    """Coordinate of the table: asin(sqrt p) + `TAIL` log(p / (1 - p))."""
    return (log_odds / 2).exp_().atan_().add_(log_odds, alpha=TAIL)


@cache
def _edges(n: int, device: str) -> Tensor:
    """Log-odds of n + 1 equally spaced coordinates, by bisection, float64."""
    with torch.inference_mode(False):
        wanted = START + REACH * torch.linspace(0, 1, n + 1, dtype=torch.float64, device=device)
        low, high = torch.full_like(wanted, LOG_TINY), torch.full_like(wanted, -LOG_TINY)
        for _ in range(60):
            middle = (low + high) / 2
            above = _position(middle) > wanted
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return (low + high) / 2


def _inverse(places: Tensor, edges: Tensor) -> Tensor:
    """Log-odds of coordinates counted in intervals, by Newton's method from a chord of the interval."""
    wanted = START + REACH / (len(edges) - 1) * places
    interval = places.floor().clamp_max_(len(edges) - 2).long()
    odds = torch.lerp(edges[interval], edges[interval + 1], places - interval)
    for _ in range(3):
        slope = 0.25 / torch.cosh(odds / 2) + TAIL
        odds = odds - (_position(odds) - wanted) / slope
    return odds


def _curvature(log_odds: Tensor) -> Tensor:
    """How far the estimate is from linear in each interval, (n,), from its log-odds at the n + 1 edges.

    The greater of two: the curvature of its log-odds, which are interpolated, and that of the estimate itself, which
    alone shows where it jumps from one certainty to the other. Without the first the error is twice as large.
    """
    prob = torch.sigmoid(log_odds)
    variance = prob * (1 - prob)
    curvature = torch.maximum(
        prob.diff(n=2).abs(),
        log_odds.diff(n=2).abs().mul(functional.max_pool1d(variance[None], 3, 1)[0]).clamp_max(1.0),
    )
    return functional.max_pool1d(functional.pad(curvature, (1, 1))[None], 2, 1)[0]


def _allocate_nodes(curvature: Tensor) -> Tensor:
    """Number of the node at each of the n + 1 edges, (n + 1,) float64, rising by 1 at least and `FINE` on average.

    The error of an interval falls with the square of its number of nodes, so the number grows as the root
    of the curvature.
    """
    n = len(curvature)
    root = curvature.sqrt()
    share = (1 - EVEN) * root / root.sum().clamp_min(1e-12) + EVEN / n
    rising = functional.pad(share.cumsum(0), (1, 0))
    return (rising * ((FINE - 1) * n / rising[-1])).round() + torch.arange(n + 1, device=curvature.device)


def _node_positions(first: Tensor) -> Tensor:
    """Coordinate of each node, counted in intervals, (FINE n + 1,) float64."""
    n = len(first) - 1
    node = torch.arange(FINE * n + 1, dtype=first.dtype, device=first.device)
    interval = (torch.searchsorted(first, node, right=True) - 1).clamp_max_(n - 1)
    return interval + (node - first[interval]) / (first[interval + 1] - first[interval])


def _log_odds(nodes: Tensor, keys: Keys, bandwidth: float) -> Tensor:
    """Log-odds of the estimate at log-odds (N,), (N,) float64 within `LARGEST` of 0."""
    step = max(1, BLOCK // max(1, len(keys.prob)))
    parts = [_log_odds_at_once(part, keys, bandwidth) for part in torch.split(nodes, step)]
    return torch.cat(parts).clamp_(-LARGEST, LARGEST)


def _log_odds_at_once(nodes: Tensor, keys: Keys, bandwidth: float) -> Tensor:
    """The same in one block, not limited; infinite where a class has no key."""
    log_prob = torch.stack([-functional.softplus(nodes), -functional.softplus(-nodes)], 1)
    log_weight = log_kernel(log_prob, keys, bandwidth)
    # Logarithms need float64, their differences do not. Far from the least float32, near which exp is slow, and far
    # enough beyond `LARGEST` for exp(20) keys.
    weight = log_weight.sub_(log_weight.amax(1, keepdim=True)).float().clamp_min_(-LARGEST - 20).exp_()
    share = (weight @ keys.label.float()).double().log()
    return torch.where(share.isnan().any(1), nodes, share[:, 1] - share[:, 0])
