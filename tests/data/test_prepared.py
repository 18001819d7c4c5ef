"""The prepared store: what it holds, when it is made anew, and that it is never half there."""

import hashlib
import json
import os

import numpy as np
import pytest
import torch
from conftest import save_png, write_lidc
from PIL import Image
from torch.nn import functional

from dmseg.data.adapters.lidc import LidcAdapter
from dmseg.data.adapters.qubiq import QubiqAdapter
from dmseg.data.prepared import PreparedTask, prepare
from dmseg.data.resize import quantise, resize_image, resize_mask
from dmseg.errors import UserError
from dmseg.files.regular import checksum


def prepared_lidc(root, folder, size=32, **options):
    adapter = LidcAdapter(root)
    wrote = prepare(adapter, adapter.tasks["nodule"], folder, size, {"size": size, **options})
    return wrote, PreparedTask(folder)


def test_arrays_are_the_raw_ones_at_native_size(tmp_path):
    root = write_lidc(tmp_path / "lidc", 3, np.random.default_rng(0), slices=(1, 2))
    _, store = prepared_lidc(root, tmp_path / "store")
    assert [case.case for case in store.cases] == [f"LIDC-IDRI-000{n}" for n in (1, 2, 3)]
    case = store.cases[1]
    assert store.images[case.span].shape == (3, 1, 32, 32)
    assert store.annotations(case).shape == (4, 3, 32, 32)
    folder = root / "LIDC-IDRI-slices/LIDC-IDRI-0002/nodule-1"
    assert np.array_equal(store.images[case.span][2, 0], np.asarray(Image.open(folder / "images/slice-1.png")))
    mask = np.asarray(Image.open(folder / "mask-3/slice-1.png")) // 255
    assert np.array_equal(store.annotations(case)[3, 2], mask)


def test_absent_raters_are_left_out(tmp_path, qubiq_tree):
    adapter = QubiqAdapter(qubiq_tree)
    prepare(adapter, adapter.tasks["prostate-1"], tmp_path / "store", 40, {})
    store = PreparedTask(tmp_path / "store")
    by_id = {case.case: case for case in store.cases}
    assert len(store.annotations(by_id["case09"])) == 5
    assert len(store.annotations(by_id["case08"])) == 6
    assert store.annotations(by_id["case09"]).any(axis=(1, 2, 3)).all()


def test_nothing_is_done_twice_and_everything_that_changed_is(tmp_path, lidc_tree):
    folder = tmp_path / "store"
    wrote, first = prepared_lidc(lidc_tree, folder)
    assert wrote
    assert not prepared_lidc(lidc_tree, folder)[0]
    assert prepared_lidc(lidc_tree, folder, marks=2)[0], "other options"
    path = lidc_tree / "LIDC-IDRI-slices/LIDC-IDRI-0001/nodule-0/mask-0/slice-0.png"
    _, before = prepared_lidc(lidc_tree, folder)
    assert before.digest == first.digest
    os.utime(path, (1, 1))
    assert not prepared_lidc(lidc_tree, folder)[0], "the same content at another time"
    save_png(path, np.zeros((32, 32)))
    wrote, after = prepared_lidc(lidc_tree, folder)
    assert wrote
    assert after.digest != before.digest
    for other in (lidc_tree / "LIDC-IDRI-slices/LIDC-IDRI-0003").rglob("*.png"):
        other.unlink()
    wrote, fewer = prepared_lidc(lidc_tree, folder)
    assert wrote
    assert len(fewer.cases) == 11


@pytest.mark.parametrize("writable", [True, False])
def test_a_copy_without_times_is_compared_once(tmp_path, lidc_tree, monkeypatch, writable):
    folder = tmp_path / "store"
    prepared_lidc(lidc_tree, folder)
    files = sorted(lidc_tree.rglob("*.png"))
    for path in files:
        os.utime(path, (1, 1))
    compared = []

    def counting(path):
        compared.append(path)
        return checksum(path)

    monkeypatch.setattr("dmseg.data.fingerprints.checksum", counting)
    if not writable:
        monkeypatch.setattr("dmseg.data.fingerprints.write_whole", refusing)
    assert not prepared_lidc(lidc_tree, folder)[0]
    assert sorted(compared) == files
    assert not prepared_lidc(lidc_tree, folder)[0]
    assert len(compared) == len(files) * (1 if writable else 2)
    (folder / "times.json").write_text("{")
    assert not prepared_lidc(lidc_tree, folder)[0], "a damaged memory costs time only"
    save_png(files[0], np.zeros((32, 32)))
    os.utime(files[0], (1, 1))
    assert prepared_lidc(lidc_tree, folder)[0], "other content"


