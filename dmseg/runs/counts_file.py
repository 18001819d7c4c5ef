"""``counts.npz``: the counts of an evaluation's cases, read without trusting the file.

The file is a zip of NumPy arrays without pickles or time stamps, which ``numpy.load`` reads too. Arrays of all cases
are stacked along the first axis, or concatenated along it where their length differs: ``raters`` (R entries for each
case), ``shared`` (R * R), ``votes`` (R + 1) and ``slices`` (S). `StoredCounts` describes each of them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg.files.arrays import parse_arrays, write_arrays
from dmseg.files.names import fault_of_name
from dmseg.files.regular import inside, read_regular
from dmseg.files.schema import SchemaError
from dmseg.metrics.stored_counts import ARRAYS, StoredCounts

COUNTS = "counts.npz"
LARGEST_COUNTS = 256 * 2**20
"""Largest size in bytes of the file, and of its arrays."""
MOST_CELLS = 256

_WHOLE, _REAL = ("<i8",), ("<f8",)
_DTYPES: dict[str, tuple[str, ...]] = {
    "case": ("<U",),
    "n_raters": _WHOLE,
    "n_slices": _WHOLE,
    "bins": _WHOLE,
    "cuts": ("<f4",),
    **{name: _REAL if "sum" in name or name in ("squared_error", "log_loss") else _WHOLE for name in ARRAYS},
}
"""The arrays of a file and their types."""
_RATERS = {"raters": 0, "shared": 0, "votes": 1}
"""Arrays with an entry for each rater, and the number of further entries."""


def write_counts(path: Path, counts: Mapping[str, StoredCounts]) -> None:
    """Writes the counts of all cases of an evaluation. Equal counts give equal bytes.

    Args:
        path: the file.
        counts: by case.
    """
    cases = list(counts.values())
    arrays = {
        "case": np.array(list(counts), dtype=np.str_),
        "n_raters": np.array([len(case.raters) for case in cases], np.int64),
        "n_slices": np.array([len(case.slices) for case in cases], np.int64),
        "bins": np.array(cases[0].bins, np.int64),
        "cuts": cases[0].cuts,
    }
    for name in ARRAYS:
        parts = [getattr(case, name) for case in cases]
        parts = [item.ravel() for item in parts] if name == "shared" else parts
        arrays[name] = np.concatenate(parts) if name in (*_RATERS, "slices") else np.stack(parts)
    write_arrays(path, arrays)


def read_counts(folder: Path, evaluation: Mapping[str, Any]) -> dict[str, StoredCounts]:
    """Reads and checks the counts of an evaluation.

    Args:
        folder: folder of the evaluation.
        evaluation: its settings, which hold the rules for ties and empty masks.

    Returns:
        Counts by case, in the order of ``cases.csv``.

    Raises:
        OSError: if the file is missing, a link, or too large.
        SchemaError: if it does not hold such counts.
    """
    arrays = _read_arrays(read_regular(inside(folder, COUNTS), LARGEST_COUNTS))
    cases = _check(arrays)
    raters, slices = arrays["n_raters"], arrays["n_slices"]
    parts = {name: list(arrays[name]) for name in ARRAYS if name not in (*_RATERS, "slices")}
    for name, more in _RATERS.items():
        sizes = raters**2 if name == "shared" else raters + more
        parts[name] = np.split(arrays[name], np.cumsum(sizes)[:-1])
    parts["shared"] = [item.reshape(n, n) for item, n in zip(parts["shared"], raters, strict=True)]
    parts["slices"] = np.split(arrays["slices"], np.cumsum(slices)[:-1])
    found = {}
    for index, case in enumerate(cases):
        own = {name: values[index] for name, values in parts.items()}
        found[case] = StoredCounts(
            **own,
            cuts=arrays["cuts"],
            bins=int(arrays["bins"]),
            ties=str(evaluation.get("ties", "background")),
            empty=str(evaluation.get("empty", "skip")),
        )
    return found


def check_counts(content: bytes, cases: Sequence[str]) -> None:
    """Checks the counts of an evaluation.

    Args:
        content: bytes of the file.
        cases: the cases of its ``cases.csv``, in their order.

    Raises:
        SchemaError: if it does not hold the counts of these cases.
    """
    if _check(_read_arrays(content)) != list(cases):
        raise SchemaError(f"{COUNTS}: its cases are not those of cases.csv")


def _read_arrays(content: bytes) -> dict[str, npt.NDArray[Any]]:
    return parse_arrays(content, COUNTS, _DTYPES, LARGEST_COUNTS)


def _check(arrays: Mapping[str, npt.NDArray[Any]]) -> list[str]:
    """Checks shapes, ranges and sums; returns the cases."""
    n_cases, n_cells = len(np.atleast_1d(arrays["case"])), arrays["cuts"].size + 1
    raters, slices = arrays["n_raters"], arrays["n_slices"]
    if arrays["bins"].shape or not 1 <= int(arrays["bins"]) <= MOST_CELLS or n_cells > MOST_CELLS or not n_cases:
        raise SchemaError(f"{COUNTS}: bins, cuts or cases are out of range")
    for name, values in (("n_raters", raters), ("n_slices", slices)):
        _expect(name, values.shape == (n_cases,) and bool(np.all((values >= 1) & (values < 2**24))))
    n_raters, n_bins, levels = int(raters.sum()), int(arrays["bins"]), arrays["joint"].shape[-1:]
    shapes = {
        "case": (n_cases,), "cuts": (n_cells - 1,), "joint": (n_cases, 3, *levels, *levels),
        "cells": (n_cases, 3, n_cells), "sums": (n_cases, 3, n_cells), "squared_error": (n_cases, 2),
        "log_loss": (n_cases, 2), "adaptive": (n_cases, 3, n_bins), "adaptive_sums": (n_cases, n_bins),
        "band": (n_cases, 2, 2, n_cells), "band_sums": (n_cases, 2, n_cells), "raters": (n_raters, 3, n_cells),
        "shared": (int((raters**2).sum()),), "votes": (n_raters + n_cases,), "slices": (int(slices.sum()), 3, 2),
    }  # fmt: skip
    for name, shape in shapes.items():
        _expect(name, arrays[name].shape == shape)
        if name != "case":
            values = arrays[name]
            _expect(name, bool(np.all((values >= 0) & (values < 2**53))))  # not NaN either
    _expect("cuts", bool(np.all(np.diff(arrays["cuts"], prepend=0.0) > 0) and np.all(arrays["cuts"] <= 1)))
    by_vote = arrays["cells"].sum(axis=2)
    total = by_vote.sum(axis=1)
    first = np.cumsum(slices) - slices
    _expect("cells", bool(np.all((total >= 1) & (total < 2**53))))
    _expect("joint", np.array_equal(arrays["joint"].sum(axis=(2, 3)), by_vote))
    _expect("adaptive", np.array_equal(arrays["adaptive"].sum(axis=2), by_vote))
    _expect("slices", np.array_equal(np.add.reduceat(arrays["slices"].sum(axis=2), first), by_vote))
    _expect("votes", np.array_equal(np.add.reduceat(arrays["votes"], np.cumsum(raters + 1) - raters - 1), total))
    _expect("raters", bool(np.all(arrays["raters"] <= np.repeat(arrays["cells"], raters, axis=0))))
    _expect("sums", bool(np.all(arrays["sums"] <= arrays["cells"] * (1 + 1e-6))))
    _expect("shared", bool(np.all(arrays["shared"] <= np.repeat(total, raters**2))))
    _expect("band", bool(np.all(arrays["band"].sum(axis=2) <= arrays["cells"].sum(axis=1)[:, None])))
    cases = arrays["case"].tolist()
    _expect("case", len(set(cases)) == n_cases and not any(map(fault_of_name, cases)))
    return [str(case) for case in cases]


def _expect(name: str, fine: bool) -> None:
    if not fine:
        raise SchemaError(f"{COUNTS}: {name} does not hold counts of these cases")
