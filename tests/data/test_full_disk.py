"""Full or read-only disks: one line with the place and what to do, nothing half-written, finished work kept."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import write_lidc

from dmseg.data import parts
from dmseg.data.adapters.lidc import LidcAdapter
from dmseg.data.prepared import PreparedTask, prepare
from dmseg.errors import UnwritableError
from dmseg.files.atomic import writing
from dmseg.phantom import ensure_decathlon, ensure_qubiq


def prepared(root, folder):
    adapter = LidcAdapter(root)
    prepare(adapter, adapter.tasks["nodule"], folder, 32, {})
    return PreparedTask(folder)


def test_a_disk_that_fills_while_preparing(tmp_path, monkeypatch):
    root = write_lidc(tmp_path / "lidc", 6, np.random.default_rng(0))
    folder = tmp_path / "stores/store"
    write, whole = parts.write_part, []

    def write_three(*arguments):
        if len(whole) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole.append(arguments[0].case)
        return write(*arguments)

    monkeypatch.setattr("dmseg.data.prepared.write_part", write_three)
    with pytest.raises(UnwritableError) as caught:
        prepared(root, folder)
    assert str(caught.value) == (
        f"{folder} cannot be written: No space left on device; free some space and run the command again; "
        "finished cases are kept"
    )
    assert not folder.exists()
    monkeypatch.setattr("dmseg.data.prepared.write_part", write)
    read, read_case = [], LidcAdapter.read_case
    monkeypatch.setattr(
        LidcAdapter, "read_case", lambda self, task, files: read.append(files.case) or read_case(self, task, files)
    )
    assert prepared(root, folder).digest == prepared(root, tmp_path / "other").digest
    assert read[:3] == [f"LIDC-IDRI-000{number}" for number in (4, 5, 6)]
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("make", [ensure_qubiq, ensure_decathlon])
def test_a_disk_that_fills_while_a_phantom_is_made(tmp_path, monkeypatch, make):
    def no_space(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", no_space)
    with pytest.raises(UnwritableError, match=r"phantom cannot be written: No space left on device; free some space"):
        make(tmp_path / "phantom")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space and run the command again"),
        (errno.EDQUOT, "the quota is used up"),
        (errno.EROFS, "make it writable, or choose another folder"),
        (errno.EACCES, "make it writable, or choose another folder"),
        (errno.EIO, "check the disk"),
    ],
)
def test_the_advice_fits_the_error(number, advice):
    with pytest.raises(UnwritableError) as caught, writing(Path("place"), kept="all is kept"):
        raise OSError(number, os.strerror(number))
    assert str(caught.value).startswith(f"place cannot be written: {os.strerror(number)}; ")
    assert advice in str(caught.value)
    assert str(caught.value).endswith("; all is kept")


def test_a_file_where_the_folder_should_be(tmp_path):
    root = write_lidc(tmp_path / "lidc", 2, np.random.default_rng(0))
    (tmp_path / "stores").write_text("")
    with pytest.raises(UnwritableError, match="stores/store cannot be written"):
        prepared(root, tmp_path / "stores/store")


def test_a_source_that_cannot_be_read_is_not_taken_for_a_full_disk(tmp_path, monkeypatch):
    root = write_lidc(tmp_path / "lidc", 2, np.random.default_rng(0))

    def failing(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr("dmseg.data.fingerprints.checksum", failing)
    with pytest.raises(Exception, match=r"slice-0\.png cannot be read: Input/output error") as caught:
        prepared(root, tmp_path / "store")
    assert not isinstance(caught.value, UnwritableError)
