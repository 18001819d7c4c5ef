"""A network or a server that fails never changes or stops a training, and costs it no more than two seconds."""

import base64
import signal
import socket
import subprocess
import time

import numpy as np
import pytest
from fake_wandb import FakeServer
from wandb_reader import WandbRecord

from dmseg.cli.main import main
from dmseg.report.tracking import wandb_online, wandb_sender
from dmseg.report.tracking.tracker import RunMetadata
from dmseg.report.tracking.wandb_files import WandbFile, files_of
from dmseg.report.tracking.wandb_online import WandbOnline
from dmseg.runs.store import RunStore

pytest.importorskip("wandb")

MOST_SECONDS = 2.0
RUN = RunMetadata("0123456789abcdef", "a run", "a group", "train", ("a",), None, {"fold": 0})


@pytest.fixture
def server(monkeypatch):
    """Starts a server that wandb then uses; a test may start several."""
    started = []

    def start(**options):
        started.append(FakeServer(**options))
        monkeypatch.setenv("WANDB_BASE_URL", started[-1].url)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        return started[-1]

    monkeypatch.setattr(WandbOnline, "gave_up", False)
    yield start
    for item in started:
        item.close()


def record(results, event=lambda: None, steps=3):
    """Records a short run, in the middle of which something happens.

    Returns:
        The tracker, and the seconds that the recording took beyond those of the offline mode.
    """
    tracker, file = WandbOnline(WandbFile(results, "dmseg", None)), WandbFile(results / "plain", "dmseg", None)
    seconds = []
    for used in (file, tracker):
        start = time.monotonic()
        used.begin(RUN)
        for step in range(1, steps + 1):
            used.log(step, {"epoch": step, "train/loss": 1 / step})
            if used is tracker and step == 1:
                event()
        used.end(finished=True)
        seconds.append(time.monotonic() - start)
    return tracker, seconds[1] - seconds[0]


def test_a_run_is_sent_whole_under_its_own_id(server, tmp_path, monkeypatch):
    for name, value in {"RUN_ID": "stolen", "RESUME": "must", "NAME": "other", "RUN_GROUP": "g"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    there = server()
    record(tmp_path)
    assert wandb_sender.wait_until_sent(files_of(tmp_path, RUN.id)) is None
    assert {upsert["name"] for upsert in there.upserts} == {RUN.id}
    first = there.upserts[0]
    assert (first["displayName"], first["groupName"], first["jobType"]) == (RUN.name, RUN.group, RUN.job_type)
    assert [row["train/loss"] for _, row in sorted(there.history[RUN.id].items())] == [1, 1 / 2, 1 / 3]


@pytest.mark.parametrize("hangs", [False, True])
def test_a_server_that_dies_costs_at_most_two_seconds(hangs, server, tmp_path, caplog):
    tracker, lost = record(tmp_path, server(hangs=hangs).die)
    assert not tracker.delivered
    assert lost < MOST_SECONDS
    assert len([item for item in caplog.records if "dmseg track tracker=online" in item.message]) == 1
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert list(WandbRecord(path).column("train/loss").values()) == [1, 1 / 2, 1 / 3]
    start = time.monotonic()
    record(tmp_path)
    assert time.monotonic() - start < MOST_SECONDS, "a second run does not try again"
    assert len([item for item in caplog.records if "dmseg track" in item.message]) == 1


def test_a_training_gives_the_same_numbers_when_the_server_dies(server, small_run, tmp_path, caplog):
    weights = []
    for name, tracker in (("plain", "disabled"), ("online", "online")):
        if tracker == "online":
            server(survives=2)  # the command and the beginning of the run ask it once each
        words = [word for word in small_run if not word.startswith("paths.results")]
        assert main(["train", *words, f"paths.results='{tmp_path / name}'", f"tracker={tracker}"]) == 0
        store = RunStore(tmp_path / name)
        (run_id,) = store.run_ids()
        weights.append((run_id, store.load_weights(run_id)))
    assert weights[0][0] == weights[1][0]
    for key, value in weights[0][1].items():
        np.testing.assert_array_equal(value, weights[1][1][key])
    assert sum("dmseg track tracker=online" in item.message for item in caplog.records) == 1


def test_a_record_is_delivered_once_wandb_has_marked_it_and_is_not_sent_after_a_failure(server, monkeypatch, tmp_path):
    there, sending = server(), []

    class NotSent:
        folder = tmp_path

        def begin(self, metadata):
            """Opens no file."""

        def end(self, finished):
            """Closes none."""

    class Sending:
        def __init__(self, folder, environment):
            sending.append(folder)

        def finish(self):
            """There is no fault."""

    monkeypatch.setattr(wandb_online, "Sender", Sending)
    for sent in (False, True):
        if sent:
            (tmp_path / "run.wandb.synced").touch()
        tracker = WandbOnline(NotSent())
        tracker.begin(RUN)
        tracker.end(finished=True)
        assert tracker.delivered == sent
    assert sending == [tmp_path] * 2
    asked = len(there.asked)
    wandb_online.give_up("why")
    tracker.begin(RUN)
    tracker.end(finished=True)
    assert not tracker.delivered
    assert (len(sending), len(there.asked)) == (2, asked)


def test_faults_of_the_connection_are_named_in_time(monkeypatch, tmp_path):
    silent = socket.create_server(("127.0.0.1", 0))  # accepts, but never answers
    closed = socket.create_server(("127.0.0.1", 0))
    address = closed.getsockname()
    closed.close()
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    assert "wandb login" in wandb_sender.connection_fault()
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    for port in (silent.getsockname()[1], address[1]):
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        start = time.monotonic()
        assert "cannot be reached" in wandb_sender.connection_fault()
        assert time.monotonic() - start < 1.2
    silent.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, None),
        ({"status": 401}, "does not accept the login"),
        ({"status": 403}, "does not accept the login"),
        ({"status": 502}, "answers with an error (502)"),
        ({"knows": False}, "does not know the login"),
    ],
)
def test_the_answers_of_a_server_are_told_apart(options, said, server):
    there = server(**options)
    fault = wandb_sender.connection_fault(5.0)
    assert fault is None if said is None else fault.startswith(there.url) and said in fault


