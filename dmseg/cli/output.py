"""Standard output and standard error, which may be a terminal, a full disk, a closed pipe or closed."""

import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout, suppress
from typing import TYPE_CHECKING, TextIO

from dmseg.errors import advice
from dmseg.text import printable, printable_lines

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from dmseg.report.bars import Bars

OUTPUT = "standard output"
"""Takes the place of the file name in errors."""

_quiet = False


def set_up() -> None:
    r"""Makes both streams safe to write to: closed ones drop the text, and every character can be written.

    Characters that the encoding lacks are written as escapes (``\u2013``). Files are always UTF-8.
    """
    # The null device takes the place of closed standard files; otherwise the next open file would.
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(handle, True)
    os.close(handle)
    sys.stdout = _Closed() if sys.stdout is None else _fit(sys.stdout, _Output)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = _fit(sys.stderr, _Messages)


def set_quiet(quiet: bool) -> None:
    """Turns off everything that a command prints except errors, or turns it on again."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Whether only errors are printed."""
    return _quiet


@contextmanager
def printing() -> Iterator[None]:
    """Drops standard output while the block runs, if the command is quiet."""
    if not _quiet:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        yield


class Activities:
    """Shows bars for long work of this process; rich is imported for the first one."""

    def __init__(self) -> None:
        self._bars: Bars | None = None

    def __call__(self, title: str, total: int | None, unit: str) -> AbstractContextManager[Callable[[int], None]]:
        """Shows an activity (`dmseg.activity.Display`), unless the command is quiet."""
        if _quiet:
            return nullcontext(lambda amount: None)
        if self._bars is None:
            from rich.console import Console

            from dmseg.report.bars import Bars

            self._bars = Bars(Console(stderr=True, highlight=False, soft_wrap=True))
        return self._bars(title, total, unit)

    def close(self) -> None:
        """Removes all bars, so that the terminal is as it was."""
        if self._bars is not None:
            self._bars.close()


def finish(status: int) -> int:
    """Flushes standard output. A command that succeeded fails if its output cannot be written or is closed.

    Returns:
        The exit status.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        return status or print_os_error(error)
    if isinstance(sys.stdout, _Closed) and sys.stdout.written:
        return status or print_os_error(OSError(errno.EBADF, "it is closed", OUTPUT))
    return status


def print_os_error(error: OSError) -> int:
    """Prints what could not be read or written, and what to do; returns the exit status."""
    if error.filename == OUTPUT:
        with suppress(OSError):  # drops the rest, so that the interpreter does not fail when it flushes it at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return 1  # the reader has stopped, as in dmseg runs | head
    place = "" if error.filename is None else f"{error.filename}: "
    fault = f"{place}{error.strerror or error}"
    if error.filename == OUTPUT:
        print_error(f"{fault}; files that were written are kept")
        return 1
    print_error(f"{fault}; what is finished is kept; {advice(error)}")
    return 2


def print_error(text: str) -> None:
    """Prints an error message of at most three lines on standard error."""
    lines = [printable(line) for line in text.splitlines()[:3]] or [""]
    print("\n".join([f"dmseg: {lines[0]}", *lines[1:]]), file=sys.stderr, flush=True)


def print_fault(text: str) -> None:
    """Prints what a check found: as part of its output, or if the command is quiet, on standard error."""
    print(printable_lines(text), file=sys.stderr if _quiet else sys.stdout)


def print_trace(text: str) -> None:
    """Prints a traceback on standard error."""
    print(printable_lines(text), file=sys.stderr, flush=True)


class _Closed(io.TextIOBase):
    """Takes the place of a closed standard output: the work continues, and the exit status is 1."""

    written = False

    def write(self, text: str) -> int:
        """Drops the text."""
        self.written = True
        return len(text)


class _Output(io.FileIO):
    """Standard output that names itself in errors, as errors of the system name no file."""

    def write(self, data: "ReadableBuffer", /) -> int:
        """Writes bytes; returns how many."""
        try:
            return super().write(data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, OUTPUT) from None


class _Messages(io.FileIO):
    """Standard error that drops messages which cannot be written, so that the work continues."""

    def write(self, data: "ReadableBuffer", /) -> int:
        """Writes bytes, or drops them; returns how many."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _fit(stream: TextIO, kind: type[io.FileIO]) -> TextIO:
    """Rebuilds a standard stream on `kind`, with escapes for characters that its encoding lacks.

    A stream that somebody has replaced, such as a test runner, is returned unchanged.
    """
    if not isinstance(stream, io.TextIOWrapper) or stream not in (sys.__stdout__, sys.__stderr__):
        return stream
    stream.flush()
    raw = kind(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        raw if stream.write_through else io.BufferedWriter(raw),  # as the interpreter does
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
