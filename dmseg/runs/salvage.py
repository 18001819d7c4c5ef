"""Restores runs that were set aside although their weights are intact, so that they are not trained again.

A file that the seal names and that is missing or has changed is lost. Scores, counts and pictures can be computed again
from the weights; ``history.csv`` cannot, and the run is then stored without it.
"""

import logging
import shlex
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dmseg.errors import UserError, first_line
from dmseg.files.regular import is_regular
from dmseg.runs.records import check_run
from dmseg.runs.seal import DamagedError, additions_of, copy_files, differs, read_json, read_seal
from dmseg.runs.store import WEIGHTS, RunStore

if TYPE_CHECKING:
    from dmseg.runs.plan import PlannedRun

NEEDED = ("config.json", "manifest.json", WEIGHTS)
"""Files without which a run is trained again."""
SCORE_FILES = ("cases.csv", "evaluation.json")
FURTHER = ("counts.npz", "pack.npz")

log = logging.getLogger(__name__)


def find_intact(store: RunStore, run_id: str) -> Path | None:
    """The last folder that a run was set aside in, if its weights, settings and manifest are intact; else None."""
    found = (path for path in (store.results / "damaged").glob(f"{run_id}-*") if path.name[17:].isdecimal())
    aside = max(found, key=lambda path: int(path.name[17:]), default=None)
    if aside is None or aside.is_symlink():
        return None
    try:
        return aside if set(NEEDED) <= intact_files(aside) else None
    except DamagedError:
        return None


def intact_files(folder: Path) -> set[str]:
    """The files of a sealed folder that are as they were written.

    Raises:
        DamagedError: if the checksums are missing or damaged.
    """
    return {name for name, known in read_seal(folder).items() if not differs(folder, name, known)}


def salvage(store: RunStore, run: "PlannedRun", aside: Path, score: Callable[[Path], None]) -> bool:
    """Stores a run again from what is intact of it.

    Args:
        store: the store.
        run: the run.
        aside: the folder that it was set aside in (`find_intact`).
        score: scores the weights and writes the evaluation to a folder.

    Returns:
        Whether it is stored. If what is intact does not fit together, it is not.

    Raises:
        UnwritableError: if the disk is full or read-only.
    """
    try:
        store.write(run.run_id, partial(_fill, run, aside, score))
    except _Inconsistent as error:
        log.warning("%s (%s) is trained again, as %s does not fit: %s", run.title, run.run_id, aside, error)
        return False
    for place in additions_of(aside, read_seal(aside)):
        name = str(place.relative_to(aside))
        with suppress(DamagedError):
            if intact_files(place) == set(read_seal(place)):
                store.add(run.run_id, name, partial(copy_files, place, sorted(read_seal(place))))
    if store.damage(run.run_id):  # an evaluation whose seal fits, but not its content
        for place in store.additions(run.run_id):
            shutil.rmtree(place)
    log.info("%s (%s) is restored from its weights in %s", run.title, run.run_id, aside)
    return True


class _Inconsistent(Exception):
    """The files of a run contradict each other."""


def _fill(run: "PlannedRun", aside: Path, score: Callable[[Path], None], folder: Path) -> None:
    known, intact = set(read_seal(aside)), intact_files(aside)
    predictions = {name for name in known if name.startswith("predictions/")}
    whole = [name for name in (*NEEDED, "history.csv") if name in intact]
    copy_files(aside, [*whole, *(sorted(predictions) if predictions <= intact else ())], folder)
    if "history.csv" in known - intact:
        log.warning("%s: the losses of its epochs (history.csv) are lost", run.run_id)
    has_scores = set(SCORE_FILES) <= intact
    if has_scores:
        copy_files(aside, [*SCORE_FILES, *(name for name in FURTHER if name in intact)], folder)
    try:
        evaluation = str(read_json(aside, "evaluation.json")["id"]) if has_scores else ""
        if has_scores:
            check_run(folder, run.run_id)
    except (DamagedError, OSError, ValueError) as error:
        raise _Inconsistent(first_line(error)) from None
    lost = [name for name in FURTHER if name in known - intact]
    if has_scores and (not lost or evaluation != run.evaluation_id):  # others cannot be computed by this run's settings
        return
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        score(Path(scratch))
        written = [*(() if has_scores else SCORE_FILES), *(lost if has_scores else FURTHER)]
        copy_files(Path(scratch), [name for name in written if is_regular(Path(scratch) / name)], folder)
    try:
        check_run(folder, run.run_id)
    except (OSError, ValueError) as error:
        raise _Inconsistent(str(error)) from None


def lost_weights(store: RunStore, run_id: str) -> bool:
    """Whether a finished run was stored with weights that are now missing; their content is not compared."""
    with suppress(DamagedError):
        return store.is_done(run_id) and store.has_weights(run_id) and not is_regular(store.folder(run_id) / WEIGHTS)
    return False


def refuse_lost_weights(runs: "Sequence[PlannedRun]", missing: "Sequence[PlannedRun]") -> "list[PlannedRun]":
    """Checks, before anything is trained, that the weights needed for scoring runs or as teachers exist.

    Args:
        runs: all runs of a command, including teachers.
        missing: those that are not done.

    Returns:
        Runs whose weights are lost but not needed.

    Raises:
        UserError: if weights that are needed are lost.
    """
    needed = {run.run_id for run in missing}
    needed |= {run.teacher.run_id for run in missing if run.teacher is not None}
    lost = [run for run in runs if lost_weights(RunStore(run.results), run.run_id)]
    if wanted := [run for run in lost if run.run_id in needed]:
        first = wanted[0]
        place = RunStore(first.results).folder(first.run_id)
        more = f", and {len(wanted) - 1} others are missing too" if len(wanted) > 1 else ""
        aside = " ".join(["dmseg runs verify aside=true", *(run.run_id for run in wanted[:20])])
        raise UserError(
            f"{place / WEIGHTS} is missing{more}, but needed to score {first.title} or to use it as a teacher\n"
            f"restore it, or run '{aside} {shlex.quote(f'paths.results={first.results}')}', then repeat the "
            "original command to train again"
        )
    return lost
