"""The LIDC adapter on trees written by hand and on real nodules."""

import numpy as np
import pytest
from conftest import save_png, write_lidc
from PIL import Image

from dmseg.data.adapters.lidc import TASK, LidcAdapter
from dmseg.data.prepared import prepare
from dmseg.errors import UserError

PATIENT = "LIDC-IDRI-slices/LIDC-IDRI-0002"


def test_a_case_is_a_patient_with_all_slices(tmp_path):
    root = write_lidc(tmp_path, 3, np.random.default_rng(0), slices=(2, 12))
    cases = LidcAdapter(root).list_cases("nodule")
    assert [(item.case, item.n_slices) for item in cases] == [(f"LIDC-IDRI-000{n}", 14) for n in (1, 2, 3)]
    slices = list(LidcAdapter(root).read_case("nodule", cases[1]).slices)
    order = [("nodule-0", n) for n in range(2)] + [("nodule-1", n) for n in range(12)]
    for item, (nodule, number) in zip(slices, order, strict=True):
        folder = root / PATIENT / nodule
        assert np.array_equal(item.image[0], np.asarray(Image.open(folder / f"images/slice-{number}.png")))
        for rater in range(4):
            mask = np.asarray(Image.open(folder / f"mask-{rater}/slice-{number}.png")) // 255
            assert np.array_equal(item.annotations[rater], mask)


def test_the_root_may_be_the_inner_folder(lidc_tree):
    inner = LidcAdapter(lidc_tree / "LIDC-IDRI-slices").list_cases("nodule")
    assert [item.case for item in inner] == [item.case for item in LidcAdapter(lidc_tree).list_cases("nodule")]


def test_a_missing_mask_is_an_error_or_blank(lidc_tree):
    path = lidc_tree / PATIENT / "nodule-0/mask-3/slice-0.png"
    path.unlink()
    with pytest.raises(UserError, match=r"mask-3/slice-0\.png is missing.*3 of 4 raters.*missing_masks=blank"):
        LidcAdapter(lidc_tree).list_cases("nodule")
    adapter = LidcAdapter(lidc_tree, missing_masks="blank")
    (item,) = adapter.read_case("nodule", adapter.list_cases("nodule")[1]).slices
    assert not item.annotations[3].any()
    assert item.annotations[:3].any()


@pytest.mark.parametrize("missing_masks", ["error", "blank"])
@pytest.mark.parametrize("name", ["mask-1", "images", "mask-2/slice-0.png", "images/slice-0.png"])
def test_a_broken_link_is_no_missing_mask(lidc_tree, name, missing_masks):
    path = lidc_tree / PATIENT / "nodule-0" / name
    path.rename(path.with_name(f"moved-{path.name}"))
    path.symlink_to("../.git/annex/objects/x")
    with pytest.raises(UserError, match=rf"nodule-0/{name} is a broken link; remove it, or restore its target"):
        LidcAdapter(lidc_tree, missing_masks=missing_masks).list_cases("nodule")


def test_an_option_that_an_adapter_lacks_is_not_advised(lidc_tree, tmp_path):
    adapter = LidcAdapter(lidc_tree)
    files = adapter.list_cases("nodule")
    adapter.list_cases = lambda task: files
    (lidc_tree / PATIENT / "nodule-0/images/slice-0.png").unlink()
    with pytest.raises(UserError, match=r"slice-0\.png is missing\nhow to get the data: LIDC-IDRI of") as caught:
        prepare(adapter, TASK, tmp_path / "store", 32, {}, workers=1)
    assert "faulty_cases" not in str(caught.value)


def test_slices_with_fewer_marks_can_be_left_out(tmp_path):
    root = write_lidc(tmp_path, 2, np.random.default_rng(0), slices=(2,))
    save_png(root / PATIENT / "nodule-0/mask-1/slice-0.png", np.zeros((32, 32)))
    assert [item.n_slices for item in LidcAdapter(root).list_cases("nodule")] == [2, 2]
    assert [item.n_slices for item in LidcAdapter(root, min_marks=3).list_cases("nodule")] == [2, 2]
    assert [item.n_slices for item in LidcAdapter(root, min_marks=4).list_cases("nodule")] == [2, 1]


def test_bad_files(lidc_tree):
    adapter = LidcAdapter(lidc_tree)
    files = adapter.list_cases("nodule")[1]
    mask = lidc_tree / PATIENT / "nodule-0/mask-0/slice-0.png"
    save_png(mask, np.full((32, 32), 7))
    with pytest.raises(UserError, match="not a binary mask: it contains 7"):
        list(adapter.read_case("nodule", files).slices)
    save_png(mask, np.zeros((16, 32)))
    with pytest.raises(UserError, match=r"has shape \(16, 32\), but its image has \(32, 32\)"):
        list(adapter.read_case("nodule", files).slices)
    mask.write_bytes(mask.read_bytes()[:30])
    with pytest.raises(UserError, match=r"slice-0\.png cannot be read"):
        list(adapter.read_case("nodule", files).slices)


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match=r"does not exist; set data\.root"):
        LidcAdapter(tmp_path / "nowhere").list_cases("nodule")
    with pytest.raises(UserError, match="no slices under"):
        LidcAdapter(tmp_path).list_cases("nodule")


def test_real_nodules(real_data):
    adapter = LidcAdapter(real_data / "lidc")
    cases = adapter.list_cases("nodule")
    assert len(cases) == 420
    (item,) = adapter.read_case("nodule", cases[0]).slices
    assert item.image.shape == (1, 128, 128)
    assert item.annotations.reshape(4, -1).any(axis=1).all()
