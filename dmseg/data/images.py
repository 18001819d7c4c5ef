"""PNG images, checked whole before they are decoded.

Only PNG is read, whatever a file's name says. Every chunk's checksum and the length of the inflated pixels are
compared first, so that no row is filled in. Only what pixels depend on (header, palette, transparency, data) reaches
the decoder.
"""

import io
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from isal import isal_zlib
from PIL.PngImagePlugin import PngImageFile

from dmseg.data.nifti import GIB, check_pixels, too_large
from dmseg.data.raw import open_file, readable
from dmseg.data.volumes import MAX_GIB
from dmseg.errors import UserError, shown

Array = npt.NDArray[np.float32]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_BYTES = 33
"""Signature and IHDR."""
CHUNK = 2**16

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Channels of each colour type."""
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
"""What pixels depend on."""
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and steps between them, of the passes of an interlaced image."""


@dataclass(frozen=True)
class PngHeader:
    """What the header of a PNG file says.

    Attributes:
        width: columns.
        height: rows.
        bits: of one value of one channel.
        colour: colour type, a key of `_CHANNELS`.
        interlaced: whether rows come in seven passes.
    """

    width: int
    height: int
    bits: int
    colour: int
    interlaced: bool

    @property
    def depth(self) -> int:
        """Bits of a grey value as it is read: 1, 8 or 16; fewer than 8 are spread over 8."""
        return self.bits if self.bits == 16 or (self.bits == 1 and self.colour == 0) else 8

    @property
    def n_bytes(self) -> int:
        """Length of the inflated rows, each with its filter."""
        whole = ((0, 0, 1, 1),)
        return sum(
            rows * (1 + math.ceil(columns * self.bits * _CHANNELS[self.colour] / 8))
            for x, y, dx, dy in (_PASSES if self.interlaced else whole)
            if (columns := math.ceil((self.width - x) / dx)) > 0 and (rows := math.ceil((self.height - y) / dy)) > 0
        )


def png_depth(path: Path) -> int:
    """Bits of a grey value in a PNG file, from its header: 1, 8 or 16; fewer than 8 are spread over 8 by `read_png`.

    Raises:
        UserError: if the file is missing or no PNG.
    """
    with readable(path), open_file(path) as file:
        return _header(path, file.read(HEADER_BYTES)).depth


def read_png(path: Path, max_gib: float = MAX_GIB) -> Array:
    """Reads a PNG file of one grey channel; RGB, palettes and opaque alpha are fine where they hold nothing but grey.

    Args:
        path: the file.
        max_gib: memory that reading the file may take, in GiB.

    Returns:
        (H, W) float32, the file's own values: 0 to 255, to 65535 in 16-bit files, and to 1 in 1-bit ones.

    Raises:
        UserError: if the file is missing, damaged, too large or animated, in colour, transparent, or of 16 bits in
            several channels.
    """
    with readable(path), open_file(path) as file:
        header = _header(path, file.read(HEADER_BYTES))
        check_pixels(path, header.width * header.height, int(max_gib * GIB), "an image")
        content = _checked_content(path, file, header, int(max_gib * GIB))
        image = PngImageFile(io.BytesIO(content))
        if image.mode == "P" and int(np.asarray(image).max()) >= len(image.getpalette() or []) // 3:
            raise ValueError("it holds more colours than its palette")
        if image.mode in ("1", "L", "I;16", "I") and "transparency" not in image.info:
            return np.asarray(image, dtype=np.float32)
        pixels = np.asarray(image.convert("RGBA"))
    if header.bits == 16:
        raise UserError(f"{shown(path)} has 16 bits in several channels; save it with one grey channel")
    if pixels[..., 3].min() < 255:
        raise UserError(f"{shown(path)} is transparent in places; save it with one grey channel, what counts in it")
    if (pixels[..., :1] != pixels[..., 1:3]).any():
        raise UserError(f"{shown(path)} is a colour image; save it with one grey channel")
    return pixels[..., 0].astype(np.float32)


