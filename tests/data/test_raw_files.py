"""Raw files as strangers hand them in: pipes, folders and links in a file's place, odd JSON, options of wrong types."""

import json
import os
import shutil
import signal
import socket
import tempfile
from pathlib import Path

import numpy as np
import pytest
from conftest import ensure_qubiq_case, save_nifti, save_png, write_lidc

from dmseg.data.adapters.decathlon import DecathlonAdapter
from dmseg.data.adapters.kits import KitsAdapter
from dmseg.data.adapters.lidc import LidcAdapter
from dmseg.data.adapters.lits import LitsAdapter
from dmseg.data.adapters.qubiq import QubiqAdapter
from dmseg.data.images import read_png
from dmseg.data.prepared import PreparedTask, prepare
from dmseg.data.raw import TEXT_BYTES, read_json
from dmseg.data.split_files import read_groups, read_splits
from dmseg.data.volumes import open_volume
from dmseg.errors import UserError
from dmseg.files.schema import DEEPEST


@pytest.fixture(autouse=True)
def _ends():
    """Whatever waits for a pipe is interrupted."""

    def interrupt(*_):
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def label():
    values = np.zeros((12, 10, 6), np.uint8)
    values[3:8, 3:8, 1:5] = 2
    return values


def write_lits(root):
    for number in range(3):
        save_nifti(root / f"volume-{number}.nii.gz", label().astype(np.int16) * 50)
        save_nifti(root / f"segmentation-{number}.nii.gz", label())
    return LitsAdapter(root), root / "volume-1.nii.gz"


def write_kits(root):
    for number in range(3):
        save_nifti(root / f"case_{number:05d}/imaging.nii.gz", label().astype(np.int16) * 50)
        save_nifti(root / f"case_{number:05d}/segmentation.nii.gz", label())
    return KitsAdapter(root), root / "case_00001/imaging.nii.gz"


def ensure_qubiq(root):
    for number in (1, 2):
        ensure_qubiq_case(root / f"kidney/case{number:02d}", "kidney", 3, 1, np.random.default_rng(0))
    return QubiqAdapter(root), root / "kidney/case02/task01_seg02.nii.gz"


def write_nodules(root):
    write_lidc(root, 3, np.random.default_rng(0))
    return LidcAdapter(root), root / "LIDC-IDRI-slices/LIDC-IDRI-0002/nodule-0/mask-1/slice-0.png"


def write_decathlon(root, rows=None, **changes):
    for number in range(3):
        save_nifti(root / f"imagesTr/x_{number}.nii.gz", label().astype(np.int16) * 50)
        save_nifti(root / f"labelsTr/x_{number}.nii.gz", label())
    given = [{"image": f"./imagesTr/x_{k}.nii.gz", "label": f"./labelsTr/x_{k}.nii.gz"} for k in range(3)]
    dataset = {"name": "T", "labels": {"0": "b", "1": "a", "2": "c"}, "training": given if rows is None else rows}
    (root / "dataset.json").write_text(json.dumps(dataset | changes))
    return DecathlonAdapter(root), root / "labelsTr/x_1.nii.gz"


SETS = {
    "lits": write_lits,
    "kits": write_kits,
    "qubiq": ensure_qubiq,
    "lidc": write_nodules,
    "decathlon": write_decathlon,
}


def prepare_all(adapter, store):
    task = list(adapter.tasks.values())[-1]
    prepare(adapter, task, store, 16, {})
    return PreparedTask(store)


def pipe(path):
    os.mkfifo(path)


def link_to_a_pipe(path):
    os.mkfifo(path.parent.parent / "pipe")
    path.symlink_to(path.parent.parent / "pipe")


