"""Readers of single files, with errors that a user can act on."""

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
    struct.error,
    isal_zlib.error,
    ImageFileError,
    HeaderDataError,
    UnidentifiedImageError,
    Image.DecompressionBombError,
)

TOLERANCE = 1e-2
"""Values of masks and labels this near to a whole number are it: some tools store 0.9999, or shares of the largest."""
FOREGROUND = (1, 255, 65535)
"""What binary masks hold beside 0."""
SOFT = "soft masks are not supported yet; give one binary mask for each rater"


def natural_key(text: str) -> list[tuple[int, int | str]]:
    """Sort key under which ``case2`` comes before ``case10``."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", text) if part]


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


def png_depth(path: Path) -> int:
    """Bits of a grey value in a PNG file, from its header: 1, 8 or 16; fewer than 8 are spread over 8 by `read_png`.

    Raises:
        UserError: if the file is missing or no PNG.
    """
    with readable(path), path.open("rb") as file:
        return _depth(file.read(26), path)


def read_png(path: Path) -> Array:
    """Reads a PNG file of one grey channel; RGB, palettes and opaque alpha are fine where they hold nothing but grey.

    Returns:
        (H, W) float32, the file's own values: 0 to 255, to 65535 in 16-bit files, and to 1 in 1-bit ones.

    Raises:
        UserError: if the file is missing or damaged, in colour, transparent, or of 16 bits in several channels.
    """
    with readable(path), path.open("rb") as file:
        depth = _depth(file.read(26), path)
        file.seek(0)
        image = Image.open(file, formats=("PNG",))
        if image.mode in ("1", "L", "I;16", "I") and "transparency" not in image.info:
            return np.asarray(image, dtype=np.float32)
        pixels = np.asarray(image.convert("RGBA"))
    if depth == 16:
        raise UserError(f"{path} has 16 bits in several channels; save it with one grey channel")
    if pixels[..., 3].min() < 255:
        raise UserError(f"{path} is transparent in places; save it with one grey channel, what counts in it")
    if (pixels[..., :1] != pixels[..., 1:3]).any():
        raise UserError(f"{path} is a colour image; save it with one grey channel")
    return pixels[..., 0].astype(np.float32)


def _depth(header: bytes, path: Path) -> int:
    if len(header) < 26 or header[:8] != b"\x89PNG\r\n\x1a\n":
        raise UserError(f"{path} is not a PNG file, whatever its name says; get it again, or convert it")
    bits, colour = header[24], header[25]
    return bits if bits == 16 or (bits == 1 and colour == 0) else 8


def as_mask(values: Array, path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Checks that an array is a binary mask of the image's shape.

    Args:
        values: what the file holds; 0 and one other value, 1, 255 or 65535, within `TOLERANCE`.
        path: the file, for the message.
        shape: the image's (H, W).

    Returns:
        (H, W) uint8, 0 or 1.

    Raises:
        UserError: if the shape differs or there are other values.
    """
    if values.shape != shape:
        raise UserError(f"{path} has shape {values.shape}, but its image has {shape}; mask and image must match")
    largest = values.max(initial=0)
    foreground = next((value for value in (*FOREGROUND, 0) if abs(largest - value) <= TOLERANCE), None)
    if foreground is not None:
        mask = values > max(foreground, 1) / 2
        if (np.abs(values - mask * np.float32(foreground)) <= TOLERANCE).all():
            return mask.astype(np.uint8)
    is_soft = values.min() >= 0 and largest <= 1
    advice = SOFT if is_soft else f"expected 0 and one of {', '.join(map(str, FOREGROUND))}"
    raise UserError(f"{path} is not a binary mask: it holds {some_values(values)}; {advice}")


def some_values(values: npt.NDArray[Any], shown: int = 5) -> str:
    """The first few different values of an array, with all the digits that tell them apart."""
    found = np.unique(values)
    return ", ".join(map(one_value, found[:shown])) + (", ..." if len(found) > shown else "")


def one_value(value: object) -> str:
    """A number with all its digits, without an idle fraction."""
    return str(value).removesuffix(".0")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]