def test_address_and_login_are_those_of_wandbs_own_files(server, monkeypatch, tmp_path):
    there = server()
    for name in ("WANDB_BASE_URL", "WANDB_API_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert wandb_sender.server() == "https://api.wandb.ai"
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "settings").write_text(f"[default]\nbase_url = {there.url}/\n")
    assert "wandb login" in wandb_sender.connection_fault(5.0)
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1\n  login user\n  password {'b' * 40}\n")
    assert wandb_sender.connection_fault(5.0) is None
    assert there.keys[-1] == "Basic " + base64.b64encode(b"api:" + b"b" * 40).decode()


def test_waiting_for_the_rest_ends_when_a_server_is_too_slow(server, monkeypatch, tmp_path):
    there = server()
    monkeypatch.setattr(wandb_sender, "LONGEST_WAIT", 0.1)
    assert wandb_sender.wait_until_sent([tmp_path]) == f"sending to {there.url} takes too long"
    (tmp_path / "run.wandb.synced").touch()
    assert wandb_sender.wait_until_sent([tmp_path]) is None


@pytest.mark.parametrize("closed", [False, True])
def test_a_file_whose_writer_has_died_is_given_up_later_if_it_was_closed(closed, monkeypatch, tmp_path):
    monkeypatch.setattr(wandb_sender, "_command", lambda folders, live: ["sleep", "60"])
    monkeypatch.setattr(wandb_sender, "ORPHAN_SECONDS", 0.0)
    monkeypatch.setattr(wandb_sender, "CLOSED_SECONDS", 1.0)
    if closed:
        (tmp_path / wandb_sender.CLOSED).touch()
    dead = subprocess.Popen(["true"])
    dead.wait()
    start = time.monotonic()
    assert wandb_sender.follow(tmp_path, dead.pid) == -signal.SIGTERM
    assert (time.monotonic() - start > 2.0) == closed
    assert time.monotonic() - start < 10


def test_a_name_that_is_looked_up_for_ever_does_not_hold_a_training_up(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr(wandb_sender, "_fault", lambda patience: time.sleep(30))
    start = time.monotonic()
    assert "does not answer" in wandb_sender.connection_fault()
    assert time.monotonic() - start < 1.2
