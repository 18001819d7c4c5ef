"""Checks the manifest of a prepared store before anything relies on it."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from dmseg.data.case import Task
from dmseg.data.contract import check_task
from dmseg.errors import UserError, shown
from dmseg.files.names import fault_of_name

MAX_EDGE = 1 << 16
"""Largest edge length of a slice, in pixels."""

GEOMETRY = "geometry"
"""Key of the spacing of each case and of whether its slices form one volume; not part of the digest."""

SIZES_DIFFER = "sizes_differ"
"""Key of a case whose slices differ in size, so that resizing gave them different spacing; otherwise left out."""

SKIPPED = "skipped"
"""Key of the ids of the cases that were left out because of a fault."""

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


def check_manifest(manifest: object) -> dict[str, Any]:
    """Checks the content of a manifest; the arrays are not read.

    Args:
        manifest: the parsed file.

    Returns:
        The manifest.

    Raises:
        ValueError: if it is invalid; the message names the key and its value.
    """
    if not isinstance(manifest, dict):
        raise ValueError(f"it is {shown(manifest)}; expected a mapping")
    for key, (test, expected) in _SCHEMA.items():
        if key not in manifest and key in _LATER:
            continue
        if key not in manifest:
            raise ValueError(f"{key} is missing")
        if not test(manifest[key]):
            raise ValueError(f"{key} is {shown(manifest[key])}; expected {expected}")
    n_raters, first, cases = len(manifest["task"]["raters"]), 0, set[str]()
    for index, row in enumerate(manifest["cases"]):
        if not (isinstance(row, dict) and row.keys() >= {"case", "first", "n_slices", "raters"}):
            raise ValueError(f"case {index} is {shown(row)}; expected case, first, n_slices and raters")
        case, raters = row["case"], row["raters"]
        if fault := fault_of_name(case):
            raise ValueError(f"a case's id is {shown(case)}, which cannot name a file: {fault}")
        if case in cases:
            raise ValueError(f"case {case} is listed twice")
        if not is_count(row["first"]) or row["first"] != first or not is_count(row["n_slices"], 1):
            raise ValueError(f"case {case} does not start where the previous case ends, or has no slices")
        known = isinstance(raters, list) and all(is_count(rater) and rater < n_raters for rater in raters)
        if not known or not raters or len(set(raters)) < len(raters):
            raise ValueError(f"case {case} has raters {shown(raters)}; expected positions below {n_raters}")
        cases.add(case)
        first += row["n_slices"]
    listed = manifest.get("listed") or cases
    if len(set(listed)) < len(listed) or not cases <= set(listed):
        raise ValueError("listed must name each case exactly once")
    if GEOMETRY in manifest and (missing := cases - manifest[GEOMETRY].keys()):
        raise ValueError(f"{GEOMETRY} does not describe case {min(missing)}")
    return manifest


def as_task(row: Mapping[str, Any]) -> Task:
    """The task described by a manifest."""
    return Task(row["name"], row["title"], row["cohort"], tuple(row["raters"]), row["anonymous_raters"])


def is_digest(value: object) -> bool:
    """Whether a value is a SHA-256 in lower-case hexadecimal."""
    return isinstance(value, str) and _DIGEST.match(value) is not None


def is_count(value: object, least: int = 0) -> bool:
    """Whether a value is a whole number of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_task(value: object) -> bool:
    names = ("name", "title", "cohort", "raters", "anonymous_raters")
    if not isinstance(value, dict) or any(name not in value for name in names) or not _are_texts(value["raters"]):
        return False
    try:
        check_task(as_task(value))
    except UserError:
        return False
    return isinstance(value["anonymous_raters"], bool) and _are_texts([value["title"], value["cohort"]])


def _are_texts(value: object) -> bool:
    """Whether a value is a list of texts that are valid in UTF-8."""
    return isinstance(value, list) and all(
        isinstance(text, str) and text.encode(errors="replace") == text.encode(errors="surrogatepass") for text in value
    )


def _are_source_files(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, list)
        and len(row) == 2
        and isinstance(row[1], list)
        and all(isinstance(text, str) for text in (row[0], *row[1]))
        for row in value
    )


def _is_geometry(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(row, dict)
        and row.keys() - {SIZES_DIFFER} == {"spacing", "contiguous"}
        and isinstance(row.get(SIZES_DIFFER, False), bool)
        and isinstance(row["contiguous"], bool)
        and (row["spacing"] is None or _is_spacing(row["spacing"]))
        for row in value.values()
    )


def _is_spacing(value: object) -> bool:
    """Whether it is a list of two or three sizes in mm."""
    return (
        isinstance(value, list)
        and len(value) in (2, 3)
        and all(isinstance(size, int | float) and not isinstance(size, bool) and 0 < size < 1e30 for size in value)
    )


def _are_sources(value: object) -> bool:
    return isinstance(value, dict) and all(
        row is None
        or (
            isinstance(row, dict)
            and is_count(row.get("size"))
            and isinstance(row.get("mtime_ns"), int)
            and is_digest(row.get("sha256"))
        )
        for row in value.values()
    )


_SCHEMA: dict[str, tuple[Callable[[Any], bool], str]] = {
    "task": (_is_task, "name, title, cohort, raters and anonymous_raters"),
    "cases": (lambda value: isinstance(value, list) and bool(value), "a list of cases"),
    "size": (lambda value: is_count(value, 1) and value <= MAX_EDGE, f"a whole number from 1 to {MAX_EDGE}"),
    "digest": (is_digest, "64 hexadecimal digits"),
    "options": (lambda value: isinstance(value, dict), "a mapping"),
    "revision": (is_count, "a whole number"),
    "source_files": (_are_source_files, "pairs of a case and its files"),
    "sources": (_are_sources, "size, mtime_ns and sha256 of each file"),
    "listed": (_are_texts, "a list of cases"),
    SKIPPED: (_are_texts, "a list of cases"),
    "version": (lambda value: isinstance(value, str), "text"),
    GEOMETRY: (_is_geometry, "spacing (two or three numbers above 0, in mm, or null) and contiguous of each case"),
}
_LATER = ("listed", SKIPPED, "version", GEOMETRY)
"""Keys that stores written by earlier versions lack."""
