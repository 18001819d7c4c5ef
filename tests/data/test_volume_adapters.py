"""The adapters of volumes on trees written by hand, on phantoms and on real hippocampi."""

import json
import logging
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch
from conftest import save_nifti

from dmseg.config.compose import compose_settings
from dmseg.config.settings import DataSettings, FoldSettings
from dmseg.data.adapters.decathlon import DecathlonAdapter
from dmseg.data.adapters.kits import KitsAdapter
from dmseg.data.adapters.lits import LitsAdapter
from dmseg.data.batches import network_input
from dmseg.data.prepared import PreparedTask, prepare
from dmseg.data.resize import quantise, resize_image
from dmseg.data.volumes import open_volume
from dmseg.errors import UserError
from dmseg.phantom import ensure_decathlon, ensure_kits, ensure_lits
from dmseg.runs.sources import count_target_slices, fold_split, prepare_task


def labels(rng, shape=(12, 10, 8), tumour=True):
    label = np.zeros(shape, np.uint8)
    label[2:9, 2:8, 1:7] = 1
    if tumour:
        label[4:7, 3:6, 3:6] = 2
    return label


def write_lits(root, numbers, rng, without=(), suffix=".nii.gz"):
    for number in numbers:
        place = root / ("Training Batch 1" if number < 28 else "Training Batch 2")
        label = labels(rng, tumour=number not in without)
        image = rng.integers(-200, 300, label.shape)
        save_nifti(place / f"volume-{number}{suffix}", image, np.int16)
        save_nifti(place / f"segmentation-{number}{suffix}", label)
    return root


def write_kits(root, numbers, rng):
    for number in numbers:
        label = np.moveaxis(labels(rng), 2, 0)
        folder = root / f"case_{number:05d}"
        save_nifti(folder / "imaging.nii.gz", rng.normal(0, 200, label.shape), np.float64)
        save_nifti(folder / "segmentation.nii.gz", label, np.uint16 if number % 2 else np.uint8)
    return root


def store(adapter, folder, size=16, workers=2):
    (task,) = adapter.tasks.values()
    prepare(adapter, task, folder, size, {}, workers)
    return PreparedTask(folder)


def read(adapter, number=0):
    (task,) = adapter.tasks
    case = adapter.read_case(task, adapter.list_cases(task)[number])
    return case, list(case.slices)


def test_lits_is_read_in_array_order_slice_by_slice(tmp_path):
    root = write_lits(tmp_path, [0, 2, 10, 28, 130], np.random.default_rng(0))
    adapter = LitsAdapter(root, window=[-60, 140])
    assert [case.case for case in adapter.list_cases("tumour")] == [f"volume-{n}" for n in (0, 2, 10, 28, 130)]
    case, slices = read(adapter, 2)
    image = nibabel.load(root / "Training Batch 1/volume-10.nii.gz").get_fdata()
    label = nibabel.load(root / "Training Batch 1/segmentation-10.nii.gz").get_fdata()
    assert [int(item.annotations.sum()) for item in slices] == [9, 9, 9]
    for item, index in zip(slices, (3, 4, 5), strict=True):
        assert np.array_equal(item.image[0], image[:, :, index])
        assert np.array_equal(item.annotations[0], label[:, :, index] > 1)
    assert case.window.tolist() == [[-60, 140]]


def test_the_window_is_mapped_to_the_range(tmp_path):
    hounsfield = np.linspace(-100, 200, 7, dtype=np.float32).reshape(1, 1, 7)
    expected = np.rint((np.clip(hounsfield, -60, 140) + 60) / 200 * 255)
    assert np.array_equal(quantise(hounsfield, np.array([[-60.0, 140.0]])), expected)
    root = write_lits(tmp_path / "lits", [0], np.random.default_rng(0))
    prepared = store(LitsAdapter(root, window=[-60, 140]), tmp_path / "store", size=12)
    image = nibabel.load(root / "Training Batch 1/volume-0.nii.gz").get_fdata()[:, :, 3]
    resized = resize_image(image[None].astype(np.float32), 12)
    assert np.array_equal(prepared.images[0], quantise(resized, np.array([[-60.0, 140.0]])))


