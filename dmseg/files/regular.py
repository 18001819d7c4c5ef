"""Reads, copies, lists and hashes regular files; never opens pipes and devices, and links only on request."""

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path, PurePosixPath


@contextmanager
def open_regular(path: Path, follow: bool = False) -> Iterator[BufferedReader]:
    """Opens a regular file for reading; never blocks, as opening a named pipe would.

    Args:
        path: the file.
        follow: whether to follow a link, as for a file named by the user; links in the rest of the path are followed.

    Raises:
        OSError: if it is missing, a link, or not a regular file (a folder, a pipe, a device).
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        handle = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            raise OSError(errno.ELOOP, "it is a link, and links are not followed", str(path)) from None
        if error.errno == errno.ENXIO:
            raise OSError(errno.EINVAL, "it is not a regular file", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    with open(handle, "rb") as file:
        yield file


def read_regular(path: Path, limit: int, follow: bool = False) -> bytes:
    """Reads a regular file of limited size.

    Args:
        path: the file.
        limit: largest size in bytes.
        follow: whether to follow a link.

    Raises:
        OSError: if it cannot be opened (`open_regular`), or is larger.
    """
    with open_regular(path, follow) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit / 2**20:g} MiB", str(path))
    return content


def copy_regular(source: Path, target: Path) -> None:
    """Copies a regular file; a link is not followed.

    Raises:
        OSError: if the source cannot be opened (`open_regular`), or the target cannot be written.
    """
    with open_regular(source) as file, target.open("xb") as copy:
        shutil.copyfileobj(file, copy, 2**20)


def is_regular(path: Path) -> bool:
    """Whether a path is a regular file and not a link."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def inside(folder: Path, name: str) -> Path:
    """The path of a file inside a folder, after checking that neither the folder nor any subfolder is a link.

    Args:
        folder: the folder.
        name: relative path of the file, without ``..``.

    Raises:
        OSError: if one of the folders is missing, a link, or not a folder.
    """
    place = folder
    for part in ("", *PurePosixPath(name).parts[:-1]):
        place = place / part
        mode = os.lstat(place).st_mode
        if not stat.S_ISDIR(mode):
            why = "it is a link, and links are not followed" if stat.S_ISLNK(mode) else "it is not a folder"
            raise OSError(errno.ENOTDIR, why, str(place))
    return folder / name


def checksum(path: Path, follow: bool = True) -> str:
    """SHA-256 of a regular file, in hexadecimal.

    Raises:
        OSError: if it cannot be opened (`open_regular`) or read.
    """
    with open_regular(path, follow) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


JUNK = frozenset(
    (
        "#recycle",
        "$recycle.bin",
        "@__thumb",
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "__macosx",
        "desktop.ini",
        "ehthumbs.db",
        "lost+found",
        "system volume information",
        "thumbs.db",
    )
)
"""Names, in lower case, of files and folders left by file managers, archives and file servers."""


def is_junk(name: str) -> bool:
    """Whether a name is hidden (``._slice-0.png``) or in `JUNK`, so that it is neither data nor one of our files."""
    return name.startswith(".") or name.lower() in JUNK


def regular_files(folder: Path) -> list[Path]:
    """All regular files at any depth in a folder, sorted; links are ignored."""
    found = (Path(place) / name for place, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if is_regular(path))


def checksums(folder: Path) -> dict[str, str]:
    """Checksums of all regular files in a folder by their relative paths, without junk (`is_junk`)."""
    files = ((path, path.relative_to(folder)) for path in regular_files(folder))
    return {str(name): checksum(path, follow=False) for path, name in files if not any(map(is_junk, name.parts))}
