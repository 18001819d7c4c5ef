"""A custom data set: NumPy arrays, one image and one mask for each rater of a case.

Layout: ``<root>/<case>/image.npy`` (H, W) and ``<root>/<case>/rater-1.npy`` to ``rater-3.npy`` (H, W), 0 or 1. Run as a
program, this file writes such a data set: ``python my_dataset.py FOLDER``.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dmseg.data.case import About, Adapter, Case, CaseFiles, Slice, Task
from dmseg.errors import MissingDataError, UserError

RATERS = ("rater-1", "rater-2", "rater-3")
TASK = Task("blob", "Blob", "blobs", RATERS)


class NpyAdapter(Adapter):
    """Reads a folder of NumPy arrays.

    Args:
        root: the folder with the cases.
        brightest: the intensity that is mapped to the largest stored value; 0 is mapped to 0.
    """

    about = About(None, "that of your data", "written by examples/my_dataset/my_dataset.py")

    def __init__(self, root: str | Path, brightest: float = 255.0) -> None:
        self.root = Path(root)
        self.brightest = brightest

    @property
    def tasks(self) -> Mapping[str, Task]:
        """One structure to segment, annotated by three raters."""
        return {TASK.name: TASK}

    def list_cases(self, task: str) -> list[CaseFiles]:
        """Lists the cases and their files; reads none of them."""
        folders = sorted(path for path in self.root.iterdir() if path.is_dir()) if self.root.is_dir() else []
        if not folders:
            raise MissingDataError(f"there are no cases in {self.root}; set data.root")
        return [
            CaseFiles(folder.name, 1, tuple(folder / f"{name}.npy" for name in ("image", *RATERS)))
            for folder in folders
        ]

    def read_case(self, task: str, files: CaseFiles) -> Case:
        """Reads one case: here one slice, with one channel.

        Types are not converted: dmseg takes all that can be stored safely, and refuses soft masks, which a conversion
        to integers would truncate to 0 and 1.
        """
        image, *masks = (_read(path) for path in files.files)
        window = np.array([[0.0, self.brightest]])
        for path, mask in zip(files.files[1:], masks, strict=True):
            if mask.shape != image.shape:
                raise UserError(f"{path} has shape {mask.shape}, but its image has {image.shape}")
        return Case(files.case, (0, 1, 2), window, [Slice(image[np.newaxis], np.stack(masks))])


def _read(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def write(folder: Path, cases: int = 12, size: int = 48) -> None:
    """Writes bright discs on a noisy background; each rater draws the disc with a different radius."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size]
    for number in range(1, cases + 1):
        place = folder / f"case-{number:02d}"
        place.mkdir(parents=True)
        row, column = rng.integers(size // 3, 2 * size // 3, 2)
        distance = np.hypot(rows - row, columns - column)
        image = np.clip(rng.normal(60, 15, (size, size)) + 120 * (distance < size / 5), 0, 255)
        np.save(place / "image.npy", image.astype(np.float32))
        for rater, change in zip(RATERS, (-1, 0, 2), strict=True):
            np.save(place / f"{rater}.npy", (distance < size / 5 + change).astype(np.uint8))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
