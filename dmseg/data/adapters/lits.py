"""LiTS: 131 CT scans of the liver with its tumours.

Layout, as distributed: ``[...]/volume-N.nii[.gz]`` and ``segmentation-N.nii[.gz]``, in one folder or in two (``Training
Batch 1`` and ``Training Batch 2``), at any depth below the root. Slices lie along the last axis. 13 cases have no
tumour: folds include them (as in the released code), but they have no slices for training or scoring.
"""

import re
from pathlib import Path

from dmseg.data.adapters.volume import VolumeAdapter
from dmseg.data.case import About, CaseFiles
from dmseg.data.listing import files_below, refuse_twice, warn_unread
from dmseg.data.raw import is_folder
from dmseg.data.readers import natural_key
from dmseg.errors import MissingDataError


class LitsAdapter(VolumeAdapter):
    """Reads LiTS: labels 1 liver, 2 tumour. Options: `VolumeAdapter`."""

    name, title = "lits", "LiTS"
    about = About(131, "CC BY-NC-ND 4.0", "register at competitions.codalab.org/competitions/17094")

    def list_cases(self, task: str) -> list[CaseFiles]:
        """Lists the cases by number.

        Raises:
            UserError: if there are none, or a file exists twice.
        """
        if not is_folder(self.root):
            raise MissingDataError(f"LiTS folder {self.root} does not exist; set data.root, or use data=phantom_lits")
        files = list(files_below(self.root))
        images, labels = _numbered(files, "volume"), _numbered(files, "segmentation")
        read = {*images.values(), *labels.values()}
        # volumes that are not read, such as misspelt ones; those of the test set are expected
        others = [
            path
            for path in files
            if path not in read
            and path.name.lower().endswith((".nii", ".nii.gz"))
            and not path.name.lower().startswith("test-volume-")
        ]
        warn_unread(others, "expected volume-N.nii and segmentation-N.nii")
        numbers = sorted({*images, *labels}, key=natural_key)
        if not numbers:
            raise MissingDataError(f"no LiTS cases under {self.root}; expected volume-N.nii and segmentation-N.nii")
        cases = []
        for number in numbers:
            image = images.get(number) or _beside(labels[number], f"volume-{number}")
            label = labels.get(number) or _beside(image, f"segmentation-{number}")
            cases.append(CaseFiles(f"volume-{number}", None, (image, label)))
        return cases


def _numbered(files: list[Path], kind: str) -> dict[str, Path]:
    """Files of one kind by case number, as it is written; ``1`` and ``01`` are the same case."""
    found: dict[str, Path] = {}
    first: dict[str, Path] = {}
    for path in files:
        match = re.fullmatch(rf"{kind}-(\d+)\.nii(\.gz)?", path.name, re.IGNORECASE)
        if match is None:
            continue
        number = match[1].lstrip("0")
        refuse_twice(first.get(number), path)
        found[match[1]] = first[number] = path
    return found


def _beside(path: Path, stem: str) -> Path:
    """The path at which a missing file is expected."""
    return path.with_name(stem + "".join(path.suffixes))
