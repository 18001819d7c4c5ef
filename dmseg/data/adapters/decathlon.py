"""Tasks of the Medical Segmentation Decathlon, described by the ``dataset.json`` in their folder.

Layout, as distributed: ``Task04_Hippocampus/{dataset.json,imagesTr,labelsTr}``. Test images have no labels and are not
read. ``Task03_Liver`` is LiTS with different case numbers, so its folds are not those of LiTS.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg.data.adapters.volume import Mask, VolumeAdapter
from dmseg.data.case import About, CaseFiles, Task
from dmseg.data.listing import folders, nifti_file
from dmseg.data.raw import is_file, is_folder, is_there, read_json
from dmseg.data.readers import natural_key, one_value
from dmseg.data.volumes import MAX_GIB
from dmseg.errors import MissingDataError, UserError, cut, shown
from dmseg.files.names import check_name

LARGEST_LABEL = 65535


class DecathlonAdapter(VolumeAdapter):
    """Reads one task of the Decathlon.

    Args:
        root: the task's folder, or a folder that contains exactly one.
        target_labels: labels that make up the structure; None for all except the background.
        slices: see `VolumeAdapter`, also for the other options.
        slices_per_case: see there.
        window: see there; None (percentiles of each volume and channel) suits MR.
        orientation: see there.
        faulty_cases: see there.
        axis: axis across which slices are cut.
        dtype: see there.
        max_gib: see there.

    Raises:
        UserError: if an option is invalid.
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
        max_gib: float = MAX_GIB,
    ) -> None:
        super().__init__(
            root, "organ", slices, slices_per_case, window, orientation, faulty_cases, axis, dtype, max_gib
        )
        self.folder = self.root
        if not is_file(self.root / "dataset.json"):
            inside = folders(self.root) if is_folder(self.root) else []
            found = [path for path in inside if is_file(path / "dataset.json")]
            if len(found) != 1:
                where = f"it contains {', '.join(path.name for path in found)}" if found else "it does not contain one"
                error = UserError if found else MissingDataError
                raise error(
                    f"data.root={self.root} must be the folder of one Decathlon task with its dataset.json; {where}"
                )
            self.folder = found[0]
        source = self.folder / "dataset.json"
        self.dataset = read_json(source)
        if not isinstance(self.dataset, dict):
            raise UserError(f"{shown(source)} is not a Decathlon dataset.json; download it again")
        name = self.dataset.get("name") or self.folder.name
        if not isinstance(name, str | int | float):
            raise UserError(f"the name in {shown(source)} is {shown(name)}; expected text")
        check_name(str(name), f"the name in {shown(source)}")
        self.name = self.title = str(name)
        known = _label_values(self.dataset, source)
        self.largest_label = max(known)
        self.unnamed = sorted({*range(1, self.largest_label)} - known)
        self.target_labels: list[int] | None = None
        if target_labels is not None:
            is_list = isinstance(target_labels, Sequence) and not isinstance(target_labels, str)
            labels = list(target_labels) if is_list else []
            whole = all(isinstance(label, int) and not isinstance(label, bool) for label in labels)
            if not labels or not whole or not set(labels) <= known - {0}:
                raise UserError(
                    f"data.target_labels is {shown(target_labels)}, but must be a list of labels from "
                    f"{shown(sorted(known - {0}))}"
                )
            self.target_labels = sorted(set(labels))

    @property
    def tasks(self) -> Mapping[str, Task]:
        """One task, with the name of the data set."""
        name = self.name.lower().replace(" ", "-")
        return {name: Task(name, self.title, f"decathlon-{name}", ("expert",))}

    def is_target(self, labels: npt.NDArray[Any]) -> Mask:
        """Whether voxels belong to the structure."""
        return super().is_target(labels) if self.target_labels is None else np.isin(labels, self.target_labels)

    def _whole(self, values: npt.NDArray[Any], path: Path) -> npt.NDArray[Any]:
        whole = super()._whole(values, path)
        if self.unnamed and (odd := np.isin(whole, self.unnamed)).any():
            source = shown(self.folder / "dataset.json")
            raise UserError(
                f"{shown(path)} has the label {one_value(whole[odd][0])}, which {source} does not name; "
                "add it to 'labels' there, or fix the file"
            )
        return whole

    def list_cases(self, task: str) -> list[CaseFiles]:
        """Lists the training cases, sorted by id.

        Raises:
            UserError: if ``dataset.json`` lists no cases, or one case twice.
        """
        rows, source = self.dataset.get("training"), shown(self.folder / "dataset.json")
        if not isinstance(rows, list) or not rows:
            raise UserError(f"{source} lists no training cases; expected an image and a label for each")
        pairs = []
        for row in rows:
            given = [row.get(key) for key in ("image", "label")] if isinstance(row, dict) else []
            names = [name for name in given if isinstance(name, str) and name]
            if len(names) < 2:
                raise UserError(f"{source} lists {shown(row)} for training; expected an image and a label")
            for name in names:
                if PurePath(name).is_absolute() or ".." in re.split(r"[/\\]", name):
                    raise UserError(
                        f"{source} lists {shown(name)}, which is outside the task's folder; name a file in it"
                    )
            pairs.append([self.folder / name for name in names])
        twice = next((case for case, n in Counter(_stem(label) for _, label in pairs).items() if n > 1), None)
        if twice is not None:
            raise UserError(f"{source} lists the case {cut(twice)} twice")
        cases = []
        for pair in pairs:
            # the file itself, or its compressed or uncompressed counterpart if only that exists
            others = [path if is_there(path) else nifti_file(path.parent, _stem(path)) for path in pair]
            files = tuple(other if is_there(other) else path for path, other in zip(pair, others, strict=True))
            cases.append(CaseFiles(_stem(pair[1]), None, files))
        return sorted(cases, key=lambda case: natural_key(case.case))


def _stem(path: Path) -> str:
    return re.sub(r"(?i:\.nii)?(?i:\.gz)?$", "", path.name)


def _label_values(dataset: dict[str, Any], path: Path) -> set[int]:
    """Values of the labels, including the background."""
    try:
        values = {int(value) for value in dataset["labels"]}
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{shown(path)} has no valid 'labels'; expected numbers with their names") from None
    if max(values, default=0) > LARGEST_LABEL or min(values, default=0) < 0:
        raise UserError(f"{shown(path)} has labels out of range in 'labels'; expected 0 to {LARGEST_LABEL}")
    if max(values, default=0) < 1:
        raise UserError(f"{shown(path)} names no label other than the background")
    return values
