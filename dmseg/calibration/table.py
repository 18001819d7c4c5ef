"""The kernel estimate E[y | f] of two classes as a lookup table, for all pixels of an image or a batch.

`reference_estimate` is the plain form: one weighted mean of the keys' labels for each prediction. A training batch of
four 512 x 512 images has a million predictions, so it would take a billion kernel values for 1000 keys. With two
classes the estimate depends on one number, the foreground probability p. `BetaTable` therefore computes it at 2305
nodes and interpolates between them: 1/100 of the time, at most 3e-4 off (measured by ``python bench/kde.py``).

The table is built in three steps: compute the estimate at equally spaced edges, put more nodes into the intervals where
it curves, and compute it at these nodes. ``docs/how-to/calibration.md`` has a figure of the nodes and the estimate.
"""

import math
from functools import cache

import torch
from torch import Tensor
from torch.distributions import Dirichlet
from torch.nn import functional

from dmseg.calibration.kernel import BLOCK, LOG_TINY, Keys, log_kernel

TAIL = 0.002
"""Weight of the log-odds in the table's coordinate, see `_coordinate`."""
MAX_LOG_ODDS = 60.0
"""Log-odds are limited to this absolute value; a probability beyond it differs from 0 or 1 by less than 1e-26."""
NODES_PER_INTERVAL = 3
"""Average number of nodes in an interval."""
EVEN_SHARE = 0.25
"""Share of the nodes that is spread evenly; the others are placed where the estimate curves."""
START = TAIL * LOG_TINY
"""First coordinate of the table."""
LENGTH = math.pi / 2 - 2 * START
"""Length of the table in its coordinate."""


def reference_estimate(prob: Tensor, keys: Keys, bandwidth: float) -> Tensor:
    """What `BetaTable.estimate` computes, one prediction after the other, for reading, tests and figures.

    Args:
        prob: (N, C) predictions, distributions.
        keys: n keys, of which at least one counts.
        bandwidth: h, above 0.

    Returns:
        (N, C) float64: the mean of the labels y_i of the keys, weighted by the density of Dir(f_i / h + 1) at f.
    """
    counted = torch.ones(len(keys.prob), dtype=torch.bool) if keys.counted is None else keys.counted
    density = Dirichlet(keys.prob[counted].double() / bandwidth + 1)
    label = keys.label[counted].double()
    rows = []
    for f in prob.double().clamp_min(math.exp(LOG_TINY)):
        weight = density.log_prob(f).softmax(0)  # type: ignore[no-untyped-call]
        rows.append(weight @ label)
    return torch.stack(rows)


def n_intervals(bandwidth: float) -> int:
    """Number of intervals of a table: 768 for 1e-3, a sixth of the kernel's width each; at most 16384."""
    return min(16384, max(384, math.ceil(768 * math.sqrt(1e-3 / bandwidth))))


def n_estimated(bandwidth: float) -> int:
    """Number of predictions for which the estimate is computed to build a table: its edges and its nodes."""
    return (1 + NODES_PER_INTERVAL) * n_intervals(bandwidth) + 2


class BetaTable:
    """Lookup table of E[y | f] for two classes and given keys, computed in float64 and interpolated linearly.

    Its coordinate is asin(sqrt p), in which the Beta kernel has the same width everywhere, plus a small multiple of the
    log-odds of p, which separates the many predictions of a confident network near 0 and 1. The table holds the
    log-odds of the estimate, which are smooth where no key is near. Between keys that are far apart the estimate can
    change within much less than the kernel's width, so the nodes are dense where it curves. The error is at most 3e-4
    for bandwidths of 3e-6 or more. Without a key that counts the estimate is the prediction itself.

    Args:
        keys: keys of two classes.
        bandwidth: h, above 0.

    Attributes:
        nodes: (M,) float64, log-odds of the predictions for which the estimate is tabulated, in ascending order.
    """

    def __init__(self, keys: Keys, bandwidth: float) -> None:
        edges = _edges(n_intervals(bandwidth), str(keys.prob.device))
        with torch.autocast(keys.prob.device.type, enabled=False):  # the sums over keys need float32
            first = _allocate_nodes(_log_odds(edges, keys, bandwidth))
            self.nodes = _place_nodes(first, edges)
            odds = _log_odds(self.nodes, keys, bandwidth).float()
        interval = torch.arange(len(first) - 1, device=first.device)
        # Two piecewise linear functions, as (intercepts, slopes): from the position in intervals to the position in
        # nodes, and from the latter to the log-odds.
        self._node_lines = first[:-1] - interval * first.diff(), first.diff()
        self._odds_lines = odds[:-1].contiguous(), odds.diff()

    def estimate(self, prob: Tensor) -> Tensor:
        """Returns the estimate at predictions (N, 2), distributions in float32 or more."""
        ratio = prob[:, 1].double() / prob[:, 0].double()
        tail = ratio.float().log().clamp_(LOG_TINY, -LOG_TINY)
        position = ratio.sqrt_().atan_().add_(tail, alpha=TAIL).sub_(START).mul_(len(self._node_lines[0]) / LENGTH)
        node = _on_line(self._node_lines, position.floor(), position)
        below = node.floor().clamp_(0, len(self._odds_lines[0]) - 1)
        odds = _on_line(self._odds_lines, below, node.sub_(below).float())
        return torch.sigmoid(torch.stack([-odds, odds], 1)).to(torch.promote_types(prob.dtype, torch.float32))


