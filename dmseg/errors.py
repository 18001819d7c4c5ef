"""The one exception that stands for a mistake of use."""


class UserError(Exception):
    """A mistake that the user can mend: bad input, a wrong setting, missing data.

    The message names the file, case or key and the value, and says what to do. The command line prints it
    without a traceback and exits with status 2; a library user may catch it.
    """


class MissingDataError(UserError):
    """The raw data of a data set are not where they should be; a store that was prepared from them may still serve."""
