"""The cost of the launcher: runs that train nothing are planned, launched in worker processes and recorded.

A run here does everything that a real one does except for data, network, training and scoring: lease, log, scratch
folder, files, checksums, provenance, rename. Workers are started before the time is measured. Run it with

    python bench/launch.py --workers 2

The goal is at most 30 ms per run.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
from rows import Row, report

from dmseg.config.compose import compose_settings
from dmseg.config.settings import LauncherSettings, Settings
from dmseg.data.folds import fold_count
from dmseg.launch import Outcome, launch
from dmseg.launch.outcome import MakeObservers, try_run
from dmseg.runs.plan import PlannedRun, plan_folds
from dmseg.runs.sources import prepare_task
from dmseg.training.observers import Observer

GOAL_MS = 30.0


def record_nothing(run: PlannedRun, observers: MakeObservers) -> Outcome:
    """Executes a run whose training takes no time."""
    import torch

    from dmseg.runs import execute as module
    from dmseg.runs.seal import write_json
    from dmseg.runs.written import save_weights

    def train_and_score(run: PlannedRun, device: torch.device, *rest: object) -> None:
        folder = rest[-1]
        assert isinstance(folder, Path)
        write_json(folder / "config.json", {"identity": run.identity, "settings": asdict(run.settings)})
        save_weights(folder / "weights.safetensors", torch.nn.Linear(2, 2))
        cases = pd.DataFrame({"case": list(run.split.validation), "dice": 0.5, "bdice": 0.5, "ece": 0.5})
        module._write_evaluation(run, module._Scored(cases, {}, []), folder)
        manifest = {
            "run_id": run.run_id,
            "experiment_id": run.experiment_id,
            "title": run.title,
            "phantom": True,
            "seconds": 0.0,
            "split": {"train": list(run.split.train), "validation": list(run.split.validation)},
        }
        write_json(folder / "manifest.json", manifest)

    module._train_and_score = train_and_score  # type: ignore[assignment]
    return try_run(run, observers)


def unobserved(run: PlannedRun) -> list[Observer]:
    """No observers."""
    return []


def plan(settings: Settings, count: int) -> list[PlannedRun]:
    """Plans this many runs, five folds for each seed."""
    prepared = prepare_task(settings)
    seeds = range(-(-count // fold_count(settings.folds)))
    return [run for seed in seeds for run in plan_folds(replace(settings, seed=seed), prepared)][:count]


def measure(runs: Sequence[PlannedRun], workers: int) -> tuple[float, float]:
    """Seconds until each worker has done a first run, and from then to the end."""
    start = first = time.perf_counter()
    for number, outcome in enumerate(launch(runs, LauncherSettings("local", workers), unobserved, record_nothing), 1):
        assert outcome.kind == "done", outcome.error
        if number == 2 * workers:
            first = time.perf_counter()
    return first - start, time.perf_counter() - first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"paths.{name}='{folder}/{name}'" for name in ("data", "prepared", "results")]
        settings = compose_settings(["data=phantom", "task=kidney-1", "profile=demo", "device=cpu", *paths])
        plan(settings, 1)  # generates the phantom
        start = time.perf_counter()
        runs = plan(settings, arguments.runs + 2 * arguments.workers)
        planned = 1000 * (time.perf_counter() - start) / len(runs)
        start_up, seconds = measure(runs, arguments.workers)
        launched = 1000 * seconds / arguments.runs
    total = planned + launched
    what = f"{arguments.runs} runs, {arguments.workers} workers, {start_up:.1f} s until they have begun"
    report(Row(f"launch: planned, launched and recorded ({what})", total, GOAL_MS, "1 ms per run"))


if __name__ == "__main__":
    main()
