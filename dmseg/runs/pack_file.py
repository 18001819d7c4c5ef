"""``pack.npz``: pictures of a few validation cases of an evaluation, read without trusting the file.

The file is a zip of NumPy arrays (`dmseg.files.arrays`). Arrays of all pictures are stacked along the first axis;
``raters`` is concatenated along it. `dmseg.training.pictures.Picture` describes each of them.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg.files.arrays import pack_arrays, parse_arrays
from dmseg.files.names import fault_of_name
from dmseg.files.regular import inside, read_regular
from dmseg.files.schema import SchemaError
from dmseg.training.pictures import ROLES, Picture, shrink

PACK = "pack.npz"
LARGEST_PACK = 200_000
"""Largest size in bytes of the file; pictures are reduced until they fit."""
LARGEST_ARRAYS = 32 * 2**20
EDGES = (160, 128, 96, 64, 48, 32, 16)
"""Edges that pictures are reduced to, one after another."""
LAYERS = ("image", "reference", "probability")

_DTYPES: dict[str, tuple[str, ...]] = {
    "case": ("<U",),
    "roles": ("|u1",),
    "dice": ("<f8",),
    "slice": ("<i8",),
    "n_slices": ("<i8",),
    "n_raters": ("<i8",),
    **dict.fromkeys((*LAYERS, "raters"), ("|u1",)),
}
"""The arrays of a file and their types."""


def write_pack(path: Path, pictures: Sequence[Picture]) -> None:
    """Writes the pictures of an evaluation, reduced to at most `LARGEST_PACK` bytes. Equal pictures give equal bytes.

    Args:
        path: the file.
        pictures: at least one, all of the same shape; if they cannot be made small enough, as they have hundreds of
            raters, no file is written.
    """
    content = pack_arrays(_arrays(pictures))
    for edge in EDGES:
        if len(content) <= LARGEST_PACK:
            break
        content = pack_arrays(_arrays([shrink(picture, edge) for picture in pictures]))
    if len(content) <= LARGEST_PACK:
        path.write_bytes(content)


def _arrays(pictures: Sequence[Picture]) -> dict[str, npt.NDArray[Any]]:
    return {
        "case": np.array([picture.case for picture in pictures], dtype=np.str_),
        "roles": np.array([[role in picture.roles for role in ROLES] for picture in pictures], np.uint8),
        "dice": np.array([picture.dice for picture in pictures], np.float64),
        "slice": np.array([picture.slice for picture in pictures], np.int64),
        "n_slices": np.array([picture.n_slices for picture in pictures], np.int64),
        "n_raters": np.array([len(picture.raters) for picture in pictures], np.int64),
        **{name: np.stack([getattr(picture, name) for picture in pictures]) for name in LAYERS},
        "raters": np.concatenate([picture.raters for picture in pictures]),
    }


def read_pack(folder: Path) -> list[Picture]:
    """Reads and checks the pictures of an evaluation.

    Args:
        folder: folder of the evaluation.

    Raises:
        OSError: if the file is missing, a link, or too large.
        SchemaError: if it does not hold such pictures.
    """
    arrays = _read(read_regular(inside(folder, PACK), LARGEST_PACK))
    cases = _check(arrays)
    raters = np.split(arrays["raters"], np.cumsum(arrays["n_raters"])[:-1])
    return [
        Picture(
            case,
            tuple(role for role, own in zip(ROLES, arrays["roles"][index], strict=True) if own),
            float(arrays["dice"][index]),
            int(arrays["slice"][index]),
            int(arrays["n_slices"][index]),
            raters=raters[index],
            **{name: arrays[name][index] for name in LAYERS},
        )
        for index, case in enumerate(cases)
    ]


def check_pack(content: bytes, cases: Collection[str]) -> None:
    """Checks the pictures of an evaluation.

    Args:
        content: bytes of the file.
        cases: the cases of its ``cases.csv``.

    Raises:
        SchemaError: if it is too large, or does not hold pictures of such cases.
    """
    if len(content) > LARGEST_PACK:
        raise SchemaError(f"{PACK} has {len(content)} bytes, but must have at most {LARGEST_PACK}")
    if odd := [case for case in _check(_read(content)) if case not in cases]:
        raise SchemaError(f"{PACK}: case {odd[0]!r:.60} is not in cases.csv")


def _read(content: bytes) -> dict[str, npt.NDArray[Any]]:
    return parse_arrays(content, PACK, _DTYPES, LARGEST_ARRAYS)


def _check(arrays: dict[str, npt.NDArray[Any]]) -> list[str]:
    """Checks shapes and ranges; returns the cases."""
    n, raters, shape = len(np.atleast_1d(arrays["case"])), arrays["n_raters"], arrays["image"].shape[1:]
    _expect("case", arrays["case"].shape == (n,) and 1 <= n <= 100)
    _expect("image", len(shape) == 2 and all(1 <= extent <= 4096 for extent in shape))
    _expect("n_raters", raters.shape == (n,) and bool(np.all((raters >= 1) & (raters < 2**16))))
    shapes = {
        "roles": (n, len(ROLES)),
        **dict.fromkeys(("dice", "slice", "n_slices"), (n,)),
        **dict.fromkeys(LAYERS, (n, *shape)),
        "raters": (int(raters.sum()), *shape),
    }
    for name, expected in shapes.items():
        _expect(name, arrays[name].shape == expected)
    _expect("roles", bool(np.all(arrays["roles"] <= 1) and np.all(arrays["roles"].any(axis=1))))
    _expect("raters", bool(np.all(arrays["raters"] <= 1)))
    _expect("dice", bool(np.all(np.isnan(arrays["dice"]) | ((arrays["dice"] >= 0) & (arrays["dice"] <= 1 + 1e-6)))))
    _expect("n_slices", bool(np.all((arrays["n_slices"] >= 1) & (arrays["n_slices"] < 2**24))))
    _expect("slice", bool(np.all((arrays["slice"] >= 0) & (arrays["slice"] < arrays["n_slices"]))))
    cases = [str(case) for case in arrays["case"].tolist()]
    _expect("case", len(set(cases)) == n and not any(map(fault_of_name, cases)))
    return cases


def _expect(name: str, fine: bool) -> None:
    if not fine:
        raise SchemaError(f"{PACK}: {name} does not hold pictures of cases")
