"""What killed processes leave goes with the next call that works there; what living ones are writing stays."""

import os
import signal
import subprocess
import sys
import time

import pytest

from dmseg.files import atomic as files
from dmseg.files.atomic import abandoned, create_file, remove_scratch, scratch_folder, scratch_path, sweep, write_whole

KILLED = """
import os, signal, sys
from pathlib import Path
from dmseg.files import atomic as files
place = Path(sys.argv[1])
if sys.argv[2] == "folder":
    with files.scratch_folder(place) as scratch:
        (scratch / "half").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
files._sync = lambda path: os.kill(os.getpid(), signal.SIGKILL)
getattr(files, sys.argv[2])(place, "half")
"""
LIVING = (
    "import sys; from pathlib import Path; from dmseg.files.atomic import *\nwith scratch_folder(Path(sys.argv[1])):\n"
)


def kill_while_writing(place, how):
    done = subprocess.run([sys.executable, "-c", KILLED, str(place), how], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(place.parent.iterdir())) == 1


def names(folder):
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("how", ["folder", "write_whole", "create_file"])
@pytest.mark.parametrize("name", ["plain", "with [brackets] and *", "ü\nline", "." * 3 + "x"])
def test_the_next_call_removes_what_a_killed_process_left(tmp_path, how, name):
    place = tmp_path / "inner" / name
    kill_while_writing(place, how)
    if how == "folder":
        with scratch_folder(place) as scratch:
            assert names(place.parent) == [scratch.name]
        assert names(place.parent) == []
    else:
        {"write_whole": write_whole, "create_file": create_file}[how](place, "whole")
        assert names(place.parent) == [name]
        assert place.read_text() == "whole"


def test_what_a_living_process_is_writing_stays(tmp_path):
    place = tmp_path / "place"
    code = LIVING + "    print('in', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code, str(place)], stdin=-1, stdout=-1) as living:
        assert living.stdout.readline() == b"in\n"
        (theirs,) = tmp_path.iterdir()
        with scratch_folder(place):
            remove_scratch(place)
            sweep(tmp_path)
            assert abandoned(tmp_path) == []
        assert names(tmp_path) == [theirs.name], "of both only theirs is left"
        assert abandoned(tmp_path, alone=True) == [theirs]
        living.stdin.close()
    assert names(tmp_path) == []


def test_a_number_that_was_given_to_another_process_since_does_not_count(tmp_path, monkeypatch):
    left = scratch_path(tmp_path / "place")
    left.touch()
    assert abandoned(tmp_path) == []
    monkeypatch.setattr(files, "start_time", lambda pid: "1")
    assert abandoned(tmp_path) == [left]


@pytest.mark.parametrize(("age", "gone"), [(0, False), (3600, False), (90_000, True), (-3600, False), (-1e8, True)])
@pytest.mark.parametrize("name", [".place.0123abcd", ".place.ffffff00000100000201abcd"])
def test_scratch_of_other_machines_and_earlier_versions_goes_by_age(tmp_path, age, gone, name):
    left = tmp_path / name
    left.mkdir()
    os.utime(left, (time.time() - age,) * 2)
    remove_scratch(tmp_path / "place")
    assert left.exists() is not gone


def test_without_proc_all_goes_by_age(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "start_time", lambda pid: None)
    monkeypatch.setattr(files, "_machine_mark", lambda: files.UNKNOWN)
    left = scratch_path(tmp_path / "place")
    left.touch()
    remove_scratch(tmp_path / "place")
    assert left.exists()
    os.utime(left, (1, 1))
    remove_scratch(tmp_path / "place")
    assert not left.exists()


@pytest.mark.parametrize(
    "name", [".DS_Store", ".place", ".place.parts", ".place.old.abcdefgh", "place.0123abcd", ".git"]
)
def test_nothing_else_is_removed(tmp_path, name):
    (tmp_path / name).touch()
    os.utime(tmp_path / name, (1, 1))
    remove_scratch(tmp_path / "place", alone=True)
    sweep(tmp_path, alone=True)
    assert names(tmp_path) == [name]


def test_a_link_is_removed_and_not_followed(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    scratch_path(tmp_path / "place").symlink_to(kept)
    remove_scratch(tmp_path / "place", alone=True)
    assert names(tmp_path) == ["kept"]
    assert names(kept) == ["file"]