def a_socket(path):
    here = Path.cwd()
    os.chdir(path.parent)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)
    os.chdir(here)


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize(
    ("replace", "said"),
    [
        (pipe, "is a pipe, not a regular file"),
        (link_to_a_pipe, "is a pipe, not a regular file"),
        (a_socket, "is a socket, not a regular file"),
        (lambda path: path.mkdir(), "is a folder, not a regular file|missing"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device, not a regular file"),
        (lambda path: path.symlink_to(path.name), "cannot be read: Too many levels"),
        (lambda path: path.symlink_to("nowhere"), "is missing|is a broken link"),
    ],
)
def test_only_regular_files_are_opened(tmp_path, kind, replace, said):
    adapter, path = SETS[kind](tmp_path / "raw")
    path.unlink()
    replace(path)
    with pytest.raises(UserError, match=said) as caught:
        prepare_all(adapter, tmp_path / "store")
    assert path.name in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


def test_a_pipe_is_a_faulty_case_where_these_are_skipped(tmp_path):
    _, path = write_kits(tmp_path / "raw")
    path.unlink()
    os.mkfifo(path)
    adapter = KitsAdapter(tmp_path / "raw", faulty_cases="skip")
    prepared = prepare_all(adapter, tmp_path / "store")
    assert [case.case for case in prepared.cases] == ["case_00000", "case_00002"]
    assert not prepare(adapter, prepared.task, tmp_path / "store", 16, {}), "the store is current"


def as_anyone(work):
    """Calls a function as a user whom permissions bind, in a folder that this user can reach."""
    scratch = Path(tempfile.mkdtemp())
    scratch.chmod(0o755)
    is_root = os.geteuid() == 0
    try:
        return work(scratch, lambda: os.seteuid(65534) if is_root else None)
    finally:
        if is_root:
            os.seteuid(0)
        for path in [scratch, *scratch.rglob("*")]:
            if path.is_dir():
                path.chmod(0o755)
        shutil.rmtree(scratch)


UNREADABLE = {
    "lits": "",
    "kits": "case_00001",
    "qubiq": "kidney/case02",
    "lidc": "LIDC-IDRI-slices/LIDC-IDRI-0002/nodule-0",
    "decathlon": "labelsTr",
}


@pytest.mark.parametrize("kind", SETS)
def test_folders_without_permission_are_named(kind):
    def work(scratch, become):
        adapter, _ = SETS[kind](scratch / "raw")
        for path in [scratch / "raw", *(scratch / "raw").rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        (scratch / "raw" / UNREADABLE[kind]).chmod(0)
        become()
        task = list(adapter.tasks)[-1]
        with pytest.raises(UserError, match=r"(cannot be listed|cannot be read): Permission denied"):
            [list(adapter.read_case(task, files).slices) for files in adapter.list_cases(task)]

    as_anyone(work)


def test_files_without_permission_are_named():
    def work(scratch, become):
        adapter, path = write_nodules(scratch / "raw")
        for folder in (scratch / "raw").rglob("*"):
            folder.chmod(0o755)
        path.chmod(0)
        become()
        with pytest.raises(UserError, match=r"slice-0\.png cannot be read: permission denied"):
            list(adapter.read_case("nodule", adapter.list_cases("nodule")[1]).slices)

    as_anyone(work)


def test_masks_without_their_image_are_named(tmp_path):
    adapter, path = write_nodules(tmp_path / "raw")
    image = path.parents[1] / "images/slice-0.png"
    image.unlink()
    with pytest.raises(UserError, match=r"images/slice-0\.png is missing, but mask-0 has a mask of that name"):
        adapter.list_cases("nodule")
    image.parent.rmdir()
    with pytest.raises(UserError, match=r"images/slice-0\.png is missing, but mask-0 has"):
        adapter.list_cases("nodule")
    save_png(image.with_suffix(".jpg"), np.zeros((4, 4)))
    with pytest.raises(UserError, match=r"slice-0\.jpg is not a PNG file; convert it"):
        adapter.list_cases("nodule")


def test_a_folder_that_is_a_link_to_nothing_is_named(tmp_path):
    adapter, path = write_kits(tmp_path / "raw")
    (path.parent.parent / "case_00007").symlink_to("gone")
    with pytest.raises(UserError, match="case_00007 is a broken link"):
        adapter.list_cases("tumour")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"image": "../../secret.nii.gz", "label": "labelsTr/x_0.nii.gz"}, "is outside the task's folder"),
        ({"image": "imagesTr/x_0.nii.gz", "label": "labelsTr/../../y.nii.gz"}, "is outside the task's folder"),
        ({"image": "imagesTr\\..\\..\\y.nii.gz", "label": "labelsTr/x_0.nii.gz"}, "is outside the task's folder"),
        ({"image": "/etc/passwd", "label": "labelsTr/x_0.nii.gz"}, "is outside the task's folder"),
        ({"image": "a\0b", "label": "labelsTr/x_0.nii.gz"}, "cannot be the path of a file"),
        ({"image": "\ud800", "label": "labelsTr/x_0.nii.gz"}, "cannot be the path of a file"),
        ({"image": "x" * 5000, "label": "labelsTr/x_0.nii.gz"}, "File name too long"),
        ({"image": "imagesTr/x_0.nii.gz", "label": "9" * 5000}, "File name too long"),
        ({"image": "", "label": "labelsTr/x_0.nii.gz"}, "expected an image and a label"),
        ({"image": "imagesTr/x_0.nii.gz"}, "expected an image and a label"),
        ({"image": 5, "label": ["x" * 9999]}, "expected an image and a label"),
        (["imagesTr/x_0.nii.gz"], "expected an image and a label"),
        (None, "expected an image and a label"),
    ],
)
def test_entries_of_a_dataset_json_stay_in_its_folder(tmp_path, row, said):
    save_nifti(tmp_path / "elsewhere/x_0.nii.gz", label())
    adapter, _ = write_decathlon(tmp_path / "raw", [row])
    (tmp_path / "raw/imagesTr/out.nii.gz").symlink_to(tmp_path / "elsewhere/x_0.nii.gz")
    (tmp_path / "raw/out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=said) as caught:
        adapter.list_cases("t")
    str(caught.value).encode()
    assert len(str(caught.value)) < 900
    assert "\n" not in str(caught.value)


def test_a_data_set_behind_a_link_is_read(tmp_path):
    write_decathlon(tmp_path / "raw")
    (tmp_path / "link").symlink_to("raw")
    (tmp_path / "raw/imagesTr/x_0.nii.gz").rename(tmp_path / "raw/imagesTr/stored")
    (tmp_path / "raw/imagesTr/x_0.nii.gz").symlink_to("stored")
    assert len(DecathlonAdapter(tmp_path / "link").list_cases("t")) == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": None}, "lists no training cases"),
        ({"training": {}}, "lists no training cases"),
        ({"name": {"a": 1}}, "the name in .* expected text"),
        ({"name": "x" * 300}, "cannot name a file"),
        ({"labels": {"0": "b", "1" * 4000: "a"}}, "labels out of range"),
        ({"labels": {"0": "b", "²": "a"}}, "no valid 'labels'"),
        ({"labels": None}, "no valid 'labels'"),
        ({"labels": [[0], [1]]}, "no valid 'labels'"),
    ],
)
def test_a_dataset_json_of_another_kind_is_named(tmp_path, changes, said):
    with pytest.raises(UserError, match=said) as caught:
        write_decathlon(tmp_path / "raw", **changes)[0].list_cases("t")
    assert len(str(caught.value)) < 700


