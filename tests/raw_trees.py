"""Small data sets in the layouts of real ones: three cases each, numbered 1, 2 and 10."""

import json

import numpy as np
from conftest import ensure_qubiq_case, save_nifti

NUMBERS = (1, 2, 10)


def volume(rng, image, label):
    """A volume of noise, and an organ (1) with a tumour (2)."""
    values = np.zeros((12, 10, 6), np.uint8)
    values[3:8, 3:8, 1:5] = 1
    values[4:6, 4:6, 2:4] = 2
    save_nifti(image, rng.integers(-200, 300, values.shape, dtype=np.int16))
    save_nifti(label, values)


def ensure_qubiq(root, **options):
    rng = np.random.default_rng(0)
    for number in NUMBERS:
        ensure_qubiq_case(root / f"kidney/Training/case{number:02d}", "kidney", 3, 1, rng, **options)


def write_lits(root):
    rng = np.random.default_rng(0)
    for number in NUMBERS:
        volume(rng, root / f"volume-{number}.nii.gz", root / f"segmentation-{number}.nii.gz")


def write_kits(root):
    rng = np.random.default_rng(0)
    for number in NUMBERS:
        folder = root / f"case_{number:05d}"
        volume(rng, folder / "imaging.nii.gz", folder / "segmentation.nii.gz")


def write_decathlon(root, name="Tiny"):
    rng, rows = np.random.default_rng(0), []
    for number in NUMBERS:
        row = {kind: f"./{kind}sTr/tiny_{number}.nii.gz" for kind in ("image", "label")}
        volume(rng, root / row["image"], root / row["label"])
        rows.append(row)
    dataset = {"name": name, "labels": {"0": "background", "1": "organ", "2": "tumour"}, "training": rows}
    (root / "dataset.json").write_text(json.dumps(dataset))
