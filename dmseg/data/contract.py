"""The contract between adapters and the prepared store.

An adapter's code is called by `tasks_of`, `cases_of` and `reading`, which turn its exceptions into messages. Everything
that it returns is checked here once, before slices are resized or quantised: `check_task`, `checked_cases` and
`checked_case`. Unambiguous values are converted (lists, float64 or integer images, integer masks);
anything else is refused with one line that names the case, its file and the value.
"""

import math
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dmseg.data.case import Adapter, Case, CaseFiles, Slice, Task
from dmseg.data.readers import SOFT, some_values
from dmseg.errors import AdapterError, UserError, cut, first_line, is_whole, shown
from dmseg.files.names import check_name

Result = TypeVar("Result")

LARGEST = float(np.finfo(np.float32).max)
DTYPES = ("uint8", "int16")
"""Types that intensities may be stored as."""
MOST_FILES = 8
"""Largest number of files that a message about a case names."""
_END = object()
"""What `next` returns after the last slice of an adapter."""


class _Breach(Exception):
    """A breach of the contract; the message does not name the case yet."""


def check_task(task: object) -> None:
    """Checks a task.

    Raises:
        UserError: if it is not a `Task`, its name cannot name a file, or the names of its raters are not distinct.
    """
    if not isinstance(task, Task):
        raise UserError(f"the adapter's task is {shown(task)}; expected a dmseg.data.case.Task")
    check_name(task.name, "the task's name")
    if not (isinstance(task.title, str) and isinstance(task.cohort, str)):
        raise UserError(f"task {task.name}: title {shown(task.title)} and cohort {shown(task.cohort)} must be text")
    raters = task.raters
    listed = isinstance(raters, tuple | list) and all(isinstance(rater, str) and rater for rater in raters)
    if not listed or not raters or len(set(raters)) < len(raters):
        raise UserError(f"task {task.name}: raters is {shown(raters)}; expected a tuple of one or more distinct names")


def checked_cases(listed: object, task: Task) -> list[CaseFiles]:
    """Checks what `Adapter.list_cases` returns.

    Args:
        listed: the cases.
        task: their task.

    Returns:
        The cases, with `CaseFiles.files` as a tuple of paths.

    Raises:
        UserError: if there are no cases, one is listed twice, or an id cannot name a file.
    """
    if not isinstance(listed, Iterable):
        raise UserError(f"task {task.name}: list_cases returns {shown(listed)}; expected a list of CaseFiles")
    cases: list[CaseFiles] = []
    for files in listed:
        if not isinstance(files, CaseFiles):
            raise UserError(f"task {task.name}: list_cases returns {shown(files)}; expected CaseFiles")
        paths = files.files
        if not isinstance(paths, tuple | list) or not all(isinstance(path, str | Path) for path in paths):
            raise UserError(f"case {shown(files.case)}: files is {shown(paths)}; expected a tuple of paths")
        place = f" ({shown(Path(paths[0]))})" if paths else ""
        check_name(files.case, f"the id of a case of task {task.name}{place}")
        count: object = files.n_slices
        if count is not None and not (is_whole(count) and count >= 0):
            raise UserError(
                f"case {files.case}: n_slices is {shown(count)}; expected a whole number, or None if unknown"
            )
        plain = isinstance(paths, tuple) and all(isinstance(path, Path) for path in paths)
        cases.append(files if plain else replace(files, files=tuple(map(Path, paths))))
    if not cases:
        raise UserError(f"task {task.name}: list_cases returns no cases; check data.root")
    seen: set[str] = set()
    for case in cases:
        if case.case in seen:
            raise UserError(f"task {task.name} has two cases with the id {case.case!r}; ids must be unique")
        seen.add(case.case)
    return cases


def checked_case(case: object, files: CaseFiles, task: Task) -> Case:
    """Checks what `Adapter.read_case` returns; its slices are checked as they are read.

    Args:
        case: the case.
        files: the files it is read from.
        task: its task.

    Returns:
        The case with raters, window and dtype as the store needs them. Each slice has a finite image (C, H, W), float32
        or integers of at most 16 bits, and uint8 annotations (len(raters), H, W), 0 or 1; iterating over invalid slices
        raises UserError.

    Raises:
        UserError: if it breaks the contract.
    """
    try:
        if not isinstance(case, Case):
            raise _Breach(f"read_case returns {shown(case)}; expected a dmseg.data.case.Case")
        if case.case != files.case:
            raise _Breach(f"read_case returns case {shown(case.case)}; expected the requested one")
        raters = _checked_raters(case.raters, task)
        window = _checked_window(case.window)
        try:
            dtype = str(np.dtype(case.dtype).name)
        except (TypeError, ValueError):
            dtype = ""
        if dtype not in DTYPES:
            raise _Breach(f"dtype is {shown(case.dtype)}; expected {' or '.join(DTYPES)}")
        sizes = None if case.spacing is None else _array(case.spacing, "spacing")
        if sizes is not None and (
            sizes.dtype.kind not in "fiu" or sizes.shape not in ((2,), (3,)) or not ((sizes > 0) & (sizes < 1e6)).all()
        ):
            raise _Breach(
                f"spacing is {shown(case.spacing)}; expected (row, column) or (row, column, slice) in mm, above 0 and "
                "below 1e6"
            )
        if not isinstance(case.contiguous, bool | np.bool_):
            raise _Breach(f"contiguous is {shown(case.contiguous)}; expected True or False")
        if not isinstance(case.slices, Iterable):
            raise _Breach(f"slices is {shown(case.slices)}; expected a list or another iterable of Slice objects")
    except _Breach as breach:
        raise _error(breach, files) from None
    slices = _checked_slices(case, files, raters, window)
    spacing = None if sizes is None else tuple(map(float, sizes))
    return Case(case.case, raters, window, slices, dtype, spacing, bool(case.contiguous))


