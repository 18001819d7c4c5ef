"""Files of arrays: what is no such file, or hostile, is refused by one error that names the file."""

import io
import zipfile

import numpy as np
import pytest

from dmseg.files.arrays import pack_arrays, parse_arrays
from dmseg.files.schema import SchemaError

DTYPES = {"values": ("<i8",)}
SOUND = pack_arrays({"values": np.arange(100)})


def parse(content):
    return parse_arrays(content, "counts.npz", DTYPES, 10_000)


def repacked(method):
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(SOUND)) as source, zipfile.ZipFile(packed, "w", method) as target:
        target.writestr("values.npy", source.read("values.npy"))
    return packed.getvalue()


def changed(offsets, value):
    """The file with 16-bit fields changed, in the local header (from 0) and in the central directory."""
    content, central = bytearray(SOUND), SOUND.index(b"PK\x01\x02")
    for start, offset in zip((0, central), offsets, strict=True):
        content[start + offset : start + offset + 2] = value.to_bytes(2, "little")
    return bytes(content)


def flipped(offset):
    """A file without compression, with one bit of an entry changed: of its local header, or of its content."""
    content = bytearray(repacked(zipfile.ZIP_STORED))
    content[offset] ^= 1
    return bytes(content)


def pickled():
    packed = io.BytesIO()
    np.savez(packed, values=np.array([{}], dtype=object))
    return packed.getvalue()


def test_numpy_reads_what_was_written():
    assert np.array_equal(np.load(io.BytesIO(SOUND))["values"], np.arange(100))
    assert np.array_equal(parse(SOUND)["values"], np.arange(100))


def test_entries_need_not_be_compressed():
    assert np.array_equal(parse(repacked(zipfile.ZIP_STORED))["values"], np.arange(100))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no zip at all",
        SOUND[:50],
        SOUND[:-10],
        changed((6, 8), 1),  # encrypted
        changed((8, 10), 97),  # a method of compression that zipfile does not know
        changed((4, 6), 99),  # a later version of the format
        SOUND[:45] + b"\xff" * 20 + SOUND[65:],  # invalid deflate data
        SOUND[:29] + b"\x7f" + SOUND[30:],  # an extra field that ends after the file
        SOUND[:-5] + b"\x7f" + SOUND[-4:],  # a directory that begins after the file
        flipped(0),  # the mark
        flipped(30),  # the name
        flipped(-300),  # the content, so that its checksum differs
        repacked(zipfile.ZIP_BZIP2),
        repacked(zipfile.ZIP_LZMA),
        pickled(),
        pack_arrays({"values": np.arange(5000)}),
        pack_arrays({"others": np.arange(5)}),
        pack_arrays({"values": np.arange(5.0)}),
    ],
)
def test_anything_else_is_refused_and_the_file_is_named(content):
    with pytest.raises(SchemaError, match=r"^counts\.npz"):
        parse(content)
