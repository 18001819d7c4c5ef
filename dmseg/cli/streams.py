"""Standard output and standard error, whatever they are connected to: a terminal, a full disk, nothing at all."""

import errno
import io
import os
import sys
from contextlib import suppress

from dmseg.text import printable

_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space and run the same command again"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "choose a folder that you may write to"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG), "choose another place"),
}


def set_up() -> None:
    r"""Makes both streams usable: closed ones take what is written, and no character is one that they cannot show.

    What an encoding lacks is written as an escape (``\u2013``). Files are not concerned: they are always UTF-8.
    """
    _occupy_standard_files()
    if sys.stdout is None:
        sys.stdout = _Closed()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def finish(status: int) -> int:
    """Writes what standard output still holds; where that fails, or it is closed, a command that succeeded fails."""
    error = _output_error()
    if isinstance(sys.stdout, _Closed) and sys.stdout.written:
        error = OSError(errno.EBADF, "it is closed")
    if error is None:
        return status
    _tell_about_output(error)
    return status or 1


def report(error: OSError) -> int:
    """Says what could not be read or written, and what helps; returns the exit status."""
    failed = _output_error()
    if isinstance(error, BrokenPipeError):
        return 1
    if error.filename is None and failed is not None:
        _tell_about_output(failed)
        return 1
    place = "" if error.filename is None else f"{error.filename}: "
    advice = _ADVICE.get(error.errno or 0, "run the same command again")
    tell(f"{place}{error.strerror or error}; what is finished is kept, {advice}")
    return 1


def _output_error() -> OSError | None:
    """Flushes standard output; returns why it cannot be written, and drops the rest then."""
    try:
        sys.stdout.flush()
    except OSError as error:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None


def _tell_about_output(error: OSError) -> None:
    if not isinstance(error, BrokenPipeError):  # whoever read it has stopped (dmseg runs | head): no more to say
        tell(f"standard output: {error.strerror}; files that were written are kept")


def tell(text: str) -> None:
    """Prints a message on standard error, at most three lines; one that cannot be written is dropped."""
    lines = [printable(line) for line in text.splitlines()[:3]] or [""]
    with suppress(OSError):
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
