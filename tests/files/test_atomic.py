"""Files of which several writers want to be the first, also where the file system has no hard links."""

import errno
import os
import subprocess
import sys
import threading
import time

import pytest

from dmseg.files import atomic as files
from dmseg.files.atomic import create_file, move_unless_exists
from dmseg.files.regular import checksums, is_junk
from dmseg.runs.lease import RunLocked, is_held, lease

REFUSALS = (None, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)


@pytest.fixture(params=REFUSALS, ids=lambda code: errno.errorcode[code] if code else "hard links")
def links(request, monkeypatch):
    """A file system that refuses hard links, each in its own way; the first one does not."""
    if request.param is not None:

        def refuse(*arguments, **options):
            raise OSError(request.param, os.strerror(request.param))

        monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("links")
def test_one_of_many_writers_creates_a_file_and_all_see_it_whole(tmp_path):
    """Each writer reads as soon as its call has returned."""
    n, text = 16, "x" * 100_000
    for attempt in range(5):
        path, start = tmp_path / f"{attempt}" / "file", threading.Barrier(n)
        created, seen = [], []

        def write(number, path=path, start=start, created=created, seen=seen):
            start.wait()
            if create_file(path, f"{number} {text}"):
                created.append(number)
            seen.append(path.read_text())

        writers = [threading.Thread(target=write, args=(number,)) for number in range(n)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert len(created) == 1
        assert set(seen) == {f"{created[0]} {text}"}
        assert [item.name for item in path.parent.iterdir()] == ["file"], "nothing is left beside it"


@pytest.mark.usefixtures("links")
def test_what_is_there_stays(tmp_path):
    path = tmp_path / "file"
    path.write_text("first")
    assert not create_file(path, "second")
    other = tmp_path / "other"
    other.write_text("third")
    assert not move_unless_exists(other, path)
    assert path.read_text() == "first"
    assert other.read_text() == "third"
    assert move_unless_exists(other, tmp_path / "new")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["file", "new"]


def test_a_request_that_a_file_server_repeats_counts_as_ours(tmp_path, monkeypatch):
    """The link was made, but the answer was lost; the repeated request finds it there."""
    link = os.link

    def repeated(source, target):
        link(source, target)
        raise FileExistsError

    monkeypatch.setattr(os, "link", repeated)
    assert create_file(tmp_path / "file", "ours")
    assert not create_file(tmp_path / "file", "again")
    assert (tmp_path / "file").read_text() == "ours"


def test_a_writer_that_died_in_its_turn_holds_nobody_up_for_long(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "CLAIM_SECONDS", 0.2)
    monkeypatch.setattr(os, "link", lambda *arguments: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    claim = tmp_path / ".file.claim"
    claim.touch()
    os.utime(claim, (time.time() + 1e7,) * 2)  # whatever the clocks say
    assert create_file(tmp_path / "file", "text")
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path):
    (tmp_path / "a file").touch()
    with pytest.raises(OSError, match="a file"):
        create_file(tmp_path / "a file" / "inside", "text")


@pytest.mark.usefixtures("links")
def test_a_lease_has_one_owner_and_a_dead_one_loses_it(tmp_path):
    path = tmp_path / "lease.json"
    with lease(path):
        assert is_held(path)
        with pytest.raises(RunLocked), lease(path):
            pass
    assert not path.exists()
    code = f"from dmseg.runs.lease import _acquire; from pathlib import Path; import os; {OWNER}"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert path.exists()
    with lease(path):
        assert is_held(path)
    assert list(tmp_path.iterdir()) == []


OWNER = (
    "from dmseg.runs import lease as l; import sys; "
    "l._acquire(Path(sys.argv[1]), {**l.pid_scope(), 'pid': os.getpid(), 'started': l.start_time(os.getpid()), "
    "'token': 'x'}, 300.0)"
)


@pytest.mark.parametrize(
    "name", ["Thumbs.db", "desktop.ini", ".DS_Store", "@eaDir", "lost+found", "._weights.safetensors", ".nfs000012"]
)
def test_what_an_operating_system_leaves_is_not_sealed(tmp_path, name):
    assert is_junk(name)
    (tmp_path / "cases.csv").write_text("case\n")
    (tmp_path / name).mkdir()
    (tmp_path / name / "cases.csv").write_text("case\n")
    assert list(checksums(tmp_path)) == ["cases.csv"]


@pytest.mark.parametrize("name", ["cases.csv", "DONE", "predictions", "Thumbs", "case@1.npy"])
def test_our_own_files_are_no_junk(name):
    assert not is_junk(name)
