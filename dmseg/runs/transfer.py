"""Finished runs on their way to another machine: their scores, configurations and manifests, with weights if asked.

An export is a results folder of its own (`RunStore` reads it): ``runs/<run id>/`` sealed with checksums like any other,
without paths, accounts and names of machines. Without weights a run counts in tables, but can neither be scored anew
nor teach. What is copied is what the seals name: regular files, no links.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from dmseg.errors import UnwritableError, UserError
from dmseg.files.regular import copy_regular, inside
from dmseg.runs.lease import RunLocked
from dmseg.runs.records import read_cases_file
from dmseg.runs.seal import DONE, read_json, read_seal, write_json
from dmseg.runs.shareable import shareable_manifest, shareable_settings
from dmseg.runs.store import RunStore

WEIGHTS = "weights.safetensors"
PREDICTIONS = "predictions"
"""With the weights, what is left behind unless it is asked for."""

Rewrite = Callable[[str, dict[str, Any]], dict[str, Any]]
"""From the name and content of one of a run's JSON files to the content of the copy."""


@dataclass(frozen=True)
class Copied:
    """What became of some runs.

    Attributes:
        new: how many runs the target gained.
        total: how many there were.
        refused: by run id, why a run was not copied.
    """

    new: int
    total: int
    refused: dict[str, str]

    def check(self) -> None:
        """Ends a command that could not copy all runs.

        Raises:
            UserError: names the runs that were refused.
        """
        if self.refused:
            names = list(self.refused)
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            why = self.refused[names[0]].splitlines()[0]
            raise UserError(f"{why}\n{len(names)} of {self.total} runs were not copied: {shown}; the others were")


def export_runs(runs: Iterable[tuple[RunStore, str]], folder: Path, weights: bool) -> Copied:
    """Copies finished runs into an export, with all their evaluations; those that are there already stay.

    Args:
        runs: each run's store and id.
        folder: of the export.
        weights: whether weights and predictions come along.

    Raises:
        UnwritableError: if the folder cannot be written to.
    """
    return _copy_all(list(runs), RunStore(folder), weights, _for_others)


def import_runs(folder: Path, store: RunStore) -> Copied:
    """Copies the runs of an export into a store, marked as imported; a run that is there already stays.

    A run is refused if it is damaged, does not fit its id, or is in the store with other scores.

    Raises:
        UserError: if the folder is not an export.
        UnwritableError: if the store cannot be written to.
    """
    refuse_links(folder)
    source = RunStore(folder)
    ids = source.stored()
    if not ids:
        raise UserError(f"{folder} is not an export: there are no runs in {source.runs}")
    return _copy_all([(source, run_id) for run_id in ids], store, True, _marked)


def refuse_links(export: Path) -> None:
    """Refuses an export that leads elsewhere.

    Raises:
        UserError: if one of its folders is a link.
    """
    for name in ("runs", "plans", "tables"):
        if (export / name).is_symlink():
            raise UserError(f"{export / name} is a link; an export holds its files itself, so it is not read")


def _copy_all(runs: list[tuple[RunStore, str]], target: RunStore, weights: bool, rewrite: Rewrite) -> Copied:
    new, refused = 0, {}
    for source, run_id in runs:
        try:
            new += _copy(source, run_id, target, weights, rewrite)
        except UnwritableError:
            raise
        except (UserError, RunLocked) as error:
            refused[run_id] = str(error)
    return Copied(new, len(runs), refused)


def _copy(source: RunStore, run_id: str, target: RunStore, weights: bool, rewrite: Rewrite) -> bool:
    """Copies a run, or what the target lacks of it; returns whether the target had nothing of it."""
    if damage := source.damage(run_id, every_file=weights):
        raise UserError(damage[0])
    is_new = not target.is_done(run_id)
    if not is_new:
        _compare(source, run_id, target)
    if not is_new and not _lacking(source, run_id, target):
        return False
    with target.working_on(run_id):
        if is_new:
            target.write(run_id, partial(_fill, source.folder(run_id), weights, rewrite))
        for evaluation, place in _lacking(source, run_id, target).items():
            target.add(run_id, f"evaluations/{evaluation}", partial(_fill_evaluation, place))
        later = source.folder(run_id) / PREDICTIONS
        if is_new and weights and later in source.additions(run_id):
            target.add(run_id, PREDICTIONS, partial(_copy_files, later, list(read_seal(later))))
    return is_new


def _compare(source: RunStore, run_id: str, target: RunStore) -> None:
    """Refuses a run whose scores are others than those of the run of the same id that is there."""
    if damage := target.damage(run_id):
        raise UserError(f"{damage[0]}; 'dmseg runs verify aside=true' sets it aside")
    here, there = target.evaluations(run_id), source.evaluations(run_id)
    for evaluation in sorted(here.keys() & there.keys()):
        if read_cases_file(here[evaluation]) != read_cases_file(there[evaluation]):
            raise UserError(
                f"run {run_id} of {source.results} has other scores (cases.csv) than the run of the same id in "
                f"{target.results}; the latter stays, to replace it remove it first (dmseg runs prune {run_id})"
            )


def _lacking(source: RunStore, run_id: str, target: RunStore) -> dict[str, Path]:
    """Evaluations that the target's run does not have."""
    known = target.evaluations(run_id)
    return {name: place for name, place in source.evaluations(run_id).items() if name not in known}


def _fill(source: Path, weights: bool, rewrite: Rewrite, folder: Path) -> None:
    """Copies a run's own files; its later evaluations have a seal of their own."""
    left_out = () if weights else (WEIGHTS, PREDICTIONS)
    own = [name for name in read_seal(source) if not name.startswith("evaluations/")]
    rewritten = ("config.json", "manifest.json")
    _copy_files(source, [name for name in own if name.split("/")[0] not in (*left_out, *rewritten, DONE)], folder)
    for name in rewritten:
        write_json(folder / name, rewrite(name, read_json(source, name)))


def _fill_evaluation(source: Path, folder: Path) -> None:
    _copy_files(source, ["evaluation.json", "cases.csv"], folder)


def _copy_files(source: Path, names: Iterable[str], folder: Path) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        copy_regular(inside(source, name), folder / name)


def _for_others(name: str, node: dict[str, Any]) -> dict[str, Any]:
    if name == "manifest.json":
        return shareable_manifest(node)
    return node | {"settings": shareable_settings(node["settings"])}


def _marked(name: str, node: dict[str, Any]) -> dict[str, Any]:
    return node | {"imported": True} if name == "manifest.json" else node


def tidy_scores(store: RunStore) -> pd.DataFrame:
    """Per-case scores of all sound runs of a store under their first evaluation, one row a run and case."""
    frames = []
    for run_id in store.run_ids():
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
