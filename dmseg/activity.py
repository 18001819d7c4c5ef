"""Progress of long work: code with long loops reports its progress, and a display may show it.

Nothing is shown unless a display is set (`showing`), so libraries and worker processes stay silent.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Advance = Callable[[int], None]
"""Called with the amount of work done since the last call."""
Display = Callable[[str, int | None, str], AbstractContextManager[Advance]]
"""Shows an activity while its block runs. Takes its title, its total amount (None if unknown) and the unit."""

_display: Display | None = None


@contextmanager
def showing(display: Display | None) -> Iterator[None]:
    """Shows the activities of this process on a display while the block runs; None shows none."""
    global _display
    before, _display = _display, display
    try:
        yield
    finally:
        _display = before


def is_shown() -> bool:
    """Whether this process shows its activities."""
    return _display is not None


@contextmanager
def activity(title: str, total: int | None, unit: str = "") -> Iterator[Advance]:
    """Marks work that may take long.

    Args:
        title: what is done, such as ``scoring``.
        total: amount of work; None if unknown.
        unit: what the amount counts, such as ``cases``, or ``B`` for bytes.

    Yields:
        A function to call with each amount of finished work.
    """
    if _display is None:
        yield lambda amount: None
        return
    with _display(title, total, unit) as advance:
        yield advance


def track(items: Iterable[Item], title: str, total: int | None, unit: str = "") -> Iterator[Item]:
    """Yields items and counts each when the next one is requested; arguments as in `activity`."""
    with activity(title, total, unit) as advance:
        for item in items:
            yield item
            advance(1)
