"""Masks and labels: values, types and shapes that are none of a mask, and those that are."""

import nibabel
import numpy as np
from conftest import save_nifti, save_png
from fuzz.harness import Right, names
from fuzz.templates import DECATHLON, KITS, LIDC, LITS, QUBIQ
from PIL import Image

MASKS = ("task*_seg*.nii.gz", "segmentation*.nii.gz", "labelsTr/*.nii.gz", "mask-?/*.png")


def changed(change):
    """Lets `change(values, rng)` change the values of a random mask; they keep their type."""

    def apply(box, rng):
        files = sorted({path for pattern in MASKS for path in (box / "raw").rglob(pattern)})
        path = files[rng.integers(len(files))]
        if path.suffix == ".png":
            save_png(path, change(np.asarray(Image.open(path)), rng))
        else:
            save_nifti(path, change(np.asarray(nibabel.load(path).dataobj), rng))
        return names(path)

    return apply


def one_voxel(value, kind=np.float32):
    def change(values, rng):
        values = values.astype(kind)
        values.flat[rng.integers(values.size)] = value
        return values

    return change


def scaled(factor, kind):
    return lambda values, rng: values.astype(kind) * np.asarray(factor, kind)


NIFTI, VOLUMES, ALL = (QUBIQ, LITS, KITS, DECATHLON), (LITS, KITS, DECATHLON), (QUBIQ, LITS, KITS, DECATHLON, LIDC)
REFUSED = [
    *((NIFTI, f"one voxel is {value}", one_voxel(value)) for value in
      (np.nan, np.inf, -np.inf, 0.5, 0.3, -1, -0.5, 1.4, 3e38, 1e-1)),
    *((VOLUMES, f"one label is {value}", one_voxel(value, np.int32)) for value in (-1, 3, 200, 2**31 - 1)),
    *(((QUBIQ,), f"one pixel is {value}", one_voxel(value, np.int32)) for value in (-1, 2, 7, 254, 2**31 - 1)),
    ((LIDC,), "one pixel is 128", one_voxel(128, np.uint8)),
    ((LIDC,), "one pixel is 254", one_voxel(254, np.uint8)),
    (NIFTI, "soft", lambda values, rng: np.clip(values * 0.7 + rng.uniform(0, 0.2, values.shape), 0, 1)),
    (NIFTI, "negative", lambda values, rng: -values.astype(np.int16)),
    (ALL, "one row less", lambda values, rng: values[:-1]),
    (ALL, "one column more", lambda values, rng: np.concatenate([values, values[:, -1:]], 1)),
    (NIFTI, "an axis more", lambda values, rng: np.stack([values, values], -1)),
    (NIFTI, "an axis less", lambda values, rng: values[0]),
    (NIFTI, "one voxel", lambda values, rng: values.reshape(-1)[:1].reshape((1,) * values.ndim)),
    (VOLUMES, "axes exchanged", lambda values, rng: np.swapaxes(values, 0, 2)),
]  # fmt: skip
ACCEPTED = [
    *(
        (NIFTI, f"as {np.dtype(kind).name}", scaled(1, kind))
        for kind in (np.float32, np.float64, np.int16, np.uint16, np.int32)
    ),
    *(((QUBIQ,), f"up to {value}", scaled(value, np.uint16)) for value in (255, 65535)),
    (NIFTI, "nearly whole", lambda values, rng: values + rng.uniform(-0.009, 0.009, values.shape)),
    (NIFTI, "an empty axis more", lambda values, rng: values[..., None]),
    ((LIDC,), "up to 1", lambda values, rng: values // 255),
]
EITHER = [
    (NIFTI, "as 64-bit", scaled(1, np.uint64)),
    (ALL, "nothing marked", lambda values, rng: values * 0),
    (ALL, "all marked", lambda values, rng: np.full_like(values, 255 if values.max() == 255 else 1)),
]


def whatever(change):
    """An outcome that has no result to compare with, but must come with no traceback."""

    def apply(box, rng):
        return Right(changed(change)(box, rng).named, judge=lambda box, ran: [])

    return apply


CHANGES = [
    *((templates, "refused", name, changed(change)) for templates, name, change in REFUSED),
    *((templates, "accepted", name, changed(change)) for templates, name, change in ACCEPTED),
    *((templates, "either", name, whatever(change)) for templates, name, change in EITHER),
]
