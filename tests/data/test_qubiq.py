"""The QUBIQ adapter on trees written by hand, odd things of the real data included."""

import nibabel
import numpy as np
import pytest
from conftest import ensure_qubiq_case, save_nifti

from dmseg.data.adapters.qubiq import TASKS, QubiqAdapter
from dmseg.errors import UserError


def read(adapter, task, case):
    files = next(item for item in adapter.list_cases(task) if item.case == case)
    return adapter.read_case(task, files)


def raw(path):
    return np.squeeze(np.asarray(nibabel.load(path).dataobj))


def test_training_and_validation_are_merged_in_order(qubiq_tree):
    for task in TASKS:
        cases = [item.case for item in QubiqAdapter(qubiq_tree).list_cases(task)]
        assert cases == [f"case{number:02d}" for number in range(1, 13)]


@pytest.mark.parametrize("task", TASKS)
def test_arrays_are_the_files_own(qubiq_tree, task):
    case = read(QubiqAdapter(qubiq_tree), task, "case02")
    folder = qubiq_tree / TASKS[task].cohort / "Training" / "case02"
    (item,) = case.slices
    image = raw(folder / "image.nii.gz")
    assert np.array_equal(item.image, image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0))
    assert item.image.shape[0] == (4 if "tumor" in task else 1)
    for position, rater in enumerate(TASKS[task].raters):
        assert np.array_equal(item.annotations[position], raw(folder / f"task0{task[-1]}_{rater}.nii.gz"))


def test_the_case_with_five_raters(qubiq_tree):
    case = read(QubiqAdapter(qubiq_tree), "prostate-1", "case09")
    (item,) = case.slices
    assert case.raters == (0, 1, 3, 4, 5)
    assert np.array_equal(item.annotations[2], raw(qubiq_tree / "prostate/Training/case09/task01_seg04.nii.gz"))


def test_another_missing_rater_is_an_error_that_names_the_file(qubiq_tree):
    (qubiq_tree / "kidney/Training/case03/task01_seg02.nii.gz").unlink()
    with pytest.raises(
        UserError, match=r"case03/task01_seg02\.nii\.gz is missing.*2 of 3 raters.*missing_raters=allow"
    ):
        QubiqAdapter(qubiq_tree).list_cases("kidney-1")
    allowed = QubiqAdapter(qubiq_tree, missing_raters="allow")
    assert read(allowed, "kidney-1", "case03").raters == (0, 2)


def test_released_script_replaces_the_incomplete_case(qubiq_tree):
    cases = QubiqAdapter(qubiq_tree, incomplete_cases="replace").list_cases("prostate-2")
    assert [item.case for item in cases] == [f"case{number:02d}" for number in range(1, 12)]
    assert cases[8].files[0].parent.name == "case12"


def test_conflicting_annotations_can_be_dropped(tmp_path):
    folder = tmp_path / "prostate/Training/case50"
    ensure_qubiq_case(folder, "prostate", 6, 2, np.random.default_rng(0))
    assert read(QubiqAdapter(tmp_path), "prostate-2", "case50").raters == (0, 1, 2, 3, 4, 5)
    assert read(QubiqAdapter(tmp_path, conflicting_annotations="drop"), "prostate-2", "case50").raters == (1,)
    assert read(QubiqAdapter(tmp_path, conflicting_annotations="drop"), "prostate-1", "case50").raters == (
        0,
        1,
        2,
        3,
        4,
        5,
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("training_data_v2/kidney/Training", "validation_data_v2/kidney/Validation"),
        ("training_data_v3_QC/kidney/Training", "validation_data_qubiq2021_QC/kidney/Validation"),
        ("kidney", "kidney/Validation"),
    ],
)
def test_release_folders(tmp_path, first, second):
    rng = np.random.default_rng(0)
    ensure_qubiq_case(tmp_path / first / "case02", "kidney", 3, 1, rng)
    ensure_qubiq_case(tmp_path / second / "case10", "kidney", 3, 1, rng)
    ensure_qubiq_case(tmp_path / second / "case25", "kidney", 3, 1, rng)
    ensure_qubiq_case(tmp_path / "test_QUBIQ/kidney/Testing/case01", "kidney", 3, 1, rng)
    assert [item.case for item in QubiqAdapter(tmp_path).list_cases("kidney-1")] == ["case02", "case10"]
    every = QubiqAdapter(tmp_path, cases="all").list_cases("kidney-1")
    assert [item.case for item in every] == ["case02", "case10", "case25"]


