"""Raw folders as strangers have them: junk in them, files packed or not under any name, names of any kind."""

import gzip

import nibabel
import numpy as np
import pytest
from conftest import save_nifti, write_lidc
from raw_trees import ensure_qubiq, write_decathlon, write_kits, write_lits

from dmseg.data.adapters.decathlon import DecathlonAdapter
from dmseg.data.adapters.kits import KitsAdapter
from dmseg.data.adapters.lidc import LidcAdapter
from dmseg.data.adapters.lits import LitsAdapter
from dmseg.data.adapters.qubiq import QubiqAdapter
from dmseg.data.listing import entries, files_below
from dmseg.data.prepared import PreparedTask, prepare
from dmseg.data.volumes import read_nifti
from dmseg.errors import UserError

AFFINE = np.eye(4)


SETS = {
    "qubiq": (ensure_qubiq, QubiqAdapter, "kidney-1"),
    "lits": (lambda root: write_lits(root / "batch"), LitsAdapter, "tumour"),
    "kits": (write_kits, KitsAdapter, "tumour"),
    "decathlon": (lambda root: write_decathlon(root / "task"), DecathlonAdapter, "tiny"),
}


def digest(kind, root, folder):
    _, adapter_of, task = SETS[kind]
    adapter = adapter_of(root)
    prepare(adapter, adapter.tasks[task], folder, 16, {})
    return PreparedTask(folder).digest


def unpack(path):
    path.write_bytes(gzip.decompress(path.read_bytes()))


def unpack_and_rename(path):
    unpack(path)
    path.rename(str(path).removesuffix(".gz"))


def in_members(path):
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:]) + bytes(512))


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize(
    "change",
    [
        unpack,
        unpack_and_rename,
        in_members,
        lambda path: path.rename(str(path).removesuffix(".gz")),
        lambda path: path.rename(str(path).replace(".nii.gz", ".NII.GZ")),
        lambda path: path.rename(str(path).replace(".nii.gz", ".Nii.gz")),
    ],
)
def test_the_content_decides_not_the_name(tmp_path, kind, change):
    SETS[kind][0](tmp_path / "raw")
    expected = digest(kind, tmp_path / "raw", tmp_path / "before")
    for path in sorted((tmp_path / "raw").rglob("*.nii.gz")):
        change(path)
    assert digest(kind, tmp_path / "raw", tmp_path / "after") == expected


@pytest.mark.parametrize("kind", SETS)
def test_junk_is_passed_over_in_every_folder(tmp_path, kind):
    write, adapter_of, task = SETS[kind]
    root = tmp_path / "raw"
    write(root)
    before = adapter_of(root).list_cases(task)
    for path in sorted(root.rglob("*")):
        (path.parent / f"._{path.name}").write_bytes(b"\0\5\x16\7")
        (path.parent / ".DS_Store").write_bytes(b"junk")
        (path.parent / "Thumbs.db").write_bytes(b"junk")
    for name in ("__MACOSX", "@eaDir", "lost+found", ".Trash-1000"):
        write(root / name)
    assert adapter_of(root).list_cases(task) == before


def test_folders_are_listed_in_natural_order(tmp_path):
    for name in ("b10", "b2", "B1", "@EADIR", ".b3", "THUMBS.DB"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("")
    assert [path.name for path in entries(tmp_path)] == ["B1", "b2", "b10"]
    assert sorted(str(path.relative_to(tmp_path)) for path in files_below(tmp_path)) == ["B1/x", "b10/x", "b2/x"]
    with pytest.raises(UserError, match="nowhere cannot be listed: No such file"):
        entries(tmp_path / "nowhere")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, ">i2"])
