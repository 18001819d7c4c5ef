"""What checking costs when data are prepared: the time of the checks as a share of the time without them.

Run ``python bench/contract.py [lidc folder] [slices]``. Two data sets are prepared: small images of many cases (the
LIDC folder, or 300 generated patients of 128 x 128 pixels and four readers), and one 512 x 512 CT volume of which every
slice counts. CPU time of both ways, in turns; the least of the rounds counts. The checks may take 3 % at most.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image
from volumes import WINDOW, generate

from dmseg.data.adapters.lidc import RATERS, LidcAdapter
from dmseg.data.adapters.lits import LitsAdapter
from dmseg.data.case import Adapter
from dmseg.data.prepared import prepare

ROUNDS = 9


def write_patients(root: Path, count: int = 300, size: int = 128) -> Path:
    """Writes patients with one slice each in LIDC's layout."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size]
    for number in range(count):
        nodule = root / f"patient-{number}" / "nodule-0"
        distance = (rows - rng.integers(30, 98)) ** 2 + (columns - rng.integers(30, 98)) ** 2
        image = 100 + 80 * (distance < 400) + rng.normal(0, 12, (size, size))
        masks = {rater: 255 * (distance < rng.integers(300, 500)) for rater in RATERS}
        for name, values in {"images": image, **masks}.items():
            (nodule / name).mkdir(parents=True)
            Image.fromarray(values.astype(np.uint8)).save(nodule / name / "slice-0.png")
    return root


@contextmanager
def unchecked() -> Iterator[None]:
    """Switches the checks off."""
    with (
        mock.patch("dmseg.data.prepared.checked_case", lambda case, *_: case),
        mock.patch("dmseg.data.prepared.Suspicions.look", lambda _, __, chunks: chunks),
        mock.patch("dmseg.data.prepared.Suspicions.warn"),
    ):
        yield


def seconds(adapter: Adapter, size: int) -> float:
    """CPU seconds of preparing a data set of one task."""
    with tempfile.TemporaryDirectory() as scratch:
        start = time.process_time()
        prepare(adapter, next(iter(adapter.tasks.values())), Path(scratch) / "store", size, {})
        return time.process_time() - start


def compare(name: str, adapter: Adapter, size: int) -> None:
    """Prints the times of both ways, and their ratio."""
    seconds(adapter, size)
    with_checks, without = [], []
    for _ in range(ROUNDS):
        with_checks.append(seconds(adapter, size))
        with unchecked():
            without.append(seconds(adapter, size))
    share = min(with_checks) / min(without) - 1
    print(f"{name:32} {min(without):7.3f} s without, {min(with_checks):7.3f} s with checks: {share:+.1%}")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    n_slices = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    with tempfile.TemporaryDirectory() as scratch:
        root = folder or write_patients(Path(scratch) / "lidc")
        compare("LIDC, native size", LidcAdapter(root), 128)
        compare("LIDC, resized to 48", LidcAdapter(root), 48)
        image, label = generate(Path(scratch), n_slices, 2)
        image.rename(image.with_name("volume-0.nii.gz"))
        label.rename(label.with_name("segmentation-0.nii.gz"))
        compare(f"CT volume, {n_slices} slices", LitsAdapter(scratch, slices="all", window=WINDOW), 512)


if __name__ == "__main__":
    main()
