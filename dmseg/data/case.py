"""What an adapter gives: tasks, the files of each case, and cases."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from dmseg.errors import UserError


@dataclass(frozen=True)
class Task:
    """One structure to segment in one data set.

    Attributes:
        name: id, for example ``prostate-1``.
        title: what tables print.
        cohort: tasks of one cohort share their patients (``prostate``).
        raters: names of all raters, in a fixed order.
        anonymous_raters: whether the k-th rater of one case may be another person than the k-th of the next.
    """

    name: str
    title: str
    cohort: str
    raters: tuple[str, ...]
    anonymous_raters: bool = False


@dataclass(frozen=True)
class CaseFiles:
    """The raw files of one case, not read yet.

    Attributes:
        case: id of the case.
        n_slices: number of slices that reading will give, or None where only reading tells.
        files: all files that the case is read from, in a fixed order.
        layout: what the adapter itself needs to know for reading.
    """

    case: str
    n_slices: int | None
    files: tuple[Path, ...]
    layout: Any = None


@dataclass(frozen=True)
class Slice:
    """One image with its annotations.

    Attributes:
        image: (C, H, W) float32, in the data's own units.
        annotations: (R, H, W) uint8, 0 or 1, R as in `Case.raters`.
    """

    image: npt.NDArray[np.float32]
    annotations: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """One patient: the unit of cross-validation, metrics and statistics.

    Attributes:
        case: id.
        raters: positions, in `Task.raters`, of those who annotated this case.
        window: (C, 2), the intensities of each channel that are mapped to 0 and to the largest value of `dtype`; values
            beyond are clipped.
        slices: the slices, possibly read one by one.
        dtype: what intensities are stored as: ``uint8``, or in finer steps ``int16``.
    """

    case: str
    raters: tuple[int, ...]
    window: npt.NDArray[np.float64]
    slices: Iterable[Slice]
    dtype: str = "uint8"


@dataclass(frozen=True)
class About:
    """A data set as it is distributed.

    Attributes:
        cases: number of cases that the paper or the distribution has, or None where it varies.
        licence: licence of the data.
        source: where to get the data.
    """

    cases: int | None
    licence: str
    source: str


class Adapter(ABC):
    """Reads one data set as it is distributed. Its constructor's first argument is the root folder.

    Attributes:
        about: the data set, for people.
        skips_faulty: whether cases with missing or damaged files are left out, not an error.
        unread_task: for data sets that name their one task in their own files: what stands for it while these are
            missing, so that runs can be counted. The others know their tasks without data.
    """

    about: ClassVar[About]
    unread_task: ClassVar[Task | None] = None
    skips_faulty: bool = False

    @property
    @abstractmethod
    def tasks(self) -> Mapping[str, Task]:
        """The tasks of the data set by name, in the order of the tables."""

    @abstractmethod
    def list_cases(self, task: str) -> list[CaseFiles]:
        """Lists the cases of a task without reading them.

        Raises:
            MissingDataError: if there is nothing where the data set should be.
            UserError: if files are missing or out of place.
        """

    @abstractmethod
    def read_case(self, task: str, files: CaseFiles) -> Case:
        """Reads one case.

        Raises:
            UserError: if a file is damaged or does not hold what it should.
        """


def find_task(tasks: Mapping[str, Task], name: str | None, data: str) -> Task:
    """Returns the task of that name; a data set with one task needs none. ``lidc/nodule`` stands for ``nodule``.

    Raises:
        UserError: if there is no such task, or several and none is named.
    """
    if name is None and len(tasks) == 1:
        return next(iter(tasks.values()))
    known = f"data set '{data}' has: {', '.join(tasks)}"
    if name is None:
        raise UserError(f"task is not set; {known}")
    found = tasks.get(name) or tasks.get(name.rpartition("/")[2])
    if found is None:
        raise UserError(f"there is no task '{name}'; {known}")
    return found