@pytest.mark.parametrize("scaling", [None, (1 / 255, 0.0), (0.37, -12.5)])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 1, 4), (1, 5, 7)])
def test_nifti_is_read_as_nibabel_reads_it(tmp_path, dtype, scaling, shape):
    values = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    header = nibabel.Nifti1Header(endianness=">" if np.dtype(dtype).byteorder == ">" else "<")
    header.set_data_dtype(np.dtype(dtype).newbyteorder("="))
    image = nibabel.Nifti1Image(values, AFFINE, header)
    nibabel.save(image, tmp_path / "x.nii")
    if scaling is not None:
        content = bytearray((tmp_path / "x.nii").read_bytes())
        order = ">" if np.dtype(dtype).byteorder == ">" else "<"
        content[112:120] = np.array(scaling, dtype=f"{order}f4").tobytes()
        (tmp_path / "x.nii").write_bytes(bytes(content))
    expected = np.squeeze(np.asarray(nibabel.load(tmp_path / "x.nii").dataobj, dtype=np.float32))
    found = read_nifti(tmp_path / "x.nii")
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


def test_nifti_that_is_none(tmp_path):
    path = tmp_path / "x.nii.gz"
    for content in (b"", b"<html>", gzip.compress(b"text"), bytes(348)):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"x\.nii\.gz"):
            read_nifti(path)
    save_nifti(path, np.full((4, 4), np.nan, dtype=np.float32))
    with pytest.raises(UserError, match="contains 16 NaN or infinite values"):
        read_nifti(path)


@pytest.mark.parametrize("name", ["../up", "Colon/Rectum", "x\\textbf{y}", ".hidden", "nul\0", "\ud800"])
def test_decathlon_names_that_would_be_paths_are_refused(tmp_path, name):
    write_decathlon(tmp_path / "raw/task", name)
    with pytest.raises(UserError, match=r"the name in .*dataset\.json is .* cannot name a file") as caught:
        DecathlonAdapter(tmp_path / "raw")
    str(caught.value).encode()


@pytest.mark.parametrize("name", ["Käse & Ünïcode ☃", "a|b", "100%", "~", "2", ""])
def test_decathlon_names_of_other_kinds_are_taken(tmp_path, name):
    write_decathlon(tmp_path / "raw/task", name)
    assert list(DecathlonAdapter(tmp_path / "raw").tasks) == [(name or "task").lower().replace(" ", "-")]


def test_a_dataset_json_with_a_byte_order_mark(tmp_path):
    write_decathlon(tmp_path / "raw/task")
    path = tmp_path / "raw/task/dataset.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(DecathlonAdapter(tmp_path / "raw").list_cases("tiny")) == 3


@pytest.mark.parametrize(
    "training", ["null", "5", "{}", "[]", '["x"]', '[{"image": ["x"], "label": "y"}]', "[" * 99999]
)
def test_a_dataset_json_that_is_odd(tmp_path, training):
    write_decathlon(tmp_path / "raw/task")
    path = tmp_path / "raw/task/dataset.json"
    path.write_text(f'{{"name": "x", "labels": {{"0": "b", "1": "o"}}, "training": {training}}}')
    with pytest.raises(UserError, match=r"dataset\.json"):
        DecathlonAdapter(tmp_path / "raw").list_cases("x")


def test_lidc_with_odd_names(tmp_path):
    root = write_lidc(tmp_path / "lidc", 6, np.random.default_rng(0)) / "LIDC-IDRI-slices"
    for path, name in zip(entries(root), ("p1", "p²", "²", "p٣", "ä ö", "名前"), strict=True):
        path.rename(root / name)
    adapter = LidcAdapter(root)
    prepare(adapter, adapter.tasks["nodule"], tmp_path / "store", 16, {})
    assert {case.case for case in PreparedTask(tmp_path / "store").cases} == {"p1", "p²", "²", "p٣", "ä ö", "名前"}
    (root / "p1").rename(root / "M\udcfcller")
    with pytest.raises(UserError, match=r"is 'M\\udcfcller', which cannot name a file: it is not UTF-8; rename it"):
        prepare(adapter, adapter.tasks["nodule"], tmp_path / "store", 16, {})