def refusing(path, text):
    raise OSError(30, "Read-only file system")


def test_the_digest_is_of_the_content_not_of_the_place(tmp_path):
    for name in ("one", "two"):
        write_lidc(tmp_path / name, 3, np.random.default_rng(0))
    one = prepared_lidc(tmp_path / "one", tmp_path / "a")[1]
    two = prepared_lidc(tmp_path / "two", tmp_path / "b")[1]
    assert one.digest == two.digest


def test_a_damaged_source_leaves_no_store_and_the_rest_is_kept(tmp_path, lidc_tree, monkeypatch):
    folder = tmp_path / "stores" / "store"
    path = lidc_tree / "LIDC-IDRI-slices/LIDC-IDRI-0011/nodule-0/images/slice-0.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:40])
    with pytest.raises(UserError, match="LIDC-IDRI-0011"):
        prepared_lidc(lidc_tree, folder)
    with pytest.raises(UserError, match="is not prepared"):
        PreparedTask(folder)
    path.write_bytes(whole)
    read = []
    monkeypatch.setattr(LidcAdapter, "read_case", counted(LidcAdapter.read_case, read))
    wrote, store = prepared_lidc(lidc_tree, folder)
    assert wrote
    assert read == ["LIDC-IDRI-0011"]
    assert list(folder.parent.iterdir()) == [folder], "nothing is left beside the store"
    assert store.digest == prepared_lidc(lidc_tree, tmp_path / "other")[1].digest


def counted(read_case, read):
    def reading(adapter, task, files):
        read.append(files.case)
        return read_case(adapter, task, files)

    return reading


def test_the_arrays_digest_is_what_it_always_was(tmp_path):
    """Stored runs depend on it: every slice's bytes, then the case's row, case after case."""
    root = write_lidc(tmp_path / "lidc", 3, np.random.default_rng(0), slices=(1, 2))
    _, store = prepared_lidc(root, tmp_path / "store")
    digest = hashlib.sha256()
    for case in store.cases:
        for index in range(case.first, case.first + case.n_slices):
            digest.update(store.images[index].tobytes() + store.annotation_arrays[index].tobytes())
        row = {"case": case.case, "first": case.first, "n_slices": case.n_slices, "raters": [0, 1, 2, 3]}
        digest.update(json.dumps(row, sort_keys=True).encode())
    assert store.digest == digest.hexdigest()
    assert store.digest == "2bea97dc1c1d4e17e7f3dcee6b84a877da6a36f422879982bcdcc412ecedd9c6"


def test_a_damaged_manifest_is_named(tmp_path, lidc_tree):
    prepared_lidc(lidc_tree, tmp_path / "store")
    (tmp_path / "store/manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        PreparedTask(tmp_path / "store")
    assert prepared_lidc(lidc_tree, tmp_path / "store")[0]
    assert json.loads((tmp_path / "store/manifest.json").read_text())["size"] == 32


@pytest.mark.parametrize(("shape", "size"), [((40, 56), 32), ((17, 64), 64), ((64, 64), 64), ((100, 33), 48)])
def test_resizing_is_torchs(shape, size):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, *shape)).astype(np.float32)
    expected = functional.interpolate(torch.from_numpy(image)[None], (size, size), mode="bilinear", align_corners=False)
    assert resize_image(image, size) == pytest.approx(expected[0].numpy(), abs=5e-5)
    masks = (rng.random((3, *shape)) < 0.5).astype(np.uint8)
    nearest = functional.interpolate(torch.from_numpy(masks)[None].float(), (size, size), mode="nearest-exact")
    assert np.array_equal(resize_mask(masks, size), nearest[0].numpy())


def test_quantising_maps_the_window_and_clips():
    image = np.array([[[-10.0, 0.0, 50.0, 100.0, 200.0]]], dtype=np.float32)
    assert quantise(image, np.array([[0.0, 100.0]])).tolist() == [[[0, 0, 128, 255, 255]]]
    assert quantise(image, np.array([[5.0, 5.0]])).tolist() == [[[0, 0, 0, 0, 0]]]
