"""Finished runs on their way to another machine: their scores, configurations and manifests, with weights if asked.

An export is a results folder of its own (`RunStore` reads it): ``runs/<run id>/`` sealed with checksums like any other.
Without weights a run counts in tables, but can neither be scored anew nor teach.
"""

import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pandas as pd

from dmseg.errors import UserError
from dmseg.experiments.store import DONE, RunStore

HEAVY = ("weights.safetensors", "predictions")
"""What is left behind unless it is asked for."""


def export_runs(runs: Iterable[tuple[RunStore, str]], folder: Path, weights: bool) -> int:
    """Copies finished runs into an export; those that are there already stay.

    Args:
        runs: each run's store and id.
        folder: of the export.
        weights: whether weights and predictions come along.

    Returns:
        How many runs the export gained.

    Raises:
        UserError: if a run is damaged, or the folder cannot be written to.
    """
    return sum(_copy(store, run_id, RunStore(folder), () if weights else HEAVY) for store, run_id in runs)


def import_runs(folder: Path, store: RunStore) -> tuple[int, int]:
    """Copies the runs of an export into a store; a run that is there already stays.

    Returns:
        How many runs were new, and how many there were in all.

    Raises:
        UserError: if the folder is not an export, a file of it is damaged, or the store cannot be written to.
    """
    source = RunStore(folder)
    ids = source.run_ids()
    if not ids:
        raise UserError(f"{folder} is not an export: there are no runs in {source.runs}")
    return sum(_copy(source, run_id, store, ()) for run_id in ids), len(ids)


def _copy(source: RunStore, run_id: str, target: RunStore, without: tuple[str, ...]) -> bool:
    if damage := source.damage(run_id, every_file=not without):
        raise UserError(f"{damage[0]}\nnothing of run {run_id} was copied; those before it were")
    if target.is_done(run_id):
        return False
    with target.working_on(run_id):
        target.write(run_id, partial(_fill, source.folder(run_id), without))
    return True


def _fill(source: Path, without: tuple[str, ...], folder: Path) -> None:
    left_out = (DONE, *without)  # of the run's own folder: it gets a new seal, those within keep theirs
    shutil.copytree(
        source, folder, ignore=lambda place, _: left_out if Path(place) == source else (), dirs_exist_ok=True
    )


def tidy_scores(store: RunStore) -> pd.DataFrame:
    """Per-case scores of all runs of a store under their first evaluation, one row a run and case."""
    frames = []
    for run_id in store.run_ids():
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
