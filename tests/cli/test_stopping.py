"""Signals at any moment of a command: what is kept, what is said, and that the same command ends in equal numbers."""

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dmseg.cli.main import main
from dmseg.errors import UserError
from dmseg.runs import stopping
from dmseg.runs.store import RunStore

FILES = ("weights.safetensors", "cases.csv", "history.csv")
KD = ["distill=kd", "distill.teacher.model=unet_tiny", "distill.kde=null", "model=unet_slim", "model.weights=null"]


def at_call(monkeypatch, name, numbers, nth=1):
    """Sends signals to this very process when a function is called for the nth time."""
    module, _, attribute = name.rpartition(".")
    original, calls = getattr(importlib.import_module(module), attribute), []

    def signalled(*arguments, **options):
        calls.append(1)
        if len(calls) == nth:
            for number in numbers:
                os.kill(os.getpid(), number)
                time.sleep(0.01)  # also where this is a thread, the main one hears it
        return original(*arguments, **options)

    monkeypatch.setattr(name, signalled)
    return calls


def content(results):
    store = RunStore(Path(results))
    return {run: [(store.folder(run) / name).read_bytes() for name in FILES] for run in store.run_ids()}


def checkpoints(results):
    return sorted(path.name for path in (Path(results) / "checkpoints").glob("*/[0-9]*"))


