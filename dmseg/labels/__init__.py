"""Fusion of several raters' annotations into one label, and label smoothing.

Fusions take masks (raters, spatial ...) and return NumPy arrays; smoothing takes and returns tensors. PyTorch is
imported on the first use of a function for smoothing.
"""

from typing import TYPE_CHECKING, Any

from dmseg.labels.fusion import (
    FusionWarning,
    NoLabelError,
    each_rater,
    majority,
    one_rater,
    rater_weights,
    staple,
    uniform,
    weighted,
)
from dmseg.labels.staple_em import Staple, staple_posterior

if TYPE_CHECKING:
    from dmseg.labels.smoothing import boundary, smooth, svls

__all__ = [
    "FusionWarning",
    "NoLabelError",
    "Staple",
    "boundary",
    "each_rater",
    "majority",
    "one_rater",
    "rater_weights",
    "smooth",
    "staple",
    "staple_posterior",
    "svls",
    "uniform",
    "weighted",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Imports the functions for smoothing, and PyTorch with them, when they are first used."""
    if name in ("boundary", "smooth", "svls"):
        from dmseg.labels import smoothing

        return getattr(smoothing, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
