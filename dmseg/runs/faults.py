"""What is wrong with a stored run."""

import os
from pathlib import Path

from dmseg.files.names import is_id
from dmseg.runs.records import SmallFiles, check_run
from dmseg.runs.seal import DONE, DamagedError, additions_of, differs, in_words, read_seal, repair_advice

SMALL_FILES = ("config.json", "manifest.json", "history.csv", "cases.csv", "evaluation.json", "counts.npz", "pack.npz")
"""Files that are checked whenever a run is used; weights and predictions are checked when they are read."""


def faults_of(folder: Path, run_id: str, every_file: bool, read: SmallFiles) -> list[str]:
    """`RunStore.damage` of a run's folder; `read` keeps the small files that were compared with their checksums."""
    try:
        own = read_seal(folder)
        additions = additions_of(folder, own)
        seals = {folder: own, **{place: read_seal(place) for place in additions}}
    except DamagedError as error:
        return [str(error).removesuffix(f"; {repair_advice(folder)}")]
    found = []
    for place, known in seals.items():
        unknown = [name for name in SMALL_FILES if name not in known and os.path.lexists(place / name)]
        found += [f"{place / DONE} has no checksum of {name}" for name in unknown]
        for name in known:
            small = name.rpartition("/")[2] in SMALL_FILES
            if every_file or small:
                found += differs(place, name, known[name], read if small else None)
    if found:
        return found
    try:
        check_run(folder, run_id, [place for place in additions if is_id(place.name)], read)
    except (OSError, ValueError) as error:
        return [f"{folder} is damaged: {in_words(error)}"]
    return []
