"""What a command leaves behind: looked at before it and after it."""

import os
import stat
from pathlib import Path

NAMED = ("prepared", "results", "out")
"""Folders of a box that the command may write to."""
SECRET = "the-secret-of-another-folder"


def outside(box):
    """What lies outside the named folders: the kind, size, time and, of small files, content of everything."""
    found = {}
    for folder, folders, files in os.walk(box):
        if Path(folder) == box:
            folders[:] = [name for name in folders if name not in (*NAMED, "home")]
        if Path(folder) == box / "raw/export":  # a table goes beside the plan that it is made of
            folders[:] = [name for name in folders if name != "tables"]
        for name in files + folders:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            plain = stat.S_ISREG(status.st_mode)
            content = Path(path).read_bytes() if plain and status.st_size < 2**16 else b""
            found[path] = (status.st_mode, plain and (status.st_size, status.st_mtime_ns), content)
    return found


def leaks(box):
    """Files of the named folders that hold the content of the secret one."""
    files = (path for name in NAMED for path in (box / name).rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in files if path.stat().st_size < 2**20 and SECRET.encode() in path.read_bytes()]


def half_written(path):
    """Whether a folder looks like a store or a run, but is not whole."""
    if not path.is_dir() or any(part.startswith(".") for part in path.parts):
        return False
    there = {entry.name for entry in path.iterdir()}
    return path.parent.parent.name == "prepared" and not {"manifest.json", "images.npy", "annotations.npy"} <= there
