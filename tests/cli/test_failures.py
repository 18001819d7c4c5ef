"""What a command says about runs that failed in worker processes."""

from types import SimpleNamespace

import pytest

from dmseg.cli import commands
from dmseg.launch.outcome import Outcome


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("lower optim.lr\n", ["dmseg: a run (r) failed: lower optim.lr", "its log: LOG"]),
        (
            "  File x\nValueError: y\n",
            ["dmseg: a run (r) failed: lower optim.lr", "  File x", "ValueError: y", "its log: LOG"],
        ),
    ],
)
def test_a_message_that_is_the_whole_log_is_not_repeated(tmp_path, capfd, text, lines):
    log = tmp_path / "r.log"
    log.write_text(text)
    run = SimpleNamespace(title="a run", run_id="r")
    commands._report_failure(Outcome(run, "failed", "lower optim.lr", log))
    assert capfd.readouterr().err.replace(str(log), "LOG").splitlines() == lines
