"""What progress prints: titles as they are, scores in their units."""

import io

from rich.console import Console

from dmseg.report.progress import RunProgress
from dmseg.training.observers import RunInfo

TITLE = "[bold]qubiq[/nothing] \x1b[31mred"
SHOWN = "[bold]qubiq[/nothing] \\x1b[31mred"


def consoles():
    for terminal in (False, True):
        yield Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)


def info():
    given = {"title": TITLE, "run_id": "0123", "epochs": 1, "steps_per_epoch": 1}
    names = RunInfo.__dataclass_fields__
    return RunInfo(**{name: given.get(name) for name in names})


def test_titles_are_printed_as_they_are():
    for console in consoles():
        shown = RunProgress(console)
        shown.started(info())
        shown.ended(None)
        assert console.file.getvalue().count(SHOWN) == 1


def test_scores_have_their_units():
    for console in consoles():
        RunProgress(console).evaluated({"dice": 0.5, "ged": 0.25})
        assert "validation: dice 50.00 % ged 0.250" in console.file.getvalue()
