"""Export and import of finished runs: scores, configurations and manifests, with weights and pictures on request.

An export is a results folder that `RunStore` can read. Its runs are sealed with checksums like any others, but contain
no paths, accounts or machine names. A run without weights counts in tables, but can neither be scored again nor be a
teacher. Only regular files named in a seal are copied, no links.
"""

import shlex
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from dmseg.activity import track
from dmseg.config.overrides import get
from dmseg.errors import UnwritableError, UserError, some
from dmseg.runs.lease import RunLocked
from dmseg.runs.records import read_cases_file
from dmseg.runs.seal import DamagedError, copy_files, read_json, read_seal, write_json
from dmseg.runs.shareable import HIDDEN, shareable_manifest, shareable_settings
from dmseg.runs.store import RunStore

WEIGHTS = "weights.safetensors"
PREDICTIONS = "predictions"
"""Copied only on request, together with the weights."""
EVALUATION_FILES = ("evaluation.json", "cases.csv", "counts.npz")
"""Files of an evaluation that are always copied."""
PACK = "pack.npz"
"""Pictures of an evaluation, copied only on request: they show the data."""


@dataclass(frozen=True)
class Copied:
    """Result of copying some runs.

    Attributes:
        new: number of runs that the target did not have before.
        total: number of all runs.
        refused: by run id, why a run was not copied.
    """

    new: int
    total: int
    refused: dict[str, str]

    def check(self) -> None:
        """Checks that all runs were copied.

        Raises:
            UserError: if some were refused; the message names them.
        """
        if self.refused:
            names = list(self.refused)
            why = self.refused[names[0]].splitlines()[0]
            raise UserError(f"{why}\n{len(names)} of {self.total} runs were not copied: {some(names)}; all others were")


@dataclass(frozen=True)
class Contents:
    """What is copied of a run besides its scores, settings and manifest.

    Attributes:
        weights: weights and predictions.
        images: pictures of its cases.
        shareable: whether paths, accounts, user names and host names are removed from settings and manifest, as in an
            export; if not, the run is marked as imported.
    """

    weights: bool
    images: bool
    shareable: bool


def export_runs(runs: Iterable[tuple[RunStore, str]], folder: Path, weights: bool, images: bool = False) -> Copied:
    """Copies finished runs with all their evaluations into an export; runs that it already has are kept.

    Args:
        runs: store and id of each run.
        folder: folder of the export.
        weights: whether to copy weights and predictions too.
        images: whether to copy pictures of cases too.

    Raises:
        UserError: if the folder is a results folder, whose runs name paths, or among the runs of one.
        UnwritableError: if the folder cannot be written to.
    """
    target = folder.resolve()
    above = [parent.parent for parent in (target, *target.parents) if parent.name == "runs"]
    results = [place for place in above if RunStore(place).stored()]
    if results or not all(_is_shareable(RunStore(target), run_id) for run_id in RunStore(target).stored()):
        raise UserError(
            f"{folder} is part of the results folder {(*results, target)[0]}; export to a folder of its own"
        )
    return _copy_all(list(runs), RunStore(folder), Contents(weights, images, shareable=True))


def _is_shareable(store: RunStore, run_id: str) -> bool:
    """Whether a run's settings name no results folder, as those in an export; also of a damaged run."""
    with suppress(DamagedError):
        return bool(get(store.read_json(run_id, "config.json"), "settings.paths.results", HIDDEN) == HIDDEN)
    return True


def import_runs(folder: Path, store: RunStore) -> Copied:
    """Copies the runs of an export into a store, marked as imported; runs that the store already has are kept.

    A run is refused if it is damaged, does not fit its id, or is in the store with different scores.

    Raises:
        UserError: if the folder is not an export.
        UnwritableError: if the store cannot be written to.
    """
    refuse_links(folder)
    source = RunStore(folder)
    ids = source.stored()
    if not ids:
        raise UserError(f"{folder} is not an export: there are no runs in {source.runs}")
    return _copy_all([(source, run_id) for run_id in ids], store, Contents(weights=True, images=True, shareable=False))


def refuse_links(export: Path) -> None:
    """Checks that no folder of an export is a link.

    Raises:
        UserError: if one is.
    """
    for name in ("runs", "plans", "tables"):
        if (export / name).is_symlink():
            raise UserError(f"{export / name} is a link; an export must contain its files itself, so it is not read")


