"""Names of files and folders that differ from a data set's: read in any case, refused if twice, otherwise warned of."""

import logging
import shutil

import numpy as np
import pytest
from conftest import ensure_qubiq_case, save_nifti

from dmseg.data.adapters.kits import KitsAdapter
from dmseg.data.adapters.lidc import LidcAdapter
from dmseg.data.adapters.qubiq import QubiqAdapter
from dmseg.errors import MissingDataError, UserError


@pytest.fixture
def kidney(tmp_path):
    for number in range(1, 5):
        ensure_qubiq_case(tmp_path / f"kidney/Training/case{number:02d}", "kidney", 3, 1, np.random.default_rng(number))
    return tmp_path / "kidney/Training"


def arrays(root):
    adapter = QubiqAdapter(root)
    cases = {files.case: adapter.read_case("kidney-1", files) for files in adapter.list_cases("kidney-1")}
    return {name: (case.raters, next(iter(case.slices))) for name, case in cases.items()}


def rename(path, name):
    return path.rename(path.with_name(name))


def test_qubiq_is_read_in_any_case(kidney, tmp_path, caplog):
    expected = arrays(tmp_path)
    rename(kidney / "case02/task01_seg02.nii.gz", "Task01_Seg02.NII.gz")
    rename(kidney / "case02", "Case02")
    rename(kidney, "TRAINING")
    rename(tmp_path / "kidney", "Kidney")
    found = arrays(tmp_path)
    assert list(found) == list(expected) == ["case01", "case02", "case03", "case04"]
    for name, (raters, item) in expected.items():
        assert found[name][0] == raters == (0, 1, 2)
        assert np.array_equal(found[name][1].annotations, item.annotations)
    assert caplog.messages == []


def test_a_rater_in_capitals_is_not_missing(kidney, tmp_path):
    rename(kidney / "case03/task01_seg01.nii.gz", "Task01_Seg01.nii.gz")
    files = QubiqAdapter(tmp_path, missing_raters="allow").list_cases("kidney-1")[2]
    assert files.layout == (0, 1, 2)
    assert files.files[1].name == "Task01_Seg01.nii.gz"


@pytest.mark.parametrize("name", ["case1", "case001", "CASE01"])
def test_the_same_number_is_the_same_case(kidney, tmp_path, name):
    shutil.copytree(kidney / "case01", kidney / name)
    with pytest.raises(UserError, match=rf"kidney case0*1 exists twice: .*(case01.*{name}|{name}.*case01);"):
        QubiqAdapter(tmp_path).list_cases("kidney-1")


@pytest.mark.parametrize("name", ["task01_seg02.nii", "TASK01_SEG02.nii.gz", "image.nii"])
def test_a_file_that_is_there_twice(kidney, tmp_path, name):
    shutil.copy(kidney / "case02/image.nii.gz", kidney / "case02" / name)
    with pytest.raises(UserError, match=r"exists twice: .*case02/.*case02/.*; remove one of them"):
        QubiqAdapter(tmp_path).list_cases("kidney-1")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("case02 (copy)", "case02 (copy): not read; folders of cases are named caseNN"),
        ("Case_02", "Case_02: not read; folders of cases are named caseNN"),
        ("case02/task01_seg04.nii.gz", "task01_seg04.nii.gz: not read; the raters of kidney-1 are seg01, seg02, seg03"),
        ("case02/task01_seg1.nii.gz", "task01_seg1.nii.gz: not read; the raters of kidney-1 are seg01, seg02, seg03"),
    ],
)
def test_what_qubiq_does_not_have_is_named(kidney, tmp_path, caplog, name, said):
    if name.endswith(".gz"):
        shutil.copy(kidney / "case02/task01_seg01.nii.gz", kidney / name)
    else:
        shutil.copytree(kidney / "case01", kidney / name)
    assert len(QubiqAdapter(tmp_path).list_cases("kidney-1")) == 4
    (message,) = caplog.messages
    assert message.endswith(said)


def test_what_is_there_instead_is_named(kidney, tmp_path):
    adapter = QubiqAdapter(tmp_path)
    with pytest.raises(
        MissingDataError, match=r"no QUBIQ prostate cases.*\nthere is kidney: set task=kidney-1, or add "
    ):
        adapter.list_cases("prostate-1")
    rename(kidney, "Trainings")
    with pytest.raises(MissingDataError, match=r"no QUBIQ kidney cases.*\n.*/kidney has Trainings\nset data.root"):
        adapter.list_cases("kidney-1")
    rename(tmp_path / "kidney", "kidneys")
    with pytest.raises(MissingDataError, match=rf"no QUBIQ kidney cases.*\n{tmp_path} has kidneys\nset data.root"):
        adapter.list_cases("kidney-1")


