"""``quiet=true``: nothing but errors, and the same results."""

import subprocess
import sys

import pytest

from dmseg.cli import output
from dmseg.cli.main import main
from dmseg.cli.parser import take_quiet
from dmseg.runs.store import RunStore


def test_a_training_says_nothing_and_stores_its_run(small_run, tmp_path, capfd):
    assert main(["train", *small_run, "train.epochs=1", "quiet=true"]) == 0
    assert capfd.readouterr() == ("", "")
    run_ids = RunStore(tmp_path / "results").run_ids()
    assert main(["train", *small_run, "train.epochs=1", "quiet=false"]) == 0
    assert RunStore(tmp_path / "results").run_ids() == run_ids, "quiet is no part of a run"
    assert run_ids[0] in capfd.readouterr().out


def test_many_runs_say_nothing_but_failures(small_run, tmp_path, capfd, monkeypatch):
    words = ["train", "-m", *small_run, "train.epochs=1", "fold=0,1", "quiet=true"]
    (tmp_path / "results" / "failed").mkdir(parents=True)
    assert main(words) == 0
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr("dmseg.runs.execute.load_training", lambda *arguments: 1 / 0)
    assert main([*words, "seed=7"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("ZeroDivisionError") >= 2
    assert "2 of 2 runs are not done" in err


def test_a_mistake_is_still_named(small_run, capfd):
    assert main(["train", *small_run, "quiet=true", "fold=9"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "fold" in err
    assert main(["train", *small_run, "fold=9"]) == 2, "the next command is not quiet"


@pytest.mark.parametrize("value", ["true", "True", "TRUE"])
def test_case_does_not_matter(value):
    assert take_quiet("train", ["fold=1", f"quiet={value}"]) == ["fold=1"]
    assert output.is_quiet()
    assert take_quiet("train", ["fold=1"]) == ["fold=1"]
    assert not output.is_quiet()


@pytest.mark.parametrize("command", ["prepare", "table"])
def test_other_work(command, small_run, tmp_path):
    words = [command, *small_run, *(["table=2"] if command == "table" else [])]
    done = subprocess.run([sys.executable, "-m", "dmseg", *words, "quiet=true"], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_what_writes_or_checks_can_be_quiet(small_run, tmp_path, capfd):
    assert main(["train", *small_run, "train.epochs=1", "quiet=true"]) == 0
    results = [word for word in small_run if word.startswith("paths.results")]
    for words in (
        ["report", "table=1", *small_run],
        ["figures", "table=1", *small_run],
        ["track", "tracker=jsonl", *results],
        ["runs", "prune", "confirm=true", *results],
        ["runs", "verify", *results],
        ["data", "verify", *small_run],
    ):
        assert main([*words, "quiet=true"]) == 0
        assert capfd.readouterr() == ("", "")
    for written in ("reports/table1.html", "figures/table1-agreement.pdf", "tracking/*.jsonl"):
        assert list((tmp_path / "results").glob(written))
    (cases,) = (tmp_path / "results").glob("runs/*/cases.csv")
    cases.write_text("x")
    (images,) = (tmp_path / "prepared").rglob("images.npy")
    images.write_bytes(images.read_bytes()[:-1] + b"x")
    for words, damaged in ((["runs", "verify", *results], "cases.csv"), (["data", "verify", *small_run], "images.npy")):
        assert main([*words, "quiet=true"]) == 1
        out, err = capfd.readouterr()
        assert out == ""
        assert damaged in err, "damage is an error"
