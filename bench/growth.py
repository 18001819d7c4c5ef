"""How time and memory grow: with cases, pixels, raters and runs, at 1, 4 and 16 times the size.

Run ``python bench/growth.py [--runs N] [--picture FILE.svg]``. Each size is measured in a process of its own: processor
seconds of the work alone, after a first call that does not count, and the most memory of the process, of which some
hundred MiB are libraries. A row is the time at 16 times the size over 16 times the time at 1: 1.1 or less is not worse
than linear. ``--runs`` also times commands in a store of that many runs.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from made_up import store_made_up
from rows import Row, report

from dmseg.cli.tables import plan_all, split_tables
from dmseg.config.compose import compose_settings
from dmseg.runs.plan import PlannedRun, distinct, plan_run
from dmseg.runs.sources import open_adapter, prepare_task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZES = (1, 4, 16)
GOAL = 1.1
QUADRATIC = 16 * GOAL
"""Goal for work that is quadratic by its nature: pairs of raters."""
ROUNDS = 3
ALL_DATA = "data=phantom,phantom_lits,phantom_kits"
Work = Callable[[], object]


def words(folder: str, *more: str, results: str = "") -> list[str]:
    """Overrides that keep everything in one folder, or the results in another."""
    places = {"data": folder, "prepared": folder, "results": results or folder}
    return [*(f"paths.{name}='{place}/{name}'" for name, place in places.items()), "device=cpu", *more]


def settings_of(folder: str, kind: str, size: int) -> Any:  # noqa: ANN401
    """Settings of a run with that many times 20 cases, or 32 x 32 pixels."""
    shape = {"cases": (20 * size, 32), "pixels": (20, 32 * round(size**0.5))}
    cases, edge = shape[kind]
    counts = f"data.phantom.cases={{kidney:{cases}}}"
    given = (counts, "data.cases=all", f"data.size={edge}", "data.phantom.scale=0.25", "threads=1", "workers=1")
    own = ("data=phantom", "task=kidney-1", "profile=demo", "train.epochs=2", "train.min_steps=0", "folds.count=2")
    return compose_settings(words(folder, *own, *given))


def prepare(folder: str, kind: str, size: int) -> Work:
    """Raw files to a prepared store."""
    settings = settings_of(folder, kind, size)
    open_adapter(settings.data)  # makes the phantom
    number = count()

    def work() -> None:
        paths = replace(settings.paths, prepared=f"{folder}/prepared-{next(number)}")
        prepare_task(settings.data, paths, settings.task)

    return work


def train(folder: str, kind: str, size: int, score_only: bool = False) -> Work:
    """A run from its first step to its scores; with `score_only` only another evaluation of it."""
    from dmseg.runs.execute import execute

    settings = settings_of(folder, kind, size)
    prepared, number = prepare_task(settings.data, settings.paths, settings.task), count()
    if score_only:
        execute(plan_run(settings, prepared))
        bins = count(5)
        return lambda: execute(
            plan_run(replace(settings, evaluate=replace(settings.evaluate, bins=next(bins))), prepared)
        )
    return lambda: execute(plan_run(replace(settings, seed=next(number)), prepared))


def evaluate(folder: str, kind: str, size: int) -> Work:
    """Another evaluation of a trained run."""
    return train(folder, kind, size, score_only=True)


def raters(folder: str, name: str, size: int) -> Work:
    """Fusion, counts or the energy distance of a case of 16 x 128 x 128 with 2 raters, or so many times more."""
    from dmseg.labels.fusion import staple, uniform
    from dmseg.metrics.counting import count_stored
    from dmseg.metrics.ged import generalised_energy_distance

    rng = np.random.default_rng(0)
    masks = (rng.random((2 * size, 16, 128, 128)) < 0.4) & (rng.random((16, 128, 128)) < 0.5)
    p, reference = rng.random((16, 128, 128), dtype=np.float32), masks.mean(axis=0).astype(np.float32)
    work: dict[str, Callable[[], object]] = {
        "uniform": lambda: uniform(masks.astype(np.uint8)),
        "staple": lambda: staple(masks.astype(np.uint8)),
        "counts": lambda: count_stored(p, masks, reference),
        "ged": lambda: generalised_energy_distance(masks, masks),
    }
    return work[name]


def table(folder: str, step: str, size: int) -> Work:
    """Planning, reading or computing table 7 with so many seeds, 50 runs each."""
    from dmseg.runs.inventory import entries
    from dmseg.runs.store import RunStore
    from dmseg.tables.collected import collect_cases
    from dmseg.tables.numbers import comparison_cells

    shared = os.environ.get(SHARED, folder)
    specs, rest = split_tables(["table=7", ALL_DATA, *PAPER, *words(shared, results=folder)])
    seeds = list(range(size))
    planned = plan_all(specs, rest, seeds=seeds)["7"]
    if step != "plan":
        store_made_up(distinct(planned.runs))
    if step == "cells":
        cases = collect_cases(planned)
        return lambda: comparison_cells(planned, cases)
    work: dict[str, Callable[[], object]] = {
        "plan": lambda: plan_all(specs, rest, seeds=seeds),
        "collect": lambda: collect_cases(planned),
        "list": lambda: entries([RunStore(Path(folder) / "results")]),
    }
    return work[step]


SHARED = "DMSEG_BENCH_FOLDER"
"""Variable of the environment that names a folder with the data of all tables."""
PAPER = ("profile=paper", "data.phantom.scale=0.15", "data.size=32")

WORKS: dict[str, tuple[Callable[[str, str, int], Work], str, float]] = {
    "prepare, by cases": (prepare, "cases", GOAL),
    "prepare, by pixels": (prepare, "pixels", GOAL),
    "train and score, by cases": (train, "cases", GOAL),
    "train and score, by pixels": (train, "pixels", GOAL),
    "score, by cases": (evaluate, "cases", GOAL),
    "score, by pixels": (evaluate, "pixels", GOAL),
    "uniform labels, by raters": (raters, "uniform", GOAL),
    "STAPLE, by raters": (raters, "staple", QUADRATIC),
    "counts of a case, by raters": (raters, "counts", QUADRATIC),
    "GED, by raters": (raters, "ged", QUADRATIC),
    "plan a table, by runs": (table, "plan", GOAL),
    "read its scores, by runs": (table, "collect", GOAL),
    "compute its cells, by runs": (table, "cells", GOAL),
    "list runs, by runs": (table, "list", GOAL),
}


def measure_here(name: str, size: int) -> None:
    """Prints the least processor seconds of some work, and the most memory of this process in MiB."""
    make, what, _ = WORKS[name]
    with tempfile.TemporaryDirectory() as folder:
        work, found = make(folder, what, size), []
        for _ in range(ROUNDS + 1):
            start = time.process_time()
            work()
            found.append(time.process_time() - start)
    print(json.dumps([min(found[1:]), peak_memory()]))


def peak_memory() -> float:
    """The most memory that this process has held, in MiB; `getrusage` would count that of the process before it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def child(*arguments: str) -> str:
    """Output of this file in a new process."""
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout


