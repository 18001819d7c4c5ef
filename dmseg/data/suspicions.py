"""Warnings about suspicious data, collected while a store is written: one for each kind of suspicion."""

import logging
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from dmseg.data.case import Task
from dmseg.data.parts import Bytes, Intensities, Part
from dmseg.errors import some

SATURATED = 0.99
"""A case with more than this fraction of its pixels at the two ends of the window is suspicious."""
FLAT = 1 / 64
"""A case whose intensities span at most this fraction of the window is suspicious."""
COMPARED_CASES = 16
"""Largest number of cases in which raters are compared, evenly spread over the task."""
FEWEST_CASES = 5
"""Smallest number of cases in which raters are compared."""
CLEARLY = 0.2
"""Masks are suspected to be flipped if flipping them raises their Dice with the other raters by this much."""
FAR = 0.5
"""A rater is suspected to be misplaced if the Dice with the others is below this fraction of the others' median."""
ROWS = 32
"""Number of rows of an image that are inspected, evenly spread."""

Marks = npt.NDArray[np.bool_]

TURNS: dict[str, Callable[[Marks], Marks]] = {
    "as they are": lambda masks: masks,
    "flipped upside down": lambda masks: masks[:, ::-1],
    "flipped left to right": lambda masks: masks[:, :, ::-1],
    "rotated by 180 degrees": lambda masks: masks[:, ::-1, ::-1],
    "transposed": lambda masks: masks.swapaxes(1, 2),
}
"""Possible mistakes in the masks of a rater, (n, S, S)."""

log = logging.getLogger(__name__)


class Suspicions:
    """Inspects the cases of a task one after another and reports at the end what is suspicious.

    Args:
        task: the task.
        n_cases: number of its cases.
    """

    def __init__(self, task: Task, n_cases: int) -> None:
        self.task, self.n_cases, self.seen = task, n_cases, 0
        self.empty: list[str] = []
        self.blank: list[str] = []
        self.saturated: list[str] = []
        self.flat: list[str] = []
        self.same: list[str] = []
        self.first_with: dict[int, str] = {}
        self.annotating: set[int] = set()
        self.agreement = _Agreement(len(task.raters))

    def inspect(self, part: Part, chunks: Iterator[tuple[Intensities, Bytes]]) -> Iterator[tuple[Intensities, Bytes]]:
        """Passes the chunks of a case through and inspects them on the way.

        Args:
            part: the case.
            chunks: images (n, C, S, S) and annotations (n, r, S, S), as `Part.chunks` gives them.
        """
        top, step = np.iinfo(part.dtype).max, max(1, part.size // ROWS)
        n_pixels, at_ends, lowest, highest, content = 0, 0, top, 0, 0
        blank = dict(enumerate(part.raters))
        compare = self.seen % -(-self.n_cases // COMPARED_CASES) == 0 and len(part.raters) > 1
        for images, masks in chunks:
            rows = np.ascontiguousarray(images[:, :, ::step])
            low, high = int(rows.min()), int(rows.max())
            lowest, highest = min(lowest, low), max(highest, high)
            n_pixels += rows.size
            at_ends += rows.size - int(np.count_nonzero(rows)) if low == 0 else 0
            at_ends += int(np.count_nonzero(rows == top)) if high == top else 0
            values = rows.reshape(-1)
            half = values.size // 2
            content = hash((content, isal_zlib.crc32(values[:half]), isal_zlib.crc32(values[half:])))
            if blank:
                marked = masks.max(axis=(0, 2, 3))  # much faster than any()
                blank = {index: rater for index, rater in blank.items() if not marked[index]}
            if compare:
                self.agreement.add(np.ascontiguousarray(masks[:, :, ::step, ::step]), part.raters)
            yield images, masks
        self.seen += 1
        self.annotating.update(part.raters)
        self.agreement.n_cases += compare
        if len(blank) == len(part.raters):
            self.empty.append(part.case)
        elif blank:
            self.blank.append(f"{part.case} ({', '.join(self.task.raters[rater] for rater in blank.values())})")
        if (highest - lowest) / top <= FLAT:
            self.flat.append(part.case)
            return
        if at_ends / n_pixels > SATURATED:
            self.saturated.append(part.case)
        first = self.first_with.setdefault(content, part.case)
        if first != part.case:
            self.same.append(f"{part.case} (= {first})")

    def warn(self) -> None:
        """Logs one warning for each kind of suspicion, with the number of cases and the first names."""
        for names, said in (
            (self.empty, "no rater marked anything"),
            (self.blank, "a rater marked nothing, but others did"),
            (self.saturated, f"more than {SATURATED:.0%} of the pixels lie at the ends of the window (check it)"),
            (self.flat, f"all pixels lie within 1/{1 / FLAT:.0f} of the window (check it, and the image)"),
            (self.same, "the image is the same as another case's (in the rows compared)"),
        ):
            if names:
                log.warning("%s: in %d of %d cases %s: %s", self.task.name, len(names), self.seen, said, some(names))
        absent = [name for index, name in enumerate(self.task.raters) if index not in self.annotating]
        if absent:
            said = "%s: none of %d cases is annotated by %s (check the names of files and folders)"
            log.warning(said, self.task.name, self.seen, some(absent))
        for line in self.agreement.findings(self.task.raters):
            log.warning("%s: %s", self.task.name, line)


class _Agreement:
    """Dice of each rater with the majority of the others over all cases, for each of `TURNS`."""

    def __init__(self, n_raters: int) -> None:
        self.n_cases = 0
        self.shared = np.zeros((n_raters, len(TURNS)))
        self.sizes = np.zeros(n_raters)
        self.present: Counter[int] = Counter()

    def add(self, masks: Bytes, raters: Sequence[int]) -> None:
        """Adds slices: masks (n, r, S, S) and the positions of their raters."""
        marked = masks.view(np.bool_)
        total = masks.sum(axis=1, dtype=np.uint8 if len(raters) < 128 else np.uint16)
        for position, rater in enumerate(raters):
            own = marked[:, position]
            others = total - own >= len(raters) // 2
            self.sizes[rater] += np.count_nonzero(own) + np.count_nonzero(others)
            self.present[rater] += 1
            for index, turn in enumerate(TURNS.values()):
                self.shared[rater, index] += np.count_nonzero(turn(own) & others)

    def findings(self, names: Sequence[str]) -> list[str]:
        """One line for each rater who disagrees with the others, or agrees better once flipped or turned."""
        if self.n_cases < FEWEST_CASES or len(self.present) < 2:
            return []
        dice = 2 * self.shared / np.maximum(self.sizes, 1)[:, None]
        found = []
        for rater in sorted(self.present):
            plain, best = dice[rater, 0], int(dice[rater].argmax())
            others = statistics.median(dice[other, 0] for other in self.present if other != rater)
            known = f"the masks of rater {names[rater]} have a Dice of {plain:.2f} with the others"
            if dice[rater, best] > plain + CLEARLY:
                found.append(f"{known}, but {dice[rater, best]:.2f} if they are {list(TURNS)[best]}; check these masks")
            elif plain < FAR * others:
                found.append(f"{known}, whose median is {others:.2f}; check whether they are misplaced")
        return found