def _header(path: Path, start: bytes) -> PngHeader:
    if start[:8] != SIGNATURE:
        raise UserError(f"{shown(path)} is not a PNG file, whatever its name says; get it again, or convert it")
    if len(start) < HEADER_BYTES or start[8:16] != b"\0\0\0\rIHDR":
        raise EOFError("it ends within its header")
    if zlib.crc32(start[12:29]) != int.from_bytes(start[29:33], "big"):
        raise ValueError("the checksum of its header is wrong")
    width, height, bits, colour, method, filters, interlace = struct.unpack(">IIBBBBB", start[16:29])
    if bits not in _DEPTHS.get(colour, ()) or method or filters or interlace > 1:
        raise ValueError("its header holds unknown values")
    if not (0 < width < 2**31 and 0 < height < 2**31):
        raise ValueError(f"its header says {width} x {height} pixels")
    return PngHeader(width, height, bits, colour, interlace == 1)


def _checked_content(path: Path, file: BinaryIO, header: PngHeader, max_bytes: int) -> bytes:
    """The file with nothing in it but what its pixels depend on, everything checked.

    Raises:
        EOFError: if it is cut.
        ValueError: if a checksum or length is wrong.
        UserError: if it is animated or too long.
    """
    length = file.seek(0, 2)
    if length > max_bytes // 4:
        raise too_large(path, f"{length / GIB:.3g} GiB", f"{max_bytes / 4 / GIB:.3g} GiB of a PNG file")
    file.seek(8)
    kept: dict[bytes, list[bytes]] = {}
    pixels, inflated = isal_zlib.decompressobj(), 0
    for kind, whole in _chunks(file):
        if kind == b"acTL":
            raise UserError(f"{shown(path)} is animated; save the image that counts alone")
        if kind == b"IDAT":
            inflated += _inflate(pixels, whole[8:-4], header.n_bytes - inflated)
        elif kind in kept or (kind in (b"PLTE", b"tRNS") and b"IDAT" in kept):
            raise ValueError(f"its parts are out of order: {kind!r}")
        _check_colours(kind, len(whole) - 12, header)
        if kind in _NEEDED:
            kept.setdefault(kind, []).append(whole)
    if not pixels.eof or inflated != header.n_bytes:
        raise EOFError(f"it ends before its last row: {inflated} of {header.n_bytes} bytes")
    return b"".join([SIGNATURE, *(whole for chunks in kept.values() for whole in chunks)])


def _check_colours(kind: bytes, length: int, header: PngHeader) -> None:
    """Checks that a chunk may be there, and the lengths of palette and transparency."""
    fits = {
        b"PLTE": length % 3 == 0 and 3 <= length <= 768,
        b"tRNS": length == {0: 2, 2: 6}.get(header.colour) or (header.colour == 3 and 1 <= length <= 256),
    }
    if not fits.get(kind, True):
        raise ValueError(f"its part {kind!r} has a wrong length")
    if kind not in _NEEDED and kind[0] & 0x20 == 0:
        raise ValueError(f"it needs a part that is not known, {kind!r}")


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Kind and bytes of each chunk, up to the last one; behind it there may be zeros only."""
    kind = b""
    while kind != b"IEND":
        start = file.read(8)
        length, kind = int.from_bytes(start[:4], "big"), start[4:]
        rest = file.read(length + 4) if len(start) == 8 and length < 2**31 else b""
        if len(rest) < length + 4:
            raise EOFError("it ends before its last part")
        if zlib.crc32(rest[:-4], zlib.crc32(kind)) != int.from_bytes(rest[-4:], "big"):
            raise ValueError(f"the checksum of its part {kind!r} is wrong")
        yield kind, start + rest
    while data := file.read(CHUNK):
        if data.count(0) < len(data):
            raise ValueError("it goes on after its end")


def _inflate(pixels: "isal_zlib.Decompress", data: bytes, most: int) -> int:
    """Inflates some data only to count the bytes; more than `most` are an error."""
    count = 0
    for start in range(0, len(data), CHUNK):
        piece = data[start : start + CHUNK]
        while True:
            if pixels.eof and piece:
                raise ValueError("it holds more data than its rows")
            inflated = pixels.decompress(piece, CHUNK)
            count += len(inflated)
            piece = pixels.unconsumed_tail or pixels.unused_data
            if count > most:
                raise ValueError("it holds more rows than its header says")
            if not piece and len(inflated) < CHUNK:
                break
    return count
