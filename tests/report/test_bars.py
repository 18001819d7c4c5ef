"""Bars for long work: after a delay, in a picture that is removed, or in plain lines."""

import io
import re
from typing import ClassVar

import pytest
from rich.console import Console

from dmseg import activity as activities
from dmseg.activity import activity, showing, track
from dmseg.cli import output
from dmseg.report.bars import Bars, amount


def console(terminal=True, **more):
    return Console(file=io.StringIO(), force_terminal=terminal, width=80, height=24, color_system=None, **more)


class Steps:
    """Timers that fire when the test says so."""

    waiting: ClassVar[list["Steps"]] = []

    def __init__(self, seconds, function, arguments):
        self.seconds, self.call, self.over = seconds, lambda: function(*arguments), False
        self.waiting.append(self)

    def start(self):
        """Waits for `fire`."""

    def cancel(self):
        self.over = True

    @classmethod
    def fire(cls):
        due, cls.waiting = [timer for timer in cls.waiting if not timer.over], []
        for timer in due:
            timer.call()


@pytest.fixture(autouse=True)
def _timers(monkeypatch):
    Steps.waiting = []
    monkeypatch.setattr("dmseg.report.bars.threading.Timer", Steps)


def plain(text):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_quick_work_shows_nothing():
    shown = console()
    with showing(Bars(shown)):
        assert list(track(range(5), "counting", 5)) == [0, 1, 2, 3, 4]
        assert [timer.over for timer in Steps.waiting] == [True], "no timer outlives the work"
        Steps.fire()
    assert shown.file.getvalue() == ""


def test_long_work_has_a_bar_that_disappears():
    shown = console()
    with showing(Bars(shown)), activity("reading \x1b[31m cases", 20, "cases") as advance:
        advance(3)
        Steps.fire()
        advance(4)
    text = shown.file.getvalue()
    assert "reading \\x1b[31m cases" in text
    assert "3 of 20 cases" in plain(text)
    assert text.rfind("\x1b[2K") > text.rfind("cases"), "its line is erased"
    assert text.count("\x1b[1A") == text.count("\n"), "the cursor is back in the first line"
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l"), "the cursor is shown again"


def test_without_a_terminal_there_is_a_line_now_and_then():
    for shown in (console(False), console(_environ={"TERM": "dumb"})):
        Steps.waiting = []
        with showing(Bars(shown, delay=3, plain_seconds=30)), activity("copying", 1000, "B") as advance:
            for seconds in (3, 30):
                assert [timer.seconds for timer in Steps.waiting] == [seconds]
                Steps.fire()
                advance(500)
        assert [timer.over for timer in Steps.waiting] == [True], "no timer outlives the work"
        assert shown.file.getvalue().splitlines() == ["copying: 0 bytes of 1.0 kB", "copying: 500 bytes of 1.0 kB"]


def test_an_error_on_its_way_leaves_no_bar():
    shown = console()
    bars = Bars(shown)
    with showing(bars):
        items = track(range(5), "counting", 5)
        next(items)
        Steps.fire()
        late = activity("counting more", 5)
        late.__enter__()
        bars.close()
        assert shown.file.getvalue().count("\x1b[?25h") == 1
        Steps.fire()
        assert "counting more" not in shown.file.getvalue()
        late.__exit__(None, None, None)
        items.close()


@pytest.mark.parametrize("quiet", [False, True])
def test_the_command_line_shows_bars_unless_it_is_quiet(quiet, monkeypatch, capfd):
    monkeypatch.setattr(output, "_quiet", quiet)
    displays = output.Activities()
    with showing(displays), activity("reading", 20, "cases"):
        Steps.fire()
        displays.close()
        Steps.fire()
    assert capfd.readouterr().err == ("" if quiet else "reading: 0 of 20 cases\n")


def test_work_within_work_has_a_bar_of_its_own():
    shown = console()
    with showing(Bars(shown)), activity("outer", 9, "parts") as advance:
        Steps.fire()
        advance(3)
        advance(2)
        with activity("inner", 3):
            Steps.fire()  # draws all bars
            text = plain(shown.file.getvalue())
            assert "5 of 9 parts" in text
            assert "inner" in text
        before = len(shown.file.getvalue())
        with activity("next", 3):
            Steps.fire()
            text = shown.file.getvalue()[before:]
            assert "outer" in text
            assert "next" in text
            assert "inner" not in text, "its bar was removed at its end"


def test_nothing_is_shown_unless_somebody_asks():
    assert not activities.is_shown()
    assert list(track("ab", "letters", 2)) == ["a", "b"]
    with showing(Bars(console())):
        assert activities.is_shown()
        with showing(None):
            assert not activities.is_shown()
    assert not activities.is_shown()


def test_amounts():
    assert [amount(3, 20, "cases"), amount(3, None, ""), amount(2_500_000, 5_000_000, "B")] == [
        "3 of 20 cases",
        "3",
        "2.5 MB of 5.0 MB",
    ]
