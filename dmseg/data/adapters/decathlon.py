"""Tasks of the Medical Segmentation Decathlon, from the ``dataset.json`` in their folder.

Layout, as distributed: ``Task04_Hippocampus/{dataset.json,imagesTr,labelsTr}``. Test images have no labels and are not
read. ``Task03_Liver`` is LiTS under other numbers, so its folds are not those of LiTS.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg.data.adapters.volumes import Mask, VolumeAdapter
from dmseg.data.case import About, CaseFiles, Task
from dmseg.data.contract import check_name
from dmseg.data.listing import folders, nifti_file
from dmseg.data.readers import natural_key
from dmseg.errors import MissingDataError, UserError


class DecathlonAdapter(VolumeAdapter):
    """Reads one task of the Decathlon.

    Args:
        root: the task's folder, or a folder that holds one such.
        target_labels: labels that make up the structure; None: all but the background.
        slices: see `VolumeAdapter`, also for all further options.
        slices_per_case: see there.
        window: see there; None, percentiles of each volume and channel, suits MR.
        orientation: see there.
        faulty_cases: see there.
        axis: axis that slices are cut across.
        dtype: see there.

    Raises:
        UserError: if an option has an unknown value.
    """

    about = About(None, "CC BY-SA 4.0", "medicaldecathlon.com")
    unread_task = Task("decathlon", "Decathlon", "decathlon", ("expert",))

    def __init__(
        self,
        root: str | Path,
        target_labels: Sequence[int] | None = None,
        slices: str = "target",
        slices_per_case: int | None = None,
        window: Sequence[float] | None = None,
        orientation: str = "file",
        faulty_cases: str = "error",
        axis: int = 2,
        dtype: str = "uint8",
    ) -> None:
        super().__init__(root, "organ", slices, slices_per_case, window, orientation, faulty_cases, axis, dtype)
        self.folder = _task_folder(self.root)
        self.dataset = _read_dataset(self.folder / "dataset.json")
        self.name = self.title = str(self.dataset.get("name") or self.folder.name)
        check_name(self.name, f"the name in {self.folder / 'dataset.json'}")
        known = _label_values(self.dataset, self.folder / "dataset.json")
        self.largest_label = max(known)
        if target_labels is not None and not set(target_labels) <= known - {0}:
            raise UserError(f"data.target_labels is {list(target_labels)}, but may hold {sorted(known - {0})}")
        self.target_labels = None if target_labels is None else sorted(set(target_labels))

    @property
    def tasks(self) -> Mapping[str, Task]:
        """One task, named like the data set."""
        name = self.name.lower().replace(" ", "-")
        return {name: Task(name, self.title, f"decathlon-{name}", ("expert",))}

    def is_target(self, labels: npt.NDArray[Any]) -> Mask:
        """Whether voxels belong to the structure."""
        return super().is_target(labels) if self.target_labels is None else np.isin(labels, self.target_labels)

    def list_cases(self, task: str) -> list[CaseFiles]:
        """Lists the training cases, sorted by id.

        Raises:
            UserError: if ``dataset.json`` lists none, or one twice.
        """
        rows = self.dataset.get("training")
        cases = [self._case(row) for row in rows] if isinstance(rows, list) else []
        if not cases:
            raise UserError(f"{self.folder / 'dataset.json'} lists no training cases")
        ids = [case.case for case in cases]
        twice = next((case for case in ids if ids.count(case) > 1), None)
        if twice is not None:
            raise UserError(f"{self.folder / 'dataset.json'} lists the case {twice} twice")
        return sorted(cases, key=lambda case: natural_key(case.case))

    def _case(self, row: Any) -> CaseFiles:  # noqa: ANN401
        try:
            image, label = self.folder / row["image"], self.folder / row["label"]
        except (KeyError, TypeError):
            raise UserError(
                f"{self.folder / 'dataset.json'} lists {row!r} for training; expected an image and a label"
            ) from None
        return CaseFiles(_stem(label), None, (_packed_or_not(image), _packed_or_not(label)))


def _stem(path: Path) -> str:
    return re.sub(r"(?i:\.nii)?(?i:\.gz)?$", "", path.name)


def _packed_or_not(path: Path) -> Path:
    """The file itself, or the one that lies there in its stead, packed or unpacked."""
    other = path if path.is_file() else nifti_file(path.parent, _stem(path))
    return other if other.is_file() else path


def _task_folder(root: Path) -> Path:
    if (root / "dataset.json").is_file():
        return root
    found = [path for path in folders(root) if (path / "dataset.json").is_file()] if root.is_dir() else []
    if len(found) == 1:
        return found[0]
    where = f"it holds {', '.join(path.name for path in found)}" if found else "there is none in it"
    error = UserError if found else MissingDataError
    raise error(f"data.root={root} must be the folder of one Decathlon task, with its dataset.json; {where}")


def _read_dataset(path: Path) -> dict[str, Any]:
    try:
        dataset = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); get it again") from None
    if not isinstance(dataset, dict):
        raise UserError(f"{path} is not a Decathlon dataset.json; get it again")
    return dataset


def _label_values(dataset: dict[str, Any], path: Path) -> set[int]:
    """Values of the labels, background included."""
    try:
        values = {int(value) for value in dataset["labels"]}
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} has no usable 'labels'; expected numbers with their names") from None
    if max(values, default=0) < 1:
        raise UserError(f"{path} names no label beside the background")
    return values
