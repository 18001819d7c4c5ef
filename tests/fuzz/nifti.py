"""NIfTI files: headers, truncation, gzip damage, types, scaling, huge extents, and what is no regular file."""

import gzip
import shutil
import struct
from functools import partial

import nibabel
import numpy as np
from conftest import save_nifti
from fuzz.harness import SPECIAL, Right, names, special
from fuzz.templates import NIFTI

MEMBER = gzip.compress(bytes(2**26), 1)


def pick(box, rng):
    files = sorted((box / "raw").rglob("*.nii.gz"))
    return files[rng.integers(len(files))]


def on_content(change, packed=False):
    """A change of a random file's bytes, before they are packed or after it."""

    def apply(box, rng):
        path = pick(box, rng)
        content = gzip.decompress(path.read_bytes())
        packing = bool(rng.integers(2))
        if packed:
            path.write_bytes(change(gzip.compress(content, mtime=0), rng))
        else:
            content = change(content, rng)
            path.write_bytes(gzip.compress(content, mtime=0) if packing else content)
        return names(path)

    return apply


def put(content, *fields):
    """Sets fields of a header: offset, format, value."""
    content = bytearray(content)
    for offset, kind, value in fields:
        struct.pack_into("<" + kind, content, offset, value)
    return bytes(content)


def fields(*values):
    return on_content(lambda content, rng: put(content, *values))


def flip(content, rng, first=0, last=0):
    at = int(rng.integers(first, len(content) - last))
    return content[:at] + bytes([content[at] ^ (1 << rng.integers(8))]) + content[at + 1 :]


def cut(content, rng):
    return content[: int(rng.integers(len(content)))]


def huge(shape, kind=16, members=0):
    """A header of many voxels, with zeros for them where `members` is the number of 64 MiB that follow."""

    def apply(box, rng):
        path = pick(box, rng)
        header = nibabel.Nifti1Header()
        header.set_data_shape(shape)
        header.set_data_dtype(kind)
        header["vox_offset"], header["magic"] = 352, b"n+1"
        path.write_bytes(gzip.compress(header.binaryblock + bytes(4)) + MEMBER * members)
        return names(path)

    return apply


def nifti2(box, rng):
    path = pick(box, rng)
    header = nibabel.Nifti2Header()
    header["dim"][:4] = [3, 2**62, 4, 4]
    path.write_bytes(gzip.compress(header.binaryblock + bytes(64)))
    return names(path)