def measure(names: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    """Seconds and memory of each kind of work, by size."""
    return {name: [tuple(json.loads(child("--one", name, str(size)))) for size in SIZES] for name in names}


def seconds(*command: str) -> float:
    """The least processor seconds of a new process, after a first that compiles modules as an installation does."""
    environment, nowhere = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}, subprocess.DEVNULL

    def one() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], check=True, env=environment, stdout=nowhere, stderr=nowhere)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    one()
    return min(one() for _ in range(ROUNDS))


def until_first_step(arguments: Sequence[str]) -> None:
    """Trains until the first step is over, then ends the process."""
    from dmseg.cli.main import main as dmseg
    from dmseg.training.observers import Observers

    Observers.stepped = lambda self, step: os._exit(0)  # type: ignore[method-assign]
    dmseg(["train", *arguments])


def report_commands(runs: int, shared: str) -> None:
    """Rows of commands: the first step of a training, tables of a full store, and the start in a large store."""
    bare = seconds("-c", "import torch, segmentation_models_pytorch")
    with tempfile.TemporaryDirectory() as folder:
        own = words(folder, "data=phantom", "task=kidney-1", "profile=demo", "data.phantom.scale=0.25")
        subprocess.run([sys.executable, "-m", "dmseg", "prepare", *own], check=True, capture_output=True)
        first = seconds(__file__, "--first-step", *own)
    report(Row("growth: first step of dmseg train, seconds beyond the imports", first - bare, 2, f"{bare:.1f} s"))
    with tempfile.TemporaryDirectory() as folder:
        rest = [ALL_DATA, *PAPER, *words(shared, results=folder)]
        plans = plan_all(*split_tables(["tables=all", *rest]))
        all_runs = distinct(run for planned in plans.values() for run in planned.runs)
        store_made_up(all_runs)
        found = seconds("-m", "dmseg", "table", "tables=all", *rest)
        report(Row(f"growth: eight tables of {len(all_runs)} runs, seconds", found, 3, "no peer"))
    if runs:
        report_large_store(runs)


