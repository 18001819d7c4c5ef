"""Spacing of slices and whether they are contiguous, from headers to the manifest, against nibabel."""

import json

import nibabel
import numpy as np
import pytest

from dmseg.data.adapters.decathlon import DecathlonAdapter
from dmseg.data.adapters.qubiq import QubiqAdapter
from dmseg.data.case import Case, CaseFiles, Slice, Task
from dmseg.data.contract import checked_case
from dmseg.data.parts import read_part, write_part
from dmseg.data.prepared import PreparedTask, prepare
from dmseg.data.resize import stored_slices
from dmseg.data.volumes import open_volume
from dmseg.errors import DamagedStoreError, UserError

SHAPE, ZOOMS = (18, 14, 10), (0.7, 1.25, 2.5)


def save(path, values, affine, unit="mm", kind=nibabel.Nifti1Image):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = kind(values, affine)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize(
    ("zooms", "unit", "expected"),
    [
        (ZOOMS, "mm", ZOOMS),
        (ZOOMS, "unknown", ZOOMS),
        (ZOOMS, "micron", (0.0007, 0.00125, 0.0025)),
        ((0.0007, 0.00125, 0.0025), "meter", ZOOMS),
        ((1.0, 1.0, 1.0), "mm", (1.0, 1.0, 1.0)),
        ((1.0, 1.0, 1.0), "unknown", None),
        ((1.0, 1.0, 2.0), "unknown", (1.0, 1.0, 2.0)),
    ],
)
def test_headers(tmp_path, kind, zooms, unit, expected):
    path = save(tmp_path / "scan.nii", np.zeros(SHAPE, np.uint8), np.diag([*zooms, 1]), unit, kind)
    found = open_volume(path).spacing
    assert found is None if expected is None else found == pytest.approx(expected, rel=1e-7)
    if unit == "mm":
        assert found == (*zooms,)  # without the digits of float32
        assert found == pytest.approx(nibabel.load(path).header.get_zooms(), rel=1e-6)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_header_without_a_usable_number(tmp_path, value):
    image = nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), np.eye(4))
    image.header.set_xyzt_units("mm")
    content = bytearray(image.to_bytes())
    content[84:88] = np.float32(value).tobytes()  # pixdim[2]
    path = tmp_path / "scan.nii"
    path.write_bytes(content)
    assert open_volume(path).spacing is None


