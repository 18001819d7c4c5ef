"""Streams of NIfTI volumes against nibabel reading them whole."""

import gzip
import threading

import nibabel
import numpy as np
import pytest
import SimpleITK

from dmseg.data import volumes
from dmseg.data.volumes import open_volume
from dmseg.errors import UserError


def save(path, array, affine=None, slope=None, kind=nibabel.Nifti1Image, order="<"):
    header = (nibabel.Nifti1Header if kind is nibabel.Nifti1Image else nibabel.Nifti2Header)(endianness=order)
    header.set_data_dtype(array.dtype.newbyteorder(order))
    image = kind(array, np.eye(4) if affine is None else affine, header)
    if slope:
        image.header.set_slope_inter(*slope)
    nibabel.save(image, path)
    return path


def read_all(path, axis):
    volume = open_volume(path)
    return np.stack(list(volume.slices(axis, range(volume.shape[axis]))))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["int16", "uint16", "uint8", "float32", "float64"])
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_slices_are_nibabels(tmp_path, monkeypatch, axis, dtype, name):
    monkeypatch.setattr(volumes, "GATHERED_BYTES", 300)
    array = np.random.default_rng(0).integers(0, 200, (7, 5, 6)).astype(dtype)
    path = save(tmp_path / name, array)
    expected = np.moveaxis(nibabel.load(path).get_fdata(), axis, 0)[:, None]
    assert np.array_equal(read_all(path, axis), expected)
    for some in ([1, 4], [0, 2, 3], [2, 3, 4], [4]):
        assert np.array_equal(np.stack(list(open_volume(path).slices(axis, some))), expected[some])
    assert list(open_volume(path).slices(axis, [])) == []


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize(
    "options",
    [{"slope": (2.0, -1024.0)}, {"order": ">"}, {"kind": nibabel.Nifti2Image}, {"slope": (0.5, 3.0), "order": ">"}],
)
def test_odd_headers(tmp_path, axis, options):
    array = np.random.default_rng(0).integers(-50, 200, (4, 5, 6)).astype(np.int16)
    path = save(tmp_path / "v.nii.gz", array, **options)
    assert read_all(path, axis)[:, 0] == pytest.approx(np.moveaxis(nibabel.load(path).get_fdata(), axis, 0))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_channels_and_axes_of_length_one(tmp_path, axis):
    array = np.random.default_rng(0).normal(size=(4, 5, 6, 3)).astype(np.float32)
    expected = np.moveaxis(np.moveaxis(array, axis, 0), -1, 1)
    path = save(tmp_path / "four.nii.gz", array)
    assert np.array_equal(read_all(path, axis), expected)
    for some in ([1, 3], [1, 2, 3]):
        assert np.array_equal(np.stack(list(open_volume(path).slices(axis, some))), expected[some])
    path = save(tmp_path / "one.nii.gz", array[..., :1, None])
    assert open_volume(path).shape == (4, 5, 6)
    assert np.array_equal(read_all(path, axis), expected[:, :1])


def test_header_extensions_are_stepped_over(tmp_path):
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"x" * 5000))
    nibabel.save(image, tmp_path / "v.nii.gz")
    assert np.array_equal(read_all(tmp_path / "v.nii.gz", 2)[:, 0], np.moveaxis(np.asarray(image.dataobj), 2, 0))


def test_the_content_not_the_name_tells_whether_a_file_is_compressed(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    plain = save(tmp_path / "v.nii", array).read_bytes()
    (tmp_path / "not.nii.gz").write_bytes(plain)
    (tmp_path / "yes.nii").write_bytes(gzip.compress(plain))
    for name in ("not.nii.gz", "yes.nii"):
        assert np.array_equal(read_all(tmp_path / name, 2)[:, 0], np.moveaxis(array, 2, 0))


def test_other_formats_are_refused_by_name(tmp_path):
    """No reader guesses: what is not NIfTI is to be converted, whatever it is called."""
    array = np.random.default_rng(0).integers(0, 99, (4, 5, 6)).astype(np.int16)
    image = nibabel.Nifti1Image(array, np.eye(4))
    nibabel.save(nibabel.MGHImage(array, np.eye(4)), tmp_path / "v.mgh")
    nibabel.save(nibabel.Nifti1Pair(array, np.eye(4)), tmp_path / "pair.hdr")
    nibabel.save(nibabel.AnalyzeImage(array, np.eye(4)), tmp_path / "analyze.hdr")
    nibabel.save(nibabel.Nifti2Pair(array, np.eye(4)), tmp_path / "pair2.hdr")
    for name in ("v.nrrd", "v.mha"):
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array.T), str(tmp_path / name))
    (tmp_path / "bz2").write_bytes(__import__("bz2").compress(image.to_bytes()))
    for name, said in (
        ("v.mgh", "is not a NIfTI file"),
        ("pair.hdr", "is one half of a pair"),
        ("pair2.hdr", "is one half of a pair"),
        ("analyze.hdr", "without the NIfTI magic"),
        ("v.nrrd", "is an NRRD file; convert it"),
        ("v.mha", "is a MetaImage header"),
        ("bz2", "compressed with bzip2"),
    ):
        content = (tmp_path / name).read_bytes()
        for packed in (content, gzip.compress(content)):
            (tmp_path / "v.nii.gz").write_bytes(packed)
            with pytest.raises(UserError, match=said):
                open_volume(tmp_path / "v.nii.gz")


