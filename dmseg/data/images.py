"""Reads PNG images, which are checked completely before they are decoded.

Only PNG is read; the content decides, not the name. The checksum of every chunk and the length of the decompressed
pixels are checked first, so that missing rows are never filled in. Only chunks that determine the pixels (header,
palette, transparency, data) are passed to the decoder.
"""

import io
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from isal import isal_zlib
from PIL.PngImagePlugin import PngImageFile

from dmseg.data.nifti import GIB, check_pixels, too_large
from dmseg.data.raw import open_file, readable
from dmseg.data.volumes import MAX_GIB
from dmseg.errors import UserError, shown

Pixels = npt.NDArray[np.unsignedinteger[Any]]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_BYTES = 33
"""Signature and IHDR."""
CHUNK = 2**16

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Channels of each colour type."""
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
"""Chunks that determine the pixels."""
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and the steps between them, of each pass of an interlaced image."""


@dataclass(frozen=True)
class PngHeader:
    """The header of a PNG file.

    Attributes:
        width: columns.
        height: rows.
        bits: bits per value of a channel.
        colour: colour type, a key of `_CHANNELS`.
        interlaced: whether the rows are stored in seven passes.
    """

    width: int
    height: int
    bits: int
    colour: int
    interlaced: bool

    @property
    def depth(self) -> int:
        """Bits of a grey value once read: 1, 8 or 16; 2 and 4 bits are scaled to 8."""
        return self.bits if self.bits == 16 or (self.bits == 1 and self.colour == 0) else 8

    @property
    def n_bytes(self) -> int:
        """Length of the decompressed rows, each with its filter byte."""
        whole = ((0, 0, 1, 1),)
        return sum(
            rows * (1 + math.ceil(columns * self.bits * _CHANNELS[self.colour] / 8))
            for x, y, dx, dy in (_PASSES if self.interlaced else whole)
            if (columns := math.ceil((self.width - x) / dx)) > 0 and (rows := math.ceil((self.height - y) / dy)) > 0
        )


def png_depth(path: Path) -> int:
    """Bits of a grey value in a PNG file, from its header: 1, 8 or 16; `read_png` scales 2 and 4 bits to 8.

    Raises:
        UserError: if the file is missing or not a PNG file.
    """
    with readable(path), open_file(path) as file:
        return _header(path, file.read(HEADER_BYTES)).depth


def read_png(path: Path, max_gib: float = MAX_GIB) -> Pixels:
    """Reads a greyscale PNG file; RGB, palettes and opaque alpha are accepted if all pixels are grey.

    Args:
        path: the file.
        max_gib: limit of the memory for reading the file, in GiB.

    Returns:
        (H, W), the file's own values: uint8, 0 to 255, or to 1 in 1-bit files; uint16 in 16-bit files.

    Raises:
        UserError: if the file is missing, damaged, too large, animated, in colour, transparent, or has 16 bits in
            several channels.
    """
    with readable(path), open_file(path) as file:
        header = _header(path, file.read(HEADER_BYTES))
        check_pixels(path, header.width * header.height, int(max_gib * GIB), "an image")
        content = _checked_content(path, file, header, int(max_gib * GIB))
        image = PngImageFile(io.BytesIO(content))
        if image.mode == "P" and int(np.asarray(image).max()) >= len(image.getpalette() or []) // 3:
            raise ValueError("it uses colours that its palette does not have")
        if image.mode in ("1", "L", "I;16", "I") and "transparency" not in image.info:
            return np.asarray(image).astype(np.uint16 if header.bits == 16 else np.uint8)
        pixels = np.asarray(image.convert("RGBA"))
    if header.bits == 16:
        raise UserError(f"{shown(path)} has 16 bits in several channels; save it with one grey channel")
    if pixels[..., 3].min() < 255:
        raise UserError(f"{shown(path)} has transparent pixels; save it with one grey channel and no transparency")
    if (pixels[..., :1] != pixels[..., 1:3]).any():
        raise UserError(f"{shown(path)} is a colour image; save it with one grey channel")
    return pixels[..., 0]


