"""Folders of raw data, without what file managers, archives and file servers leave in them."""

import os
from collections.abc import Iterator
from pathlib import Path

from dmseg.data.readers import natural_key
from dmseg.errors import UserError
from dmseg.files import is_junk


def entries(folder: Path) -> list[Path]:
    """Files and folders of a folder in natural order, junk left out.

    Raises:
        UserError: if the folder is missing or cannot be listed.
    """
    try:
        found = [path for path in folder.iterdir() if not is_junk(path.name)]
    except OSError as error:
        raise UserError(f"{folder} cannot be listed: {error.strerror or error}") from None
    return sorted(found, key=lambda path: (natural_key(path.name), path.name))


def folders(parent: Path) -> list[Path]:
    """Folders of a folder, see `entries`."""
    return [path for path in entries(parent) if path.is_dir()]


def files_below(folder: Path) -> Iterator[Path]:
    """Files at any depth, junk left out; links to folders are not followed.

    Raises:
        UserError: if a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be listed: {error.strerror}")

    for place, below, names in os.walk(folder, onerror=refuse):
        below[:] = sorted(name for name in below if not is_junk(name))
        yield from (Path(place, name) for name in sorted(names) if not is_junk(name))


def existing(path: Path) -> Path:
    """The file of that name, in capitals or not; the path itself if there is none."""
    if path.is_file() or not path.parent.is_dir():
        return path
    alike = (other for other in entries(path.parent) if other.name.lower() == path.name.lower() and other.is_file())
    return next(alike, path)


def nifti_file(folder: Path, stem: str) -> Path:
    """The NIfTI file of a stem, ``.nii.gz`` or ``.nii``, in capitals or not; ``.nii.gz`` if there is none."""
    packed, plain = (existing(folder / f"{stem}{suffix}") for suffix in (".nii.gz", ".nii"))
    return plain if plain.is_file() and not packed.is_file() else packed
