"""QUBIQ 2020: seven tasks in four data sets, several raters each.

Layout, as distributed: ``[<release>/]<data set>/[Training|Validation/]caseNN/{image,taskTT_segSS}.nii[.gz]``. The
2020 release has its cases in ``training_data_v2`` and ``validation_data_v2``, the 2021 release in
``training_data_v3[_QC]`` and ``validation_data_qubiq2021[_QC]``. All parts are merged. The numbers of the paper's cases
go up to its counts (55, 39, 32, 24), so the 2021 validation cases, which have higher numbers, are left out by default.
Test folders are never read. Arrays are used in nibabel's order, and headers are ignored.
"""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dmseg.data.case import About, Adapter, Case, CaseFiles, Slice, Task
from dmseg.data.listing import entries, folders, nifti_file, refuse_broken, refuse_twice, warn_unread
from dmseg.data.options import check_choices, check_max_gib
from dmseg.data.raw import is_file, is_folder
from dmseg.data.readers import as_mask, natural_key
from dmseg.data.volumes import MAX_GIB, open_volume, read_nifti
from dmseg.errors import MissingDataError, UserError, shown, some

RELEASES = (
    "training_data_v2",
    "validation_data_v2",
    "training_data_v3",
    "training_data_v3_QC",
    "validation_data_qubiq2021",
    "validation_data_qubiq2021_QC",
)
PARTS = ("Training", "Validation")
CASE_COUNTS = {"prostate": 55, "brain-growth": 39, "brain-tumor": 32, "kidney": 24}
"""Cases of each data set in the paper, section 3.1."""

# According to the official description one prostate case has five annotations: case 09, where rater 3 is missing.
KNOWN_MISSING = {("prostate", "case09"): ("seg03",)}
# Annotations of prostate T2 that contradict the image, as found by other users of the data.
CONFLICTING = {("prostate-2", "case50"): ("seg01", "seg03", "seg04", "seg05", "seg06")}


def _task(name: str, title: str, raters: int) -> Task:
    return Task(name, title, name[:-2], tuple(f"seg{index:02d}" for index in range(1, raters + 1)))


TASKS = {
    task.name: task
    for task in (
        _task("prostate-1", "Prostate T1", 6),
        _task("prostate-2", "Prostate T2", 6),
        _task("brain-growth-1", "Brain Growth", 7),
        _task("brain-tumor-1", "Brain Tumor T1", 3),
        _task("brain-tumor-2", "Brain Tumor T2", 3),
        _task("brain-tumor-3", "Brain Tumor T3", 3),
        _task("kidney-1", "Kidney", 3),
    )
}

CHOICES = {
    "intensity": ("robust", "max"),
    "missing_raters": ("known", "allow"),
    "incomplete_cases": ("keep", "replace"),
    "conflicting_annotations": ("keep", "drop"),
    "cases": ("paper", "all"),
}

log = logging.getLogger(__name__)


