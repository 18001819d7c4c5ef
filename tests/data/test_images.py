"""PNG images against Pillow: every chunk and row is compared, and only PNG is opened."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dmseg.data import images
from dmseg.data.images import read_png
from dmseg.errors import UserError

GREY = np.random.default_rng(0).integers(0, 255, (9, 7)).astype(np.uint8)


def chunk(kind, data=b""):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


END = chunk(b"IEND")


def png(rows, width=4, height=4, bits=8, colour=0, interlace=0, before=b"", after=b"", end=END):
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)
    return images.SIGNATURE + chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(rows)) + after + end


ROWS = b"".join(b"\0" + bytes(range(4 * k, 4 * k + 4)) for k in range(4))
VALUES = np.arange(16).reshape(4, 4)
BOMB = b"a\0\0" + zlib.compress(bytes(10**8))
PALETTE = chunk(b"PLTE", bytes(value for k in range(16) for value in (k, k, k)))


@pytest.mark.parametrize(
    "content",
    [
        png(ROWS),
        png(ROWS) + bytes(5000),
        png(ROWS, before=chunk(b"zTXt", BOMB) + chunk(b"iCCP", BOMB) + chunk(b"iTXt", b"")),
        png(ROWS, before=chunk(b"gAMA") + chunk(b"eXIf", b"junk") + chunk(b"pHYs", b"\0")),
        png(ROWS, before=chunk(b"IDAT") * 1000),
        png(ROWS, colour=3, before=PALETTE),
    ],
)
def test_what_does_not_matter_to_the_pixels_is_passed_over(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    assert np.array_equal(read_png(tmp_path / "x.png"), VALUES)


@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (8, 8), (17, 9)])
def test_interlaced_images(tmp_path, shape):
    values = np.arange(shape[0] * shape[1]).reshape(shape).astype(np.uint8)
    rows = b""
    for x, y, dx, dy in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        part = values[y::dy, x::dx]
        rows += b"".join(b"\0" + row.tobytes() for row in part) if part.size else b""
    path = tmp_path / "x.png"
    path.write_bytes(png(rows, shape[1], shape[0], interlace=1))
    assert np.array_equal(read_png(path), values)
    path.write_bytes(png(rows[:-1], shape[1], shape[0], interlace=1))
    with pytest.raises(UserError, match="ends before its last row"):
        read_png(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a PNG file"),
        (b"GIF89a" + bytes(99), "is not a PNG file"),
        (b"SIMPLE  =                    T" + bytes(2880), "is not a PNG file"),
        (b"\xd7\xcd\xc6\x9a" + bytes(99), "is not a PNG file"),
        (png(ROWS[:-1]), "ends before its last row: 19 of 20 bytes"),
        (png(ROWS + b"\0"), "more rows than its header says"),
        (png(ROWS + bytes(10**8)), "more rows than its header says"),
        (png(ROWS, end=b""), "ends before its last chunk"),
        (png(ROWS)[:-1], "ends before its last chunk"),
        (png(ROWS)[:30], "ends within its header"),
        (png(ROWS) + b"x", "data after its last chunk"),
        (png(ROWS) + png(ROWS), "data after its last chunk"),
        (png(ROWS, after=chunk(b"IDAT", b"x")), "more data than its rows"),
        (png(b"\7" + ROWS[1:]), "cannot be read"),
        (png(ROWS, 0), "0 x 4 pixels"),
        (png(ROWS, 4, 0), "4 x 0 pixels"),
        (png(ROWS, 2**31, 4), "2147483648 x 4 pixels"),
        (
            png(ROWS, 20000, 20000),
            "an image of 400000000 pixels, but at most 33554432 are allowed; .* raise data.max_gib",
        ),
        (
            png(ROWS, 13300, 13300),
            "an image of 176890000 pixels, but at most 33554432 are allowed; .* raise data.max_gib",
        ),
        (png(ROWS, bits=3), "unknown values"),
        (png(ROWS, colour=5), "unknown values"),
        (png(ROWS, interlace=2), "unknown values"),
        (png(ROWS, before=chunk(b"acTL", bytes(8))), "is animated"),
        (png(ROWS, before=chunk(b"ABCD")), "has an unknown critical chunk"),
        (png(ROWS, before=chunk(b"IHDR", bytes(13))), "out of order"),
        (png(ROWS, colour=3), "colours that its palette does not have"),
        (png(ROWS, colour=3, before=chunk(b"PLTE", bytes(9))), "colours that its palette does not have"),
        (png(ROWS, colour=3, before=chunk(b"PLTE", bytes(10))), "PLTE' has a wrong length"),
        (png(ROWS, before=chunk(b"tRNS", b"\0")), "tRNS' has a wrong length"),
        (png(ROWS, after=chunk(b"tRNS", b"\0\1")), "out of order"),
        (png(ROWS)[:33] + b"\x7f\xff\xff\xffIDAT" + bytes(99), "ends before its last chunk"),
        (png(ROWS)[:33] + chunk(b"IEND"), "ends before its last row: 0 of 20 bytes"),
    ],
)
def test_what_is_damaged_or_another_format_is_refused_in_one_line(tmp_path, content, said):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        read_png(tmp_path / "x.png")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["L", "1", "16", "RGB"])
def test_every_byte_counts(tmp_path, kind):
    arrays = {"L": GREY, "1": GREY > 99, "16": GREY.astype(np.uint16) * 257, "RGB": np.stack([GREY] * 3, -1)}
    buffer = io.BytesIO()
    Image.fromarray(arrays[kind]).save(buffer, "png")
    whole, path, rng = buffer.getvalue(), tmp_path / "x.png", np.random.default_rng(0)
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.integers(8)
        for content in (flipped, whole[:place]):
            path.write_bytes(content)
            with pytest.raises(UserError, match=r"x\.png"):
                read_png(path)


def test_a_file_that_is_longer_than_its_image_may_be_is_not_read(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(png(ROWS))
    with path.open("r+b") as file:
        file.truncate(2**30)
    with pytest.raises(UserError, match=r"has 1 GiB, but at most 0\.5 GiB"):
        read_png(path)
