"""Puts a prepared store in its final place, and removes what killed processes left beside it."""

import glob
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from dmseg.data.fold_files import copy_split_files
from dmseg.files.atomic import exclusive, remove_scratch


def swap(scratch: Path, folder: Path) -> None:
    """Replaces an outdated store by a complete one, which takes over its split files.

    If the process is killed in between, the outdated store stays beside `folder`, where the next process finds it.
    """
    outdated = list(folder.parent.glob(f".{glob.escape(folder.name)}.old.*"))
    if os.path.lexists(folder):
        outdated = [Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))]
        os.rename(folder, outdated[0] / "store")
    for place in outdated:
        copy_split_files(place / "store", scratch)
    os.rename(scratch, folder)
    for place in outdated:
        shutil.rmtree(place, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Removes the leftovers of a process that was killed right after publishing a store.

    Nothing is removed while another process prepares the same store.
    """
    remove_scratch(folder)
    work = folder.parent / f".{folder.name}.parts"
    left = list(folder.parent.glob(f".{glob.escape(folder.name)}.old.*"))
    if not left and not work.is_dir():
        return
    with suppress(OSError), exclusive(work, wait=False) as alone:
        for place in (*left, work) if alone else ():
            shutil.rmtree(place, ignore_errors=True)