@pytest.mark.parametrize(("structure", "expected"), [("tumour", {3, 4, 5}), ("organ", {1, 2, 3, 4, 5, 6})])
def test_structures_and_slices(tmp_path, structure, expected):
    root = write_lits(tmp_path, [0], np.random.default_rng(0))
    label = labels(None)
    hit = label > (1 if structure == "tumour" else 0)
    _, slices = read(LitsAdapter(root, structure=structure))
    assert len(slices) == len(expected)
    assert [int(item.annotations.sum()) for item in slices] == [int(hit[:, :, k].sum()) for k in sorted(expected)]
    _, every = read(LitsAdapter(root, structure=structure, slices="all"))
    assert len(every) == 8
    assert sum(item.annotations.any() for item in every) == len(expected)
    _, two = read(LitsAdapter(root, structure="organ", slices_per_case=2))
    image = nibabel.load(root / "Training Batch 1/volume-0.nii.gz").get_fdata()
    assert [np.array_equal(item.image[0], image[:, :, k]) for item, k in zip(two, (2, 5), strict=True)] == [True, True]


def test_cases_without_tumour_count_in_the_folds_but_are_not_in_them(tmp_path):
    root = write_lits(tmp_path / "lits", range(10), np.random.default_rng(0), without=(1, 2, 3, 8))
    prepared = store(LitsAdapter(root), tmp_path / "store")
    assert len(prepared.listed) == 10
    assert [case.case for case in prepared.cases] == [f"volume-{n}" for n in (0, 4, 5, 6, 7, 9)]
    folds = FoldSettings("contiguous", 5)
    validation = [fold_split(prepared, folds, fold).validation for fold in (0, 2, 3, 4)]
    assert validation == [("volume-0",), ("volume-4", "volume-5"), ("volume-6", "volume-7"), ("volume-9",)]
    assert fold_split(prepared, folds, 0).train == tuple(f"volume-{n}" for n in (4, 5, 6, 7, 9))
    with pytest.raises(UserError, match=r"fold 1 of .* 0 to score"):
        fold_split(prepared, folds, 1)