class QubiqAdapter(Adapter):
    """Reads QUBIQ.

    Args:
        root: folder with the four data sets, or with the releases that contain them.
        intensity: window that is mapped to the full range: ``robust`` for the 0.5th to 99.5th percentile of each
            channel, ``max`` for zero to the maximum over all channels, which clips negative values (authors' released
            script).
        missing_raters: ``known`` if only the case that is known to lack a rater may do so; ``allow`` if any case may.
        incomplete_cases: ``keep`` cases that are known to lack a rater, or ``replace`` such a case by the last one
            of the data set (authors' released script).
        conflicting_annotations: ``keep`` or ``drop`` the annotations of prostate T2, case 50 that contradict the image.
        cases: ``paper`` for cases numbered up to the paper's counts; ``all`` for all cases found.
        max_gib: limit of the memory for reading one file, in GiB; see `dmseg.data.nifti`.

    Raises:
        UserError: if an option is invalid.
    """

    about = About(sum(CASE_COUNTS.values()), "non-commercial", "register at qubiq.grand-challenge.org")

    def __init__(
        self,
        root: str | Path,
        intensity: str = "robust",
        missing_raters: str = "known",
        incomplete_cases: str = "keep",
        conflicting_annotations: str = "keep",
        cases: str = "paper",
        max_gib: float = MAX_GIB,
    ) -> None:
        given = {
            "intensity": intensity,
            "missing_raters": missing_raters,
            "incomplete_cases": incomplete_cases,
            "conflicting_annotations": conflicting_annotations,
            "cases": cases,
        }
        check_choices(given, CHOICES)
        check_max_gib(max_gib)
        self.root = Path(root)
        self.options = given
        self.max_gib = max_gib

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The seven tasks, in the order of the paper's tables."""
        return TASKS

    def list_cases(self, task: str) -> list[CaseFiles]:
        """Lists the cases of a task, sorted by number.

        Raises:
            UserError: if the data set is missing or empty, a case exists twice, or annotations are missing.
        """
        cohort = TASKS[task].cohort
        inside = [path for part in self._parts(cohort) for path in folders(part)]
        found = [path for path in inside if re.fullmatch(r"case\d+", path.name, re.IGNORECASE)]
        twice = [number for number, count in Counter(map(_number, found)).items() if count > 1]
        if twice:
            alike = [path for path in found if _number(path) == twice[0]]
            case, where = alike[0].name.lower(), ", ".join(map(str, alike))
            raise UserError(f"QUBIQ {cohort} {case} exists twice: {where}; set data.root to one release")
        if not found:
            raise MissingDataError(self._nothing_found(cohort))
        others = [path for path in inside if path not in found and path.name.lower().startswith("case")]
        warn_unread(others, "folders of cases are named caseNN")
        most = None if self.options["cases"] == "all" else CASE_COUNTS[cohort]
        kept = [path for path in found if most is None or _number(path) <= most]
        if len(kept) < len(found):
            log.info("%s: %d cases that the paper does not have are left out", cohort, len(found) - len(kept))
        by_id = {path.name.lower(): path for path in sorted(kept, key=lambda path: natural_key(path.name.lower()))}
        for name, case in KNOWN_MISSING if self.options["incomplete_cases"] == "replace" else ():
            if name == cohort and case in by_id and list(by_id)[-1] != case:
                by_id[case] = by_id.popitem()[1]  # the last case takes the incomplete one's id and position
        return [self._list_case(task, case, folder) for case, folder in by_id.items()]

    def read_case(self, task: str, files: CaseFiles) -> Case:
        """Reads one case: image (C, H, W) and its annotations."""
        image = read_nifti(files.files[0], self.max_gib)
        if image.ndim == 3 and image.shape[2] <= 4:
            image = np.moveaxis(image, 2, 0)
        elif image.ndim == 2:
            image = image[np.newaxis]
        else:
            raise UserError(
                f"{shown(files.files[0])} has shape {image.shape}; expected a 2-D image with up to 4 channels last"
            )
        masks = (as_mask(read_nifti(path, self.max_gib), path, image.shape[1:]) for path in files.files[1:])
        annotations = np.stack(list(masks))
        if self.options["intensity"] == "robust":
            window = np.percentile(image.reshape(len(image), -1), (0.5, 99.5), axis=1).T.astype(np.float64)
        else:
            window = np.tile(np.array([0.0, max(0.0, float(image.max()))]), (len(image), 1))
        spacing = open_volume(files.files[0], self.max_gib).in_plane_spacing
        return Case(files.case, files.layout, window, [Slice(image, annotations)], spacing=spacing)

    def _parts(self, cohort: str) -> list[Path]:
        """The folders that may hold cases of a data set; names are compared without case."""
        releases = [self.root, *(self.root / release for release in RELEASES)]
        places = [place for release in releases for place in _named(release, (cohort,))]
        return [part for place in places for part in (place, *_named(place, PARTS))]

    def _nothing_found(self, cohort: str) -> str:
        """Says that there are no cases, and what is there instead."""
        said = f"no QUBIQ {cohort} cases under {self.root}; expected {cohort}/caseNN/image.nii.gz"
        present = [name for name in CASE_COUNTS if name != cohort and self._parts(name)]
        if present:
            tasks = " or ".join(f"task={task.name}" for task in TASKS.values() if task.cohort == present[0])
            return f"{said}\nthere is {some(present)}: set {tasks}, or add {cohort}"
        place = next(iter(self._parts(cohort)), self.root)
        names = [path.name for path in entries(place)] if is_folder(place) else []
        holds = f"{shown(place)} has {some(names)}\n" if names else ""
        return f"{said}\n{holds}set data.root, or use data=phantom; data/README.md says where to get the data"

    def _list_case(self, task: str, case: str, folder: Path) -> CaseFiles:
        pattern = re.compile(rf"task{task[-1:]:0>2}_(seg\d+)\.nii(\.gz)?", re.IGNORECASE)
        found: dict[str, Path] = {}
        for path in entries(folder):
            if match := pattern.fullmatch(path.name):
                rater = match.group(1).lower()
                refuse_twice(found.get(rater), path)
                found[rater] = path
        present = {rater: found[rater] for rater in TASKS[task].raters if rater in found}
        lacking = [rater for rater in TASKS[task].raters if rater not in present]
        if unknown := [path for rater, path in found.items() if rater not in TASKS[task].raters]:
            log.warning("%s: not read; the raters of %s are %s", shown(unknown[0]), task, some(TASKS[task].raters, 7))
        excused = KNOWN_MISSING.get((TASKS[task].cohort, folder.name.lower()), ())
        if self.options["missing_raters"] == "known" and any(rater not in excused for rater in lacking):
            rater = next(rater for rater in lacking if rater not in excused)
            raise UserError(
                f"{folder}/task{task[-1:]:0>2}_{rater}.nii.gz is missing: {case} of {task} has {len(present)} of "
                f"{len(TASKS[task].raters)} raters; add the file, or set data.missing_raters=allow"
            )
        if self.options["conflicting_annotations"] == "drop":
            dropped = CONFLICTING.get((task, folder.name.lower()), ())
            present = {rater: path for rater, path in present.items() if rater not in dropped}
        if not present:
            raise UserError(f"{folder} has no annotation of {task}; add task{task[-1:]:0>2}_segSS.nii.gz files")
        raters = tuple(index for index, rater in enumerate(TASKS[task].raters) if rater in present)
        image = nifti_file(folder, "image")
        if not is_file(image):
            raise UserError(f"{shown(image)} is missing; every case needs an image")
        return CaseFiles(case, 1, (image, *present.values()), layout=raters)


def _number(case: Path) -> int:
    """The number of a case folder; ``case1`` and ``case01`` are the same case."""
    return int(case.name[4:])


def _named(parent: Path, names: Sequence[str]) -> list[Path]:
    """The subfolders with one of these names, without regard to case.

    Raises:
        UserError: if one is a broken link.
    """
    lower = [name.lower() for name in names]
    found = [path for path in entries(parent) if path.name.lower() in lower] if is_folder(parent) else []
    refuse_broken(found)
    return [path for path in found if is_folder(path)]
