"""Free sweeps: ``dmseg train -m``, every combination of values, through Hydra's launchers."""

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dmseg.errors import UserError
from dmseg.experiments.compose import HYDRA_VERSION_BASE, compose_settings
from dmseg.experiments.launch import attempt_with_teachers
from dmseg.experiments.plan import PlannedRun, plan_run
from dmseg.experiments.sources import prepare_task
from dmseg.experiments.store import RunStore
from dmseg.report.observers import talkative
from dmseg.resources import resource
from dmseg.settings import Settings
from dmseg.text import printable, printable_lines

FLAGS = ("-m", "--multirun")


def is_sweep(words: Sequence[str]) -> bool:
    """Whether a sweep is asked for."""
    return any(word in FLAGS for word in words)


def sweep(words: Sequence[str]) -> int:
    """Plans every combination before the first one starts, runs them, and prints overrides, ids and what is done.

    Returns:
        Exit status: 0 if all are done, 1 if one failed.

    Raises:
        UserError: if any combination is wrong.
    """
    overrides = [word for word in words if word not in (*FLAGS, "distill=null")]  # the default, unknown to Hydra
    if any(word.startswith("distill=") and "null" in word for word in overrides):
        raise UserError("a sweep cannot run over distill=null; sweep over the others, and leave distill out for null")
    fixed, combinations = expand(overrides)
    runs = [_plan(compose_settings([*fixed, *combination])) for combination in combinations]
    _print_runs(combinations, runs)
    _run_under_hydra(overrides)
    failed = [run for run in runs if not _is_done(run)]
    for run in failed:
        print(printable(f"dmseg: {run.title} ({run.run_id}) is not done"), file=sys.stderr)
    print(
        f"{len(runs) - len(failed)} of {len(runs)} runs done, in {RunStore(Path(runs[0].settings.paths.results)).runs}"
    )
    return 1 if failed else 0


def expand(overrides: Sequence[str]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Splits overrides into those with one value and all combinations of the others.

    Raises:
        UserError: if an override is malformed.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise UserError(f"{str(error).splitlines()[0]} (in: {' '.join(overrides)})") from None
    fixed = [item.input_line or "" for item in parsed if not item.is_sweep_override()]
    swept = [
        [f"{item.get_key_element()}={value}" for value in item.sweep_string_iterator()]
        for item in parsed
        if item.is_sweep_override()
    ]
    return fixed, list(itertools.product(*swept))


def _run_under_hydra(overrides: Sequence[str]) -> None:
    """Hands the sweep to Hydra, so that its launchers and sweepers work; a failing job does not stop the others."""

    @hydra.main(version_base=HYDRA_VERSION_BASE, config_path=str(resource("configs").absolute()), config_name="config")
    def job(config: DictConfig) -> None:
        run_job(HydraConfig.get().overrides.task)

    before = sys.argv
    sys.argv = ["dmseg train", "--multirun", *overrides]
    try:
        job()
    finally:
        sys.argv = before


def run_job(overrides: Sequence[str]) -> None:
    """One job of a sweep: composed as it was planned, carried out, and reported at once if it fails."""
    outcome = attempt_with_teachers(_plan(compose_settings(list(overrides))), talkative)
    if outcome.error is not None:
        print(
            printable_lines(f"dmseg: {outcome.run.title} ({outcome.run.run_id}) failed: {outcome.error}"),
            file=sys.stderr,
            flush=True,
        )


def _plan(settings: Settings) -> PlannedRun:
    return plan_run(settings, prepare_task(settings.data, settings.paths, settings.task, workers=settings.workers))


def _is_done(run: PlannedRun) -> bool:
    store = RunStore(Path(run.settings.paths.results))
    return store.is_complete(run.run_id, run.evaluation_id, run.settings.evaluate.save_predictions)


def _print_runs(combinations: Sequence[tuple[str, ...]], runs: Sequence[PlannedRun]) -> None:
    shown = Table("overrides", "run id", "experiment", box=None)
    for combination, run in zip(combinations, runs, strict=True):
        shown.add_row(Text(printable(" ".join(combination)) or "(none)"), run.run_id, run.experiment_id)
    Console().print(shown)
