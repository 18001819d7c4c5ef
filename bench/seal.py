"""The cost of comparing a prepared store with its seal, relative to reading its arrays.

Run ``python bench/seal.py STORE ...`` or ``python bench/seal.py GIBIBYTES``, which writes a store of random content to
a temporary folder. Files are in the page cache; times are seconds per GiB in the round with the median difference. The
seal may take 0.3 s per GiB in addition to reading.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rows import Row, report

from dmseg.data import integrity as seal
from dmseg.data.integrity import ANNOTATIONS, IMAGES, MANIFEST, ArrayFile, ContentDigest, read_store, write_seal

ROUNDS = 7
GOAL = 0.3
EDGE, RATERS = 512, 3


def write_store(folder: Path, gibibytes: float) -> Path:
    """Writes a sealed store of one case with slices of 512 x 512 pixels."""
    folder.mkdir()
    rng, count = np.random.default_rng(0), int(gibibytes * 2**30 / EDGE**2 / (1 + RATERS))
    digest, row = ContentDigest(), {"case": "a", "first": 0, "n_slices": count, "raters": list(range(RATERS))}
    with (
        ArrayFile(folder / IMAGES, (count, 1, EDGE, EDGE), "uint8") as images,
        ArrayFile(folder / ANNOTATIONS, (count, RATERS, EDGE, EDGE), "uint8") as annotations,
    ):
        for _ in range(count):
            image = rng.integers(0, 256, (1, 1, EDGE, EDGE), dtype=np.uint8)
            masks = rng.integers(0, 2, (1, RATERS, EDGE, EDGE), dtype=np.uint8)
            images.write(image.data)
            annotations.write(masks.data)
            digest.add(image, masks)
    digest.end_case(row)
    task = {"name": "t", "title": "t", "cohort": "t", "raters": ["a", "b", "c"], "anonymous_raters": False}
    manifest = {"cases": [row], "task": task, "size": EDGE, "digest": digest.hexdigest(), "options": {}, "revision": 1}
    text = json.dumps({**manifest, "sources": {}, "source_files": []}).encode()
    (folder / MANIFEST).write_bytes(text)
    write_seal(folder, {IMAGES: images.row, ANNOTATIONS: annotations.row}, text)
    return folder


def seconds(function: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def read(folder: Path) -> None:
    """Reads the manifest, and the arrays in the blocks of the seal."""
    json.loads((folder / MANIFEST).read_text())
    block = bytearray(seal.BLOCK)
    for name in (IMAGES, ANNOTATIONS):
        with (folder / name).open("rb") as file:
            while file.readinto(block):
                pass


def compare(folder: Path) -> None:
    """Reports seconds per GiB: of reading, of the seal in addition, and of `dmseg data verify`."""
    size = sum((folder / name).stat().st_size for name in (IMAGES, ANNOTATIONS)) / 2**30
    seal.SETTLED_SECONDS = float("inf")  # nothing is remembered
    rounds = sorted(
        ((seconds(lambda: read(folder)), seconds(lambda: read_store(folder))) for _ in range(ROUNDS)),
        key=lambda pair: pair[1] - pair[0],
    )
    plain, sealed = rounds[ROUNDS // 2]
    thorough = seconds(lambda: read_store(folder, thorough=True))
    seal.SETTLED_SECONDS = -1.0
    read_store(folder)
    again = seconds(lambda: read_store(folder))
    what = f"{folder.name}, {size:.2f} GiB"
    report(Row(f"seal: in addition to reading, {what}", (sealed - plain) / size, GOAL, "1 s per GiB"))
    report(Row(f"seal: reading with the seal, {what}", sealed / plain, None, "reading"))
    report(Row(f"seal: again in one process, {what}", again / plain, None, "reading"))
    report(Row(f"seal: `dmseg data verify`, {what}", thorough / plain, None, "reading"))


def main() -> None:
    for word in sys.argv[1:] or ["0.5"]:
        if Path(word).is_dir():
            compare(Path(word))
        else:
            with tempfile.TemporaryDirectory() as scratch:
                compare(write_store(Path(scratch) / f"random-{EDGE}", float(word)))


if __name__ == "__main__":
    main()
