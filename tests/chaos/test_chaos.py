"""Runs that are killed at any moment end in the same numbers, and nothing half-written is ever seen.

``make chaos`` kills more often (CHAOS_KILLS); every kind of victim and of moment comes in turn.
"""

import contextlib
import itertools
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from dmseg.config.compose import compose_settings
from dmseg.config.settings import LauncherSettings
from dmseg.files.regular import checksum
from dmseg.launch import launch
from dmseg.report.run_observers import silent
from dmseg.report.tracking.tracking_plan import Tracking
from dmseg.runs.plan import plan_folds
from dmseg.runs.sources import prepare_task
from dmseg.runs.store import RunStore

HERE = Path(__file__).parent
KILLS = int(os.environ.get("CHAOS_KILLS", "4"))
EPOCHS = 12 if KILLS <= 4 else 300  # long enough for all kills on a fast machine
WORKERS = 2
POINTS = (
    ("before DONE", "after rename of checkpoint"),
    ("within DONE", "before rename of checkpoint"),
    ("before rename of run", "after rename of run"),
)
"""Two moments of writing for each launch; whoever reaches one first dies there."""
TIMED = (("worker", "group"), ("worker", "worker", "parent"))
"""Who is killed at random moments of each launch: a worker, the parent alone, or everybody at once."""


class Launched:
    """The driver as a process group of its own."""

    def __init__(self, runs, marks, points=()):
        self.marks, self.wanted = marks, points
        marks.mkdir()
        listed = marks.with_suffix(".runs")
        listed.write_bytes(pickle.dumps(runs))
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE / "site"), str(HERE.parents[1])]),
            "CHAOS_POINTS": json.dumps(points),
            "CHAOS_MARKS": str(marks),
        }
        command = [sys.executable, str(HERE / "driver.py"), str(listed), str(WORKERS)]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    @property
    def over(self):
        return self.process.poll() is not None

    @property
    def points(self):
        """The points at which a process died."""
        return [path.name for path in self.marks.iterdir()]

    def wait_for_points(self):
        """Waits until a process has died at each of the points."""
        deadline = time.monotonic() + 60
        while len(self.points) < len(self.wanted) and not self.over and time.monotonic() < deadline:
            time.sleep(0.02)

    def finish(self):
        out, err = self.process.communicate(timeout=300)
        return self.process.returncode, out, err

    def kill(self, victim, worker):
        if victim == "group":
            os.killpg(self.process.pid, signal.SIGKILL)
        elif victim == "parent":
            self.process.kill()
        else:
            os.kill(worker, signal.SIGKILL)


class Watcher(threading.Thread):
    """Looks at the store all the time: whatever shows is whole, and what is done stays as it is."""

    def __init__(self, store):
        super().__init__(daemon=True)
        self.store, self.over = store, threading.Event()
        self.problems, self.first_seen = [], {}

    def run(self):
        while not self.over.wait(0.1):
            self.look()

    def look(self):
        for folder in self.store.runs.glob("[!.]*"):
            weights = folder / "weights.safetensors"
            if not (folder / "DONE").is_file():
                self.problems.append(f"{folder.name} shows without DONE")
            elif folder.name not in self.first_seen:
                self.problems += self.store.damage(folder.name, every_file=True)
                self.first_seen[folder.name] = weights.stat().st_ino
            elif weights.stat().st_ino != self.first_seen[folder.name]:
                self.problems.append(f"{folder.name} was trained again")
        for place in self.checkpoints():
            try:
                sums = json.loads((place / "sums.json").read_text())
                wrong = [name for name, known in sums.items() if checksum(place / name) != known]
            except FileNotFoundError:
                continue  # an older one, removed while it was looked at
            self.problems += [f"{place}: {name}" for name in wrong]

    def checkpoints(self):
        with contextlib.suppress(FileNotFoundError):  # a run's last one, removed while they are listed
            return list((self.store.results / "checkpoints").glob("*/[0-9]*"))
        return []

    def end(self):
        self.over.set()
        self.join()
        self.look()


def twelve_runs(small_run):
    """Twelve runs of some dozen steps, a checkpoint every third."""
    mine = [*small_run, "device=cpu", "checkpoint.steps=3", f"train.epochs={EPOCHS}"]
    runs = []
    for label in ("majority", "random", "uniform", "weighted"):
        settings = compose_settings([*mine, f"labels={label}"])
        runs += plan_folds(settings, prepare_task(settings), (0, 1, 2))
    return runs


def moved(run, results):
    """The same run in another results folder."""
    return replace(run, settings=replace(run.settings, paths=replace(run.settings.paths, results=str(results))))


def working(store):
    """Worker processes that hold a lease, and their runs."""
    found = {}
    for path in (store.results / "leases").glob("*.json"):
        try:
            found[json.loads(path.read_text())["pid"]] = path.stem
        except (OSError, ValueError):
            continue
    return {pid: run for pid, run in found.items() if Path(f"/proc/{pid}").exists()}


def kill_at_random(launched, victim, store, rng):
    """Waits until somebody trains, then a random while, and kills; returns whether a checkpoint was there, or None."""
    if victim == "group":
        launched.wait_for_points()
    deadline = time.monotonic() + 120
    while not working(store) and not launched.over and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(rng.uniform(0.0, 1.0))
    workers = working(store)
    if not workers or launched.over:
        return None
    hit = list(workers.values())[: 1 if victim == "worker" else None]
    had = any(list(store.checkpoints(run).glob("[0-9]*")) for run in hit)
    launched.kill(victim, next(iter(workers)))
    return had


def test_killed_runs_end_in_the_same_numbers(small_run, tmp_path):
    rng = random.Random(0)
    planned = twelve_runs(small_run)
    reference, runs = ([moved(run, tmp_path / name) for run in planned] for name in ("reference", "chaos"))
    assert {
        outcome.kind for outcome in launch(reference, LauncherSettings("inline"), partial(silent, tracking=Tracking()))
    } == {"done"}

    store = RunStore(tmp_path / "chaos")
    watcher = Watcher(store)
    watcher.start()
    kills: list[bool] = []
    rounds = zip(itertools.count(), itertools.cycle(POINTS), itertools.cycle(TIMED), strict=False)
    for number, points, victims in rounds:
        if len(kills) >= KILLS or number > KILLS:
            break
        launched = Launched(runs, tmp_path / f"marks-{number}", points)
        kills += [had for victim in victims if (had := kill_at_random(launched, victim, store, rng)) is not None]
        launched.finish()
        kills += ["checkpoint" in point or "DONE" in point for point in launched.points]
    status, out, err = Launched(runs, tmp_path / "marks-last").finish()
    watcher.end()
    print(f"{len(kills)} kills, {sum(kills)} of them of runs with a checkpoint")
    assert status == 0, out + err
    assert watcher.problems == []
    assert len(kills) >= KILLS
    undisturbed = RunStore(tmp_path / "reference")
    for one, other in zip(reference, runs, strict=True):
        for name in ("cases.csv", "weights.safetensors", "history.csv"):
            assert (undisturbed.folder(one.run_id) / name).read_bytes() == (
                store.folder(other.run_id) / name
            ).read_bytes(), f"{other.title}: {name}"
    manifests = [store.read_json(run.run_id, "manifest.json") for run in runs]
    assert any(len(manifest["sessions"]) > 1 for manifest in manifests), "nothing went on from a checkpoint"
    assert not any((tmp_path / "chaos" / "checkpoints").glob("*"))
    assert not any((tmp_path / "chaos" / "leases").glob("*.json"))
    assert not any(store.runs.glob(".*"))