def resave(path, content, change, box):
    """Writes what nibabel reads of a file as a plain one."""
    path.write_bytes(content)
    plain = path.with_name("as-nibabel-reads-it.nii")
    plain.write_bytes(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
    values = change(np.asarray(nibabel.load(plain).dataobj, np.float32))
    plain.unlink()
    save_nifti(path, values, np.float32)


def as_nibabel(change, values=lambda values: values):
    """A change of content that is legal, or may be: the file must be read as nibabel reads it."""

    def apply(box, rng):
        right = on_content(change)(box, rng)
        clean = {path: path.read_bytes() for path in (box / "raw").rglob("*.nii.gz")}
        path = next(path for path in clean if set(right.named) >= {path.name} and path.parent.name in right.named)
        return Right(right.named, partial(resave, path, clean[path], values))

    return apply


def random_fields(content, rng):
    at = [*range(40, 56), *range(70, 74), *range(108, 120), *range(344, 348)]
    places = rng.choice(at, int(rng.integers(1, 4)), replace=False)
    return put(content, *((int(place), "B", int(rng.integers(256))) for place in places))


def replaced(make):
    def apply(box, rng):
        path = pick(box, rng)
        path.write_bytes(make(path.read_bytes()))
        return names(path)

    return apply


def linked(box, rng):
    path = pick(box, rng)
    shutil.move(path, box / "cwd" / "elsewhere.nii.gz")
    path.symlink_to(box / "cwd" / "elsewhere.nii.gz")


NAN, INF = float("nan"), float("inf")
REFUSED = {
    "cut, packed": on_content(cut, packed=True),
    "cut": on_content(cut),
    "one bit, packed": on_content(partial(flip, first=10), packed=True),
    "checksum": on_content(lambda content, rng: flip(content, rng, len(content) - 8), packed=True),
    "lengths": on_content(lambda content, rng: content[:-4] + bytes(4), packed=True),
    "no trailer": on_content(lambda content, rng: content[:-8], packed=True),
    "magic": fields((344, "4s", b"n+9\0")),
    "no magic": fields((344, "4s", b"")),
    "no axes": fields((40, "h", 0)),
    "many axes": fields((40, "h", 8)),
    "negative axes": fields((40, "h", -1)),
    "an empty axis": fields((42, "h", 0)),
    "a negative axis": fields((42, "h", -12)),
    "a long axis": fields((42, "h", 32767)),
    "1e12 voxels": fields((40, "h", 3), (42, "h", 10000), (44, "h", 10000), (46, "h", 10000)),
    "all axes long": fields((40, "h", 7), *((place, "h", 32767) for place in range(42, 56, 2))),
    "NIfTI-2 of 2^62": nifti2,
    **{f"type {code}": fields((70, "h", code), (72, "h", bits)) for code, bits in
       ((0, 0), (1, 1), (32, 64), (128, 24), (1536, 128), (1792, 128), (2304, 32), (9999, 8))},
    **{f"data begin at {value}": fields((108, "f", value)) for value in (INF, -INF, NAN, -352.0, 1e30, 5e9)},
    **{f"slope {value}": fields((112, "f", value)) for value in (INF, -INF)},
    **{f"intercept {value}": fields((112, "f", 1.0), (116, "f", value)) for value in (INF, NAN)},
    "overflow": fields((112, "f", 3e38), (116, "f", 3e38)),
    "empty": replaced(lambda content: b""),
    "text": replaced(lambda content: b"<html>not found</html>" * 40),
    "packed text": replaced(lambda content: gzip.compress(b"not found" * 99)),
    "packed twice": replaced(lambda content: gzip.compress(gzip.compress(gzip.decompress(content)))),
    "an array file": replaced(lambda content: b"\x93NUMPY" + bytes(400)),
    "a plane of 1.6 GB": huge((20000, 20000, 1), members=24),
    "many voxels, no data": huge((30000, 30000, 30000)),
    "a long volume": huge((32, 32, 32000), 64, members=4),
    **{f"a {kind} in its place": (lambda box, rng, kind=kind: special(pick(box, rng), kind)) for kind in SPECIAL},
}  # fmt: skip
ACCEPTED = {
    "a link to a file": linked,
    "packed in members": replaced(lambda content: b"".join(
        gzip.compress(part) for part in (gzip.decompress(content)[:500], gzip.decompress(content)[500:]))),
    "unpacked": replaced(gzip.decompress),
    "voxel size": on_content(lambda content, rng: put(content, (80, "f", float(rng.uniform(0.1, 9))))),
    "description": on_content(lambda content, rng: put(content, (148, "79s", rng.bytes(79)))),
}  # fmt: skip
EITHER = {
    "random fields": as_nibabel(random_fields),
    "random scaling": as_nibabel(
        lambda content, rng: put(
            content,
            (112, "f", float(rng.normal() * 10.0 ** rng.integers(-3, 4))),
            (116, "f", float(rng.integers(-9, 9))),
        )
    ),
    "no slope": as_nibabel(lambda content, rng: put(content, (112, "f", NAN))),
    "another type": as_nibabel(
        lambda content, rng: put(content, (70, "h", int(rng.choice([2, 4, 8, 16, 64, 256, 512, 768]))))
    ),
    "header size": fields((0, "i", 349)),
    "a random bit": as_nibabel(partial(flip, last=1)),
    "more data": on_content(lambda content, rng: content + rng.bytes(64)),
    "a bomb behind the data": replaced(lambda content: content + MEMBER * 16),
}
CHANGES = [
    (NIFTI, outcome, name, change)
    for outcome, group in (("refused", REFUSED), ("accepted", ACCEPTED), ("either", EITHER))
    for name, change in group.items()
]
