"""SIGKILL at any point while a phantom or a store is made: the next call gives the same, and nothing is left over."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
from conftest import write_lidc

from dmseg.data.adapters.lidc import LidcAdapter
from dmseg.data.parts import remove_leftovers
from dmseg.data.prepared import PreparedTask, prepare
from dmseg.files.atomic import exclusive
from dmseg.files.regular import checksums
from dmseg.phantom import ensure_decathlon

KILL_AT = """
import os, signal, sys
from pathlib import Path
counter = [int(sys.argv[2])]
def counted(function):
    def call(*args, **options):
        counter[0] -= 1
        if counter[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)
    return call
os.rename, Path.rename = counted(os.rename), counted(Path.rename)
"""
PHANTOM = KILL_AT + "from dmseg.phantom import ensure_decathlon as make\nmake(Path(sys.argv[1]), cases=3)"
STORE = KILL_AT + (
    "from dmseg.data.adapters.lidc import LidcAdapter; from dmseg.data.prepared import prepare\n"
    "import shutil; rmtree = shutil.rmtree; shutil.rmtree = counted(shutil.rmtree)\n"
    "a = LidcAdapter(Path(sys.argv[3])); prepare(a, a.tasks['nodule'], Path(sys.argv[1]), 32, {'options': sys.argv[4]})"
)


def killed(code, *words):
    """Whether the process was killed, rather than done before that."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def test_a_phantom(tmp_path):
    expected = tmp_path / "expected"
    ensure_decathlon(expected, cases=3)
    root = tmp_path / "here/phantom"
    ensure_decathlon(root, cases=4)  # another one, to be replaced
    points = 0
    while killed(PHANTOM, root, points):
        points += 1
    assert points >= 2, "before and after the old one has gone"
    assert checksums(root) == checksums(expected)
    assert list(root.parent.iterdir()) == [root]


def test_a_phantom_that_was_finished_just_before(tmp_path):
    root = tmp_path / "phantom"
    ensure_decathlon(root, cases=3)
    left = tmp_path / ".phantom.0123abcd"
    left.mkdir()
    os.utime(left, (1, 1))
    assert not ensure_decathlon(root, cases=3)
    assert list(tmp_path.iterdir()) == [root]


def test_a_store(tmp_path):
    raw = write_lidc(tmp_path / "lidc", 4, np.random.default_rng(0))
    expected, folder = tmp_path / "expected", tmp_path / "stores/store"
    adapter = LidcAdapter(raw)
    prepare(adapter, adapter.tasks["nodule"], expected, 32, {"options": "new"})
    prepare(adapter, adapter.tasks["nodule"], folder, 32, {"options": "old"})
    (folder / "folds-x.json").write_text(json.dumps([["a"]]))
    points = 0
    while killed(STORE, folder, points, raw, "new"):
        points += 1
    assert points >= 6
    prepare(adapter, adapter.tasks["nodule"], folder, 32, {"options": "new"})
    assert PreparedTask(folder).digest == PreparedTask(expected).digest
    assert json.loads((folder / "folds-x.json").read_text()) == [["a"]], "splits are taken over"
    assert list(folder.parent.iterdir()) == [folder]


def test_leftovers_stay_while_somebody_prepares(tmp_path):
    folder, work = tmp_path / "store", tmp_path / ".store.parts"
    with exclusive(work):
        remove_leftovers(folder)
        assert work.is_dir()
    remove_leftovers(folder)
    assert not work.exists()