MOMENTS = {
    "composing": ("dmseg.cli.commands.compose_settings", 1, []),
    "preparing": ("dmseg.data.prepared.write_part", 5, []),
    "before the first step": ("dmseg.runs.execute.load_training", 1, ["000000001"]),
    "in a step": ("dmseg.training.fit._take", 2, ["000000002"]),
    "in the last step": ("dmseg.training.fit._take", 4, ["000000004-finished"]),
    "scoring": ("dmseg.training.evaluate._score", 2, ["000000004-finished"]),
}
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _hangups_are_heard():
    """Also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("moment", "number"), list(zip(MOMENTS, 2 * NUMBERS, strict=True)))
def test_a_training_that_a_signal_stops_ends_as_an_undisturbed_one(
    moment, number, small_run, tmp_path, monkeypatch, capfd, caplog
):
    name, nth, kept = MOMENTS[moment]
    words = ["train", *small_run, "device=cpu", "workers=2"]
    handlers = [signal.getsignal(item) for item in NUMBERS]
    with monkeypatch.context() as patch:
        at_call(patch, name, [number], nth)
        assert main(words) == 128 + number
    assert [signal.getsignal(item) for item in NUMBERS] == handlers
    said = capfd.readouterr().err
    assert said.count("dmseg: ") == said.count(f"dmseg: stopped by {number.name}: ") == 1
    assert "kept" in said
    assert "run the same command to resume" in said
    assert "Traceback" not in said
    assert checkpoints(tmp_path / "results") == kept
    assert not list(tmp_path.glob("results/leases/*.json"))
    if moment == "preparing":
        assert len(list(tmp_path.glob("prepared/**/case.json"))) >= 4, "parts that were whole are kept"
    if kept:
        assert main(["runs", "list", "status=interrupted", f"paths.results={tmp_path / 'results'}"]) == 0
        done = int(kept[0][:9])
        where = "trained, not scored" if kept[0].endswith("-finished") else f"kept after {done} steps"
        assert f"lidc/nodule majority unet_tiny fold 0 ({where})" in capfd.readouterr().out
    steps = at_call(monkeypatch, "dmseg.training.fit._take", [])
    assert main(words) == 0
    resumed = {"": "", "-": "is trained already; scoring it"}.get(kept[0][9:10] if kept else "", "")
    if kept and not resumed:
        resumed = f"training resumes after step {done} of 4"
    assert resumed in caplog.text
    assert len(steps) == 4 - (int(kept[0][:9]) if kept else 0), "no step was taken twice"
    assert checkpoints(tmp_path / "results") == []
    assert main([*words, f"paths.results='{tmp_path / 'undisturbed'}'"]) == 0
    assert content(tmp_path / "results") == content(tmp_path / "undisturbed") != {}


@pytest.mark.parametrize("error", [UserError("sections are not closed"), AttributeError("sections are not closed")])
def test_an_error_of_a_library_that_an_interrupt_causes_is_not_reported(error, small_run, monkeypatch, capfd):
    """OmegaConf raises errors of its own while it leaves a block that was interrupted."""

    def compose(words):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            raise error

    monkeypatch.setattr("dmseg.cli.commands.compose_settings", compose)
    assert main(["train", *small_run]) == 143
    said = capfd.readouterr().err
    assert said.startswith("dmseg: stopped by SIGTERM: what is finished is kept")
    assert "sections" not in said


@pytest.mark.parametrize("command", ["train", "cv"])
def test_teachers_on_the_way_are_stopped_too(command, small_run, tmp_path, monkeypatch, capfd):
    words = [command, *(word for word in small_run if not word.startswith("model=")), *KD, "device=cpu"]
    steps = at_call(monkeypatch, "dmseg.training.fit._take", [signal.SIGTERM], nth=3)
    assert main(words) == 143
    assert len(steps) == 3
    assert checkpoints(tmp_path / "results") == ["000000003"]
    said = capfd.readouterr()
    assert said.out == "", "no scores, and nothing that cannot be read"
    assert said.err.splitlines()[-1].startswith("dmseg: stopped by SIGTERM: 0 of")


def test_no_run_begins_once_a_signal_came(small_run, tmp_path, monkeypatch):
    scored = at_call(monkeypatch, "dmseg.training.evaluate._score", [signal.SIGINT], nth=4)
    assert main(["cv", *small_run, "train.epochs=1", "evaluate.batch_size=2"]) == 130
    assert len(scored) == 4
    assert len(RunStore(tmp_path / "results").run_ids()) == 1
    assert checkpoints(tmp_path / "results") == ["000000002-finished"]


def test_a_table_that_is_stopped_is_not_written(small_run, tmp_path, monkeypatch):
    at_call(monkeypatch, "dmseg.training.fit._take", [signal.SIGTERM])
    assert main(["reproduce", "table=2", *small_run]) == 143
    assert not (tmp_path / "results/tables").exists()


@pytest.mark.parametrize("number", NUMBERS)
def test_a_second_signal_interrupts_at_once_and_the_last_checkpoint_stays(
    number, small_run, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(stopping, "DOUBLE", 0.0)
    steps = at_call(monkeypatch, "dmseg.training.fit._take", [number, number], nth=3)
    assert main(["train", *small_run, "checkpoint.steps=1"]) == 128 + number
    assert len(steps) == 3
    assert checkpoints(tmp_path / "results") == ["000000002"], "the third step is not waited for"
    said = capfd.readouterr().err
    assert said.splitlines()[-1].startswith(f"dmseg: stopped by {number.name}: ")
    assert "Traceback" not in said
    assert not list(tmp_path.glob("results/leases/*.json"))


def test_a_signal_that_is_sent_twice_counts_once(small_run, tmp_path, monkeypatch):
    """As ``timeout`` does: to the process, and to its group."""
    at_call(monkeypatch, "dmseg.training.fit._take", [signal.SIGTERM, signal.SIGTERM], nth=3)
    assert main(["train", *small_run]) == 143
    assert checkpoints(tmp_path / "results") == ["000000003"]


def test_a_reader_that_is_gone_does_not_keep_the_state_from_being_kept(small_run, tmp_path, monkeypatch):
    """Ctrl-C ends ``dmseg train 2>&1 | tee log`` as a whole: the next word cannot be written."""

    def gone(*arguments):
        raise BrokenPipeError

    at_call(monkeypatch, "dmseg.training.fit._take", [signal.SIGINT], nth=2)  # the last one of an epoch
    for method in ("stepped", "epoch_ended", "ended"):
        monkeypatch.setattr(f"dmseg.report.run_observers.RunProgress.{method}", gone)
    monkeypatch.setattr("dmseg.report.run_observers.RunProgress.stepped", lambda *arguments: None)
    assert main(["train", *small_run]) == 130
    assert checkpoints(tmp_path / "results") == ["000000002"]


def dmseg(*words, **options):
    """The command as a process group of its own, whatever this one ignores."""
    return subprocess.Popen(
        [sys.executable, "-m", "dmseg", *words], stderr=subprocess.PIPE, text=True, start_new_session=True, **options
    )


def wait_for(what, process, seconds=120):
    end = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)


def imports_torch(process):
    try:
        return "libtorch" in Path(f"/proc/{process.pid}/maps").read_text()
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_signal_while_torch_is_imported(small_run):
    assert main(["prepare", *small_run]) == 0
    with dmseg("train", *small_run) as process:
        wait_for(lambda: imports_torch(process), process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("dmseg: stopped by SIGINT: 0 of 1 runs done")
    assert "Traceback" not in said


def test_under_nohup_a_hangup_stays_ignored(small_run, monkeypatch, tmp_path):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    at_call(monkeypatch, "dmseg.training.fit._take", [signal.SIGHUP])
    assert main(["train", *small_run, "train.epochs=1"]) == 0
    assert len(RunStore(tmp_path / "results").run_ids()) == 1
