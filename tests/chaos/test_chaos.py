"""Runs that are killed at any moment end in the same numbers, and nothing half-written is ever seen.

``make chaos`` kills more often (CHAOS_KILLS); every kind of victim and of moment comes in turn.
"""

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from driver import plan

from dmseg.experiments.launch import launch
from dmseg.experiments.store import RunStore
from dmseg.files import checksum
from dmseg.report.observers import quiet
from dmseg.settings import LauncherSettings

HERE = Path(__file__).parent
KILLS = int(os.environ.get("CHAOS_KILLS", "4"))
EPOCHS = 20 if KILLS <= 4 else 150
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

    def __init__(self, listed, marks, points=()):
        self.marks = marks
        marks.mkdir()
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


def listed_runs(small_run, tmp_path, results):
    """Twelve runs of some forty steps, a checkpoint every fifth."""
    common = [
        *small_run,
        f"paths.results='{tmp_path / results}'",
        "device=cpu",
        "checkpoint.steps=5",
        f"train.epochs={EPOCHS}",
    ]
    labels, folds = ("majority", "random", "uniform", "weighted"), (0, 1, 2)
    listed = [[*common, f"labels={label}", f"fold={fold}"] for label, fold in itertools.product(labels, folds)]
    path = tmp_path / f"{results}.json"
    path.write_text(json.dumps(listed))
    return path, plan(listed)


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
    _, reference = listed_runs(small_run, tmp_path, "reference")
    assert {outcome.kind for outcome in launch(reference, LauncherSettings("inline"), quiet)} == {"done"}

    chaos_list, runs = listed_runs(small_run, tmp_path, "chaos")
    store = RunStore(tmp_path / "chaos")
    watcher = Watcher(store)
    watcher.start()
    kills: list[bool] = []
    rounds = zip(itertools.count(), itertools.cycle(POINTS), itertools.cycle(TIMED), strict=False)
    for number, points, victims in rounds:
        if len(kills) >= KILLS or number > KILLS:
            break
        launched = Launched(chaos_list, tmp_path / f"marks-{number}", points)
        kills += [had for victim in victims if (had := kill_at_random(launched, victim, store, rng)) is not None]
        launched.finish()
        kills += ["checkpoint" in point or "DONE" in point for point in launched.points]
    status, out, err = Launched(chaos_list, tmp_path / "marks-last").finish()
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
