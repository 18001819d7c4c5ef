"""Counts of a single case."""

import torch

from dmseg.metrics.histogram import CaseCounts, as_tensor, count_batch


def count_one(probability, majority, reference, *, valid=None, **options) -> CaseCounts:
    """Counts one case of any number of axes as a batch of one."""
    images = [as_tensor(item)[None] for item in (probability, majority, reference)]
    kept = None if valid is None else as_tensor(valid)[None]
    return count_batch(*images, torch.zeros(1, dtype=torch.int64), 1, valid=kept, **options)[0]