def _on_line(lines: tuple[Tensor, Tensor], index: Tensor, x: Tensor) -> Tensor:
    """Values (N,) at x of the lines (intercepts, slopes) with the given indices, limited to those that exist."""
    intercept, slope = lines
    index = index.clamp(0, len(slope) - 1).int()
    return torch.addcmul(intercept.index_select(0, index), x, slope.index_select(0, index))


def _coordinate(log_odds: Tensor) -> Tensor:
    """Coordinate of the table: asin(sqrt p) + `TAIL` log(p / (1 - p))."""
    return (log_odds / 2).exp_().atan_().add_(log_odds, alpha=TAIL)


@cache
def _edges(n: int, device: str) -> Tensor:
    """Log-odds of n + 1 equally spaced coordinates, by bisection, float64."""
    with torch.inference_mode(False):
        coordinate = START + LENGTH * torch.linspace(0, 1, n + 1, dtype=torch.float64, device=device)
        low, high = torch.full_like(coordinate, LOG_TINY), torch.full_like(coordinate, -LOG_TINY)
        for _ in range(60):
            middle = (low + high) / 2
            above = _coordinate(middle) > coordinate
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return (low + high) / 2


def _allocate_nodes(log_odds: Tensor) -> Tensor:
    """Index of the node at each of the n + 1 edges, (n + 1,) float64, from the estimate's log-odds at the edges.

    It rises by at least 1 from edge to edge. The interpolation error of an interval falls with the square of its number
    of nodes, so this number grows with the square root of the curvature, the distance of the estimate from a straight
    line. That is the larger of two second differences: that of the log-odds, which are interpolated, and that of the
    estimate itself, which alone shows a jump from 0 to 1. With the second alone the error doubles.
    """
    n = len(log_odds) - 1
    prob = torch.sigmoid(log_odds)
    variance = prob * (1 - prob)
    curvature = torch.maximum(
        prob.diff(n=2).abs(),
        log_odds.diff(n=2).abs().mul(functional.max_pool1d(variance[None], 3, 1)[0]).clamp_max(1.0),
    )
    root = functional.max_pool1d(functional.pad(curvature, (1, 1))[None], 2, 1)[0].sqrt()
    share = (1 - EVEN_SHARE) * root / root.sum().clamp_min(1e-12) + EVEN_SHARE / n
    rising = functional.pad(share.cumsum(0), (1, 0))
    spare = (NODES_PER_INTERVAL - 1) * n
    return (rising * (spare / rising[-1])).round() + torch.arange(n + 1, device=root.device)


def _place_nodes(first: Tensor, edges: Tensor) -> Tensor:
    """Log-odds of the nodes, evenly spaced within an interval, (`NODES_PER_INTERVAL` n + 1,) float64.

    They are found by Newton's method, started on the chord of the interval.
    """
    n = len(first) - 1
    node = torch.arange(NODES_PER_INTERVAL * n + 1, dtype=first.dtype, device=first.device)
    interval = (torch.searchsorted(first, node, right=True) - 1).clamp_max_(n - 1)
    position = interval + (node - first[interval]) / (first[interval + 1] - first[interval])
    coordinate = START + LENGTH / n * position
    interval = position.floor().clamp_max_(n - 1).long()
    odds = torch.lerp(edges[interval], edges[interval + 1], position - interval)
    for _ in range(3):
        slope = 0.25 / torch.cosh(odds / 2) + TAIL
        odds = odds - (_coordinate(odds) - coordinate) / slope
    return odds


def _log_odds(nodes: Tensor, keys: Keys, bandwidth: float) -> Tensor:
    """Log-odds of the estimate at log-odds (N,), (N,) float64 within `MAX_LOG_ODDS` of 0."""
    parts = []
    for part in torch.split(nodes, max(1, BLOCK // max(1, len(keys.prob)))):
        log_prob = torch.stack([-functional.softplus(part), -functional.softplus(-part)], 1)
        log_weight = log_kernel(log_prob, keys, bandwidth)
        # Logarithms need float64, their differences do not. The clamp keeps clear of the smallest float32, near which
        # exp is slow, and stays far enough beyond `MAX_LOG_ODDS` for exp(20) keys.
        weight = log_weight.sub_(log_weight.amax(1, keepdim=True)).float().clamp_min_(-MAX_LOG_ODDS - 20).exp_()
        share = (weight @ keys.label.float()).double().log()
        parts.append(torch.where(share.isnan().any(1), part, share[:, 1] - share[:, 0]))
    return torch.cat(parts).clamp_(-MAX_LOG_ODDS, MAX_LOG_ODDS)
