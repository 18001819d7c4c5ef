"""Bounds that both the code and the configuration check; no torch, so that planning may import them."""

MAX_LEVELS = 100
"""Most BDice levels and confidence bins: levels are counted in a byte, and the sums of a case grow with the product."""

LEAST_BANDWIDTH = 1e-9
"""Smallest bandwidth of the kernel estimate; below it float64 no longer tells its weights apart."""

DROPOUT_SITES = ("bottleneck", "decoder", "head")
"""Where dropout of channels may be put."""

MRNET_BLOCKS = (2, 2, 3, 3, 3)
"""Convolutions in each block of the encoder of MRNet's second network (VGG16)."""

CROP_MULTIPLE = 16
"""Edges of crops that are smaller than the slice are multiples of it."""


def crop_edge(extent: int, share: float) -> int:
    """Edge in pixels of a crop that has a share of a slice's edge: 384 of 512 for 0.75.

    Raises:
        ValueError: if the slice is smaller than the smallest crop.
    """
    if share == 1.0:
        return extent
    if extent < CROP_MULTIPLE:
        raise ValueError(f"crops are at least {CROP_MULTIPLE} pixels wide, but the slice has {extent}")
    return max(1, int(extent * share) // CROP_MULTIPLE) * CROP_MULTIPLE
