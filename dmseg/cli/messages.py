"""Messages on standard error: notices, errors and logs. Each is printed without wrapping or markup."""

import logging
import sys

from rich.console import Console

from dmseg.cli import output
from dmseg.text import printable_lines

err = Console(stderr=True, highlight=False, soft_wrap=True)


def set_up_logging() -> None:
    """Sends log messages to standard error; of verbose libraries only errors."""
    handler = _LogHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.addFilter(lambda record: record.name.partition(".")[0] != "huggingface_hub")  # prints its own messages
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger().setLevel(logging.ERROR if output.is_quiet() else logging.INFO)
    for library in ("timm", "matplotlib", "PIL", "urllib3", "httpx", "huggingface_hub", "hydra"):
        logging.getLogger(library).setLevel(logging.ERROR)


class _LogHandler(logging.Handler):
    """Prints the messages of logs as `complain` does: lines are never wrapped, control characters are escaped."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one message."""
        try:
            complain(self.format(record))
        except Exception:
            self.handleError(record)


def notify(text: str) -> None:
    """Prints a message on standard error, unless the command is quiet."""
    if not output.is_quiet():
        complain(text)


def complain(text: str) -> None:
    """Prints an error on standard error."""
    err.print(printable_lines(text), markup=False)
    sys.stderr.flush()
