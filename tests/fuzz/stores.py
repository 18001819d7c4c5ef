# ruff: noqa: E501 - tables of inputs
"""Prepared stores: flipped bytes, cut files, other headers, edited manifests and splits, and no regular files.

With the raw data at hand a damaged store is prepared again; without them it is refused before anything is trained.
"""

import json
import os
import shutil
from functools import partial

import numpy as np
from fuzz.harness import SPECIAL, Right, names, special
from fuzz.nifti import cut, flip
from fuzz.templates import PREPARED, study

ARRAYS = ("images.npy", "annotations.npy")


def store(box):
    (manifest,) = (box / "prepared").glob("*/*/manifest.json")
    return manifest.parent


def untouched(path, content):
    """Writes a file and leaves its time as it was, as a failing disk does."""
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def on_array(change, write=lambda path, content: path.write_bytes(content)):
    def apply(box, rng):
        path = store(box) / ARRAYS[rng.integers(2)]
        write(path, change(path.read_bytes(), rng))
        return Right((path.name, store(box).name))

    return apply


def header(old, new):
    """Changes the header of an array, whose length stays."""

    def change(content, rng):
        head = content[:128].replace(old, new, 1)
        return head[:127].ljust(127)[:127] + b"\n" + content[128:]

    return on_array(change)


def resaved(change):
    def apply(box, rng):
        path = store(box) / ARRAYS[rng.integers(2)]
        np.save(path, change(np.load(path)))
        return Right((path.name, store(box).name))

    return apply


def on_manifest(change):
    def apply(box, rng):
        path = store(box) / "manifest.json"
        node = change(json.loads(path.read_text()))
        path.write_bytes(node if isinstance(node, bytes) else json.dumps(node).encode())
        return Right(("manifest.json", store(box).name))

    return apply


def case(**values):
    return on_manifest(lambda node: node | {"cases": [node["cases"][0] | values, *node["cases"][1:]]})


def key(**values):
    return on_manifest(lambda node: {name: value for name, value in (node | values).items() if value is not Ellipsis})


def other_cases(change):
    return on_manifest(lambda node: node | {"cases": change(node["cases"])})


def gone(box, rng):
    path = store(box) / rng.choice([*ARRAYS, "manifest.json"])
    path.unlink()
    return names(path)


def in_place(box, rng, kind):
    path = store(box) / rng.choice([*ARRAYS, "manifest.json"])
    special(path, kind)
    return names(path)


def linked(box, rng):
    """An array that lies elsewhere, in a file of the same content."""
    path = store(box) / ARRAYS[rng.integers(2)]
    shutil.move(path, box / "cwd/array.npy")
    path.symlink_to(box / "cwd/array.npy")
    return Right((path.name, store(box).name))


def junk(box, rng):
    (store(box) / "Thumbs.db").write_bytes(b"junk")
    (store(box) / "times.json").write_bytes(rng.choice([b"{", b"[" * 99999, b"null", b'{"a": null}', b"\xff"]))


DAMAGED = {
    "one bit": on_array(partial(flip, first=128)),
    "one bit, time kept": on_array(partial(flip, first=128), untouched),
    "cut": on_array(cut),
    "longer": on_array(lambda content, rng: content + bytes(64)),
    "zeros": on_array(lambda content, rng: content[:128] + bytes(len(content) - 128)),
    "zeros, time kept": on_array(lambda content, rng: content[:128] + bytes(len(content) - 128), untouched),
    "another type": header(b"|u1", b"|i1"),
    "a wide type": header(b"|u1", b"<u2"),
    "objects": header(b"'|u1'", b"'|O'"),
    "another order": header(b"False", b"True"),
    "another shape": header(b"(12, ", b"(11, "),
    "a huge shape": header(b"(12, ", b"(12000000000, "),
    "turned": resaved(lambda values: np.ascontiguousarray(values[..., ::-1])),
    "cases exchanged": resaved(lambda values: values[::-1].copy()),
    "real numbers": resaved(lambda values: values.astype(np.float32)),
    "twos": resaved(lambda values: values // 2 * 2),
    "a file is gone": gone,
    **{f"a {kind} in its place": partial(in_place, kind=kind) for kind in SPECIAL},
    "first moved": case(first=1),
    "first negative": case(first=-2),
    "first is text": case(first="0"),
    "other length": case(n_slices=1),
    "huge length": case(n_slices=10**12),
    "other raters": case(raters=[1, 0, 2, 3]),
    "rater 9": case(raters=[0, 1, 2, 9]),
    "other id": case(case="../../up"),
    "raters missing": case(raters=None),
    "cases exchanged in the list": other_cases(lambda rows: [{**rows[0], "case": rows[1]["case"]}, {**rows[1], "case": rows[0]["case"]}, *rows[2:]]),
    "a case less": other_cases(lambda rows: rows[:-1]),
    "a case twice": other_cases(lambda rows: [*rows, rows[0]]),
    **{f"cases are {value!r}": key(cases=value) for value in (None, 5, [], {}, ["x"])},
    **{f"{name} is gone": key(**{name: ...}) for name in ("cases", "digest", "task")},
    **{f"the digest is {value!r}": key(digest=value) for value in (None, 5, "", "0" * 64)},
    "the task is a list": key(task=[]),
    "not JSON": on_manifest(lambda node: b"{"),
    "deep": on_manifest(lambda node: b'{"a":' * 100000),
    "a list": on_manifest(lambda node: b"[]"),
    "not UTF-8": on_manifest(lambda node: b"\xff\xfe\x00"),
}  # fmt: skip


def alone(change):
    """The same where the raw data are gone: a training must not begin."""

    def apply(box, rng):
        right = change(box, rng)
        shutil.rmtree(box / "raw/LIDC-IDRI-slices")
        words = ["train", *study(box)]
        return Right((*right.named, "raw"), words=words)

    return apply


def rebuilt(change):
    return lambda box, rng: Right(change(box, rng).named)


CHANGES = [
    *(
        ((PREPARED,), "either" if "place" in name else "accepted", name, rebuilt(change))
        for name, change in DAMAGED.items()
    ),
    *(((PREPARED,), "refused", f"{name}; no raw data", alone(change)) for name, change in DAMAGED.items()),
    ((PREPARED,), "accepted", "junk and odd times", junk),
    ((PREPARED,), "either", "a link to the same array", linked),
]
