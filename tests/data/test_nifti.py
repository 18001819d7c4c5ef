"""NIfTI files against nibabel: what headers say, what gzip says, and how much memory a file may take."""

import gzip
import itertools
import re
import subprocess
import sys
import warnings

import nibabel
import numpy as np
import pytest
import SimpleITK
from conftest import ensure_qubiq_case, save_nifti, save_png

from dmseg.config.settings import DataSettings
from dmseg.data import nifti, volumes
from dmseg.data.adapters.lidc import LidcAdapter
from dmseg.data.adapters.lits import LitsAdapter
from dmseg.data.adapters.qubiq import QubiqAdapter
from dmseg.data.nifti import BYTES_PER_PIXEL, PADDING
from dmseg.data.volumes import open_volume, read_nifti
from dmseg.errors import UserError
from dmseg.runs.found_stores import named_options

KINDS = {1: (nibabel.Nifti1Header, b"n+1", 352), 2: (nibabel.Nifti2Header, b"n+2", 544)}


def nifti_bytes(values, version=1, order="<", offset=None, after=b"", **fields):
    """A file written by hand: header, gap, values in the given byte order."""
    kind, magic, first = KINDS[version]
    header = kind(endianness=order)
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape)
    header["magic"], header["vox_offset"] = magic, offset or first
    for name, value in fields.items():
        header[name] = value
    block = header.binaryblock
    gap = bytes((offset or first) - len(block))
    return block + gap + values.astype(values.dtype.newbyteorder(order)).tobytes(order="F") + after


def read(path):
    return np.stack(list(open_volume(path).slices(2, range(open_volume(path).shape[2]))))