def test_affines_and_shapes_that_differ(tmp_path, caplog):
    root = write_lits(tmp_path, [0], np.random.default_rng(0))
    place = root / "Training Batch 1"
    image = nibabel.load(place / "volume-0.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), np.diag([2, 2, 2, 1])), place / "volume-0.nii.gz")
    with caplog.at_level(logging.WARNING):
        _, slices = read(LitsAdapter(root))
    assert "volume-0" in caplog.text
    assert "affines" in caplog.text
    assert len(slices) == 3
    save_nifti(place / "segmentation-0.nii.gz", labels(None)[:, :, :7])
    with pytest.raises(UserError, match=r"segmentation-0\.nii\.gz has shape \(12, 10, 7\).*\(12, 10, 8\)"):
        read(LitsAdapter(root))


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (-1, -1, 1)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_canonical_orientation_is_nibabels(tmp_path, signs, order):
    rng = np.random.default_rng(0)
    affine = np.zeros((4, 4))
    for axis, out in enumerate(order):
        affine[out, axis] = signs[axis] * (1 + axis)
    affine[3, 3] = 1
    label = np.ones((5, 6, 7), np.uint8)
    image = nibabel.Nifti1Image(rng.integers(0, 99, label.shape).astype(np.int16), affine)
    (tmp_path / "lits").mkdir()
    nibabel.save(image, tmp_path / "lits/volume-0.nii.gz")
    nibabel.save(nibabel.Nifti1Image(label, affine), tmp_path / "lits/segmentation-0.nii.gz")
    _, slices = read(LitsAdapter(tmp_path / "lits", structure="organ", orientation="canonical"))
    expected = np.moveaxis(nibabel.as_closest_canonical(image).get_fdata(), 2, 0)
    reversed_in_file = signs[order.index(2)] < 0
    found = np.stack([item.image[0] for item in slices])
    assert np.array_equal(found[::-1] if reversed_in_file else found, expected)


def test_canonical_orientation_needs_a_header_that_states_one(tmp_path):
    root = write_lits(tmp_path, [0], np.random.default_rng(0))
    for path in root.rglob("*.nii.gz"):
        image = nibabel.load(path)
        image.set_sform(None, 0)
        image.set_qform(None, 0)
        nibabel.save(nibabel.Nifti1Image(np.asanyarray(image.dataobj), None, image.header), path)
    assert len(read(LitsAdapter(root))[1]) == 3
    with pytest.raises(UserError, match=r"volume-0\.nii\.gz has no valid orientation in its header; fix it, or set"):
        read(LitsAdapter(root, orientation="canonical"))


def test_lits_files_are_found_in_any_case_and_others_are_named(tmp_path, caplog):
    root = write_lits(tmp_path, [0, 1, 2], np.random.default_rng(0))
    place = root / "Training Batch 1"
    (place / "volume-1.nii.gz").rename(place / "Volume-1.NII.GZ")
    (place / "segmentation-1.nii.gz").rename(place / "Segmentation-1.nii.gz")
    for name in ("test-volume-0.nii", "readme.txt", "._volume-3.nii.gz"):
        (place / name).touch()
    assert [case.case for case in LitsAdapter(root).list_cases("tumour")] == ["volume-0", "volume-1", "volume-2"]
    assert not caplog.text
    (place / "volume_3.nii.gz").touch()
    (place / "segmentation_3.nii.gz").touch()
    LitsAdapter(root).list_cases("tumour")
    assert "segmentation_3.nii.gz and 1 more: not read; expected volume-N.nii and segmentation-N.nii" in caplog.text


def test_lits_files_that_are_missing_or_there_twice(tmp_path):
    root = write_lits(tmp_path, [0, 1], np.random.default_rng(0))
    (root / "Training Batch 1/segmentation-1.nii.gz").unlink()
    with pytest.raises(UserError, match=r"segmentation-1\.nii\.gz is missing\n.*codalab.*\n.*faulty_cases=skip"):
        store(LitsAdapter(root), tmp_path / "store")
    write_lits(root / "copy", [0], np.random.default_rng(0))
    with pytest.raises(UserError, match=r"volume-0\.nii\.gz exists twice"):
        LitsAdapter(root).list_cases("tumour")
    for path in (root / "copy").rglob("*-0.nii.gz"):  # the same number
        path.rename(path.with_name(path.name.replace("-0", "-00")))
    with pytest.raises(UserError, match=r"exists twice: .*volume-0+\.nii\.gz and .*volume-0+\.nii\.gz; remove one"):
        LitsAdapter(root).list_cases("tumour")
    (root / "copy/empty").mkdir()
    with pytest.raises(UserError, match="no LiTS cases under"):
        LitsAdapter(root / "copy/empty").list_cases("tumour")
    with pytest.raises(UserError, match=r"does not exist; set data\.root"):
        LitsAdapter(root / "nowhere").list_cases("tumour")


def test_wrong_options_and_labels(tmp_path):
    root = write_lits(tmp_path, [0], np.random.default_rng(0))
    for wrong, message in (
        ({"structure": "liver"}, r"data\.structure is 'liver'"),
        ({"slices": "some"}, r"data\.slices is 'some'"),
        ({"slices_per_case": 0}, r"data\.slices_per_case is 0"),
        ({"window": [3, 1]}, r"data\.window is \[3, 1\]"),
        ({"axis": 3}, r"data\.axis is 3"),
        ({"dtype": "int8"}, r"data\.dtype is 'int8', but must be uint8 or int16"),
    ):
        with pytest.raises(UserError, match=message):
            LitsAdapter(root, **wrong)
    for value, dtype, shown in ((3, np.uint8, "3"), (-1, np.int16, "-1"), (1.5, np.float32, r"1\.5")):
        label = labels(None).astype(dtype)
        label[0, 0, 0] = value
        save_nifti(root / "Training Batch 1/segmentation-0.nii.gz", label)
        with pytest.raises(UserError, match=rf"segmentation-0\.nii\.gz has the label {shown}"):
            read(LitsAdapter(root))
    save_nifti(root / "Training Batch 1/segmentation-0.nii.gz", labels(None), np.float64)
    assert len(read(LitsAdapter(root))[1]) == 3, "whole numbers may be stored as floats"


@pytest.mark.parametrize("stored", [255, 127])
@pytest.mark.parametrize("structure", ["tumour", "organ"])
def test_labels_may_be_stored_scaled(tmp_path, stored, structure):
    root = write_lits(tmp_path, [0], np.random.default_rng(0))
    expected = read(LitsAdapter(root, structure))[1]
    steps = np.rint(labels(None) * (stored / 2)).astype(np.uint8)
    image = nibabel.Nifti1Image(steps, np.eye(4))
    image.header.set_slope_inter(2 / stored, 0)
    nibabel.save(image, root / "Training Batch 1/segmentation-0.nii.gz")
    found = read(LitsAdapter(root, structure))[1]
    assert len(found) == len(expected) > 0
    assert all(np.array_equal(one.annotations, other.annotations) for one, other in zip(found, expected, strict=True))


def test_kits_slices_lie_along_the_first_axis(tmp_path):
    root = write_kits(tmp_path / "kits", [0, 1, 2, 209], np.random.default_rng(0))
    save_nifti(root / "case_00210/imaging.nii.gz", np.zeros((2, 3, 4)))
    save_nifti(root / "case_00160/imaging.nii.gz", np.zeros((8, 12, 14)))
    save_nifti(root / "case_00160/segmentation.nii.gz", np.full((8, 12, 14), 2), np.uint16)
    adapter = KitsAdapter(root)
    assert [case.case[-3:] for case in adapter.list_cases("tumour")] == ["000", "001", "002", "160", "209"]
    image = nibabel.load(root / "case_00001/imaging.nii.gz").get_fdata()
    _, slices = read(adapter, 1)
    for item, index in zip(slices, (3, 4, 5), strict=True):
        assert np.array_equal(item.image[0], image[index].astype(np.float32))
        assert item.annotations.sum() == 9
    prepared = store(adapter, tmp_path / "store")
    assert prepared.images.shape == (4 * 3 + 8, 1, 16, 16)
    assert prepared.annotations(prepared.cases[3]).all()


def test_kits_images_may_be_missing_if_asked(tmp_path):
    root = write_kits(tmp_path / "kits", range(5), np.random.default_rng(0))
    (root / "case_00003/imaging.nii.gz").unlink()
    with pytest.raises(UserError, match=r"case_00003/imaging\.nii\.gz is missing\n.*download_kits"):
        store(KitsAdapter(root), tmp_path / "store")
    prepared = store(KitsAdapter(root, faulty_cases="skip"), tmp_path / "store")
    assert len(prepared.cases) == 4
    assert len(prepared.listed) == 5
    assert not prepare(KitsAdapter(root, faulty_cases="skip"), prepared.task, tmp_path / "store", 16, {})
    write_kits(root, [3], np.random.default_rng(1))
    assert len(store(KitsAdapter(root, faulty_cases="skip"), tmp_path / "store").cases) == 5


def test_all_damaged_files_are_named_at_the_end_and_the_rest_is_kept(tmp_path, caplog, monkeypatch):
    root = write_kits(tmp_path / "kits", range(6), np.random.default_rng(0))
    whole = {}
    for number in (1, 4):
        path = root / f"case_{number:05d}/imaging.nii.gz"
        whole[path] = path.read_bytes()
        path.write_bytes(whole[path][:200])
    with pytest.raises(UserError, match=r"2 of 6 cases cannot be read: case_00001, case_00004") as caught:
        store(KitsAdapter(root), tmp_path / "store")
    said = caplog.text + str(caught.value)
    assert [said.count(f"{path} cannot be read") for path in whole] == [1, 1], "each fault once"
    for path, content in whole.items():
        path.write_bytes(content)
    done = []
    original = KitsAdapter.read_case
    monkeypatch.setattr(
        KitsAdapter, "read_case", lambda self, task, files: done.append(files.case) or original(self, task, files)
    )
    prepared = store(KitsAdapter(root), tmp_path / "store")
    assert sorted(done) == ["case_00001", "case_00004"]
    assert prepared.digest == store(KitsAdapter(root), tmp_path / "other", workers=1).digest


def test_labels_alone_are_counted_in_all_and_per_fold(tmp_path):
    root = write_kits(tmp_path / "kits", range(11), np.random.default_rng(0))
    for path in root.rglob("imaging.nii.gz"):
        path.unlink()
    save_nifti(root / "case_00009/segmentation.nii.gz", np.full((7, 12, 10), 2), np.uint8)
    data = DataSettings("kits", "dmseg.data.adapters.kits.KitsAdapter", str(root), 512, {}, labels_only=True)
    counts, folds = count_target_slices(data, None, FoldSettings("contiguous", 5), 2)
    assert sum(item.n_target for item in counts) == 10 * 3 + 7
    assert [len(fold) for fold in folds] == [2, 2, 2, 2, 3]
    assert [sum(item.n_target for item in fold) for fold in folds] == [6, 6, 6, 6, 13]


def write_decathlon(root, count, rng, channels=0):
    rows = []
    for number in range(count):
        label = labels(rng)
        shape = (*label.shape, channels) if channels else label.shape
        save_nifti(root / f"imagesTr/x_{number}.nii.gz", rng.gamma(2, 1000, shape), np.float32)
        save_nifti(root / f"labelsTr/x_{number}.nii.gz", label)
        rows.append({"image": f"./imagesTr/x_{number}.nii.gz", "label": f"./labelsTr/x_{number}.nii.gz"})
    dataset = {"name": "Thing", "labels": {"0": "background", "1": "a", "2": "b"}, "training": rows}
    (root / "dataset.json").write_text(json.dumps(dataset))
    return root


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("channels", [0, 4])
def test_decathlon_axis_labels_channels_and_window(tmp_path, axis, channels):
    root = write_decathlon(tmp_path / "Task99_Thing", 12, np.random.default_rng(0), channels)
    adapter = DecathlonAdapter(root, axis=axis, target_labels=[1])
    assert [case.case for case in adapter.list_cases("thing")] == [f"x_{n}" for n in range(12)]
    case, slices = read(adapter, 10)
    image = nibabel.load(root / "imagesTr/x_10.nii.gz").get_fdata(dtype=np.float32)
    image = np.moveaxis(image.reshape((*image.shape[:3], -1)), -1, 0)
    label = np.moveaxis(np.asarray(nibabel.load(root / "labelsTr/x_10.nii.gz").dataobj), axis, 0) == 1
    kept = np.flatnonzero(label.any(axis=(1, 2)))
    assert np.array_equal(np.stack([item.image for item in slices]), np.moveaxis(image, axis + 1, 0)[kept])
    assert np.array_equal(np.stack([item.annotations[0] for item in slices]), label[kept])
    assert case.window == pytest.approx(np.percentile(image.reshape(len(image), -1), (0.5, 99.5), axis=1).T)
    assert DecathlonAdapter(tmp_path, axis=axis).list_cases("thing")


def test_a_label_that_decathlon_does_not_name_is_refused(tmp_path):
    root = write_decathlon(tmp_path / "Task99_Thing", 2, np.random.default_rng(0))
    dataset = json.loads((root / "dataset.json").read_text())
    dataset["labels"] = {"0": "background", "2": "thing"}
    (root / "dataset.json").write_text(json.dumps(dataset))
    adapter = DecathlonAdapter(root, slices="all")
    with pytest.raises(UserError, match=r"labelsTr/.* has the label 1, which .*dataset\.json does not name; add it to"):
        read(adapter)
    path = adapter.list_cases("thing")[0].files[1]
    save_nifti(path, np.minimum(nibabel.load(path).get_fdata(), 0) + 2, np.uint8)
    assert all(item.annotations.all() for item in read(adapter)[1])


def test_decathlon_descriptions_that_are_wrong(tmp_path):
    with pytest.raises(UserError, match=r"dataset\.json; it does not contain one"):
        DecathlonAdapter(tmp_path)
    root = write_decathlon(tmp_path / "Task99_Thing", 2, np.random.default_rng(0))
    with pytest.raises(UserError, match=r"data\.target_labels is \[3\], but must be a list of labels from \[1, 2\]"):
        DecathlonAdapter(root, target_labels=[3])
    for broken in ("{", "[]", '{"labels": {"0": "background"}}', "{}"):
        (root / "dataset.json").write_text(broken)
        with pytest.raises(UserError, match=r"dataset\.json"):
            DecathlonAdapter(root).list_cases("thing")


@pytest.mark.parametrize("ensure", [ensure_lits, ensure_kits, ensure_decathlon])
def test_phantoms_are_the_same_bytes_again_and_others_for_another_seed(tmp_path, ensure):
    scale = {} if ensure is ensure_decathlon else {"scale": 0.13}
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        assert ensure(tmp_path / name, seed=seed, cases=3, **scale)
    assert not ensure(tmp_path / "one", seed=0, cases=3, **scale)
    one, two, three = (
        {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in (tmp_path / name).rglob("*.nii*")}
        for name in ("one", "two", "three")
    )
    assert one == two
    assert one.keys() == three.keys()
    assert all(one[name] != three[name] for name in one)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.txt").write_text("x")
    with pytest.raises(UserError, match="not a phantom"):
        ensure(tmp_path / "other", seed=0, cases=3, **scale)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"cases": 0}, {"scale": 0.01}, {"scale": "x"}])
