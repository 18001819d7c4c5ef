"""Two custom fusion functions: soft labels from several raters' annotations of one case."""

import numpy as np

from dmseg.labels.fusion import Votes, with_votes


def _trimmed_votes(annotations: np.ndarray, trim: int = 1) -> Votes:
    """The weight of each rater: 0 for the `trim` raters who marked most and least, 1 for the others."""
    order = np.argsort(annotations.reshape(len(annotations), -1).sum(axis=1), kind="stable")
    weights = np.ones(len(annotations))
    if len(annotations) > 2 * trim > 0:
        weights[order[:trim]] = weights[order[-trim:]] = 0
    return Votes(weights)


@with_votes(_trimmed_votes)
def trimmed(annotations: np.ndarray, trim: int = 1) -> np.ndarray:
    """Averages the raters without those who marked most and least. Each rater has one weight: its votes.

    Args:
        annotations: (R, *spatial), 0 or 1; the spatial axes hold the whole case.
        trim: number of raters to leave out at each end; where too few raters are left, all of them count.

    Returns:
        Soft label (*spatial) in [0, 1]. Floats make it a soft label; integers or booleans would make it a hard one.
    """
    return _trimmed_votes(annotations, trim).fuse(annotations).astype(np.float32)


def sharpened(annotations: np.ndarray, power: float = 2.0) -> np.ndarray:
    """Averages the raters and moves the mean towards 0 or 1. This is not a weighted mean, so it declares no votes.

    Args:
        annotations: (R, *spatial), 0 or 1.
        power: 1 leaves the mean as it is; larger values make it harder.

    Returns:
        Soft label (*spatial) in [0, 1].
    """
    mean = annotations.mean(axis=0)
    agreement, doubt = mean**power, (1 - mean) ** power
    return np.asarray(agreement / (agreement + doubt), dtype=np.float32)
