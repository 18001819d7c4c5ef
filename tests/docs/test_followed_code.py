"""The page that follows a number through the code names functions that the command on it really calls."""

import re
import sys
import threading

from doc_pages import REPO

from dmseg.cli.main import main

PAGE = REPO / "docs" / "explanation" / "uniform-labels.md"
LINK = re.compile(r"\[`([\w.]+)`\]\(([\w./-]+\.py)\)")


def test_every_function_named_on_the_page_is_called(small_run):
    """The command is that of the page, on a smaller data set."""
    named = [
        (str((PAGE.parent / path).resolve()), name)
        for name, path in LINK.findall(PAGE.read_text("utf-8"))
        if not name.endswith(".py")
    ]
    assert len(named) > 15
    called = set()

    def note(frame, event, argument):
        if event == "call":
            called.add((frame.f_code.co_filename, frame.f_code.co_qualname))

    words = ["table=2", *small_run, "fold=0", "train.epochs=1", "quiet=true"]
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        assert main(["reproduce", *words]) == 0
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    missing = [
        (path, name)
        for path, name in named
        if (path, name) not in called and not any(path == p and q.startswith(f"{name}.") for p, q in called)
    ]
    assert not missing