def test_wrong_settings_of_phantoms(tmp_path, wrong):
    with pytest.raises(UserError, match="the phantom's"):
        ensure_lits(tmp_path / "x", **wrong)


def test_a_wrong_number_of_volumes_names_its_key(tmp_path):
    with pytest.raises(UserError, match=r"\(data\.phantom\.cases\) is \{'kidney': 5\}"):
        ensure_lits(tmp_path / "x", cases={"kidney": 5})


def test_lits_phantom_has_cases_without_tumour_and_kits_a_wide_one(tmp_path):
    ensure_lits(tmp_path / "lits", cases=15, scale=0.13)
    counts = [
        LitsAdapter(tmp_path / "lits").count_slices(case).n_target
        for case in LitsAdapter(tmp_path / "lits").list_cases("")
    ]
    assert [number for number, count in enumerate(counts) if count == 0] == [4, 14]
    ensure_kits(tmp_path / "kits", cases=7, scale=0.13)
    shape = nibabel.load(tmp_path / "kits/case_00006/imaging.nii.gz").shape
    assert shape[2] == round(shape[1] * 796 / 512)


def test_real_hippocampi(real_data, tmp_path):
    root = real_data / "decathlon" / "Task04_Hippocampus"
    adapter = DecathlonAdapter(root, slices_per_case=8)
    cases = adapter.list_cases("hippocampus")
    assert len(cases) == 191
    for files in cases[::40]:
        case = adapter.read_case("hippocampus", files)
        image, label = (np.asarray(nibabel.load(path).dataobj) for path in files.files)
        slices = list(case.slices)
        assert len(slices) == 8
        assert case.window == pytest.approx(np.percentile(image.astype(np.float32), (0.5, 99.5)).reshape(1, 2))
        every = [np.array_equal(slices[0].annotations[0], label[:, :, k] > 0) for k in range(label.shape[2])]
        assert any(every)


