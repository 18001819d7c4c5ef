"""The exceptions for mistakes that a user can fix, and how values are written in their messages."""

import errno
import numbers
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import TypeGuard

from dmseg.text import printable

ADVICE = {
    errno.ENOSPC: "free some space and run the command again",
    errno.EDQUOT: "the quota is used up: free some space and run the command again",
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "make it writable, or choose another folder"),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST), "something else has that name: choose another place"),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP), "choose a place with a short, plain name"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files (ulimit -n), or set workers=1"),
    **dict.fromkeys((errno.ESTALE, errno.ETIMEDOUT, errno.EIO), "check the disk or file server and try again"),
}
"""What to do about an operating system error, by error number."""


def advice(error: OSError) -> str:
    """Says what to do about an operating system error."""
    return ADVICE.get(error.errno or 0, "check the disk and the path, and try again")


class UserError(Exception):
    """A mistake that the user can fix: bad input, a wrong setting, missing data.

    The message names the file, case or key and the value, and says what to do. The command line prints it
    without a traceback and exits with status 2; a library user may catch it.
    """


class UnwritableError(UserError):
    """A folder cannot be written to: the disk is full, read-only or failing. Work that was already done is kept."""


class MissingDataError(UserError):
    """The raw data of a data set are not where they should be; a store prepared from them earlier may still be used."""


class AdapterError(UserError):
    """An adapter raised an exception that it does not handle: a mistake in its code, or a file that it did not expect.

    Args:
        message: names the case and its files, or the adapter, and the exception.
        trace: the traceback of the adapter's code, which the command line prints below the message.

    Attributes:
        trace: the same.
    """

    def __init__(self, message: str, trace: str) -> None:
        super().__init__(message)
        self.trace = trace


class DamagedStoreError(UserError):
    """A prepared store is not as it was written.

    Args:
        fault: names the file and what is wrong with it.

    Attributes:
        fault: the same.
    """

    def __init__(self, fault: str) -> None:
        super().__init__(f"{fault}; run 'dmseg prepare' with the same data settings to prepare the store again")
        self.fault = fault


def kind_of(value: object) -> str:
    """Names the type of a value for a message, for example ``a list`` or ``a numpy.ndarray``."""
    if value is None:
        return "None"
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def shown(value: object) -> str:
    """Formats a value for a message on one line, shortened if long: a path as text, anything else as its `repr`."""
    if isinstance(value, PurePath):
        return cut(str(value), 300)
    try:
        return cut(re.sub(r"\s*\n\s*", " ", repr(value)))
    except (ValueError, RecursionError):  # an integer of thousands of digits; a container that is nested too deeply
        return f"{kind_of(value)} too large to be shown"


def first_line(error: BaseException, empty: str | None = None) -> str:
    """The first line of an error's message; if that is empty, `empty`, or the name of the error's type without it."""
    lines = str(error).splitlines() or [type(error).__name__ if empty is None else empty]
    return lines[0]


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from or while handling, and so on back to the first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def cut(text: str, most: int = 120) -> str:
    """Formats text for a message: shortened in the middle if long, with escapes for what cannot be printed."""
    return printable(text if len(text) <= most else f"{text[: most - 20]} ... {text[-15:]}")


def some(names: Sequence[object], most: int = 5) -> str:
    """The first few of many names or numbers, for a message: ``a, b, c and 4 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(cut(str(name)) for name in names[:most]) + more


def either(names: Sequence[str]) -> str:
    """Lists alternatives for a message: ``a, b or c``."""
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a real number of Python or NumPy, and not a bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is an integer of Python or NumPy, and not a bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_choice(key: str, value: object, choices: Sequence[str]) -> None:
    """Refuses a value that is not one of several choices.

    Raises:
        UserError: names the key, the value and the choices.
    """
    if not isinstance(value, str) or value not in choices:
        raise UserError(f"{key} is {shown(value)}, but must be {either(choices)}")
