"""The exceptions that stand for a mistake of use."""


class UserError(Exception):
    """A mistake that the user can mend: bad input, a wrong setting, missing data.

    The message names the file, case or key and the value, and says what to do. The command line prints it
    without a traceback and exits with status 2; a library user may catch it.
    """


class UnwritableError(UserError):
    """A folder cannot be written to: the disk is full, read-only or failing. What was finished before is kept."""
