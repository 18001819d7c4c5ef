"""Limits shared by the code and the configuration, in a module that does not import torch."""

MAX_LEVELS = 100
"""Largest number of BDice levels or confidence bins: levels are counted in a byte, and sums grow with the product."""

LEAST_BANDWIDTH = 1e-9
"""Smallest bandwidth of the kernel estimate; below it, float64 cannot distinguish its weights."""

DROPOUT_SITES = ("bottleneck", "decoder", "head")
"""Possible positions of channel dropout."""

MRNET_BLOCKS = (2, 2, 3, 3, 3)
"""Number of convolutions in each encoder block of MRNet's second network (VGG16)."""

CROP_MULTIPLE = 16
"""Edge lengths of crops that are smaller than the slice are multiples of this."""


def crop_edge(extent: int, share: float) -> int:
    """Edge length in pixels of a crop, given as a fraction of the slice's: 384 of 512 for 0.75.

    Raises:
        ValueError: if the slice is smaller than the smallest crop.
    """
    if share == 1.0:
        return extent
    if extent < CROP_MULTIPLE:
        raise ValueError(f"crops are at least {CROP_MULTIPLE} pixels wide, but the slice is only {extent}")
    return max(1, int(extent * share) // CROP_MULTIPLE) * CROP_MULTIPLE
