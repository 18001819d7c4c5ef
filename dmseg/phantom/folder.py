"""The folder of a phantom: written atomically with its settings, and rewritten when they change."""

import gzip
import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

from dmseg.errors import UserError, shown
from dmseg.files.atomic import remove_scratch, scratch_folder, writing
from dmseg.files.schema import read_json

MARKER = "phantom.json"


def write_folder(root: Path, settings: dict[str, Any], fill: Callable[[Path], None]) -> None:
    """Writes a phantom beside `root` and renames it at the end; an existing phantom is replaced.

    Args:
        root: folder to create; it must not contain anything but an earlier phantom.
        settings: everything that the phantom depends on; stored in the marker.
        fill: writes the files into the folder it is given.

    Raises:
        UserError: if `root` contains something other than a phantom.
        UnwritableError: if the disk is full or cannot be written to.
    """
    if (root.exists() and not root.is_dir()) or root.is_symlink():
        raise UserError(f"{root} is not a plain folder; choose another place for the phantom")
    if root.is_dir() and any(root.iterdir()) and not (root / MARKER).is_file():
        raise UserError(f"{root} contains files but no {MARKER}, so it is not a phantom; choose another place for one")
    with writing(root), scratch_folder(root) as scratch:
        folder = scratch / "new"
        folder.mkdir()
        fill(folder)
        (folder / MARKER).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        with suppress(FileNotFoundError):
            os.rename(root, scratch / "old")
        try:
            os.rename(folder, root)
        except OSError:
            if read_marker(root) == read_marker(folder):  # another process has written the same phantom
                return
            if (scratch / "old").exists() and not root.exists():
                os.rename(scratch / "old", root)
            raise


def is_made(root: Path, settings: dict[str, Any]) -> bool:
    """Whether a phantom with these settings exists; also removes what killed processes left beside it."""
    if read_marker(root) != settings:
        return False
    remove_scratch(root)
    return True


def read_marker(root: Path) -> object:
    """Content of the marker; None if it is missing or cannot be read."""
    try:
        return read_json(root / MARKER)
    except (OSError, ValueError):
        return None


def check_whole(what: str, value: object, least: int, ending: str = "") -> int:
    """Returns a whole number after checking it.

    Args:
        what: the setting, for the message.
        value: its value.
        least: its smallest value.
        ending: other allowed values, for the message.

    Raises:
        UserError: if it is not a whole number, or is too small.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(
            f"the phantom's {what} is {shown(value)}, but must be a whole number of {least} or more{ending}"
        )
    return value


def check_scale(scale: object, width: int, smallest: int, largest: int, what: str) -> None:
    """Checks a scale.

    Raises:
        UserError: if it is not above 0, or images of this native width would be narrower than `smallest` pixels or
            wider than `largest`.
    """
    if not (isinstance(scale, int | float) and math.isfinite(scale) and scale > 0):
        raise UserError(f"the phantom's scale is {shown(scale)}, but must be above 0 (1 for the native image sizes)")
    if round(width * scale) < smallest:
        raise UserError(
            f"the phantom's scale is {scale:g}, so {what} images would be less than {smallest} "
            f"pixels wide; set it to at least {math.ceil(100 * smallest / width) / 100:g}"
        )
    if scale > largest / width:
        raise UserError(
            f"the phantom's scale is {scale:g}, so {what} images would be more than {largest} "
            f"pixels wide; set it to at most {math.floor(100 * largest / width) / 100:g}"
        )


def check_view(view: object) -> float:
    """Checks a view and returns it as a float.

    Raises:
        UserError: if it is not at least 1.
    """
    if isinstance(view, bool) or not (isinstance(view, int | float) and math.isfinite(view) and view >= 1):
        raise UserError(
            f"the phantom's view is {shown(view)}, but must be at least 1 diameter of the structure, or null for the "
            f"whole image"
        )
    return float(view)


def check_spread(spread: object) -> float:
    """Checks a spread and returns it as a float.

    Raises:
        UserError: if it is not above 0 and at most 10.
    """
    if isinstance(spread, bool) or not (isinstance(spread, int | float) and 0 < spread <= 10):
        raise UserError(f"the phantom's spread is {shown(spread)}, but must be above 0 and at most 10")
    return float(spread)


def write_nifti(path: Path, values: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> None:
    """Writes ``.nii`` or ``.nii.gz``, without a time stamp, so that equal arrays give equal files."""
    image = nibabel.Nifti1Image(np.asfortranarray(values), affine)
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, compresslevel=1, mtime=0) if path.suffix == ".gz" else content)
