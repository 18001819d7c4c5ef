"""The cost of the checks when data are prepared: their time as a share of the time without them.

Run ``python bench/contract.py [lidc folder] [slices]``. Two data sets are prepared: small images of many cases (the
LIDC folder, or 300 generated patients of 128 x 128 pixels and four readers), and one 512 x 512 CT volume of which every
slice counts. Times are CPU times, from the round with the median ratio. The checks may take at most 3 %.
"""

import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image
from rows import Row, report
from volumes import WINDOW, generate

from dmseg.data import contract
from dmseg.data.adapters.lidc import RATERS, LidcAdapter
from dmseg.data.adapters.lits import LitsAdapter
from dmseg.data.case import Adapter, Case, CaseFiles, Task
from dmseg.data.parts import Part
from dmseg.data.prepared import prepare
from dmseg.data.suspicions import Suspicions

INSPECT = Suspicions.inspect
ROUNDS = 5
GOAL = 0.03


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


class Watch:
    """Adds up the CPU time of the checks, which are steps of iterators between reading and writing."""

    def __init__(self) -> None:
        self.spent = 0.0

    def steps(self, items: Iterable[Any], sign: int = 1) -> Iterator[Any]:
        """Passes items on, and adds or subtracts the time that each takes to arrive."""
        iterator = iter(items)
        while True:
            start = time.thread_time()
            item = next(iterator, None)
            self.spent += sign * (time.thread_time() - start)
            if item is None:
                return
            yield item

    def checked_case(self, case: Case, files: CaseFiles, task: Task) -> Case:
        """`contract.checked_case`, timed."""
        watched = replace(case, slices=self.steps(case.slices, -1))
        start = time.thread_time()
        checked = contract.checked_case(watched, files, task)
        self.spent += time.thread_time() - start
        return replace(checked, slices=self.steps(checked.slices))

    def inspect(self, suspicions: Suspicions, part: Part, chunks: Iterator[Any]) -> Iterator[Any]:
        """`Suspicions.inspect`, timed."""
        return self.steps(INSPECT(suspicions, part, self.steps(chunks, -1)))


def measure(adapter: Adapter, size: int) -> tuple[float, float]:
    """CPU seconds of preparing a data set of one task, without the checks; and of the checks."""
    watch = Watch()
    with (
        tempfile.TemporaryDirectory() as scratch,
        mock.patch("dmseg.data.prepared.checked_case", watch.checked_case),
        mock.patch.object(Suspicions, "inspect", lambda *arguments: watch.inspect(*arguments)),
    ):
        start = time.process_time()
        prepare(adapter, next(iter(adapter.tasks.values())), Path(scratch) / "store", size, {})
        return time.process_time() - start - watch.spent, watch.spent


def compare(name: str, adapter: Adapter, size: int) -> None:
    """Reports the ratio of the times, of the round with the median ratio."""
    rounds = sorted((measure(adapter, size) for _ in range(ROUNDS)), key=lambda one: one[1] / one[0])
    rest, checks = rounds[ROUNDS // 2]
    report(Row(f"contract: {name}", checks / rest, GOAL, "preparing without checks"))


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
