"""A tracker that fails is left out after one warning, and closed; the next run has it again."""

import pytest

from dmseg.report.tracking.tracker import Report, RunMetadata, SafeTracker

RUN = RunMetadata("0" * 16, "a run", "a group", "train", ())


class Fails:
    """A tracker that notes what it is asked, and fails at one of the calls."""

    delivered = True

    def __init__(self, at):
        self.at, self.asked = at, []

    def _note(self, name):
        self.asked.append(name)
        if name == self.at:
            raise RuntimeError(f"no {name}\nand a second line")

    def begin(self, metadata):
        self._note("begin")

    def log(self, step, values):
        self._note("log")

    def show(self, report):
        self._note("show")

    def end(self, finished):
        self._note(f"end {finished}")


@pytest.mark.parametrize(
    ("at", "asked"),
    [
        (None, ["begin", "log", "log", "show", "end True"]),
        ("begin", ["begin", "end False"]),
        ("log", ["begin", "log", "end False"]),
        ("show", ["begin", "log", "log", "show", "end False"]),
        ("end True", ["begin", "log", "log", "show", "end True"]),
    ],
)
def test_a_tracker_is_asked_nothing_more_once_it_has_failed(at, asked, caplog):
    tracker = Fails(at)
    safe = SafeTracker("mine", tracker)
    for _ in range(2):
        caplog.clear()
        tracker.asked.clear()
        safe.begin(RUN)
        safe.log(1, {"epoch": 1})
        safe.log(2, {"epoch": 2})
        safe.show(Report())
        safe.end(finished=True)
        assert tracker.asked == asked, "the next run tries it again"
        assert safe.delivered == (at is None)
        said = [record.message for record in caplog.records]
        assert len(said) == (at is not None)
        assert all(f"tracker=mine has failed (no {at});" in text for text in said)
    tracker.delivered = False
    assert not safe.delivered
