"""Resizes the slices of a case and quantises their intensities for the store."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg.data.case import Case
from dmseg.data.parts import Intensities, Resized

Image = npt.NDArray[np.float32 | np.integer[Any]]
"""Intensities in the units of the data; integers have at most 16 bits, so that float32 has all of their values."""


def stored_slices(case: Case, size: int) -> Iterator[Resized]:
    """Yields the image (C, size, size), the annotations (r, size, size) and the spacing of each slice.

    The spacing is that of the resized slice: distance of rows, of columns and, if known, of slices in mm, or None.
    """
    for item in case.slices:
        image = quantise(resize_image(item.image, size), case.window, case.dtype)
        spacing = None if case.spacing is None else scale_spacing(case.spacing, item.image.shape[1:], size)
        yield np.ascontiguousarray(image), resize_mask(item.annotations.view(np.uint8), size), spacing


def scale_spacing(spacing: Sequence[float], shape: Sequence[int], size: int) -> tuple[float, ...]:
    """Spacing after slices (H, W) are resized to (size, size): pixels grow by H / size and W / size."""
    row, column, *rest = spacing
    return row * shape[0] / size, column * shape[1] / size, *rest


def resize_image(image: Image, size: int) -> Image:
    """Resizes (C, H, W) to (C, size, size) bilinearly with aligned pixel centres; the aspect ratio is not kept."""
    if image.shape[1:] == (size, size):
        return image
    rows, row_weight = _linear_positions(image.shape[1], size)
    columns, column_weight = _linear_positions(image.shape[2], size)
    halfway = image[:, rows] * (1 - row_weight[:, None]) + image[:, rows + 1] * row_weight[:, None]
    resized = halfway[:, :, columns] * (1 - column_weight) + halfway[:, :, columns + 1] * column_weight
    return resized.astype(np.float32)


def resize_mask(masks: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Resizes (R, H, W) to (R, size, size) by nearest neighbour with aligned pixel centres."""
    if masks.shape[1:] == (size, size):
        return np.ascontiguousarray(masks)
    rows, columns = (np.floor((np.arange(size) + 0.5) * extent / size).astype(int) for extent in masks.shape[1:])
    return np.ascontiguousarray(masks[:, rows[:, None], columns])


def quantise(image: Image, window: npt.NDArray[np.float64], dtype: str = "uint8") -> Intensities:
    """Maps each channel's window linearly to 0 and the type's largest value, clipped; an empty window gives 0."""
    low, high = (window[:, index, None, None].astype(np.float32) for index in (0, 1))
    scaled: npt.NDArray[np.float32] = image - low
    scaled /= np.where(high > low, high - low, np.float32(1.0))
    scaled *= high > low
    np.clip(scaled, 0, 1, out=scaled)
    scaled *= np.iinfo(dtype).max
    intensities: Intensities = np.rint(scaled, out=scaled).astype(dtype)
    return intensities


def _linear_positions(extent: int, size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Left neighbour, and weight of the right one, for each of `size` samples of at least two pixels."""
    position = np.clip((np.arange(size) + 0.5) * extent / size - 0.5, 0, extent - 1)
    left = np.minimum(position.astype(np.int64), extent - 2)
    return left, (position - left).astype(np.float32)
