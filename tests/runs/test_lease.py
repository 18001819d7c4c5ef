"""Leases that are damaged, no files at all, or from the future: waited for as long as the patience."""

import json
import logging
import os
import subprocess
import sys
import time

import pytest

from dmseg.runs import lease as leases
from dmseg.runs.inventory import entries
from dmseg.runs.lease import RunLocked, is_held, lease
from dmseg.runs.store import RunStore

YEAR = 365 * 86_400.0
CONTENTS = {
    "empty": "",
    "text": "not a lease",
    "list": "[1]",
    "number": "5",
    "null": "null",
    "deep": "[" * 100_000,
    "no pid": json.dumps({"host": "h", "token": "t"}),
    "text for pid": json.dumps({"pid": "x", "host": 1, "boot": [], "started": {}, "token": []}),
    "huge pid": json.dumps({**leases.pid_scope(), "pid": 10**30, "started": "1"}),
    "negative pid": json.dumps({**leases.pid_scope(), "pid": -1, "started": "1"}),
    "pid alone": json.dumps({**leases.pid_scope(), "pid": 2**22 - 1}),
    "huge": " " * 200_000,
    "no text": "\udcff",
}


def make_folder(path):
    (path / "inside").mkdir(parents=True)


THINGS = {
    **{
        name: lambda path, text=text: path.write_bytes(text.encode(errors="surrogateescape"))
        for name, text in CONTENTS.items()
    },
    "folder": make_folder,
    "pipe": os.mkfifo,
    "link": lambda path: path.symlink_to("/dev/zero"),
    "dangling link": lambda path: path.symlink_to("nowhere"),
}


@pytest.fixture(params=THINGS)
def odd(request, tmp_path):
    path = tmp_path / "leases" / f"{'a' * 16}.json"
    path.parent.mkdir()
    THINGS[request.param](path)
    return path


def test_anything_may_lie_in_a_leases_place(odd, tmp_path):
    """It counts as held for as long as the patience, unless its owner can be seen to be dead."""
    (tmp_path / "runs").mkdir()
    entries([RunStore(tmp_path)])
    if is_held(odd):
        with pytest.raises(RunLocked) as held, lease(odd):
            pass
        assert len(str(held.value).splitlines()) == 1
    os.utime(odd, (1, 1), follow_symlinks=False)
    with lease(odd):
        assert is_held(odd)
    assert list(odd.parent.iterdir()) == []


def of_another_machine(path, time_of=None):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"host": "elsewhere", "boot": "b", "namespace": "n", "pid": 1, "started": "1"}))
    if time_of is not None:
        os.utime(path, (time_of, time_of))


@pytest.mark.parametrize("ahead", [YEAR, 4000.0])
def test_a_lease_from_the_future_is_held_no_longer_than_the_patience(tmp_path, ahead):
    path = tmp_path / "lease.json"
    of_another_machine(path, time.time() + ahead)
    start = time.monotonic()
    while True:
        try:
            with lease(path, patience=0.4):
                break
        except RunLocked:
            assert time.monotonic() - start < 5
            time.sleep(0.05)
    assert time.monotonic() - start > 0.3, "not before it has been watched"


@pytest.mark.parametrize("error", [PermissionError(1, "no"), NotImplementedError("follow_symlinks unavailable")])
def test_so_it_is_where_its_time_cannot_be_set(tmp_path, monkeypatch, error):
    path = tmp_path / "lease.json"
    of_another_machine(path, time.time() + YEAR)
    utime = os.utime

    def refused(*arguments, follow_symlinks=True):
        if isinstance(error, NotImplementedError) and follow_symlinks:  # what is missing where that is raised
            return utime(*arguments)
        raise error

    monkeypatch.setattr(leases.os, "utime", refused)
    clock = [1000.0]
    monkeypatch.setattr(leases.time, "monotonic", lambda: clock[0])
    assert is_held(path, 60)
    clock[0] += 59
    assert is_held(path, 60)
    clock[0] += 2
    assert not is_held(path, 60)


def test_where_no_file_can_be_written_our_clock_tells_the_age(tmp_path, monkeypatch):
    """Then the file server's clock, which sets file times, cannot be read."""
    path = tmp_path / "lease.json"
    of_another_machine(path, time.time() - 50)

    def refused(*arguments, **options):
        raise PermissionError(13, "no")

    monkeypatch.setattr(leases.Path, "touch", refused)
    assert is_held(path, 60)
    assert not is_held(path, 40)


def test_an_owner_that_renews_keeps_a_lease_from_the_future(tmp_path):
    """By the file server's clock, which is set back at first."""
    path = tmp_path / "lease.json"
    of_another_machine(path, time.time() + YEAR)
    end = time.monotonic() + 1.2
    while time.monotonic() < end:
        assert is_held(path, 0.6)
        os.utime(path)
        time.sleep(0.05)


def test_a_second_command_need_not_begin_to_watch_anew(tmp_path):
    path = tmp_path / "lease.json"
    of_another_machine(path, time.time() + YEAR)
    code = "import sys; from pathlib import Path; from dmseg.runs.lease import is_held; "
    code += "sys.exit(not is_held(Path(sys.argv[1]), 0.3))"
    held = [subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0]
    time.sleep(0.5)
    held.append(subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0)
    assert held == [True, False]


def test_the_owner_is_named_in_one_printable_line(tmp_path):
    path = tmp_path / "lease.json"
    path.write_text(json.dumps({"host": "\x1b[31m" + "h" * 9999, "pid": ["a\nb"]}))
    with pytest.raises(RunLocked) as held, lease(path):
        pass
    assert str(held.value).isprintable()
    assert len(str(held.value)) < 400


def test_without_proc_leases_go_by_age(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "pid_scope", lambda: {"host": "h", "boot": "", "namespace": ""})
    monkeypatch.setattr(leases, "start_time", lambda pid: None)
    path = tmp_path / "lease.json"
    with lease(path):
        assert is_held(path)
        os.utime(path, (1, 1))
        assert not is_held(path)


def test_a_command_that_waits_says_once_who_holds_what(tmp_path, caplog, monkeypatch):
    from dmseg.launch import scheduler as schedule
    from dmseg.launch.outcome import Outcome

    class Run:
        run_id, title, teacher = "a" * 16, "the run", None

    queue = schedule._Queue([])
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            queue.note(Outcome(Run, "held", f"{'a' * 16} is being computed by another process (process 7 on host)"))
    assert [record.message for record in caplog.records] == [
        f"the run waits: {'a' * 16} is being computed by another process (process 7 on host)"
    ]