def _copy_all(runs: list[tuple[RunStore, str]], target: RunStore, contents: Contents) -> Copied:
    new, refused = 0, {}
    for source, run_id in track(runs, "copying runs", len(runs), "runs"):
        try:
            new += _copy(source, run_id, target, contents)
        except UnwritableError:
            raise
        except (UserError, RunLocked) as error:
            refused[run_id] = str(error)
    return Copied(new, len(runs), refused)


def _copy(source: RunStore, run_id: str, target: RunStore, contents: Contents) -> bool:
    """Copies a run, or the evaluations that the target lacks; returns whether the run is new to the target.

    A run is refused if it is damaged, or its scores differ from those of the run with the same id in the target.
    """
    if damage := source.damage(run_id, every_file=contents.weights):
        raise UserError(damage[0])
    is_new = not target.is_done(run_id)
    if not is_new:
        if damage := target.damage(run_id):
            where = shlex.quote(f"paths.results={target.results}")
            raise UserError(f"{damage[0]}; 'dmseg runs verify aside=true {where}' sets it aside")
        here, there = target.evaluations(run_id), source.evaluations(run_id)
        for evaluation in sorted(here.keys() & there.keys()):
            if read_cases_file(here[evaluation]) != read_cases_file(there[evaluation]):
                raise UserError(
                    f"run {run_id} of {source.results} has different scores (cases.csv) from the run with the same id "
                    f"in {target.results}, which is kept; to replace that run, remove it first "
                    f"(dmseg runs prune {run_id})"
                )
        if not _lacking(source, run_id, target, contents.images):
            return False

    def fill(folder: Path) -> None:
        """Copies the run's own files, without later evaluations, which have seals of their own."""
        rewritten = ("config.json", "manifest.json")
        left_out = {"evaluations", *rewritten}
        left_out |= set() if contents.weights else {WEIGHTS, PREDICTIONS}
        left_out |= set() if contents.images else {PACK}
        place = source.folder(run_id)
        copy_files(place, [name for name in read_seal(place) if name.split("/")[0] not in left_out], folder)
        config, manifest = (read_json(place, name) for name in rewritten)
        if contents.shareable:
            config["settings"] = shareable_settings(config["settings"])
            manifest = shareable_manifest(manifest)
        else:
            manifest["imported"] = True
        write_json(folder / "config.json", config)
        write_json(folder / "manifest.json", manifest)

    with target.working_on(run_id):
        if is_new:
            target.write(run_id, fill)
        for evaluation, place in _lacking(source, run_id, target, contents.images).items():
            wanted = (*EVALUATION_FILES, *([PACK] if contents.images else []))
            files = [name for name in wanted if name in read_seal(place)]
            target.add(run_id, f"evaluations/{evaluation}", partial(copy_files, place, files))
        later = source.folder(run_id) / PREDICTIONS
        if is_new and contents.weights and later in source.additions(run_id):
            target.add(run_id, PREDICTIONS, partial(copy_files, later, list(read_seal(later))))
    return is_new


def _lacking(source: RunStore, run_id: str, target: RunStore, images: bool) -> dict[str, Path]:
    """Evaluations that the run in the target does not have, or has without counts or, on request, pictures."""
    known, found = target.evaluations(run_id), {}
    files = (PACK, "counts.npz") if images else ("counts.npz",)  # a folder with pictures has counts too
    for name, place in source.evaluations(run_id).items():
        own = {file: folder for file in files if (folder := source.folder_with(file, run_id, name)) is not None}
        if name not in known or any(target.folder_with(file, run_id, name) is None for file in own):
            found[name] = next(iter(own.values()), place)
    return found


def tidy_scores(store: RunStore) -> pd.DataFrame:
    """Per-case scores of all undamaged runs of a store in their first evaluation, one row for each run and case."""
    frames = []
    ids = store.run_ids()
    for run_id in track(ids, "reading scores", len(ids), "runs"):
        if store.damage(run_id):
            continue
        settings = store.read_json(run_id, "config.json")["settings"]
        named = {
            "data": settings["data"]["name"],
            "model": settings["model"]["name"],
            "task": settings["task"],
            "labels": settings["labels"]["name"],
            "fold": settings["fold"],
            "seed": settings["seed"],
            "experiment_id": store.read_json(run_id, "manifest.json")["experiment_id"],
            "run_id": run_id,
        }
        evaluation = str(store.read_json(run_id, "evaluation.json")["id"])
        frames.append(store.read_cases(run_id, evaluation).assign(**named))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
