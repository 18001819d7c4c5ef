"""What progress prints: titles as they are, scores in their units."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from dmseg.report.run_observers import RunProgress
from dmseg.training.observers import EpochReport, RunInfo

TITLE = "[bold]qubiq[/nothing] \x1b[31mred"
SHOWN = "[bold]qubiq[/nothing] \\x1b[31mred"


def consoles():
    for terminal in (False, True):
        yield Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)


def info(epochs=1):
    given = {"title": TITLE, "run_id": "0123", "epochs": epochs, "steps_per_epoch": 1}
    names = RunInfo.__dataclass_fields__
    return RunInfo(**{name: given.get(name) for name in names})


def test_titles_are_printed_as_they_are():
    for console in consoles():
        shown = RunProgress(console)
        shown.started(info())
        shown.ended(None)
        assert console.file.getvalue().count(SHOWN) == 1


def test_epochs_are_a_bar_or_a_few_plain_lines():
    plain, terminal = consoles()
    for console in (plain, terminal):
        shown = RunProgress(console)
        shown.started(info(epochs=25))
        for epoch in range(1, 26):
            shown.stepped(epoch)
            shown.epoch_ended(EpochReport(epoch=epoch, step=epoch, losses={"loss": 1 / epoch}, lr=0.01))
        shown.ended(None)
    lines = [line for line in plain.file.getvalue().splitlines() if "epoch" in line]
    assert [line.split()[1] for line in lines] == [f"{epoch}/25" for epoch in [*range(2, 25, 2), 25]]
    assert lines[-1] == "  epoch 25/25 loss 0.0400 lr 0.01000"
    last = terminal.file.getvalue().rpartition("\r")[2]
    assert "loss 0.0400 lr 0.01000" in last
    assert "25/25" in last


def test_scores_have_their_units():
    for console in consoles():
        RunProgress(console).evaluated({"dice": 0.5, "ged": 0.25})
        assert "validation: dice 50.00 % ged 0.250" in console.file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80])
def test_losses_give_way_to_the_number_of_steps(width):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    shown = RunProgress(console)
    shown.started(replace(info(epochs=2), steps_per_epoch=6000))
    shown.stepped(12000)
    losses = {"loss": 0.25, "ce": 0.5, "region": 0.125}
    for epoch in (1, 2):
        shown.epoch_ended(EpochReport(epoch=epoch, step=6000 * epoch, losses=losses, lr=0.01))
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue()).rstrip("\n").rpartition("\r")[2]
    assert len(last) <= width
    assert last.startswith("  loss 0.2500 " + ("ce 0.5000 " if width > 40 else ""))
    assert ("lr" in last) == (width == 80)
    assert re.search(r" 12000/12000 \d+:\d\d:\d\d *$", last)