def refusal(path, work=read_nifti):
    with pytest.raises(UserError) as caught:
        work(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


VALUES = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


@pytest.mark.parametrize("shape", [(6,), (5, 4), (5, 4, 3), (1, 4, 3), (5, 4, 1, 1, 2), (5, 4, 3, 1, 1, 1, 1)])
@pytest.mark.parametrize("version", [1, 2])
def test_headers_of_all_kinds_are_read_as_nibabel_reads_them(tmp_path, version, shape):
    rng = np.random.default_rng(0)
    dtypes = ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
    scalings = (None, (0, 0), (0, 7), (np.nan, np.nan), (1, 0), (2, -3), (0.37, 1.5))
    for dtype, order, scaling, offset in itertools.product(dtypes, "<>", scalings, (None, 1008)):
        fields = {} if scaling is None else {"scl_slope": scaling[0], "scl_inter": scaling[1]}
        content = nifti_bytes(rng.integers(0, 100, shape).astype(dtype), version, order, offset, **fields)
        path = tmp_path / "v.nii"
        path.write_bytes(content)
        expected = np.squeeze(np.asarray(nibabel.load(path).dataobj).astype(np.float32))
        assert np.array_equal(read_nifti(path), expected), (dtype, order, scaling, offset)


def test_itk_reads_the_same_values(tmp_path):
    for name, version in (("v.nii.gz", 1), ("w.nii", 1)):
        content = nifti_bytes(VALUES, version, scl_slope=0.5, scl_inter=-3)
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        image = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / name)))
        assert read(tmp_path / name)[:, 0] == pytest.approx(np.moveaxis(image.T, 2, 0))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"dim": [0, 3, 4, 5, 1, 1, 1, 1]}, "has 0 axes"),
        ({"dim": [8, 3, 4, 5, 1, 1, 1, 1]}, "has 8 axes"),
        ({"dim": [-3, 3, 4, 5, 1, 1, 1, 1]}, "has -3 axes"),
        ({"dim": [3, 3, 0, 5, 1, 1, 1, 1]}, "every extent must be at least 1"),
        ({"dim": [3, 3, -4, 5, 1, 1, 1, 1]}, "every extent must be at least 1"),
        ({"dim": [4, -1, 1, 1, 5, 1, 1, 1]}, "every extent must be at least 1"),
        ({"dim": [4, 3, 4, 5, 32767, 1, 1, 1]}, "too short for the .* voxels"),
        ({"dim": [7, 10000, 10000, 10000, 10000, 1, 1, 1]}, "too short for the .* voxels"),
        ({"vox_offset": np.nan}, "first voxel at byte"),
        ({"vox_offset": np.inf}, "first voxel at byte"),
        ({"vox_offset": -352}, "first voxel at byte -352"),
        ({"vox_offset": 16}, "first voxel at byte 16"),
        ({"vox_offset": 0}, "first voxel at byte 0"),
        ({"vox_offset": 2**40}, "too short for the .* voxels"),
        ({"scl_slope": np.inf, "scl_inter": 0}, "scales its values by inf"),
        ({"scl_slope": -np.inf, "scl_inter": 0}, "scales its values by -inf"),
        ({"scl_slope": 1, "scl_inter": np.nan}, "scales its values by 1 and nan"),
        ({"scl_slope": 2, "scl_inter": np.inf}, "scales its values by 2 and inf"),
        ({"scl_slope": 1e38, "scl_inter": 0}, "infinite values, scaled by 1e\\+38"),
        ({"scl_slope": 3e38, "scl_inter": 3e38}, "infinite values, scaled by 3e\\+38"),
        ({"datatype": 128}, "colour values"),
        ({"datatype": 2304}, "colour values"),
        ({"datatype": 32}, "complex values"),
        ({"datatype": 1792}, "complex values"),
        ({"datatype": 1}, "unknown data type|has .* values"),
        ({"datatype": 0}, "unknown data type|has .* values"),
        ({"datatype": 777}, "unknown data type, 777"),
        ({"datatype": 64}, "too short for the .* voxels|ends before its last voxel"),
        ({"datatype": 1536}, "too short for the .* voxels|ends before its last voxel|unsupported values"),
        ({"datatype": 2}, "continues after the last voxel"),
        ({"magic": b"ni1"}, "one half of a pair|not a NIfTI"),
        ({"magic": b"xyz"}, "without the NIfTI magic|not a NIfTI"),
        ({"sizeof_hdr": 349}, "not a NIfTI file"),
    ],
)
def test_headers_that_cannot_be_are_refused_in_one_line(tmp_path, version, packed, fields, said):
    if version == 2 and "vox_offset" in fields and not np.isfinite(fields["vox_offset"]):
        fields = {"vox_offset": -1}  # a whole number in NIfTI-2
    path = tmp_path / "v.nii"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none reaches the user
        content = nifti_bytes(VALUES, version, **fields)
        path.write_bytes(gzip.compress(content) if packed else content)
        message = refusal(path)
        assert re.search(said, message), message
        refusal(path, lambda where: list(open_volume(where).slices(0, [0])))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"dim": [3, 2**62, 1, 1, 1, 1, 1, 1]}, "too short"),
        ({"dim": [7, *[2**62] * 7]}, "too short"),
        ({"vox_offset": 2**62}, "too short"),
        ({"scl_slope": 1e300, "scl_inter": 0}, "infinite values, scaled by 1e\\+300"),
    ],
)
def test_nifti_2_can_ask_for_more(tmp_path, fields, said):
    (tmp_path / "v.nii").write_bytes(nifti_bytes(VALUES, 2, **fields))
    assert re.search(said, refusal(tmp_path / "v.nii"))
    (tmp_path / "v.nii").write_bytes(nifti_bytes(VALUES, 2, scl_slope=1 + 1e-12, scl_inter=1e-12))
    assert read(tmp_path / "v.nii")[:, 0] == pytest.approx(np.moveaxis(VALUES, 2, 0), rel=1e-6)


def test_a_nifti_2_file_that_was_copied_as_text(tmp_path):
    content = nifti_bytes(VALUES, 2)
    (tmp_path / "v.nii").write_bytes(content[:8] + b"\n\n\032\n" + content[12:])
    assert "not a NIfTI file" in refusal(tmp_path / "v.nii")