def reading(read: Callable[[], Result], files: CaseFiles, slice_index: int | None = None) -> Result:
    """Calls the code of an adapter that reads a case or a slice; its exceptions then name the case and its files.

    Args:
        read: the call. A `partial` rather than a lambda: tracebacks begin with what it calls.
        files: the case.
        slice_index: the slice, if only one is read.

    Raises:
        UserError: as raised by the adapter, or if it raises an OSError.
        AdapterError: if it raises any other exception.
    """
    try:
        return read()
    except UserError:
        raise
    except Exception as error:
        place, what = _place(files, slice_index), "read_case" if slice_index is None else "reading the slice"
        raise _failure(error, f"{place} cannot be read", f"{place}: {what} failed") from error


def tasks_of(adapter: Adapter) -> Mapping[str, Task]:
    """Returns `Adapter.tasks` after checking it; exceptions of the adapter then name it.

    Raises:
        UserError: if it is not a mapping of tasks; as raised by the adapter, or if it raises an OSError.
        AdapterError: if it raises any other exception.
    """
    tasks: object = _asking(partial(getattr, adapter, "tasks"), adapter, "tasks")
    if not isinstance(tasks, Mapping):
        raise UserError(f"{_name(adapter)}: tasks is {shown(tasks)}; expected a mapping from names to Task objects")
    for task in tasks.values():
        check_task(task)
    return tasks


def cases_of(adapter: Adapter, task: Task) -> list[CaseFiles]:
    """Calls `Adapter.list_cases` and checks the result (`checked_cases`); exceptions of the adapter then name it.

    Args:
        adapter: the adapter.
        task: the task.

    Raises:
        UserError: if the result breaks the contract; as raised by the adapter, or if it raises an OSError.
        AdapterError: if it raises any other exception.
    """
    what = f"list_cases({task.name!r})"
    listed: object = _asking(partial(adapter.list_cases, task.name), adapter, what)
    if isinstance(listed, Iterable):  # a generator runs the adapter's code only now
        listed = _asking(partial(list, listed), adapter, what)
    return checked_cases(listed, task)


def _asking(ask: Callable[[], Result], adapter: Adapter, what: str) -> Result:
    """Calls code of an adapter that does not read a case; its exceptions then name the adapter and its file."""
    try:
        return ask()
    except UserError:
        raise
    except Exception as error:
        failed = f"{_name(adapter)}: {what} failed"
        raise _failure(error, failed, failed) from error


def _name(adapter: Adapter) -> str:
    """An adapter's dotted name and its file, for messages."""
    kind = type(adapter)
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return f"adapter {kind.__module__}.{kind.__qualname__}" + (f" ({shown(Path(file))})" if file else "")


def _failure(error: Exception, unreadable: str, failed: str) -> UserError:
    """The error for an exception in an adapter's code, with its traceback unless it is an `OSError`."""
    if isinstance(error, OSError):
        return UserError(f"{unreadable} ({cut(first_line(error, ''), 300)})")
    said = traceback.format_exception_only(error)[-1].splitlines()[0]
    own = error.__traceback__ and error.__traceback__.tb_next  # without the function that caught it
    trace = "".join(traceback.format_exception(type(error), error, own)).rstrip()
    return AdapterError(f"{failed}: {cut(said, 300)}", trace)


def _checked_raters(raters: object, task: Task) -> tuple[int, ...]:
    if not isinstance(raters, Sequence | np.ndarray) or isinstance(raters, str | bytes):
        raise _Breach(f"raters is {shown(raters)}; expected positions in Task.raters, for example (0, 1)")
    known = f"expected distinct positions from 0 to {len(task.raters) - 1} in the task's raters, at least one"
    if len(raters) == 0 or not all(map(is_whole, raters)):
        raise _Breach(f"raters is {shown(raters)}; {known}")
    positions = tuple(map(int, raters))
    if min(positions) < 0 or max(positions) >= len(task.raters) or len(set(positions)) < len(positions):
        raise _Breach(f"raters is {positions}; {known}")
    return positions


