"""The manifest of a prepared store: one schema, checked before anything relies on it."""

import re
from collections.abc import Callable, Mapping
from reprlib import Repr
from typing import Any

from dmseg.data.case import Task
from dmseg.data.contract import check_name, check_task
from dmseg.errors import UserError

MAX_EDGE = 1 << 16
"""Largest edge of a slice, in pixels."""

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_SHORT = Repr()
_SHORT.maxother = _SHORT.maxstring = 60


def check_manifest(manifest: object) -> dict[str, Any]:
    """Checks what a manifest holds, all but the arrays themselves.

    Args:
        manifest: the parsed file.

    Returns:
        The manifest.

    Raises:
        ValueError: if it does not fit; it says which key has which value.
    """
    if not isinstance(manifest, dict):
        raise ValueError(f"it is {_SHORT.repr(manifest)}; expected a mapping")
    for key, (test, expected) in _SCHEMA.items():
        if key not in manifest and key in _LATER:
            continue
        if key not in manifest:
            raise ValueError(f"{key} is missing")
        if not test(manifest[key]):
            raise ValueError(f"{key} is {_SHORT.repr(manifest[key])}; expected {expected}")
    _check_cases(manifest["cases"], len(manifest["task"]["raters"]))
    cases = {row["case"] for row in manifest["cases"]}
    listed = manifest.get("listed") or cases
    if len(set(listed)) < len(listed) or not cases <= set(listed):
        raise ValueError("listed does not name each case once")
    return manifest


def as_task(row: Mapping[str, Any]) -> Task:
    """The task that a manifest describes."""
    return Task(row["name"], row["title"], row["cohort"], tuple(row["raters"]), row["anonymous_raters"])


def is_digest(value: object) -> bool:
    """Whether a value is a SHA-256 in hexadecimal."""
    return isinstance(value, str) and _DIGEST.match(value) is not None


def is_count(value: object, least: int = 0) -> bool:
    """Whether a value is a whole number, at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _check_cases(rows: list[object], n_raters: int) -> None:
    first, seen = 0, set()
    for index, row in enumerate(rows):
        if not (isinstance(row, dict) and row.keys() >= {"case", "first", "n_slices", "raters"}):
            raise ValueError(f"case {index} is {_SHORT.repr(row)}; expected case, first, n_slices and raters")
        case, raters = row["case"], row["raters"]
        _check_name(case)
        if case in seen:
            raise ValueError(f"case {case} is there twice")
        if not is_count(row["first"]) or row["first"] != first or not is_count(row["n_slices"], 1):
            raise ValueError(f"case {case} does not begin where the case before it ends, or has no slice")
        known = isinstance(raters, list) and all(is_count(rater) and rater < n_raters for rater in raters)
        if not known or not raters or len(set(raters)) < len(raters):
            raise ValueError(f"case {case} has raters {_SHORT.repr(raters)}; expected positions below {n_raters}")
        seen.add(case)
        first += row["n_slices"]


def _check_name(name: object) -> None:
    try:
        check_name(name, "a case's id")
    except UserError as error:
        raise ValueError(str(error).partition("; rename")[0]) from None


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
    """Whether a value is a list of texts that can be written as UTF-8."""
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


def _are_sources(value: object) -> bool:
    return isinstance(value, dict) and all(row is None or _is_fingerprint(row) for row in value.values())


def _is_fingerprint(row: object) -> bool:
    return (
        isinstance(row, dict)
        and is_count(row.get("size"))
        and isinstance(row.get("mtime_ns"), int)
        and is_digest(row.get("sha256"))
    )


_SCHEMA: dict[str, tuple[Callable[[Any], bool], str]] = {
    "task": (_is_task, "name, title, cohort, raters and anonymous_raters"),
    "cases": (lambda value: isinstance(value, list) and bool(value), "a list of cases"),
    "size": (lambda value: is_count(value, 1) and value <= MAX_EDGE, f"a whole number from 1 to {MAX_EDGE}"),
    "digest": (is_digest, "64 hexadecimal digits"),
    "options": (lambda value: isinstance(value, dict), "a mapping"),
    "revision": (is_count, "a whole number"),
    "source_files": (_are_source_files, "lists of a case and its files"),
    "sources": (_are_sources, "size, mtime_ns and sha256 of each file"),
    "listed": (_are_texts, "a list of cases"),
    "version": (lambda value: isinstance(value, str), "text"),
}
_LATER = ("listed", "version")
"""Keys that the manifests of some stores lack."""