def test_a_case_that_is_there_twice(tmp_path):
    rng = np.random.default_rng(0)
    for release in ("training_data_v2", "training_data_v3"):
        ensure_qubiq_case(tmp_path / release / "kidney/Training/case01", "kidney", 3, 1, rng)
    with pytest.raises(UserError, match="kidney case01 exists twice"):
        QubiqAdapter(tmp_path).list_cases("kidney-1")


def test_negative_intensities_are_kept_or_lost_as_the_protocol_says(qubiq_tree):
    image = raw(qubiq_tree / "kidney/Training/case01/image.nii.gz")
    robust = read(QubiqAdapter(qubiq_tree), "kidney-1", "case01").window
    released = read(QubiqAdapter(qubiq_tree, intensity="max"), "kidney-1", "case01").window
    assert robust[0] == pytest.approx(np.percentile(image, (0.5, 99.5)), rel=1e-6)
    assert released[0] == pytest.approx((0, max(0, image.max())))


def test_released_intensities_share_the_maximum_of_all_channels(qubiq_tree):
    image = raw(qubiq_tree / "brain-tumor/Training/case01/image.nii.gz")
    window = read(QubiqAdapter(qubiq_tree, intensity="max"), "brain-tumor-1", "case01").window
    assert window == pytest.approx(np.tile([0, image.max()], (4, 1)))


def test_masks_of_another_shape_or_not_binary(qubiq_tree):
    folder = qubiq_tree / "kidney/Training/case01"
    mask = raw(folder / "task01_seg01.nii.gz")
    save_nifti(folder / "task01_seg01.nii.gz", mask[:-1], np.uint8)
    with pytest.raises(UserError, match=r"task01_seg01\.nii\.gz has shape \(39, 40\), but its image has \(40, 40\)"):
        read(QubiqAdapter(qubiq_tree), "kidney-1", "case01")
    save_nifti(folder / "task01_seg01.nii.gz", mask * 3, np.uint8)
    with pytest.raises(UserError, match=r"task01_seg01\.nii\.gz is not a binary mask: it contains 0, 3"):
        read(QubiqAdapter(qubiq_tree), "kidney-1", "case01")
    save_nifti(folder / "task01_seg01.nii.gz", mask * 255, np.uint8)
    (item,) = read(QubiqAdapter(qubiq_tree), "kidney-1", "case01").slices
    assert np.array_equal(item.annotations[0], mask)


def test_truncated_files_and_nan(qubiq_tree):
    folder = qubiq_tree / "kidney/Training/case01"
    whole = (folder / "image.nii.gz").read_bytes()
    for length in (0, 50, len(whole) // 2, len(whole) - 12):
        (folder / "image.nii.gz").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"case01/image\.nii\.gz cannot be read .* damaged"):
            read(QubiqAdapter(qubiq_tree), "kidney-1", "case01")
    (folder / "image.nii.gz").write_bytes(whole)
    image = np.array(raw(folder / "image.nii.gz"))
    image[3, 4] = np.nan
    save_nifti(folder / "image.nii.gz", image, np.float32)
    with pytest.raises(UserError, match=r"image\.nii\.gz contains 1 NaN"):
        read(QubiqAdapter(qubiq_tree), "kidney-1", "case01")


def test_empty_folder_and_missing_image(tmp_path, qubiq_tree):
    with pytest.raises(UserError, match="no QUBIQ kidney cases under"):
        QubiqAdapter(tmp_path / "nowhere").list_cases("kidney-1")
    (qubiq_tree / "kidney/Training/case01/image.nii.gz").unlink()
    with pytest.raises(UserError, match=r"case01/image\.nii\.gz is missing"):
        QubiqAdapter(qubiq_tree).list_cases("kidney-1")


def test_an_unknown_choice():
    with pytest.raises(UserError, match=r"data\.intensity is 'log', but must be robust or max"):
        QubiqAdapter("x", intensity="log")
