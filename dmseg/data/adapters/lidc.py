"""LIDC-IDRI lung nodules as one PNG per slice and rater.

Layout: ``<root>/<patient>/<nodule>/{images,mask-0,mask-1,mask-2,mask-3}/slice-N.png`` (``<root>`` may also contain a
folder ``LIDC-IDRI-slices`` with the patients). A case is a patient with all slices of all nodules. The readers are
anonymous: ``mask-0`` of two patients may be by different radiologists.

The intensity window depends on the bit depth of the images and is the same for all slices of a patient. In 8-bit files
it is 0 to 255. In 16-bit files it depends on the number of bits that the patient's largest value needs: 8 (0 to 255),
12 (0 to 4080, so that 16 values share each of 255 steps) or 16 (0 to 65535). If it is unclear whether 12 or 16 bits are
used, that is an error unless the option `bits` is set.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from dmseg.data.case import About, Adapter, Case, CaseFiles, Slice, Task
from dmseg.data.images import png_depth, read_png
from dmseg.data.listing import entries, existing, folders, refuse_broken, refuse_twice, warn_unread
from dmseg.data.options import check_choices, check_max_gib, check_whole
from dmseg.data.raw import is_file, is_folder
from dmseg.data.readers import as_mask
from dmseg.data.volumes import MAX_GIB
from dmseg.errors import MissingDataError, UserError, cut, either, shown

RATERS = ("mask-0", "mask-1", "mask-2", "mask-3")
FOLDER = "LIDC-IDRI-slices"
WHITE = {8: 255.0, 12: 4080.0, 16: 65535.0}
"""Intensity that is mapped to the largest stored value, by the number of bits in use."""
OTHER_IMAGES = (".bmp", ".dcm", ".gif", ".jpeg", ".jpg", ".npy", ".tif", ".tiff", ".webp")
"""Suffixes of images that are not read."""
TASK = Task("nodule", "LIDC nodule", "lidc", RATERS, anonymous_raters=True)

log = logging.getLogger(__name__)


class LidcAdapter(Adapter):
    """Reads LIDC-IDRI nodules.

    Args:
        root: folder with the patients.
        min_marks: smallest number of raters, 0 to 4, who must have marked something in a slice; others are left out.
        missing_masks: what to do about a missing mask file: ``error``, or ``blank`` (the rater marked nothing).
        bits: number of bits in use in 16-bit images, 8, 12 or 16; None to infer it from each patient's largest value.
        max_gib: limit of the memory for reading one slice with its masks, in GiB; see `dmseg.data.nifti`.

    Raises:
        UserError: if an option is invalid.
    """

    about = About(
        None,
        "CC BY 3.0",
        "LIDC-IDRI of The Cancer Imaging Archive, in a public distribution with one PNG per slice and reader",
    )

    def __init__(
        self,
        root: str | Path,
        min_marks: int = 0,
        missing_masks: str = "error",
        bits: int | None = None,
        max_gib: float = MAX_GIB,
    ) -> None:
        check_choices({"missing_masks": missing_masks}, {"missing_masks": ("error", "blank")})
        check_whole("min_marks", min_marks, 0, len(RATERS))
        if bits is not None and (not isinstance(bits, int) or bits not in WHITE):
            raise UserError(f"data.bits is {shown(bits)}, but must be 8, 12, 16 or null")
        check_max_gib(max_gib)
        folder = Path(root)
        self.root = folder / FOLDER if is_folder(folder / FOLDER) else folder
        self.max_gib = max_gib
        self.min_marks = min_marks
        self.missing_masks = missing_masks
        self.bits = bits
        self._bits_seen: set[int] = set()

    @property
    def tasks(self) -> Mapping[str, Task]:
        """One task: the nodule."""
        return {TASK.name: TASK}

    def list_cases(self, task: str) -> list[CaseFiles]:
        """Lists the patients that have slices to use.

        Raises:
            UserError: if there are no patients, or a mask file or the image of a mask is missing.
        """
        if not is_folder(self.root):
            raise MissingDataError(f"LIDC folder {self.root} does not exist; set data.root, or use data=phantom")
        cases, unread, empty = [], list[Path](), list[Path]()
        for patient in folders(self.root):
            nodules = folders(patient)
            named = [path for nodule in nodules for path in entries(nodule) if path.name.lower().startswith("mask")]
            unread += [path for path in named if path.name not in RATERS]
            images = {nodule: _pngs(nodule / "images") for nodule in nodules}
            empty += [nodule for nodule, found in images.items() if not found] or ([] if nodules else [patient])
            kept = [image for nodule, found in images.items() for image in self._images(nodule, found)]
            if kept:
                files = tuple(path for image in kept for path in (image, *_existing(_masks(image))))
                cases.append(CaseFiles(patient.name, len(kept), files, layout=tuple(kept)))
        if not cases:
            raise MissingDataError(f"no slices under {self.root}; expected <patient>/<nodule>/images/slice-N.png")
        warn_unread(unread, f"the masks of the raters are in {either(RATERS)}")
        warn_unread(empty, f"slices are in {self.root}/<patient>/<nodule>/images/slice-N.png")
        return cases

    def read_case(self, task: str, files: CaseFiles) -> Case:
        """Opens one patient; the slices are read lazily.

        Raises:
            UserError: if a file is damaged, or the bit depth of the images is unclear.
        """
        images: tuple[Path, ...] = files.layout
        patient = images[0].parent.parent.parent
        depths = {png_depth(path) for path in images}
        if len(depths) > 1:
            raise UserError(f"images of {patient} have {sorted(depths)} bits; save them with one bit depth")
        white = 1.0 if depths == {1} else 255.0  # the intensity that becomes the largest stored value
        if depths == {16}:
            bits = self.bits
            if bits is None:
                largest = max(int(read_png(path, self.max_gib).max()) for path in images)
                if WHITE[12] + 15 < largest < WHITE[16] / 2:
                    raise UserError(
                        f"16-bit images of {patient} have values up to {largest}, of either 12 or 16 bits; "
                        "set data.bits=16 (window 0 to 65535) or data.bits=12 (window 0 to 4080)"
                    )
                bits = 8 if largest < 256 else 12 if largest < 4096 else 16
            seen = len(self._bits_seen)
            self._bits_seen.add(bits)
            if 0 < seen < len(self._bits_seen):
                log.warning(
                    "16-bit images of some patients use %s bits and those of others %s; they are scaled differently "
                    "unless data.bits is set",
                    *sorted(self._bits_seen)[:2],
                )
            white = WHITE[bits]
        return Case(files.case, (0, 1, 2, 3), np.array([[0.0, white]]), self._slices(images, white))

    def _images(self, nodule: Path, images: list[Path]) -> list[Path]:
        """Those images of a nodule in which enough raters marked something.

        Raises:
            UserError: if the image of a mask is missing, a file may be an image but is not PNG, or a mask is missing,
                unless ``missing_masks=blank``.
        """
        names = {image.name.lower() for image in images}
        orphans = (mask for rater in RATERS for mask in _pngs(nodule / rater) if mask.name.lower() not in names)
        if orphan := next(orphans, None):
            raise UserError(
                f"{shown(nodule / 'images' / orphan.name)} is missing, but {orphan.parent.name} has a mask of that "
                "name; add the image, or remove its masks"
            )
        kept = []
        for image in images:
            masks = _masks(image)
            missing = [path for path in masks if not is_file(path)]
            if missing and self.missing_masks == "error":
                raise UserError(
                    f"{shown(missing[0])} is missing: {cut(image.name)} of {shown(nodule)} has {4 - len(missing)} of 4 "
                    "raters; add the file, or set data.missing_masks=blank"
                )
            read = _existing(masks) if self.min_marks else []
            if sum(bool(read_png(path, self.max_gib).any()) for path in read) >= self.min_marks:
                kept.append(image)
        return kept

    def _slices(self, images: tuple[Path, ...], white: float) -> Iterator[Slice]:
        for path in images:
            image = read_png(path, self.max_gib)
            if white > 1 and image.max() == 1:
                raise UserError(
                    f"{path} has only the values 0 and 1, but would be scaled from 0 to {white:g}; rescale it, "
                    "or save it with 1 bit"
                )
            masks = np.zeros((len(RATERS), *image.shape), dtype=np.bool_)
            for blank, mask in zip(masks, _masks(path), strict=True):
                if is_file(mask) or self.missing_masks == "error":
                    blank[:] = as_mask(read_png(mask, self.max_gib), mask, image.shape)
            yield Slice(image[np.newaxis], masks)


def _masks(image: Path) -> list[Path]:
    return [existing(image.parent.parent / rater / image.name) for rater in RATERS]


def _existing(paths: list[Path]) -> list[Path]:
    return [path for path in paths if is_file(path)]


def _pngs(folder: Path) -> list[Path]:
    """The PNG files of a folder, which may be missing; names that differ only in case are refused."""
    refuse_broken([folder])
    found = entries(folder) if is_folder(folder) else []
    refuse_broken(found)
    other = next((path for path in found if path.suffix.lower() in OTHER_IMAGES), None)
    if other is not None:
        raise UserError(f"{shown(other)} is not a PNG file; convert it, or remove it")
    named: dict[str, Path] = {}
    for path in found:
        if path.suffix.lower() == ".png":
            refuse_twice(named.get(path.name.lower()), path)
            named[path.name.lower()] = path
    return list(named.values())
