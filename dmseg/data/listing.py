"""Lists folders of raw data, ignoring what file managers, archives and file servers leave in them."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dmseg.data.raw import is_broken_link, is_folder, is_there
from dmseg.data.readers import natural_key
from dmseg.errors import UserError, shown
from dmseg.files.regular import is_junk

log = logging.getLogger(__name__)


def entries(folder: Path) -> list[Path]:
    """Files and folders of a folder in natural order, without junk.

    Raises:
        UserError: if the folder is missing or cannot be listed.
    """
    try:
        found = [path for path in folder.iterdir() if not is_junk(path.name)]
    except OSError as error:
        raise UserError(f"{shown(folder)} cannot be listed: {error.strerror or error}") from None
    return sorted(found, key=lambda path: (natural_key(path.name), path.name))


def folders(parent: Path) -> list[Path]:
    """Subfolders of a folder in natural order, including links to folders, without junk.

    Raises:
        UserError: if one cannot be accessed, or there is a broken link, which may have pointed to a folder.
    """
    found = entries(parent)
    refuse_broken(found)
    return [path for path in found if is_folder(path)]


def refuse_broken(paths: Iterable[Path]) -> None:
    """Refuses links whose target does not exist: a file that was not fetched must not pass for one that never was.

    Raises:
        UserError: if there is one.
    """
    if broken := next((path for path in paths if is_broken_link(path)), None):
        raise UserError(f"{shown(broken)} is a broken link; remove it, or restore its target")


def refuse_twice(first: Path | None, second: Path) -> None:
    """Refuses two files for the same content, such as ``image.nii`` beside ``image.nii.gz``.

    Args:
        first: the file found before, None if there is none.
        second: the other file.

    Raises:
        UserError: if there are two.
    """
    if first is not None:
        raise UserError(f"{first.name} exists twice: {shown(first)} and {shown(second)}; remove one of them")


def warn_unread(paths: Sequence[Path], expected: str) -> None:
    """Warns about files or folders that look like data but are not read; does nothing if there are none.

    Args:
        paths: the files or folders.
        expected: says which ones are read.
    """
    if paths:
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        log.warning("%s%s: not read; %s", shown(paths[0]), more, expected)


def files_below(folder: Path) -> Iterator[Path]:
    """Files at any depth, without junk; links to folders are not followed.

    Raises:
        UserError: if a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{shown(Path(error.filename))} cannot be listed: {error.strerror}")

    for place, below, names in os.walk(folder, onerror=refuse):
        below[:] = sorted(name for name in below if not is_junk(name))
        for path in (Path(place, name) for name in below):
            if path.is_symlink():
                log.warning("%s is a link to a folder, which is not followed; nothing in it is read", shown(path))
        yield from (Path(place, name) for name in sorted(names) if not is_junk(name))


def existing(path: Path) -> Path:
    """The file of that name, ignoring case; the path itself if there is none.

    Raises:
        UserError: if its folder cannot be listed.
    """
    if is_there(path) or not is_folder(path.parent):
        return path
    alike = (other for other in entries(path.parent) if other.name.lower() == path.name.lower() and is_there(other))
    return next(alike, path)


def nifti_file(folder: Path, stem: str) -> Path:
    """The NIfTI file of a stem, ``.nii.gz`` or ``.nii``, ignoring case; ``.nii.gz`` if there is neither.

    Raises:
        UserError: if there are both; see `existing`.
    """
    packed, plain = (existing(folder / f"{stem}{suffix}") for suffix in (".nii.gz", ".nii"))
    if is_there(plain):
        refuse_twice(packed if is_there(packed) else None, plain)
    return plain if is_there(plain) and not is_there(packed) else packed
