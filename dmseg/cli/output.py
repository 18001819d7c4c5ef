"""Standard output and standard error, whatever they are connected to: a terminal, a full disk, nothing at all."""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from dmseg.errors import advice
from dmseg.text import printable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

OUTPUT = "standard output"
"""Stands for a file's name in errors."""


def set_up() -> None:
    r"""Makes both streams usable: closed ones take what is written, and no character is one that they cannot show.

    What an encoding lacks is written as an escape (``\u2013``). Files are not concerned: they are always UTF-8.
    """
    _occupy_standard_files()
    sys.stdout = _Closed() if sys.stdout is None else _fit(sys.stdout, _Output)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = _fit(sys.stderr, _Messages)


def finish(status: int) -> int:
    """Writes what standard output still holds; where that fails, or it is closed, a command that succeeded fails."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return status or report(error)
    if isinstance(sys.stdout, _Closed) and sys.stdout.written:
        return status or report(OSError(errno.EBADF, "it is closed", OUTPUT))
    return status


def report(error: OSError) -> int:
    """Says what could not be read or written, and what helps; returns the exit status."""
    if error.filename == OUTPUT:
        _drop_output()
    if isinstance(error, BrokenPipeError):
        return 1  # whoever read the output has stopped (dmseg runs | head): no more to say
    place = "" if error.filename is None else f"{error.filename}: "
    said = f"{place}{error.strerror or error}"
    if error.filename == OUTPUT:
        tell(f"{said}; files that were written are kept")
        return 1
    tell(f"{said}; what is finished is kept, {advice(error)}")
    return 2


def tell(text: str) -> None:
    """Prints a message on standard error, at most three lines."""
    lines = [printable(line) for line in text.splitlines()[:3]] or [""]
    print("\n".join([f"dmseg: {lines[0]}", *lines[1:]]), file=sys.stderr, flush=True)


class _Closed(io.TextIOBase):
    """Stands in for a standard output that is closed; the work goes on, and the exit status tells."""

    written = False

    def write(self, text: str) -> int:
        """Drops the text."""
        self.written = True
        return len(text)


def _occupy_standard_files() -> None:
    """Opens the null device where a standard file is closed: else the next file that is opened would take its place."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(handle, True)
    os.close(handle)


class _Output(io.FileIO):
    """Standard output whose errors say so: those of the system name no file."""

    def write(self, data: "ReadableBuffer", /) -> int:
        """Writes some bytes; returns how many."""
        try:
            return super().write(data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, OUTPUT) from None


class _Messages(io.FileIO):
    """Standard error, where a message that cannot be written is dropped: it is no reason to end the work."""

    def write(self, data: "ReadableBuffer", /) -> int:
        """Writes some bytes; returns how many, also where they are dropped."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _fit(stream: TextIO, kind: type[io.FileIO]) -> TextIO:
    """The same stream by way of `kind`, with escapes for what its encoding lacks; one that was replaced stays."""
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


def _drop_output() -> None:
    """Sends the rest of standard output nowhere, so that the interpreter does not fail to write it at its end."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