def test_a_broken_link_in_place_of_a_data_set_is_refused(kidney, tmp_path):
    rename(tmp_path / "kidney", "elsewhere")
    (tmp_path / "kidney").symlink_to(tmp_path / "none")
    with pytest.raises(UserError, match="kidney is a broken link"):
        QubiqAdapter(tmp_path).list_cases("kidney-1")


def write_kits(root, *names):
    for name in names:
        for kind in ("imaging", "segmentation"):
            save_nifti(root / name / f"{kind}.nii.gz", np.ones((3, 4, 4)), np.uint8)
    return KitsAdapter(root)


def test_folders_that_kits_does_not_have_are_named(tmp_path, caplog):
    adapter = write_kits(tmp_path, "case_00000", "case_00001", "case_00210", "notes")
    assert [files.case for files in adapter.list_cases("tumour")] == ["case_00000", "case_00001"]
    assert caplog.messages == []
    write_kits(tmp_path, "Case_00005", "case_5")
    assert len(adapter.list_cases("tumour")) == 2
    (message,) = caplog.messages
    assert message.endswith("and 1 more: not read; folders of cases are named case_NNNNN")


def test_a_volume_that_is_there_packed_and_unpacked(tmp_path):
    adapter = write_kits(tmp_path, "case_00000")
    save_nifti(tmp_path / "case_00000/imaging.nii", np.zeros((3, 4, 4)), np.uint8)
    with pytest.raises(UserError, match=r"imaging\.nii\.gz exists twice: .*; remove one of them"):
        adapter.list_cases("tumour")


def test_a_fifth_rater_of_lidc_is_named(lidc_tree, caplog):
    with caplog.at_level(logging.WARNING):
        before = LidcAdapter(lidc_tree).list_cases("nodule")
        assert caplog.messages == []
        for patient in ("LIDC-IDRI-0001", "LIDC-IDRI-0003"):
            nodule = lidc_tree / "LIDC-IDRI-slices" / patient / "nodule-0"
            shutil.copytree(nodule / "mask-0", nodule / "mask-4")
        assert LidcAdapter(lidc_tree).list_cases("nodule") == before
    (message,) = caplog.messages
    place, said = message.split(" and ")
    assert place.endswith("LIDC-IDRI-0001/nodule-0/mask-4")
    assert said == "1 more: not read; the masks of the raters are in mask-0, mask-1, mask-2 or mask-3"


@pytest.mark.parametrize("name", ["Mask-1", "mask_1", "mask1"])
def test_masks_of_lidc_that_are_not_read_are_named(lidc_tree, caplog, name):
    rename(lidc_tree / "LIDC-IDRI-slices/LIDC-IDRI-0002/nodule-0/mask-1", name)
    LidcAdapter(lidc_tree, missing_masks="blank").list_cases("nodule")
    (message,) = caplog.messages
    assert f"LIDC-IDRI-0002/nodule-0/{name}: not read; the masks of the raters are in mask-0, " in message


def test_slices_of_lidc_that_lie_elsewhere_are_named(lidc_tree, caplog):
    patient = lidc_tree / "LIDC-IDRI-slices/LIDC-IDRI-0002"
    for path in (patient / "nodule-0").iterdir():
        path.rename(patient / path.name)
    (patient / "nodule-0").rmdir()
    (patient.parent / "LIDC-IDRI-0099").mkdir()
    found = [files.case for files in LidcAdapter(lidc_tree).list_cases("nodule")]
    assert "LIDC-IDRI-0001" in found
    assert "LIDC-IDRI-0002" not in found
    (message,) = caplog.messages
    assert "LIDC-IDRI-0002/images and 5 more: not read; slices are in " in message


def test_a_slice_of_lidc_that_is_there_twice(lidc_tree):
    path = lidc_tree / "LIDC-IDRI-slices/LIDC-IDRI-0002/nodule-0/images/slice-0.png"
    shutil.copy(path, path.with_suffix(".PNG"))
    with pytest.raises(UserError, match=r"exists twice: .*nodule-0/images/slice-0\..*; remove one of them"):
        LidcAdapter(lidc_tree).list_cases("nodule")


def test_an_empty_png_is_called_empty(lidc_tree):
    path = next(lidc_tree.rglob("images/*.png"))
    path.write_bytes(b"")
    adapter = LidcAdapter(lidc_tree)
    files = next(files for files in adapter.list_cases("nodule") if path in files.files)
    with pytest.raises(UserError, match=rf"{path} is empty; download it again"):
        adapter.read_case("nodule", files)
