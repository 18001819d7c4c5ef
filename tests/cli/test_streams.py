"""Standard output and error that are full, closed, no longer read or not UTF-8; files that cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dmseg.cli.main import main
from dmseg.files.atomic import write_whole

HERE = Path(__file__).parent
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")


def dmseg(words, redirection="", **environment):
    """Runs the command in a shell that redirects its output; returns exit status, output and messages."""
    command = " ".join([sys.executable, "-m", "dmseg", *(f"'{word}'" for word in words), redirection])
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    done = subprocess.run(["bash", "-c", command], capture_output=True, env=kept | environment, check=False)
    return done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Words that write Table 2 from what is there, which is nothing but data."""
    import numpy as np
    from conftest import write_lidc

    place = tmp_path_factory.mktemp("streams")
    tree = write_lidc(place / "lidc", 12, np.random.default_rng(1))
    words = [
        "table", "table=2", "data=lidc", f"data.root={tree}", "data.size=32", "model=unet_tiny", "train.batch_size=4",
        f"paths.prepared={place}/prepared", f"paths.results={place}/results",
    ]  # fmt: skip
    assert main(words) == 0
    return words


@FULL
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_standard_output_is_one_line_and_the_files_are_there(table, tmp_path, unbuffered):
    words = [*table[:-1], f"paths.results={tmp_path}"]
    status, _, said = dmseg(words, "> /dev/full", PYTHONUNBUFFERED=unbuffered)
    lines = [line for line in said.splitlines() if not line.startswith("written: ")]
    assert (status, lines) == (1, ["dmseg: standard output: No space left on device; files that were written are kept"])
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == [
        "table2.csv",
        "table2.md",
        "table2.tex",
        "table2_cases.csv",
    ]


@FULL
def test_help_and_errors_of_use_keep_to_their_status():
    assert dmseg(["--help"], "> /dev/full")[0] == 1
    assert dmseg(["train", "labels=nope"], "> /dev/full 2> /dev/full")[0] == 2


def test_a_closed_standard_output_fails_after_the_work_is_done(table, tmp_path):
    words = [*table[:-1], f"paths.results={tmp_path}"]
    status, _, said = dmseg(words, ">&-")
    assert (status, said.splitlines()[-1]) == (
        1,
        "dmseg: standard output: it is closed; files that were written are kept",
    )
    assert (tmp_path / "tables/table2.md").read_text(encoding="utf-8").startswith("# Table 2")


@FULL
@pytest.mark.parametrize("redirection", ["2>&-", "2> /dev/full", "2>&- <&-"])
def test_messages_that_cannot_be_written_do_not_end_the_work(table, redirection):
    status, shown, _ = dmseg(table, redirection)
    assert status == 0
    assert shown.startswith("# Table 2")


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"LANG": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_characters_that_a_terminal_lacks_are_escaped_and_files_are_utf_8(table, environment):
    status, shown, said = dmseg(table, **environment)
    assert status == 0, said
    assert "\\u2013" in shown, "a dash for a number that is missing"
    file = Path(table[-1].removeprefix("paths.results=")) / "tables/table2.md"
    assert shown.splitlines()[:-1] == file.read_text(encoding="utf-8").replace("–", "\\u2013").splitlines()


def test_every_command_prints_in_an_ascii_locale(table):
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    rest = [word for word in table[1:] if word != "table=2"]
    for words in (["plan", *table[1:]], ["runs", table[-1]], ["prepare", *rest], ["--help"]):
        status, shown, said = dmseg(words, **ascii_only)
        assert status == 0, said
        assert shown


def test_a_notebooks_matplotlib_backend_does_not_matter(tmp_path):
    words = ["reproduce", "figure=1", f"paths.results={tmp_path}"]
    status, shown, said = dmseg(words, MPLBACKEND="module://matplotlib_inline.backend_inline")
    assert status == 0, said
    assert [Path(line).stat().st_size > 5000 for line in shown.splitlines()] == [True] * 3  # PNG, PDF, SVG


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(28, "No space left on device", "/a/file"), "/a/file: No space left on device; what is"),
        (PermissionError(13, "Permission denied", "/a/file"), "make it writable, or choose another folder"),
        (OSError(30, "Read-only file system", "/a"), "make it writable, or choose another folder"),
        (OSError(28, "No space left on device"), "free some space and run the command again"),
        (OSError(122, "Disk quota exceeded", "/a/file"), "the quota is used up"),
        (OSError(36, "File name too long", "/a/file"), "choose a place with a short, plain name"),
        (OSError(20, "Not a directory", "/a/file"), "something else has that name"),
        (OSError("cannot reach the server"), "cannot reach the server"),
    ],
)
def test_errors_of_the_system_are_one_line_with_advice_that_fits(error, expected, monkeypatch, capsys):
    def fail(_):
        raise error

    monkeypatch.setattr("dmseg.cli.tables.plan", fail)
    assert main(["plan"]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert len(said.splitlines()) == 1


def test_a_disk_that_fills_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "table2.md"
    path.write_text("before")

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device") as raised:
        write_whole(path, "after")
    assert raised.value.filename == str(path)
    assert [item.name for item in tmp_path.iterdir()] == ["table2.md"]
    assert path.read_text() == "before"
