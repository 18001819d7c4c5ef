"""Signals to whole groups of processes, as a terminal and a job scheduler send them, at random moments."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dmseg.runs.store import RunStore

KILLS = int(os.environ.get("CHAOS_KILLS", "4"))
EPOCHS = 40 if KILLS <= 4 else 150
FILES = ("weights.safetensors", "cases.csv", "history.csv")
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Command:
    """The command in a group of its own, what it says in a file: who reads it need not wait for its helpers."""

    def __init__(self, words, said):
        self.said = said
        with said.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dmseg", *words], stdout=file, stderr=file, start_new_session=True
            )

    def send(self, number, group=True):
        (os.killpg if group else os.kill)(self.process.pid, number)

    def end(self):
        return self.process.wait(120), self.said.read_text()


@pytest.fixture(autouse=True)
def _hangups_are_heard():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def wait_for(what, command):
    end = time.monotonic() + 120
    while not what() and command.process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)


def content(results):
    store = RunStore(results)
    return {run: [(store.folder(run) / name).read_bytes() for name in FILES] for run in store.run_ids()}


def test_a_cross_validation_in_workers_survives_any_signal(small_run, tmp_path):
    """To the group or to the parent alone, from the import of torch to the last score."""
    rng = random.Random(1)
    results, other = tmp_path / "results", tmp_path / "undisturbed"
    words = ["cv", *small_run, "device=cpu", f"train.epochs={EPOCHS}", "checkpoint.minutes=null", "workers=2"]
    kept = 0
    for number in range(KILLS):
        command = Command(words, tmp_path / f"said-{number}")
        if number % 2:
            wait_for(lambda: list(results.glob("leases/*.json")), command)
        time.sleep(rng.uniform(0.5, 2.0))
        if command.process.poll() is not None:
            break
        name = NUMBERS[number % 3]
        command.send(name, group=number % 4 != 2)
        status, said = command.end()
        print(number, name.name, status, said.splitlines()[-1])
        assert status == 128 + name or (status == 0 and name.name not in said)
        assert "Traceback" not in said
        assert said.count("dmseg: ") == 1
        assert not list(results.glob("leases/*.json"))
        kept += len(list(results.glob("checkpoints/*/*")))
    assert kept, "no signal met a training"
    status, said = Command(words, tmp_path / "said-last").end()
    assert status == 0, said
    status, said = Command([*words[:-1], "workers=1", f"paths.results='{other}'"], tmp_path / "said-whole").end()
    assert status == 0, said
    assert content(results) == content(other)
    assert len(content(results)) == 5


@pytest.mark.parametrize("name", [signal.SIGTERM] if KILLS <= 4 else [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_workers_at_once(small_run, tmp_path, name):
    words = ["cv", *small_run, "train.epochs=100000", "checkpoint.steps=20", "workers=2"]
    command = Command(words, tmp_path / "said")

    def runs_with_checkpoint():
        return {path.parent for path in (tmp_path / "results").glob("checkpoints/*/0*")}

    wait_for(lambda: len(runs_with_checkpoint()) >= 2, command)
    command.send(name)
    time.sleep(0.3)
    command.send(name)
    status, said = command.end()
    assert status == 128 + name
    assert "Traceback" not in said
    assert said.count("dmseg: ") == 1
    assert len(runs_with_checkpoint()) >= 2


def test_a_signal_to_prepare_keeps_whole_cases(small_run, tmp_path):
    words = ["prepare", *(word for word in small_run if not word.startswith("data.size")), "data.size=2048"]
    command = Command(words, tmp_path / "said")
    parts = tmp_path / "prepared" / "lidc"
    wait_for(lambda: list(parts.glob(".*/*/case.json")), command)
    command.send(signal.SIGTERM)
    status, said = command.end()
    assert status == 143, said
    assert "dmseg: stopped by SIGTERM: what is finished is kept" in said
    assert "Traceback" not in said
    whole = {path: path.stat().st_mtime_ns for path in parts.glob(".*/*/case.json")}
    assert 0 < len(whole) < 12
    command = Command(words, tmp_path / "said-again")
    status, said = command.end()
    assert status == 0, said
    assert "12 cases" in said


@pytest.mark.skipif(KILLS <= 4, reason="make chaos runs it")
def test_under_nohup_a_closed_terminal_stops_nothing(small_run, tmp_path):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    command = Command(["cv", *small_run, "workers=2"], tmp_path / "said")
    wait_for(lambda: list((tmp_path / "results").glob("leases/*.json")), command)
    command.send(signal.SIGHUP)
    status, said = command.end()
    assert status == 0, said
    assert len(RunStore(Path(tmp_path / "results")).run_ids()) == 5