def test_a_dataset_json_with_very_many_cases_takes_no_time(tmp_path):
    rows = [{"image": "imagesTr/x_0.nii.gz", "label": f"l{k}"} for k in range(60_000)]
    adapter, _ = write_decathlon(tmp_path / "raw", [*rows, rows[0]])
    with pytest.raises(UserError, match="lists the case l0 twice"):
        adapter.list_cases("t")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * DEEPEST + b"]" * DEEPEST, None),
        (b'{"a":' * DEEPEST + b"1" + b"}" * DEEPEST, None),
        (b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1), "nested more than 50 levels deep"),
        (b"[" * 10**6, "nested more than 50 levels deep"),
        (b'{"a": ' * 500 + b"1" + b"}" * 500, "nested more than 50 levels deep"),
        (b"\xef\xbb\xbf{}", None),
        (b"\xff\xfe{\0}\0", "is not a text file in UTF-8"),
        (b'{"a": "\xff"}', "is not a text file in UTF-8"),
        (b"", "is not valid JSON"),
        (b"9" * 5000, "is not valid JSON"),
        (b" " * (TEXT_BYTES + 1), "is larger than 16 MiB"),
    ],
)
def test_json_is_bounded(tmp_path, content, said):
    (tmp_path / "x.json").write_bytes(content)
    if said is None:
        read_json(tmp_path / "x.json")
        return
    with pytest.raises(UserError, match=said) as caught:
        read_json(tmp_path / "x.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_splits, read_groups])
def test_split_files_are_regular_and_bounded(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"folds\.\w+=.*pipe cannot be read: .* is a pipe"):
        read(str(tmp_path / "pipe"), ["a"])
    with (tmp_path / "long").open("wb") as file:
        file.truncate(TEXT_BYTES * 1000)
    with pytest.raises(UserError, match="is larger than 16 MiB"):
        read(str(tmp_path / "long"), ["a"])


ODD = (True, "x", 1.5, [1], {"a": 1}, float("nan"), [["a", "b"]], ["a", "b"], [0, float("inf")], [1, 2, 3], -7)
OPTIONS = {
    LitsAdapter: ("structure", "slices", "slices_per_case", "window", "orientation", "faulty_cases", "axis", "dtype"),
    LidcAdapter: ("min_marks", "missing_masks", "bits", "max_gib"),
    QubiqAdapter: ("intensity", "missing_raters", "incomplete_cases", "conflicting_annotations", "cases", "max_gib"),
    DecathlonAdapter: ("target_labels", "max_gib"),
}
FINE = {("max_gib", 1.5), ("target_labels", "[1]")}


@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize(("kind", "option"), [(kind, option) for kind in OPTIONS for option in OPTIONS[kind]])
def test_options_of_a_wrong_type_are_named(tmp_path, kind, option, odd):
    if (option, odd if isinstance(odd, float) else repr(odd)) in FINE:
        return
    write_decathlon(tmp_path)
    with pytest.raises(UserError, match=rf"^data\.{option} is .*, but (may|must) ") as caught:
        kind(tmp_path, **{option: odd})
    assert "\n" not in str(caught.value)


def test_what_fits_an_option_is_taken(tmp_path):
    write_decathlon(tmp_path)
    assert LitsAdapter(tmp_path, window=(-60, 140.5), slices_per_case=8, axis=0, max_gib=0.5).window.tolist() == [
        [-60, 140.5]
    ]
    assert DecathlonAdapter(tmp_path, target_labels=[2, 1]).target_labels == [1, 2]
    assert LidcAdapter(tmp_path, min_marks=4, bits=12).bits == 12


def test_readers_of_single_files_name_what_they_refuse(tmp_path):
    for read in (open_volume, read_png):
        with pytest.raises(UserError, match="is a folder, not a regular file"):
            read(tmp_path)
        with pytest.raises(UserError, match=r"a\\x00b cannot be the path of a file"):
            read(tmp_path / "a\0b")
        with pytest.raises(UserError, match=r"\\n.* is missing") as caught:
            read(tmp_path / "line\nbreak \x1b[31m")
        assert str(caught.value).isprintable()
