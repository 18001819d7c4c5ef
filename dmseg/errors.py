"""The exceptions that stand for a mistake of use, and words for messages."""

import errno

ADVICE = {
    errno.ENOSPC: "free space there and call again",
    errno.EDQUOT: "free space there (the quota is used up) and call again",
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "make it writable, or choose another folder"),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST), "something else is in its place: choose another"),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP), "choose another place, with a plain, short name"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files (ulimit -n), or set workers=1"),
    **dict.fromkeys((errno.ESTALE, errno.ETIMEDOUT, errno.EIO), "check the disk or the file server, and call again"),
}
"""What helps against errors of the system, by number."""


def advice(error: OSError) -> str:
    """What helps against an error of the system, in some words."""
    return ADVICE.get(error.errno or 0, "check the disk and the path, and call again")


class UserError(Exception):
    """A mistake that the user can fix: bad input, a wrong setting, missing data.

    The message names the file, case or key and the value, and says what to do. The command line prints it
    without a traceback and exits with status 2; a library user may catch it.
    """


class UnwritableError(UserError):
    """A folder cannot be written to: the disk is full, read-only or failing. What was finished before is kept."""


class MissingDataError(UserError):
    """The raw data of a data set are not where they should be; a store that was prepared from them may still serve."""


class DamagedStoreError(UserError):
    """A prepared store is not as it was written.

    Args:
        fault: names the file and what is wrong with it.

    Attributes:
        fault: the same.
    """

    def __init__(self, fault: str) -> None:
        super().__init__(f"{fault}; run 'dmseg prepare' with the same data settings to make the store again")
        self.fault = fault


def kind_of(value: object) -> str:
    """Names the type of a value for a message, for example ``a list`` or ``a numpy.ndarray``."""
    if value is None:
        return "None"
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def shown(value: object) -> str:
    """A value as Python writes it, for a message; a long one is cut."""
    try:
        return cut(repr(value))
    except (ValueError, RecursionError):  # an integer of thousands of digits; containers in containers without end
        return f"{kind_of(value)} too large to be shown"


def cut(text: str, most: int = 120) -> str:
    """A text for a message, its middle left out where it is long."""
    return text if len(text) <= most else f"{text[: most - 20]} ... {text[-15:]}"
