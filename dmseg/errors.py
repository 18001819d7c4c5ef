"""The exceptions that stand for a mistake of use, and words for messages."""


class UserError(Exception):
    """A mistake that the user can mend: bad input, a wrong setting, missing data.

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
