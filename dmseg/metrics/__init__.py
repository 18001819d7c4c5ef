"""Metrics of binary segmentation with one or several raters.

`dice`, `bdice`, `ece` and `case_metrics` score the probabilities of one case, `nsd`, `hd95` and `lesion_f1` compare two
masks, and `ged` compares two sets of masks. Scores are fractions; only tables and reports show percentages.

Importing the package imports nothing else, as planning needs the names of the metrics but no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dmseg.metrics.agreement import rater_dice
    from dmseg.metrics.counting import count_stored
    from dmseg.metrics.curves import Reliability, reliability
    from dmseg.metrics.functional import bdice, case_metrics, dice, ece, ged
    from dmseg.metrics.lesions import lesion_f1
    from dmseg.metrics.levels import BDICE_LEVELS
    from dmseg.metrics.named import COUNT_METRICS
    from dmseg.metrics.stored_counts import StoredCounts
    from dmseg.metrics.surface import hd95, nsd

__all__ = [
    "BDICE_LEVELS",
    "COUNT_METRICS",
    "Reliability",
    "StoredCounts",
    "bdice",
    "case_metrics",
    "count_stored",
    "dice",
    "ece",
    "ged",
    "hd95",
    "lesion_f1",
    "nsd",
    "rater_dice",
    "reliability",
]

_MODULES = {
    "BDICE_LEVELS": "levels",
    "COUNT_METRICS": "named",
    "Reliability": "curves",
    "StoredCounts": "stored_counts",
    "bdice": "functional",
    "case_metrics": "functional",
    "count_stored": "counting",
    "dice": "functional",
    "ece": "functional",
    "ged": "functional",
    "hd95": "surface",
    "lesion_f1": "lesions",
    "nsd": "surface",
    "rater_dice": "agreement",
    "reliability": "curves",
}
"""The module of each exported name, imported at its first use."""


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