def report_large_store(runs: int) -> None:
    """Rows of commands in a store of that many runs, as ratios to a store of 5."""
    from dmseg.runs.plan import plan_folds

    with tempfile.TemporaryDirectory() as folder:
        own = words(folder, "data=phantom", "task=kidney-1", "profile=demo", "data.phantom.scale=0.25")
        settings = compose_settings(own)
        prepared = prepare_task(settings.data, settings.paths, settings.task)
        found = []
        for seeds in (range(1), range(1, -(-runs // 5))):
            planned: list[PlannedRun] = [
                run for seed in seeds for run in plan_folds(replace(settings, seed=seed), prepared)
            ]
            store_made_up(planned)
            list_runs = seconds("-m", "dmseg", "runs", "list", words(folder)[2])
            found.append((seconds("-m", "dmseg", "train", *own), list_runs))
    (train_few, list_few), (train_many, list_many) = found
    report(Row(f"growth: dmseg train of a stored run among {runs}", train_many / train_few, GOAL, "among 5"))
    report(Row(f"growth: dmseg runs list, ms a run of {runs}", 1000 * (list_many - list_few) / runs, 5, "no peer"))


def draw(found: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """Time and memory of all work by size, relative to the smallest, with the line of linear growth."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "dmseg", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    kinds = ("cases", "pixels", "raters", "runs")
    figure, axes = plt.subplots(2, 4, figsize=(11, 5.6), sharex=True, sharey="row", layout="constrained")
    for column, kind in enumerate(kinds):
        names = [name for name in found if name.endswith(f"by {kind}")]
        for row, title in enumerate(("time", "peak memory")):
            panel: Axes = axes[row, column]
            panel.plot(SIZES, SIZES, color="0.6", linestyle="--", linewidth=1, label="linear")
            for index, (name, marker) in enumerate(zip(names, "osD^", strict=False)):
                values = [size[row] / found[name][0][row] for size in found[name]]
                panel.plot(
                    SIZES, values, f"{marker}-", color=f"C{index}", markersize=4, label=name.partition(", by")[0]
                )
            panel.set(xscale="log", xticks=SIZES, xticklabels=[f"x{size}" for size in SIZES])
            panel.set_yscale("log", base=4)
            panel.yaxis.set_major_formatter("x{x:g}")
            panel.minorticks_off()
            if row == 0:
                panel.set_title(f"by {kind}")
                panel.legend(frameon=False, fontsize=7.5, loc="upper left")
            if column == 0:
                panel.set_ylabel(title)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        measure_here(sys.argv[2], int(sys.argv[3]))
        return
    if sys.argv[1:2] == ["--first-step"]:
        until_first_step(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as shared:
        os.environ[SHARED] = shared
        plan_all(*split_tables(["tables=all", ALL_DATA, *PAPER, *words(shared)]))  # makes the data
        _report(arguments, shared)


def _report(arguments: argparse.Namespace, shared: str) -> None:
    found = measure(list(WORKS))
    for name, sizes in found.items():
        (least, least_peak), *_, (most, most_peak) = sizes
        report(Row(f"growth: {name}, x16", most / least / SIZES[-1], WORKS[name][2], "16 times the time at x1"))
        print(f"  {least:.3f} to {most:.3f} s, {least_peak:.0f} to {most_peak:.0f} MiB")
    report_commands(arguments.runs, shared)
    if arguments.picture is not None:
        draw(found, arguments.picture)


if __name__ == "__main__":
    main()