def test_an_interrupted_prepare_goes_on_where_it_stopped(tmp_path, monkeypatch):
    """Killed between two cases and while one is written; the arrays are those of an undisturbed one."""
    root = write_kits(tmp_path / "kits", range(6), np.random.default_rng(0))
    original, done = KitsAdapter.read_case, []

    def read_case(self, task, files):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(files.case)
        return original(self, task, files)

    monkeypatch.setattr(KitsAdapter, "read_case", read_case)
    with pytest.raises(KeyboardInterrupt):
        store(KitsAdapter(root), tmp_path / "store", workers=1)
    (half,) = (path for path in (tmp_path / ".store.parts").iterdir() if "case_00001" in _case_of(path))
    (half / "images").write_bytes(b"torn")
    monkeypatch.setattr(
        KitsAdapter, "read_case", lambda self, *rest: done.append(rest[1].case) or original(self, *rest)
    )
    done.clear()
    prepared = store(KitsAdapter(root), tmp_path / "store", workers=1)
    assert done == ["case_00001", "case_00003", "case_00004", "case_00005"]
    assert prepared.digest == store(KitsAdapter(root), tmp_path / "whole").digest


def _case_of(part):
    return json.loads((part / "case.json").read_text())["case"] if part.is_dir() else ""


def test_slices_of_a_pass_over_the_file_do_not_hold_the_pass(tmp_path):
    root = write_kits(tmp_path / "kits", [0], np.random.default_rng(0))
    volume = open_volume(root / "case_00000/imaging.nii.gz")
    assert all(item.base is None for item in volume.stored(0, range(8)))