PACKED = gzip.compress(nifti_bytes(VALUES))
PLAIN = nifti_bytes(VALUES)


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(PLAIN[:400]) + gzip.compress(PLAIN[400:]),
        gzip.compress(b"") + PACKED + gzip.compress(b""),
        PACKED + bytes(1000),
        gzip.compress(PLAIN + bytes(PADDING)),
        PLAIN + bytes(512),
    ],
)
def test_members_and_padding_are_read(tmp_path, content):
    (tmp_path / "v.nii.gz").write_bytes(content)
    for reader in (read_nifti, lambda path: np.moveaxis(read(path)[:, 0], 0, 2)):
        assert np.array_equal(reader(tmp_path / "v.nii.gz"), VALUES)


FLIPPED = gzip.compress(PLAIN[:400])


@pytest.mark.parametrize(
    "content",
    [
        PACKED + b"garbage",
        PACKED + bytes(10) + b"x",
        PACKED + PACKED,
        PACKED[:-1],
        PACKED[:-8],
        PACKED[:-8] + bytes([PACKED[-8] ^ 1]) + PACKED[-7:],
        PACKED[:-4] + bytes([PACKED[-4] ^ 1]) + PACKED[-3:],
        FLIPPED[:-8] + bytes([FLIPPED[-8] ^ 1]) + FLIPPED[-7:] + gzip.compress(PLAIN[400:]),
        gzip.compress(PLAIN + b"\1"),
        gzip.compress(PLAIN + bytes(PADDING + 1)),
        PLAIN + b"\1",
        PLAIN[:-1],
    ],
)
def test_lengths_and_checksums_are_compared(tmp_path, content):
    (tmp_path / "v.nii.gz").write_bytes(content)
    refusal(tmp_path / "v.nii.gz")
    refusal(tmp_path / "v.nii.gz", lambda path: list(open_volume(path).slices(2, [0])))
    refusal(tmp_path / "v.nii.gz", lambda path: list(open_volume(path).slices(0, [0])))
    refusal(tmp_path / "v.nii.gz", lambda path: open_volume(path).count(2, lambda values: values > 0))
    refusal(tmp_path / "v.nii.gz", lambda path: open_volume(path).percentiles((1, 99)))