def decathlon(root, affine, gap=False, n=3):
    rows, rng = [], np.random.default_rng(0)
    for number in range(n):
        label = np.zeros(SHAPE, np.uint8)
        label[4:12, 3:10, 2:8] = 1
        if gap and number == 1:
            label[:, :, 5] = label[:, 5] = label[6] = 0
        save(root / f"imagesTr/c_{number}.nii.gz", rng.normal(size=SHAPE).astype(np.float32), affine)
        save(root / f"labelsTr/c_{number}.nii.gz", label, affine)
        rows.append({"image": f"./imagesTr/c_{number}.nii.gz", "label": f"./labelsTr/c_{number}.nii.gz"})
    content = {"name": "Demo", "labels": {"0": "background", "1": "organ"}, "training": rows}
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def store(adapter, folder, size=16):
    (task,) = adapter.tasks.values()
    prepare(adapter, task, folder, size, {})
    return PreparedTask(folder)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_resized_slices_across_each_axis(tmp_path, axis):
    root = decathlon(tmp_path / "raw", np.diag([*ZOOMS, 1.0]), gap=True)
    prepared = store(DecathlonAdapter(root, axis=axis), tmp_path / "store")
    rows, columns = (place for place in range(3) if place != axis)
    expected = (ZOOMS[rows] * SHAPE[rows] / 16, ZOOMS[columns] * SHAPE[columns] / 16, ZOOMS[axis])
    for number, case in enumerate(prepared.cases):
        assert case.spacing == pytest.approx(expected)
        assert case.contiguous == (number != 1)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_canonical_orientation(tmp_path, axis):
    """Axes of the file in the order S, R, A, two of them reversed; nibabel says what that is in RAS+."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = -ZOOMS[0], ZOOMS[1], -ZOOMS[2], 1
    root = decathlon(tmp_path / "raw", affine)
    image = nibabel.as_closest_canonical(nibabel.load(root / "imagesTr/c_0.nii.gz"))
    zooms, shape = image.header.get_zooms(), image.shape
    rows, columns = (place for place in range(3) if place != axis)
    prepared = store(DecathlonAdapter(root, axis=axis, orientation="canonical"), tmp_path / "store")
    expected = (zooms[rows] * shape[rows] / 16, zooms[columns] * shape[columns] / 16, zooms[axis])
    assert prepared.cases[0].spacing == pytest.approx(expected)


def test_every_second_slice_is_not_contiguous(tmp_path):
    root = decathlon(tmp_path / "raw", np.diag([*ZOOMS, 1.0]))
    assert not any(
        case.contiguous for case in store(DecathlonAdapter(root, slices_per_case=3), tmp_path / "store").cases
    )


def test_an_image_of_one_slice(tmp_path):
    for shape in ((12, 20), (12, 20, 1)):
        save(tmp_path / "kidney/case01/image.nii.gz", np.ones(shape, np.float32), np.diag([0.5, 0.8, 3, 1]))
        adapter = QubiqAdapter(tmp_path, missing_raters="allow")
        for rater in (1, 2, 3):
            mask = np.zeros(shape, np.uint8)
            save(tmp_path / f"kidney/case01/task01_seg0{rater}.nii.gz", mask, np.eye(4))
        (files,) = adapter.list_cases("kidney-1")
        case = adapter.read_case("kidney-1", files)
        assert case.spacing == pytest.approx((0.5, 0.8))
        assert not case.contiguous


TASK = Task("organ", "Organ", "demo", ("a",))


def made(spacing, shapes=((8, 12),), contiguous=False):
    slices = [Slice(np.zeros((1, *shape), np.float32), np.zeros((1, *shape), np.uint8)) for shape in shapes]
    return Case("c", (0,), np.array([[0.0, 1.0]]), slices, spacing=spacing, contiguous=contiguous)


@pytest.mark.parametrize(
    ("shapes", "expected"), [(((8, 12),) * 2, (2.0, 6.0, 5.0)), (((8, 12), (8, 16)), None), (((8, 12),), (2, 6, 5))]
)
def test_slices_of_different_sizes_have_no_common_spacing(tmp_path, shapes, expected):
    files = CaseFiles("c", None, ())
    case = checked_case(made((1.0, 2.0, 5.0), shapes, True), files, TASK)
    part = write_part(case, stored_slices(case, 4), files, "key", tmp_path / "part")
    assert part.spacing == expected
    assert part.contiguous
    assert read_part(tmp_path / "part", files, "key") == part


@pytest.mark.parametrize("spacing", [(1.0,), (1, 2, 3, 4), (0.0, 1.0), (np.nan, 1.0), (-1, 1), "ab", 3.0, (1e9, 1.0)])
def test_a_spacing_that_an_adapter_cannot_give(spacing):
    with pytest.raises(UserError, match="case c: spacing is"):
        checked_case(made(spacing), CaseFiles("c", None, ()), TASK)
    with pytest.raises(UserError, match="case c: contiguous is"):
        checked_case(made((1, 1), contiguous="yes"), CaseFiles("c", None, ()), TASK)


@pytest.mark.parametrize(
    "geometry",
    [
        [],
        {},
        {"c_0": {"spacing": None, "contiguous": True}},
        {name: {"spacing": [1.0], "contiguous": True} for name in ("c_0", "c_1", "c_2")},
        {name: {"spacing": [1.0, -1.0], "contiguous": True} for name in ("c_0", "c_1", "c_2")},
        {name: {"spacing": [1.0, 1.0], "contiguous": 1} for name in ("c_0", "c_1", "c_2")},
        {name: {"spacing": [1.0, 1.0]} for name in ("c_0", "c_1", "c_2")},
    ],
)
def test_the_manifest_is_checked_and_sealed(tmp_path, geometry):
    prepared = store(DecathlonAdapter(decathlon(tmp_path / "raw", np.diag([*ZOOMS, 1.0]))), tmp_path / "store")
    manifest = prepared.manifest | {"geometry": geometry}
    (tmp_path / "store/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedStoreError, match="checksum"):
        PreparedTask(tmp_path / "store")
    (tmp_path / "store/seal.json").unlink()
    with pytest.raises(DamagedStoreError, match="geometry"):
        PreparedTask(tmp_path / "store")