def _checked_window(value: object) -> npt.NDArray[np.float64]:
    """The window as (C, 2) float64; both ends may be equal, as percentiles of a nearly constant image are."""
    window = _array(value, "window")
    if window.dtype.kind not in "fiu" or window.ndim != 2 or window.shape[1] != 2 or len(window) == 0:
        raise _Breach(f"window is {shown(value)}; expected one (low, high) for each channel, an array of shape (C, 2)")
    if not all(-LARGEST <= low <= high <= LARGEST for low, high in window.tolist()):  # false for NaN, too
        raise _Breach(f"window is {shown(window.tolist())}; expected finite numbers, low before high")
    return window.astype(np.float64)


def _checked_slices(
    case: Case, files: CaseFiles, raters: tuple[int, ...], window: npt.NDArray[np.float64]
) -> Iterator[Slice]:
    count, slices = 0, reading(partial(iter, case.slices), files)
    while True:
        item: object = reading(partial(next, slices, _END), files, count)
        if item is _END:
            break
        try:
            checked = _checked_slice(item, len(raters), len(window))
        except _Breach as breach:
            raise _error(breach, files, count) from None
        yield checked
        count += 1
    if files.n_slices is not None and count != files.n_slices:
        raise _error(_Breach(f"read_case returned {count} slices, but list_cases announced {files.n_slices}"), files)


def _checked_slice(item: object, n_raters: int, n_channels: int) -> Slice:
    pair = (item.image, item.annotations) if isinstance(item, Slice) else item
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise _Breach(f"it is {type(item).__name__}; expected Slice(image, annotations)")
    image, masks = _array(pair[0], "image"), _array(pair[1], "annotations")
    if image.ndim != 3 or min(image.shape) < 1 or min(image.shape[1:]) < 2:
        raise _Breach(f"image has shape {image.shape}; expected (C, H, W) with at least 2 x 2 pixels")
    expected = (n_raters, *image.shape[1:])
    if masks.shape != expected:
        last = masks.shape[1:] == image.shape[:2]
        hint = "; channels come first: np.moveaxis(image, -1, 0)" if last else f"; expected {expected}"
        raise _Breach(
            f"annotations have shape {masks.shape} for {n_raters} raters and an image of shape {image.shape}{hint}"
        )
    if len(image) != n_channels:
        raise _Breach(f"image has {len(image)} channels, but window is for {n_channels}; give one (low, high) for each")
    return Slice(_checked_image(image), _checked_masks(masks))


def _checked_image(image: npt.NDArray[Any]) -> npt.NDArray[np.float32 | np.integer[Any]]:
    if image.dtype.kind not in "fiu":
        raise _Breach(f"image has {image.dtype} values; expected floating-point or whole numbers")
    if image.dtype.kind != "f" and image.dtype.itemsize <= 2:  # float32 has all of these values
        return image
    if image.dtype != np.float32:
        with np.errstate(over="ignore"):  # infinite values are refused below
            image = image.astype(np.float32)
    values = image.ravel(order="K")
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.dot(values, values)  # one fast pass; infinite for very large values, too
    if not math.isfinite(squares) and (bad := np.count_nonzero(~np.isfinite(image))):
        raise _Breach(f"image has {bad} values that are NaN, infinite or beyond float32; fix it or leave the case out")
    return image


def _checked_masks(masks: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    kind = masks.dtype.kind
    if kind == "f":
        if np.isin(masks, (0, 1)).all():
            said = "convert them to uint8 or bool"
        else:
            said = SOFT if masks.min() >= 0 and masks.max() <= 1 else "expected uint8 or bool, 0 or 1"
        raise _Breach(f"annotations have {masks.dtype} values ({some_values(masks)}); {said}")
    if kind not in "biu":
        raise _Breach(f"annotations have {masks.dtype} values; expected uint8 or bool, 0 or 1")
    if kind != "b" and (masks.max() > 1 or (kind == "i" and masks.min() < 0)):
        raise _Breach(f"annotations have the values {some_values(masks)}; expected 0 and 1, for example masks > 0")
    return masks.view(np.uint8) if kind == "b" else masks.astype(np.uint8, copy=False)


def _array(value: object, what: str) -> npt.NDArray[Any]:
    if isinstance(value, np.ma.MaskedArray):
        raise _Breach(f"{what} is a masked array; fill it: {what}.filled(0)")
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise _Breach(f"{what} cannot be converted to an array ({cut(first_line(error))})") from None


def _error(breach: _Breach, files: CaseFiles, index: int | None = None) -> UserError:
    """The error that names the case, slice and file before the breach."""
    return UserError(f"{_place(files, index)}: {breach}")


def _place(files: CaseFiles, index: int | None) -> str:
    """The case, the slice and the files for a message; files beside the first one are named without their folder."""
    first = files.files[0].parent if files.files else None
    named = [
        cut(path.name) if number and path.parent == first else shown(path)
        for number, path in enumerate(files.files[:MOST_FILES])
    ]
    more = f" and {len(files.files) - MOST_FILES} more" if len(files.files) > MOST_FILES else ""
    place = f" ({', '.join(named)}{more})" if named else ""
    number = "" if index is None else f", slice {index}"
    return f"case {files.case}{number}{place}"
