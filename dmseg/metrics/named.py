"""The further metrics by name: those computed from a run's stored counts, and those that need the masks themselves.

Planning reads this module, so it imports no torch; a function that needs a heavy library imports it when it is called.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from dmseg.errors import UserError, cut

Ties = Literal["background", "foreground"]
"""How a majority vote counts a tie of an even number of raters."""


@dataclass(frozen=True, eq=False)
class CaseMasks:
    """What a metric of masks is computed from: one case, cropped as it is scored.

    Attributes:
        case: id of the case.
        probability: (S, H, W) float32 in [0, 1], predicted probability of the foreground of each slice.
        majority: (S, H, W) bool, majority vote of the raters.
        annotations: (R, S, H, W) bool, of the raters present.
    """

    case: str
    probability: npt.NDArray[np.float32]
    majority: npt.NDArray[np.bool_]
    annotations: npt.NDArray[np.bool_]

    @property
    def predicted(self) -> npt.NDArray[np.bool_]:
        """(S, H, W) bool, pixels predicted as foreground (probability >= 0.5)."""
        return self.probability >= np.float32(0.5)


MASK_METRICS: dict[str, Callable[[CaseMasks], float]] = {}
"""Metrics that cannot be computed from counts. They are computed when a run is scored, only on request
(``evaluate.metrics``), become columns of ``cases.csv``, and are part of the evaluation's id."""

COUNT_METRICS: dict[str, Callable[..., float]] = {}
"""Metrics that are computed from the counts of a case. Every evaluation stores the counts, so these metrics are not
part of its id."""


def check_metrics(names: Sequence[str]) -> None:
    """Checks the value of ``evaluate.metrics``.

    Raises:
        UserError: if a metric is unknown or named twice.
    """
    known = known_metrics()
    for name in names:
        if name not in known:
            raise UserError(
                f"evaluate.metrics names '{cut(name)}', which is no metric; choose from {', '.join(sorted(known))}"
            )
        if list(names).count(name) > 1:
            raise UserError(f"evaluate.metrics names '{name}' twice")


def known_metrics() -> Mapping[str, Callable[..., float]]:
    """All further metrics by name."""
    return {**COUNT_METRICS, **MASK_METRICS}


def mask_metrics(names: Sequence[str]) -> list[str]:
    """Those of the named metrics that need the masks, sorted."""
    return sorted(name for name in names if name in MASK_METRICS)


def needs_counts(names: Sequence[str]) -> bool:
    """Whether one of the named metrics is computed from counts."""
    return any(name in COUNT_METRICS for name in names)