def _header(path: Path, start: bytes) -> PngHeader:
    if not start:
        raise UserError(f"{shown(path)} is empty; download it again")
    if start[:8] != SIGNATURE:
        raise UserError(f"{shown(path)} is not a PNG file, whatever its name; download it again, or convert it")
    if len(start) < HEADER_BYTES or start[8:16] != b"\0\0\0\rIHDR":
        raise EOFError("it ends within its header")
    if zlib.crc32(start[12:29]) != int.from_bytes(start[29:33], "big"):
        raise ValueError("the checksum of its header is wrong")
    width, height, bits, colour, method, filters, interlace = struct.unpack(">IIBBBBB", start[16:29])
    if bits not in _DEPTHS.get(colour, ()) or method or filters or interlace > 1:
        raise ValueError("its header has unknown values")
    if not (0 < width < 2**31 and 0 < height < 2**31):
        raise ValueError(f"its header says {width} x {height} pixels")
    return PngHeader(width, height, bits, colour, interlace == 1)


def _checked_content(path: Path, file: BinaryIO, header: PngHeader, max_bytes: int) -> bytes:
    """Checks the whole file and returns it with only the chunks that determine its pixels.

    Raises:
        EOFError: if it is truncated.
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
            raise UserError(f"{shown(path)} is animated; save a single image")
        if kind == b"IDAT":
            inflated += _inflate(pixels, whole[8:-4], header.n_bytes - inflated)
        elif kind in kept or (kind in (b"PLTE", b"tRNS") and b"IDAT" in kept):
            raise ValueError(f"its chunks are out of order: {kind!r}")
        size = len(whole) - 12
        fits = {
            b"PLTE": size % 3 == 0 and 3 <= size <= 768,
            b"tRNS": size == {0: 2, 2: 6}.get(header.colour) or (header.colour == 3 and 1 <= size <= 256),
        }
        if not fits.get(kind, True):
            raise ValueError(f"its chunk {kind!r} has a wrong length")
        if kind not in _NEEDED and kind[0] & 0x20 == 0:
            raise ValueError(f"it has an unknown critical chunk, {kind!r}")
        if kind in _NEEDED:
            kept.setdefault(kind, []).append(whole)
    if not pixels.eof or inflated != header.n_bytes:
        raise EOFError(f"it ends before its last row: {inflated} of {header.n_bytes} bytes")
    return b"".join([SIGNATURE, *(whole for chunks in kept.values() for whole in chunks)])


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yields type and bytes of each chunk up to the last one, which only zeros may follow."""
    kind = b""
    while kind != b"IEND":
        start = file.read(8)
        length, kind = int.from_bytes(start[:4], "big"), start[4:]
        rest = file.read(length + 4) if len(start) == 8 and length < 2**31 else b""
        if len(rest) < length + 4:
            raise EOFError("it ends before its last chunk")
        if zlib.crc32(rest[:-4], zlib.crc32(kind)) != int.from_bytes(rest[-4:], "big"):
            raise ValueError(f"the checksum of its chunk {kind!r} is wrong")
        yield kind, start + rest
    while data := file.read(CHUNK):
        if data.count(0) < len(data):
            raise ValueError("it has data after its last chunk")


def _inflate(pixels: "isal_zlib.Decompress", data: bytes, most: int) -> int:
    """Decompresses data only to count the bytes; more than `most` are an error."""
    count = 0
    for start in range(0, len(data), CHUNK):
        piece = data[start : start + CHUNK]
        while True:
            if pixels.eof and piece:
                raise ValueError("it contains more data than its rows")
            inflated = pixels.decompress(piece, CHUNK)
            count += len(inflated)
            piece = pixels.unconsumed_tail or pixels.unused_data
            if count > most:
                raise ValueError("it contains more rows than its header says")
            if not piece and len(inflated) < CHUNK:
                break
    return count
