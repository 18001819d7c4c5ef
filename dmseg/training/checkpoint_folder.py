"""The folder of a run's checkpoints: ``<steps>`` during training, ``<steps>-finished`` after it, and ``title.txt``."""

import re
from contextlib import suppress
from pathlib import Path

from dmseg.files.regular import read_regular

FINISHED = "-finished"
"""Suffix of the name of a checkpoint whose training is finished."""
LARGEST_TITLE = 4096
NAME = re.compile(rf"[0-9]{{9,}}({FINISHED})?")


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints in the folder of a run, oldest first; links do not count."""
    found = (path for path in folder.glob("[0-9]*") if NAME.fullmatch(path.name))
    return sorted(path for path in found if path.is_dir() and not path.is_symlink())


def steps_of(checkpoint: Path) -> int:
    """Number of steps taken before a checkpoint."""
    return int(checkpoint.name.removesuffix(FINISHED))


def title_file(folder: Path) -> Path:
    """File with the title of the run, for lists of runs."""
    return folder / "title.txt"


def stored_title(folder: Path) -> str:
    """The title of the run that the checkpoints belong to; empty if it cannot be read."""
    with suppress(OSError, ValueError):
        return read_regular(title_file(folder), LARGEST_TITLE).decode("utf-8").strip()
    return ""
