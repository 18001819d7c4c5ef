"""Readers of single files, with errors that a user can act on."""

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from isal import isal_zlib
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from PIL import Image, UnidentifiedImageError

from dmseg.errors import UserError

Array = npt.NDArray[np.float32]

_DAMAGE: tuple[Any, ...] = (
    OSError,
    EOFError,
    ValueError,
    SyntaxError,
    zlib.error,
    isal_zlib.error,
    ImageFileError,
    HeaderDataError,
    UnidentifiedImageError,
)


def natural_key(text: str) -> list[tuple[int, int | str]]:
    """Sort key under which ``case2`` comes before ``case10``."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", text) if part]


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what reading a missing or damaged file raises into a message.

    Raises:
        UserError: if the block fails to read the file.
    """
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except _DAMAGE as error:
        raise UserError(f"{path} cannot be read ({_first_line(error)}); the file is damaged: get it again") from None


def read_nifti(path: Path) -> Array:
    """Reads a NIfTI file in array order, singleton axes dropped, header orientation ignored.

    Args:
        path: ``.nii`` or ``.nii.gz``.

    Returns:
        float32 array of the file's own axes.

    Raises:
        UserError: if the file is missing, truncated, not NIfTI, or holds NaN or infinite values.
    """
    with readable(path):
        data = np.asarray(nibabel.load(path).dataobj, dtype=np.float32)
    return _finite(np.squeeze(data), path)


def read_png(path: Path) -> Array:
    """Reads a PNG file as one grey channel.

    Returns:
        (H, W) float32, 0 to 255 for 8-bit files.

    Raises:
        UserError: if the file is missing or damaged.
    """
    with readable(path), Image.open(path) as image:
        grey = image if image.mode in ("1", "L", "I;16", "I") else image.convert("L")
        return np.asarray(grey, dtype=np.float32)


def as_mask(values: Array, path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Checks that an array is a binary mask of the image's shape.

    Args:
        values: what the file holds; 0 and one other value (1 and 255 both occur).
        path: the file, for the message.
        shape: the image's (H, W).

    Returns:
        (H, W) uint8, 0 or 1.

    Raises:
        UserError: if the shape differs or there are other values than 0 and 1 (or 0 and 255).
    """
    if values.shape != shape:
        raise UserError(f"{path} has shape {values.shape}, but its image has {shape}; mask and image must match")
    found = np.unique(values)
    if not (np.isin(found, (0, 1)).all() or np.isin(found, (0, 255)).all()):
        shown = ", ".join(f"{value:g}" for value in found[:5])
        raise UserError(f"{path} is not a binary mask: it holds {shown}{', ...' if len(found) > 5 else ''}")
    return (values > 0).astype(np.uint8)


def _finite(data: Array, path: Path) -> Array:
    if not np.isfinite(data).all():
        bad = int(np.count_nonzero(~np.isfinite(data)))
        raise UserError(f"{path} holds {bad} NaN or infinite values; mend the file or leave the case out")
    return data


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]