@pytest.mark.parametrize("window", [[-60, 140], None])
def test_a_window_in_int16_has_finer_steps(tmp_path, window):
    root = write_kits(tmp_path / "kits", range(3), np.random.default_rng(0))
    fine = store(KitsAdapter(root, window=window, dtype="int16"), tmp_path / "fine", size=12)
    coarse = store(KitsAdapter(root, window=window), tmp_path / "coarse", size=12)
    assert (fine.images.dtype, coarse.images.dtype) == (np.int16, np.uint8)
    assert fine.digest != coarse.digest
    assert np.array_equal(fine.annotation_arrays, coarse.annotation_arrays)
    for case in fine.cases:
        image = nibabel.load(root / case.case / "imaging.nii.gz").get_fdata()
        low, high = np.percentile(image, (0.5, 99.5)) if window is None else window
        resized = resize_image(image[3:6].astype(np.float32), 12)
        expected = np.clip((resized - low) / (high - low), 0, 1) * 2 - 1
        for prepared, steps in ((fine, 32767), (coarse, 255)):
            stored = torch.from_numpy(np.array(prepared.images[case.span][:, 0]))
            assert network_input(stored, stored.dtype).numpy() == pytest.approx(expected, abs=1.001 / steps + 2e-6)
    assert fine.images.min() >= 0
    assert len(np.unique(fine.images)) > 256