def test_every_byte_of_a_packed_file_counts(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "v.nii.gz"
    read_anyway = 0  # gzip's header holds a time and a system, and codes that no byte uses may change
    for place in range(len(PACKED)):
        changed = bytearray(PACKED)
        changed[place] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        try:
            assert np.array_equal(read_nifti(path), VALUES)
            read_anyway += 1
        except UserError:
            continue
    assert read_anyway < 20


def test_a_bomb_is_left_as_soon_as_it_exceeds_its_header(tmp_path, monkeypatch):
    """A gigabyte of zeros behind the last voxel; of it no more than the padding is inflated."""
    path = tmp_path / "v.nii.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(PLAIN)
        for _ in range(64):
            file.write(bytes(2**24))
    inflated = []

    def counted(where, file):
        read_ = file.read
        file.read = lambda size: inflated.append(size) or read_(size)
        nifti.finish(where, file)

    monkeypatch.setattr(volumes, "finish", counted)
    assert "continues after the last voxel" in refusal(path)
    assert sum(inflated) < 3 * PADDING


def sparse(path, shape, dtype=np.uint8):
    """A file as long as its header says, nothing of it on the disk."""
    empty = nifti_bytes(np.zeros((1, 1, 1), dtype), dim=[len(shape), *shape, *[1] * (7 - len(shape))])
    path.write_bytes(empty)
    with path.open("r+b") as file:
        file.truncate(352 + int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)
    return path


@pytest.mark.parametrize(
    ("shape", "work", "said"),
    [
        ((20000, 20000, 1), open_volume, "has planes of 400000000 pixels, but at most 33554432 are allowed"),
        ((20000, 1, 20000), lambda path: next(open_volume(path).slices(1, [0])), "slices across axis 1 of 400000000"),
        ((64, 64, 20000, 9), lambda path: next(open_volume(path).slices(0, [0])), "across axis 0 of 11520000"),
        ((200, 200, 1, 2000), lambda path: next(open_volume(path).slices(2, [0])), "across axis 2 of 80000000"),
        ((100, 100, 100, 200), lambda path: open_volume(path).percentiles((1, 99)), "200 channels, 200000000 voxels"),
        ((20000, 20000), read_nifti, "pixels"),
        ((1000, 1000, 100), read_nifti, "an image of 100000000 pixels"),
        ((1, 1, 30000, 1000), open_volume, "more than 1048576 planes"),
        ((30000, 30000, 60), open_volume, "50.3 GiB of voxels, but at most 32 are allowed"),
    ],
)
def test_more_than_two_gib_of_memory_are_not_taken(tmp_path, shape, work, said):
    if shape == (64, 64, 20000, 9):
        work = lambda path: next(open_volume(path, 0.5).slices(0, [0]))  # noqa: E731
    message = refusal(sparse(tmp_path / "v.nii", shape), work)
    assert said in message
    assert "data.max_gib" in message or "planes" in message


def test_bounds_can_be_raised_and_lowered(tmp_path):
    most = 2 * 2**30 // BYTES_PER_PIXEL
    path = sparse(tmp_path / "v.nii", (5000, 6000, 1))
    assert most > 5000 * 6000
    assert open_volume(path).shape == (5000, 6000, 1)
    assert "data.max_gib" in refusal(path, lambda where: open_volume(where, 1.5))
    assert open_volume(sparse(path, (9000, 9000, 1)), 8).shape == (9000, 9000, 1)


def test_adapters_hand_the_bound_to_the_readers(tmp_path):
    save_nifti(tmp_path / "lits/volume-0.nii.gz", np.ones((20, 20, 4), np.int16))
    save_nifti(tmp_path / "lits/segmentation-0.nii.gz", np.full((20, 20, 4), 2, np.uint8))
    ensure_qubiq_case(tmp_path / "qubiq/kidney/case01", "kidney", 3, 1, np.random.default_rng(0))
    for name in ("images", "mask-0", "mask-1", "mask-2", "mask-3"):
        save_png(tmp_path / f"lidc/p/n/{name}/slice-0.png", np.zeros((20, 20)))
    for kind, task in ((LitsAdapter, "tumour"), (QubiqAdapter, "kidney-1"), (LidcAdapter, "nodule")):
        for max_gib, fits in ((2, True), (300 * BYTES_PER_PIXEL / 2**30, False)):
            adapter = kind(tmp_path / kind.__name__[:4].lower().replace("qubi", "qubiq"), max_gib=max_gib)
            (files,) = adapter.list_cases(task)
            if fits:
                assert len(list(adapter.read_case(task, files).slices)) > 0
            else:
                with pytest.raises(UserError, match=r"raise data\.max_gib"):
                    list(adapter.read_case(task, files).slices)


def test_the_bound_is_no_part_of_a_stores_name():
    def named(**options):
        return named_options(DataSettings("x", "y", "z", 64, options))

    assert named(max_gib=2) == named(max_gib=5) == named()


MEASURE = """
import sys
from pathlib import Path
import numpy as np
from dmseg.data.adapters.lits import LitsAdapter
from dmseg.data.prepared import prepare
adapter = LitsAdapter(sys.argv[1], structure="organ", axis=int(sys.argv[2]), max_gib=0.25)

def peak():  # getrusage's includes the parent's
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

before = peak()
prepare(adapter, adapter.tasks["organ"], Path(sys.argv[1]) / "store", 32, {})
print((peak() - before) / 2**20)
"""


@pytest.mark.parametrize("axis", [0, 2])
def test_the_largest_slices_take_no_more_memory_than_said(tmp_path, axis):
    """Float64, scaled, in image and label: what takes most."""
    edge = int((0.25 * 2**30 / BYTES_PER_PIXEL) ** 0.5)
    shape = (2, edge, edge) if axis == 0 else (edge, edge, 2)
    values = np.random.default_rng(0).integers(0, 3, shape).astype(np.float64)
    for name, slope in (("volume-0.nii", 1.5), ("segmentation-0.nii", 1.0)):
        (tmp_path / name).write_bytes(nifti_bytes(values, scl_slope=slope, scl_inter=0))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), str(axis)], capture_output=True, text=True, check=True
    )
    assert 0.02 < float(done.stdout) < 0.25