def test_an_affine_that_cannot_be_used_does_not_stop_reading(tmp_path):
    path = save(tmp_path / "v.nii", np.ones((2, 3, 4), np.int16))
    content = bytearray(path.read_bytes())
    content[252:256] = b"\x01\0\0\0"  # qform only
    content[256:268] = np.array([9, 9, 9], "<f4").tobytes()  # not a quaternion
    path.write_bytes(content)
    volume = open_volume(path)
    assert np.isnan(volume.affine).all()
    assert len(list(volume.slices(2, range(4)))) == 4


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_counts_are_numpys(tmp_path, axis):
    array = np.random.default_rng(0).integers(0, 3, (7, 5, 6)).astype(np.uint16)
    counts = open_volume(save(tmp_path / "v.nii.gz", array)).count(axis, lambda values: values > 1)
    others = tuple({0, 1, 2} - {axis})
    assert np.array_equal(counts, (array > 1).sum(axis=others))


def test_percentiles_are_numpys(tmp_path, monkeypatch):
    array = np.random.default_rng(0).gamma(2, 1000, (9, 11, 8, 2)).astype(np.float32)
    path = save(tmp_path / "v.nii.gz", array)
    expected = np.percentile(array.reshape(-1, 2), (0.5, 99.5), axis=0).T
    assert open_volume(path).percentiles((0.5, 99.5)) == pytest.approx(expected)
    monkeypatch.setattr(volumes, "SAMPLED_VOXELS", 300)
    assert open_volume(path).percentiles((25, 75)) == pytest.approx(
        np.percentile(array.reshape(-1, 2), (25, 75), axis=0).T, rel=0.15
    )


def damaged(path, content):
    if content == "short":
        path.write_bytes(path.read_bytes()[:-40])
    elif content == "bit":
        raw = bytearray(path.read_bytes())
        raw[-6] ^= 1  # in the checksum
        path.write_bytes(raw)
    elif content == "half a header":
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:100]))
    elif content == "text":
        path.write_bytes(b"<html>404</html>")
    elif content == "pointer":
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    else:
        path.write_bytes(b"")


@pytest.mark.parametrize("content", ["short", "bit", "half a header", "text", "pointer", "empty"])
def test_damage_is_named(tmp_path, content):
    path = save(tmp_path / "v.nii.gz", np.random.default_rng(0).integers(0, 99, (20, 20, 20)).astype(np.int16))
    damaged(path, content)
    with pytest.raises(UserError, match=r"v\.nii\.gz"):
        list(open_volume(path).slices(2, [0]))


def test_truncated_plain_files_missing_ones_and_nan(tmp_path):
    array = np.ones((4, 5, 6), np.float32)
    path = save(tmp_path / "v.nii", array)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"too short for the .* voxels"):
        list(open_volume(path).slices(0, [0]))
    with pytest.raises(UserError, match=r"w\.nii is missing"):
        open_volume(tmp_path / "w.nii")
    array[1, 1, 1] = np.nan
    with pytest.raises(UserError, match="NaN"):
        list(open_volume(save(tmp_path / "v.nii", array)).slices(2, range(6)))
    coloured = np.zeros((2, 2, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(UserError, match=r"colour values \(data type 128\); expected a volume of real numbers"):
        open_volume(save(tmp_path / "rgb.nii", coloured))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("dim", [4, 4, 5, 6, 30_000, 1, 1, 1], "too short for the .* voxels"),
        ("dim", [7, 4, 5, 6, 9_000, 9_000, 9_000, 9_000], "too short for the .* voxels"),
        ("dim", [4, 4, 5, 6, 0, 1, 1, 1], r"the shape \(4, 5, 6, 0\)"),
        ("datatype", 777, "unknown data type, 777"),
    ],
)
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_headers_that_cannot_be_are_refused_before_anything_is_read(tmp_path, name, field, value, message):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.eye(4))
    image.header["magic"], image.header["vox_offset"] = b"n+1", 352
    image.header[field] = value
    raw = image.header.binaryblock + bytes(4 + 120)
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    with pytest.raises(UserError, match=message):
        open_volume(tmp_path / name)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_thread_reads_the_same_planes_and_reports_the_same_damage(tmp_path, monkeypatch, axis):
    values = np.random.default_rng(0).integers(-1000, 1000, (7, 6, 9)).astype(np.int16)
    path = tmp_path / "v.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    monkeypatch.setattr("dmseg.data.volumes.THREAD_BYTES", 1)
    found = [item[0] for item in open_volume(path).slices(axis, range(1, 6))]
    np.testing.assert_array_equal(found, np.moveaxis(values, axis, 0)[1:6])
    path.write_bytes(path.read_bytes()[:-4] + bytes(4))
    messages = set()
    for least in (1, 2**30):
        monkeypatch.setattr("dmseg.data.volumes.THREAD_BYTES", least)
        with pytest.raises(UserError, match="damaged") as found:
            list(open_volume(path).slices(axis, range(5)))
        messages.add(str(found.value))
    assert len(messages) == 1


def test_the_thread_ends_when_nobody_reads_on(tmp_path, monkeypatch):
    monkeypatch.setattr("dmseg.data.volumes.THREAD_BYTES", 1)
    path = save(tmp_path / "v.nii.gz", np.zeros((7, 6, 9), np.int16))
    parts = open_volume(path)._kept(0, [1, 2])
    next(parts)
    assert any(thread.name.startswith("planes") for thread in threading.enumerate())
    parts.close()
    assert not any(thread.name.startswith("planes") for thread in threading.enumerate())
