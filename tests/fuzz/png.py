"""PNG files: other formats under their name, truncation, checksums, modes, bombs, and what is no regular file."""

import io
import struct
import zlib
from functools import partial

import numpy as np
from fuzz.harness import SPECIAL, Right, names, special
from fuzz.nifti import cut, flip
from fuzz.templates import LIDC
from PIL import Image


def pick(box, rng, folder="*"):
    files = sorted((box / "raw").rglob(f"{folder}/slice-*.png"))
    return files[rng.integers(len(files))]


def on_content(change, folder="*"):
    def apply(box, rng):
        path = pick(box, rng, folder)
        path.write_bytes(change(path.read_bytes(), rng))
        return names(path)

    return apply


def saved(folder="*", values=lambda values: values, mode="L", format="PNG", **options):
    """The file saved anew: with other values, in another mode, or in another format under its name."""

    def apply(box, rng):
        path = pick(box, rng, folder)
        image = Image.fromarray(values(np.asarray(Image.open(path))))
        target = io.BytesIO()
        image.convert(mode).save(target, format=format, **options)
        path.write_bytes(target.getvalue())
        return names(path)

    return apply


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, rows, depth=8, colour=0, more=b""):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    packed = zlib.compress(rows, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def bomb(edge, rows, files=1):
    def apply(box, rng):
        content = png(edge, edge, rows)
        paths = sorted((box / "raw").rglob("*/slice-0.png"))[:files]
        for path in paths:
            path.write_bytes(content)
        return names(*paths)

    return apply


def beside(more):
    """Further chunks behind the header, which do not change the image."""
    return on_content(lambda content, rng: content[:33] + more + content[33:])


def header(offset, kind, value):
    """A header that says something else, its checksum right."""

    def change(content, rng):
        head = bytearray(content[16:29])
        struct.pack_into(kind, head, offset, value)
        return content[:8] + chunk(b"IHDR", bytes(head)) + content[33:]

    return on_content(change)


def palette(order):
    def apply(box, rng):
        path = pick(box, rng)
        values = np.asarray(Image.open(path))
        image = Image.fromarray(values).convert("P")
        image.putpalette([level for grey in range(256) for level in order(grey)])
        image.save(path)
        return names(path)

    return apply


def alpha(level):
    def apply(box, rng):
        path = pick(box, rng)
        image = Image.open(path).convert("LA")
        image.putalpha(level)
        image.save(path)
        return names(path)

    return apply


def removed(box, rng):
    path = pick(box, rng)
    path.unlink()
    return names(path)


def renamed(box, rng):
    path = pick(box, rng)
    path.rename(path.with_name("slice-77.png"))
    return Right((*names(path).named, "slice-77.png"))


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n(pwned) print\nshowpage\n%%EOF\n"
ZTXT = chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(2**28), 9))
REFUSED = {
    **{f"{kind} under its name": saved(format=kind) for kind in ("JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "ICO")},
    "EPS under its name": on_content(lambda content, rng: EPS),
    "TIFF of real numbers": saved(values=lambda values: values.astype(np.float32) * np.nan, mode="F", format="TIFF"),
    "cut": on_content(lambda content, rng: cut(content[:-12], rng)),
    "one bit": on_content(partial(flip, last=12)),
    "empty": on_content(lambda content, rng: b""),
    "text": on_content(lambda content, rng: b"<html>" * 20),
    "signature alone": on_content(lambda content, rng: content[:8]),
    "no data": on_content(lambda content, rng: content[:33] + content[-12:]),
    "width 0": header(0, ">I", 0),
    "width 2^31": header(0, ">I", 2**31),
    "more rows": header(4, ">I", 17),
    "depth 3": header(8, "B", 3),
    "colour type 5": header(9, "B", 5),
    "interlaced otherwise": header(12, "B", 7),
    "coloured": saved(values=lambda values: np.stack([values, 255 - values, values // 2], -1), mode="RGB"),
    "coloured palette": palette(lambda grey: (grey, 255 - grey, 9)),
    "see-through": alpha(100),
    "a plane of 2.5e9": bomb(50000, bytes(1000)),
    "a plane of 2e8": bomb(14500, bytes(14500 * 14501)),
    "another size": saved(values=lambda values: values[:-1]),
    "a file is missing": removed,
    "a file has another name": renamed,
    **{f"a {kind} in its place": (lambda box, rng, kind=kind: special(pick(box, rng), kind)) for kind in SPECIAL},
}
ACCEPTED = {
    "grey in colour": saved(mode="RGB"),
    "grey palette": palette(lambda grey: (grey, grey, grey)),
    "opaque": alpha(255),
    "packed anew": saved(compress_level=0),
    "a comment": beside(chunk(b"tEXt", b"comment\0=cmd")),
}
EITHER = {
    "five planes of 1.77e8": bomb(13300, bytes(13300 * 13301), files=5),
    "a packed comment": beside(ZTXT),
    "a profile": beside(chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2**20)))),
    "a palette in a grey file": beside(chunk(b"PLTE", bytes(range(48)))),
    "more behind the end": on_content(lambda content, rng: content + rng.bytes(50)),
    "a wrong end": on_content(lambda content, rng: flip(content, rng, len(content) - 12)),
    "no end": on_content(lambda content, rng: content[:-12]),
}
CHANGES = [
    ((LIDC,), outcome, name, change)
    for outcome, group in (("refused", REFUSED), ("accepted", ACCEPTED), ("either", EITHER))
    for name, change in group.items()
]
