"""KiTS19: 210 CT scans of the kidneys with their tumours.

Layout, as distributed: ``case_00000/{imaging,segmentation}.nii.gz``. Slices lie along the first axis. All slices are
512 x 512 except those of case 160 (512 x 796), which are resized like the others, without keeping their aspect ratio.
Cases 210 to 299 of the distribution are the challenge's test cases, which have no segmentation and are not read.
"""

import re

from dmseg.data.adapters.volume import VolumeAdapter
from dmseg.data.case import About, CaseFiles
from dmseg.data.listing import folders, nifti_file, warn_unread
from dmseg.data.raw import is_folder
from dmseg.errors import MissingDataError

TRAINING_CASES = 210


class KitsAdapter(VolumeAdapter):
    """Reads KiTS19: labels 1 kidney (cysts included), 2 tumour. Options: `VolumeAdapter`."""

    name, title, axis = "kits", "KiTS", 0
    about = About(TRAINING_CASES, "CC BY-NC-SA 4.0", "python scripts/download_kits.py FOLDER")

    def list_cases(self, task: str) -> list[CaseFiles]:
        """Lists the training cases by number.

        Raises:
            MissingDataError: if there are none.
        """
        if not is_folder(self.root):
            raise MissingDataError(f"KiTS folder {self.root} does not exist; set data.root, or use data=phantom_kits")
        place = self.root / "data" if is_folder(self.root / "data") else self.root
        matches = [(folder, re.fullmatch(r"case_(\d{5})", folder.name)) for folder in folders(place)]
        cases = [folder for folder, match in matches if match and int(match[1]) < TRAINING_CASES]
        if not cases:
            raise MissingDataError(f"no KiTS cases under {place}; expected case_00000/segmentation.nii.gz and so on")
        others = [folder for folder, match in matches if not match and folder.name.lower().startswith("case")]
        warn_unread(others, "folders of cases are named case_NNNNN")
        return [
            CaseFiles(case.name, None, (nifti_file(case, "imaging"), nifti_file(case, "segmentation")))
            for case in cases
        ]
