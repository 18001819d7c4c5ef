"""LIDC-IDRI lung nodules as one PNG per slice and rater.

Layout: ``<root>/<patient>/<nodule>/{images,mask-0,mask-1,mask-2,mask-3}/slice-N.png`` (``<root>`` may also hold one
folder ``LIDC-IDRI-slices`` with the patients). A case is a patient: all slices of all its nodules. The readers are
anonymous: ``mask-0`` of one patient and of the next need not be the same radiologist.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dmseg.data.case import About, Adapter, Case, CaseFiles, Slice, Task
from dmseg.data.readers import as_mask, natural_key, read_png
from dmseg.errors import MissingDataError, UserError

RATERS = ("mask-0", "mask-1", "mask-2", "mask-3")
FOLDER = "LIDC-IDRI-slices"
TASK = Task("nodule", "LIDC nodule", "lidc", RATERS, anonymous_raters=True)


class LidcAdapter(Adapter):
    """Reads LIDC-IDRI nodules.

    Args:
        root: folder with the patients.
        min_marks: a slice counts only if at least so many raters marked something in it, 0 to 4.
        missing_masks: what a missing mask file means: ``error``, or ``blank`` (that rater marked nothing).

    Raises:
        UserError: if an option has an unknown value.
    """

    about = About(
        None,
        "CC BY 3.0",
        "LIDC-IDRI of The Cancer Imaging Archive, in a public distribution of one PNG a slice and reader",
    )

    def __init__(self, root: str | Path, min_marks: int = 0, missing_masks: str = "error") -> None:
        if missing_masks not in ("error", "blank"):
            raise UserError(f"data.missing_masks is '{missing_masks}', but may be error or blank")
        if not 0 <= min_marks <= len(RATERS):
            raise UserError(f"data.min_marks is {min_marks}, but may be 0 to {len(RATERS)}")
        folder = Path(root)
        self.root = folder / FOLDER if (folder / FOLDER).is_dir() else folder
        self.min_marks = min_marks
        self.missing_masks = missing_masks

    @property
    def tasks(self) -> Mapping[str, Task]:
        """One task: the nodule."""
        return {TASK.name: TASK}

    def list_cases(self, task: str) -> list[CaseFiles]:
        """Lists the patients; those without a slice that counts are left out.

        Raises:
            UserError: if there are no patients, or a mask file is missing.
        """
        if not self.root.is_dir():
            raise MissingDataError(f"LIDC folder {self.root} does not exist; set data.root, or use data=phantom")
        listed = [self._list_patient(patient) for patient in _folders(self.root)]
        cases = [files for files in listed if files.n_slices]
        if not cases:
            raise MissingDataError(f"no slices under {self.root}; expected <patient>/<nodule>/images/slice-N.png")
        return cases

    def read_case(self, task: str, files: CaseFiles) -> Case:
        """Reads one patient; intensities 0 to 255 are kept as they are."""
        return Case(files.case, (0, 1, 2, 3), np.array([[0.0, 255.0]]), self._slices(files.layout))

    def _list_patient(self, patient: Path) -> CaseFiles:
        images = [
            image
            for nodule in _folders(patient)
            for image in sorted((nodule / "images").glob("*.png"), key=lambda path: natural_key(path.name))
        ]
        kept = [image for image in images if self._counts(image)]
        files = tuple(path for image in kept for path in (image, *_existing(_masks(image))))
        return CaseFiles(patient.name, len(kept), files, layout=tuple(kept))

    def _counts(self, image: Path) -> bool:
        """Whether enough raters marked something; missing masks are an error unless they are taken as blank."""
        masks = _masks(image)
        missing = [path for path in masks if not path.is_file()]
        if missing and self.missing_masks == "error":
            raise UserError(
                f"{missing[0]} is missing: {image.name} of {image.parent.parent} has {4 - len(missing)} of 4 raters; "
                "add the file, or set data.missing_masks=blank"
            )
        if self.min_marks == 0:
            return True
        return sum(bool(read_png(path).any()) for path in _existing(masks)) >= self.min_marks

    def _slices(self, images: tuple[Path, ...]) -> Iterator[Slice]:
        for path in images:
            image = read_png(path)
            masks = [self._mask(mask, image.shape) for mask in _masks(path)]
            yield Slice(image[np.newaxis], np.stack(masks))

    def _mask(self, path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        if not path.is_file() and self.missing_masks == "blank":
            return np.zeros(shape, dtype=np.uint8)
        return as_mask(read_png(path), path, shape)


def _folders(parent: Path) -> list[Path]:
    return sorted((path for path in parent.iterdir() if path.is_dir()), key=lambda path: natural_key(path.name))


def _masks(image: Path) -> list[Path]:
    return [image.parent.parent / rater / image.name for rater in RATERS]


def _existing(paths: list[Path]) -> list[Path]:
    return [path for path in paths if path.is_file()]
