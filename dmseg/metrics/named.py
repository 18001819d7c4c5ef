"""Additional metrics by name: those computed from a run's stored counts, and those that need the masks.

Planning imports this module, so it does not import torch; functions import heavy libraries when they are called.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from dmseg.errors import UserError, cut
from dmseg.metrics import stored_counts
from dmseg.metrics.lesions import lesion_f1
from dmseg.metrics.stored_counts import StoredCounts
from dmseg.metrics.surface import hd95, nsd

Ties = Literal["background", "foreground"]
"""What a tie is in the majority vote of an even number of raters."""


@dataclass(frozen=True, eq=False)
class CaseMasks:
    """Input of a metric of masks: one case, cropped as for scoring.

    Attributes:
        case: id of the case.
        probability: (S, H, W) float32 in [0, 1], predicted probability of the foreground of each slice.
        majority: (S, H, W) bool, majority vote of the raters.
        annotations: (R, S, H, W) bool, of the raters present.
        spacing: distance in mm between rows, columns and, if scored as a volume, slices; None if unknown.
        volume: whether the slices form one volume.
        tolerance: of NSD, in mm.
        empty: score of two empty masks: ``skip``, ``one`` or ``zero``.
    """

    case: str
    probability: npt.NDArray[np.float32]
    majority: npt.NDArray[np.bool_]
    annotations: npt.NDArray[np.bool_]
    spacing: tuple[float, ...] | None = None
    volume: bool = False
    tolerance: float = 2.0
    empty: str = "skip"

    @property
    def predicted(self) -> npt.NDArray[np.bool_]:
        """(S, H, W) bool, pixels predicted as foreground (probability >= 0.5)."""
        return self.probability >= np.float32(0.5)


def _spacing(case: CaseMasks) -> tuple[float, ...]:
    if case.spacing is None:
        raise UserError(f"case {case.case}: the spacing of its slices is unknown; set evaluate.spacing")
    return case.spacing


MASK_METRICS: dict[str, Callable[[CaseMasks], float]] = {
    "nsd": lambda case: nsd(case.predicted, case.majority, _spacing(case), case.tolerance, case.empty),
    "hd95": lambda case: hd95(case.predicted, case.majority, _spacing(case), case.empty),
    "lesion_f1": lambda case: lesion_f1(case.predicted, case.majority, case.volume, case.empty),
}
"""Metrics that cannot be computed from counts. They are computed when a run is scored, only on request
(``evaluate.metrics``), become columns of ``cases.csv``, and are part of the evaluation's id."""

IN_MM = ("hd95", "nsd")
"""Metrics of masks that need the spacing."""

OF_VOLUMES = (*IN_MM, "lesion_f1")
"""Metrics of masks that treat contiguous slices as one volume."""

COUNT_METRICS: dict[str, Callable[[StoredCounts], float]] = {
    "ece_classwise": stored_counts.classwise_ece,
    "ace": stored_counts.ace,
    "mce": stored_counts.mce,
    "brier": stored_counts.brier,
    "nll": stored_counts.nll,
    "ece_boundary": stored_counts.boundary_ece,
    "ece_raters": stored_counts.rater_ece,
    "volume_bias": stored_counts.volume_bias,
    "volume_crps": stored_counts.volume_crps,
    "dice_raters": stored_counts.dice_of_raters,
    "dice_slices": stored_counts.dice_by_slice,
    "dice_other_ties": stored_counts.dice_other_ties,
    "agreement_dice": stored_counts.dice_between_raters,
    "agreement_majority": stored_counts.dice_raters_majority,
    "agreement_kappa": stored_counts.fleiss_kappa,
}
"""Metrics that are computed from the counts of a case. Every evaluation stores the counts, so these metrics are not
part of its id."""


def check_metrics(names: Sequence[str]) -> None:
    """Checks the value of ``evaluate.metrics``.

    Raises:
        UserError: if a metric is unknown or named twice.
    """
    known = known_metrics()
    for name in names:
        if name in ("dice", "bdice", "ece"):
            raise UserError(f"evaluate.metrics names '{name}', which is always computed; list only further metrics")
        if name == "ged":
            raise UserError("evaluate.metrics names 'ged', which needs samples; set evaluate.ged=true instead")
        if name not in known:
            raise UserError(
                f"evaluate.metrics names '{cut(name)}', which is not a metric; choose from {', '.join(sorted(known))}"
            )
        if list(names).count(name) > 1:
            raise UserError(f"evaluate.metrics names '{name}' twice")


def known_metrics() -> Mapping[str, Callable[..., float]]:
    """All additional metrics by name."""
    return {**COUNT_METRICS, **MASK_METRICS}


def mask_metrics(names: Sequence[str]) -> list[str]:
    """The named metrics that need the masks, sorted."""
    return sorted(name for name in names if name in MASK_METRICS)


def count_scores(
    counts: Mapping[str, StoredCounts], cases: Iterable[str], names: Iterable[str]
) -> dict[str, list[float]]:
    """The named metrics that are computed from counts, each with its values in the order of the cases."""
    ordered = [counts[case] for case in cases]
    return {name: [COUNT_METRICS[name](item) for item in ordered] for name in names}


def needs_counts(names: Sequence[str]) -> bool:
    """Whether one of the named metrics is computed from counts."""
    return any(name in COUNT_METRICS for name in names)


def requested(names: Sequence[str]) -> tuple[str, ...]:
    """The scores of a table that ``evaluate.metrics`` can name."""
    return tuple(name for name in names if name in known_metrics())