def test_an_interrupted_int16_prepare_goes_on(tmp_path):
    root = write_kits(tmp_path / "kits", range(3), np.random.default_rng(0))
    damaged = root / "case_00002/imaging.nii.gz"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:99])
    adapter = KitsAdapter(root, dtype="int16")
    with pytest.raises(UserError, match="case_00002"):
        store(adapter, tmp_path / "store")
    damaged.write_bytes(whole)
    done = []
    read_case = adapter.read_case
    adapter.read_case = lambda task, files: done.append(files.case) or read_case(task, files)
    assert store(adapter, tmp_path / "store").digest == store(adapter, tmp_path / "other").digest
    assert done[0] == "case_00002"
    assert len(done) == 1 + 3


def test_stores_of_before_there_was_a_dtype_are_found(tmp_path):
    root = write_kits(tmp_path / "kits", range(3), np.random.default_rng(0))
    settings = compose_settings(["data=kits", "task=tumour", f"paths.prepared='{tmp_path}/prepared'"])

    def prepared(**options):
        target = "dmseg.data.adapters.kits.KitsAdapter"
        data = DataSettings("kits", target, str(root), 16, {"slices_per_case": None, **options})
        return prepare_task(replace(settings, data=data))

    before, now, fine = prepared(), prepared(dtype="uint8"), prepared(dtype="int16")
    assert before.folder == now.folder != fine.folder
    assert before.manifest["options"] == {
        "adapter": "dmseg.data.adapters.kits.KitsAdapter",
        "size": 16,
        "slices_per_case": None,
    }
    assert fine.manifest["options"] == {**before.manifest["options"], "dtype": "int16"}
