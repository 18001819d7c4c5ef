"""The interface of adapters: tasks, the files of each case, and cases."""

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
        title: name in tables.
        cohort: tasks of one cohort share their patients (``prostate``), and should have the same cases, so that they
            share their folds.
        raters: names of all raters, in a fixed order.
        anonymous_raters: whether the k-th raters of different cases may be different people.
    """

    name: str
    title: str
    cohort: str
    raters: tuple[str, ...]
    anonymous_raters: bool = False


@dataclass(frozen=True)
class CaseFiles:
    """The raw files of one case, before they are read.

    Attributes:
        case: id of the case.
        n_slices: number of slices of the case, or None if it is unknown until the case is read.
        files: all files that the case is read from, in a fixed order.
        layout: anything else that the adapter needs for reading.
    """

    case: str
    n_slices: int | None
    files: tuple[Path, ...]
    layout: Any = None


@dataclass(frozen=True)
class Slice:
    """One image with its annotations.

    Attributes:
        image: (C, H, W) in the units of the data, float32 or integers of at most 16 bits.
        annotations: (R, H, W) bool, or uint8 with values 0 and 1, in the order of `Case.raters`.
    """

    image: npt.NDArray[np.float32 | np.integer[Any]]
    annotations: npt.NDArray[np.uint8] | npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """One patient: the unit of cross-validation, metrics and statistics.

    Attributes:
        case: id.
        raters: positions, in `Task.raters`, of the raters who annotated this case.
        window: (C, 2), the intensities of each channel that are mapped to 0 and to the largest value of `dtype`; values
            outside are clipped.
        slices: the slices, possibly read one by one.
        dtype: stored type of intensities: ``uint8``, or ``int16`` for finer steps.
        spacing: distance of rows, of columns and, if known, of slices before they are resized, in mm; None if unknown.
        contiguous: whether each slice lies directly above the one before it, so that the slices form one volume.
    """

    case: str
    raters: tuple[int, ...]
    window: npt.NDArray[np.float64]
    slices: Iterable[Slice]
    dtype: str = "uint8"
    spacing: tuple[float, ...] | None = None
    contiguous: bool = False


@dataclass(frozen=True)
class About:
    """A data set as it is distributed.

    Attributes:
        cases: number of cases in the paper or the distribution, or None if it varies.
        licence: licence of the data.
        source: where to get the data.
    """

    cases: int | None
    licence: str
    source: str


class Adapter(ABC):
    """Reads one data set as it is distributed. The first argument of the constructor is the root folder.

    Attributes:
        about: description of the data set.
        skips_faulty: whether cases with missing or damaged files are skipped instead of being an error.
        unread_task: a placeholder task, for data sets whose files name their only task; used to count runs while the
            files are missing. Other data sets know their tasks without files.
    """

    about: ClassVar[About]
    unread_task: ClassVar[Task | None] = None
    skips_faulty: bool = False

    @property
    @abstractmethod
    def tasks(self) -> Mapping[str, Task]:
        """The tasks of the data set by name, in the order of tables."""

    @abstractmethod
    def list_cases(self, task: str) -> list[CaseFiles]:
        """Lists the cases of a task without reading them.

        Raises:
            MissingDataError: if the data set is not there.
            UserError: if files are missing or misplaced.
        """

    @abstractmethod
    def read_case(self, task: str, files: CaseFiles) -> Case:
        """Reads one case.

        Raises:
            UserError: if a file is damaged or has unsuitable content.
        """


def find_task(tasks: Mapping[str, Task], name: str | None, data: str) -> Task:
    """Finds a task by its name, for example ``nodule`` or ``lidc/nodule``; not needed if there is only one task.

    Raises:
        UserError: if there is no such task, or no name is given and there are several tasks.
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
