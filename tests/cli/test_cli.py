"""The command line as a user meets it."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from dmseg.cli.main import main
from dmseg.errors import UserError


def dmseg(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "dmseg", *words], capture_output=True, text=True, check=False, **options
    )


def test_a_reader_that_stops_is_no_error_to_speak_of():
    code = (
        "from dmseg.cli.main import main; from dmseg.cli.registry import COMMANDS, replace\n"
        "COMMANDS['plan'] = replace(COMMANDS['plan'], function='test_cli:wordy'); raise SystemExit(main(['plan']))"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": Path(__file__).parent}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (1, b"")


def wordy(words):
    """A command that prints more than a pipe holds."""
    print("word " * 100_000)
    return 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["frobnicate"], "frobnicate"),
        (["train", "train.epoch=3"], "train.epoch"),
        (["train", "labels=nope"], "nope"),
        (["train", "table=2"], "'table=2' names a table, which is for commands on tables"),
        (["train", "distill=false"], "distill='false' does not exist; choose from null, kd"),
        (["train", "labels=3"], "labels='3' does not exist; choose from majority"),
        (["train", "--cfg", "job"], "'dmseg config' with the same keys prints the configuration"),
        (["train", "data=phantom", "data.phantom.scale=1e9"], "set it to at most 3.2"),
        (["train", "data=phantom_lits", "data.phantom.scale=1e9"], "set it to at most 4"),
        (["train", "paths.results="], "paths.results is empty; name a folder"),
        (["train", "precision=16"], "precision is 16, but must be one of fp32, tf32, bf16, auto"),
        (["train", "tracker=[]"], "tracker is empty; tracker=disabled turns tracking off"),
        (["train", "fold=7"], "fold 7"),
        (["train", "fold=x"], "'x'"),
        (["train", "task=nope"], "nope"),
        (["train", "data.min_marks=9"], "min_marks"),
        (["train", "+data.typo=1"], "typo"),
        (["train", "+labels.typo=1"], "typo"),
        (["train", "loss.region.variant=3"], "variant"),
        (["train", "labels=majority,uniform"], "use -m"),
        (["train", "model.weights=/nowhere/file"], "/nowhere/file"),
        (["train", "train.batch_size=64"], "train.batch_size=64"),
        (["train", "data.root=/nowhere"], "/nowhere"),
        (["train", "-m", "labels=majority,nope"], "nope"),
        (["cv", "folds.count=50"], "50"),
        (["reproduce"], "table=1"),
        (["table", "table=99"], "99"),
    ],
)
def test_errors_of_use_are_short_and_name_the_word(words, named, small_run, capfd):
    command, *overrides = words
    given = [] if command == "frobnicate" else small_run
    assert main([command, *given, *overrides]) == 2
    said = capfd.readouterr().err
    plain = [
        line for line in said.splitlines() if line.strip() and not line.startswith(("prepared", "lidc/nodule", "  "))
    ]
    assert named in said
    assert len([line for line in plain if not re.match(r"\d+ runs", line)]) <= 3
    assert "Traceback" not in said
    assert "HYDRA" not in said


def test_a_sweep_has_one_results_folder(small_run, tmp_path, capfd):
    words = [word for word in small_run if not word.startswith("paths.results")]
    assert main(["train", "-m", *words, f"paths.results='{tmp_path / 'a'}','{tmp_path / 'b'}'"]) == 2
    assert "give paths.results one value" in capfd.readouterr().err


def test_a_phantom_without_settings_is_named(capfd):
    assert main(["train", "data=phantom", "data.phantom=null"]) == 2
    assert "data.root refers to 'data.phantom.seed', but data.phantom is not a group of keys" in capfd.readouterr().err


def test_prepare_says_what_it_did(small_run, capfd):
    assert main(["prepare", *small_run]) == 0
    assert "lidc/nodule: 12 cases, 12 slices" in capfd.readouterr().out


def test_train_prints_id_folder_and_scores(small_run, capfd):
    assert main(["train", *small_run]) == 0
    out = capfd.readouterr()
    assert re.search(r"^[0-9a-f]{16}  lidc/nodule majority unet_tiny fold 0", out.out, re.MULTILINE)
    assert "mean over 2 cases: dice" in out.out
    assert "epoch 2/2 loss" in out.err, "plain lines where there is no terminal"


def test_table_2_end_to_end(small_run, tmp_path, capfd):
    overrides = [*small_run, "train.epochs=1"]
    assert main(["table", "table=2", *overrides]) == 0
    assert "15 of 15 cells have no number yet" in capfd.readouterr().out
    assert main(["reproduce", "table=2", *overrides]) == 0
    first = capfd.readouterr()
    assert "25 runs, 0 already done, 25 to run" in first.err
    cells = pd.read_csv(tmp_path / "results/tables/table2.csv")
    assert cells["value"].notna().all()
    assert set(cells["n"]) == {12} or cells[cells["metric"] == "ece"]["n"].eq(12).all()
    tidy = pd.read_csv(tmp_path / "results/tables/table2_cases.csv")
    assert len(tidy) == 5 * 12
    assert main(["reproduce", "table=2", *overrides]) == 0
    again = capfd.readouterr()
    assert "25 runs, 25 already done, 0 to run" in again.err
    assert again.out == first.out


def test_reproduce_table_1(small_run, tmp_path, capfd):
    assert main(["reproduce", "table=1", *small_run]) == 0
    assert "| LIDC nodule |" in capfd.readouterr().out
    assert (tmp_path / "results/tables/table1.tex").exists()


def test_a_folder_that_cannot_be_written_to_is_one_line(small_run, tmp_path, capfd):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    words = [word for word in small_run if not word.startswith("paths.results")]
    assert main(["table", "table=1", *words, f"paths.results='{blocked}'"]) == 2
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("dmseg: ")]
    assert len(said) == 1
    assert str(blocked) in said[0]


@pytest.mark.parametrize(
    "words",
    [["prepare"], ["train"], ["train", "-m"], ["cv"], ["cv", "-m"], ["reproduce", "table=1"], ["reproduce", "table=2"]],
)
def test_as_many_cases_are_prepared_at_a_time_as_there_are_workers(words, small_run, monkeypatch, capfd):
    asked = []

    def prepare(adapter, task, folder, size, options, workers, complete):
        asked.append(workers)
        raise UserError("stop here")

    monkeypatch.setattr("dmseg.runs.sources.prepare", prepare)
    assert main([*words, *small_run, "workers=3"]) != 0
    assert "stop here" in capfd.readouterr().err
    assert asked == [3]


@pytest.mark.parametrize("word", ["fold=3", "+fold=0", "++fold=1"])
def test_cv_does_not_ignore_a_fold(small_run, capsys, word):
    assert main(["cv", *small_run, word]) == 2
    assert f"cv trains all folds; leave {word} out" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["runs", "list", "paths.results=HOME"],
        ["runs", "prune", "paths.results=HOME"],
        ["export-results", "paths.results=results", "to=HOME"],
        ["export-results", "paths.results=HOME", "to=export"],
        ["import-results", "from=HOME", "paths.results=results"],
        ["table", "table=2", "from=HOME"],
        ["report", "table=2", "from=HOME"],
        ["train", "plugins=['HOME/a.py']"],
        ["track", "paths.results=HOME", "tracker=jsonl"],
    ],
)
def test_a_home_that_is_unknown_is_refused_in_one_line(words, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main([word.replace("HOME", "~nobody-of-this-name") for word in words]) == 2
    assert re.fullmatch(r"dmseg: .* is '~nobody-of-this-name.*', but the home folder .*\n", capfd.readouterr().err)
    assert list(tmp_path.iterdir()) == []
