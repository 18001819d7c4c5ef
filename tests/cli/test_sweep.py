"""Sweeps end to end: what is planned, trained, printed and written."""

import csv
import logging
import os
import re
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from dmseg.cli import sweep
from dmseg.cli.main import main
from dmseg.cli.sweep import Experiment, Row, print_rows, to_csv
from dmseg.runs.store import RunStore


def table(folder, name="t"):
    with (folder / "sweeps" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


@pytest.mark.parametrize("workers", [1, 2])
def test_every_combination_is_run_and_a_failure_stops_no_other(workers, small_run, results, capfd):
    words = ["train", "-m", *small_run, "labels=majority,uniform", "train.batch_size=64,4", f"workers={workers}"]
    words.remove("train.batch_size=4")
    assert main([*words, "name=t"]) == 2, "as cv: a mistake of use"
    said = capfd.readouterr()
    rows = table(results)
    assert [(row["labels"], row["train.batch_size"]) for row in rows] == [
        ("majority", "64"),
        ("majority", "4"),
        ("uniform", "64"),
        ("uniform", "4"),
    ]
    unfinished = "not done" if workers == 1 else "failed"
    assert [row["status"] for row in rows] == [unfinished, "done", unfinished, "done"]
    assert {row["run_id"] for row in rows if row["status"] == "done"} == set(RunStore(results).run_ids())
    assert said.err.count("failed: this fold has") == 2
    assert said.err.index("combinations: 4 (2 labels x 2 train.batch_size)") < said.err.index("4 runs, 0 already done")
    assert "2 of 4 runs done" in said.out
    assert not logging.getLogger("dmseg.models.build").disabled
    assert main([*words, "name=t"]) == 2
    assert "4 runs, 2 already done, 2 to run" in capfd.readouterr().err


def test_scores_are_those_of_the_stored_cases(small_run, results, capfd):
    assert main(["train", "-m", *small_run, "fold=0,1", "name=t"]) == 0
    out = capfd.readouterr().out
    for row in table(results):
        cases = pd.read_csv(results / "runs" / row["run_id"] / "cases.csv")
        assert int(row["n"]) == len(cases)
        for score in ("dice", "bdice", "ece"):
            assert float(row[score]) == pytest.approx(cases[score].mean(), rel=1e-12, nan_ok=True)
            assert int(row[f"{score}_n"]) == cases[score].notna().sum()
        shown = next(line.split() for line in out.splitlines() if row["run_id"] in line)
        assert shown[1] == row["fold"]
        assert shown[4] == f"{100 * float(row['dice']):.2f}"


def test_cv_pools_the_folds_of_each_combination(small_run, results, capfd):
    words = [*small_run, "train.epochs=1", "labels=majority,uniform", "folds.count=3", "workers=2", "name=t"]
    words.remove("train.epochs=2")
    assert main(["cv", "-m", *words]) == 0, capfd.readouterr().err
    assert "2 of 2 experiments done" in capfd.readouterr().out
    rows = table(results)
    store = RunStore(results)
    for row in rows:
        manifests = {name: store.read_json(name, "manifest.json") for name in store.run_ids()}
        own = [name for name, node in manifests.items() if node["experiment_id"] == row["experiment_id"]]
        cases = pd.concat([pd.read_csv(results / "runs" / name / "cases.csv") for name in own])
        assert len(own) == 3
        assert int(row["n"]) == len(cases) == 12
        assert float(row["bdice"]) == pytest.approx(cases["bdice"].mean(), rel=1e-12)
    assert rows[0]["bdice"] != rows[1]["bdice"]
    assert main(["cv", *(word for word in words if not word.startswith(("labels", "name"))), "labels=uniform"]) == 0
    assert "3 runs, 3 already done" in capfd.readouterr().err


def test_the_same_experiment_is_named_and_not_trained_twice(small_run, results, capfd):
    words = [*small_run, "distill=null,kd", "distill.teacher.model=unet_tiny", "distill.temperature=1,2", "workers=2"]
    assert main(["train", "-m", *words, "name=t"]) == 0, capfd.readouterr().err
    out = capfd.readouterr().out
    rows = table(results)
    assert [row["same_as_row"] for row in rows] == ["", "1", "", ""]
    assert len({row["run_id"] for row in rows}) == 3, "the teacher of both students is the run without distillation"
    assert set(RunStore(results).run_ids()) == {row["run_id"] for row in rows}
    assert rows[0]["run_id"] == rows[1]["run_id"]
    assert rows[0]["dice"] == rows[1]["dice"] != ""
    assert "same as row 1" in out
    assert "3 of 3 runs done" in out


def test_one_teacher_of_several_students_is_trained_once(small_run, results, capfd):
    words = [*small_run, "labels=uniform", "distill=kd", "distill.teacher.model=unet_tiny", "distill.temperature=1,2"]
    assert main(["train", "-m", *words, "workers=2"]) == 0, capfd.readouterr().err
    assert "3 runs, 0 already done, 3 to run" in capfd.readouterr().err
    assert len(RunStore(results).run_ids()) == 3


def test_one_run_scored_in_two_ways_is_trained_once(small_run, results, capfd):
    words = [*small_run, "evaluate.ged=false,true", "evaluate.save_predictions=false,true", "name=t"]
    assert main(["train", "-m", *words]) == 0
    rows = table(results)
    (run_id,) = RunStore(results).run_ids()
    assert {row["run_id"] for row in rows} == {run_id}
    assert [row["same_as_row"] for row in rows] == ["", "1", "", "3"]
    assert {row["status"] for row in rows} == {"done"}
    assert [bool(row["ged"]) for row in rows] == [False, False, True, True]
    assert RunStore(results).has_predictions(run_id)
    assert capfd.readouterr().err.count("epoch 2/2") == 1


def test_nothing_starts_when_one_combination_is_wrong(small_run, results, capfd):
    assert main(["train", "-m", *small_run, "labels=majority,uniform", "fold=0,7"]) == 2
    said = capfd.readouterr().err
    assert "fold 7 does not exist" in said
    assert "in the combination labels=majority fold=7" in said
    assert not (results / "runs").exists()


def test_a_single_combination_is_run_and_said_to_be_one(small_run, results, capfd):
    assert main(["train", "-m", *small_run]) == 0
    said = capfd.readouterr()
    assert "no key has several values" in said.err
    assert "1 of 1 runs done" in said.out
    assert main(["train", *small_run]) == 0
    assert "1 run, 1 already done" in capfd.readouterr().err or len(RunStore(results).run_ids()) == 1


def test_different_results_folders_have_a_table_above_them(small_run, tmp_path, capfd):
    folders = [tmp_path / "r" / name for name in ("majority", "uniform")]
    words = [word for word in small_run if not word.startswith(("paths.results", "labels="))]
    words += ["labels=majority,uniform", f"paths.results='{tmp_path}/r/${{labels.name}}'"]
    assert main(["train", "-m", *words, "name=t"]) == 0, capfd.readouterr().err
    assert f"the table of the sweep is written to {tmp_path / 'r'}" in capfd.readouterr().err
    assert [row["same_as_row"] for row in table(tmp_path / "r")] == ["", ""]
    assert [len(RunStore(folder).run_ids()) for folder in folders] == [1, 1]


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x", "a b", "x" * 101, "ä", "a,b"])
def test_a_name_is_no_path(name, small_run, capfd):
    assert main(["train", "-m", *small_run, f"name={name}"]) == 2
    assert "name is '" in capfd.readouterr().err


def test_without_a_name_the_table_is_named_by_what_is_swept(small_run, results, monkeypatch, capfd):
    monkeypatch.setattr(sweep, "run_all", lambda runs, settings: 0)
    for words in (
        ["labels=majority,uniform", "fold=0,1"],
        ["fold=1,0", "labels=uniform,majority", "workers=2"],
        ["labels=majority,weighted", "fold=0,1"],
        ["labels=majority,weighted", "fold=0,1", "name=null"],
    ):
        assert main(["train", "-m", *small_run, *words]) == 0
    assert main(["cv", "-m", *small_run, "labels=majority,uniform"]) == 0
    assert len(list((results / "sweeps").glob("*.csv"))) == 3


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["train", "workers=1,2"], "one launcher"),
        (["train", "launcher=inline,local"], "one launcher"),
        (["cv", "fold=0,1"], "leave fold out"),
        (["train", "name=a", "name=b"], "given twice"),
        (["train", "labels=glob(x*)"], "matches none"),
    ],
)
def test_what_cannot_be_swept(words, named, small_run, capfd):
    assert main([words[0], "-m", *small_run, *words[1:]]) == 2
    said = capfd.readouterr().err
    assert named in said
    assert "Traceback" not in said


def test_an_interrupted_sweep_shows_what_is_there_and_goes_on(small_run, results):
    words = [*small_run, "train.epochs=25", "fold=0,1,2", "name=t"]
    words.remove("train.epochs=2")
    command = [sys.executable, "-m", "dmseg", "train", "-m", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not RunStore(results).run_ids() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    before = [row["status"] for row in table(results)]
    assert "done" in before
    assert "not done" in before
    assert f"{before.count('done')} of 3 runs done" in out
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert f"3 runs, {before.count('done')} already done" in again.stderr
    assert [row["status"] for row in table(results)] == ["done"] * 3


def test_phantoms_are_marked_among_real_data(small_run, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "run_all", lambda runs, settings: 0)
    (tmp_path / "data").mkdir()
    (tmp_path / "lidc").rename(tmp_path / "data" / "lidc")
    words = [word for word in small_run if not word.startswith(("data=", "data.root", "paths.results"))]
    assert main(["train", "-m", *words, "data=lidc,phantom", "phantom:task=kidney-1", "profile=demo", "name=t"]) == 0, (
        capfd.readouterr().err
    )
    said = capfd.readouterr()
    rows = table(tmp_path / "results")
    assert [(row["data"], row["phantom"]) for row in rows] == [("lidc", "false"), ("phantom", "true")]
    assert [line.endswith("(PHANTOM data)") for line in said.out.splitlines()[:4]] == [False, False, False, True]
    assert main(["train", "-m", *words, "data=phantom", "task=kidney-1", "profile=demo", "name=t"]) == 0
    assert capfd.readouterr().out.startswith("sweep t (PHANTOM data)\n")


def test_a_program_that_an_agent_starts_does_what_a_plain_call_does(small_run, tmp_path, results):
    """The words are those that wandb's agent makes of ``${args_no_hyphens}``."""
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    chosen = {"labels": "uniform", "optim": {"lr": 0.003}, "train.scale": [0.9, 1.1], "evaluate.ged": True}
    chosen |= {"model.weights": None, "seed": 3}
    made = utils.create_sweep_command_args({"args": {key: {"value": value} for key, value in chosen.items()}})
    plain = ["labels=uniform", "optim.lr=0.003", "train.scale=[0.9,1.1]", "evaluate.ged=true", "seed=3"]
    agent = {"WANDB_SWEEP_ID": "s1", "WANDB_RUN_ID": "r1", "WANDB_PROJECT": "p", "WANDB_ENTITY": "e"}
    agent |= {"WANDB_SWEEP_PARAM_PATH": str(tmp_path / "none.yaml"), "WANDB_DIR": str(tmp_path / "wandb")}
    found = {}
    for name, words, environment in (("agent", made["args_no_hyphens"], agent), ("plain", plain, {})):
        folder = tmp_path / name
        own = [word for word in small_run if not word.startswith("paths.results")]
        command = [sys.executable, "-m", "dmseg", "train", *own, f"paths.results={folder}", "tracker=disabled", *words]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (run_id,) = RunStore(folder).run_ids()
        found[name] = (run_id, (folder / "runs" / run_id / "cases.csv").read_bytes())
    assert found["agent"] == found["plain"]
    assert not (tmp_path / "wandb").exists()


def test_values_with_markup_and_scores_with_an_n_of_their_own_are_printed(small_run, monkeypatch, capfd):
    kept = []
    monkeypatch.setattr(sweep, "run_all", lambda runs, settings: kept.extend(runs) or 0)
    assert main(["train", "-m", *small_run]) == 0
    row = Row(Experiment({"key": "[a,b]"}, tuple(kept)), "done", None, 4, {"dice": (0.5, 3), "ged": (0.25, 4)})
    capfd.readouterr()
    print_rows([row], "train", "t")
    line = capfd.readouterr().out.splitlines()[2]
    assert re.fullmatch(rf"1 +\[a,b\] +{kept[0].run_id} +4 +50\.00 \(n 3\) +0\.250 +done", line)
    cells = next(csv.DictReader(to_csv([row], "train").splitlines()))
    assert (cells["key"], cells["dice"], cells["dice_n"], cells["ece"], cells["ged_n"]) == (
        "[a,b]",
        "0.5",
        "3",
        "",
        "4",
    )


@pytest.mark.parametrize("command", [["train"], ["cv"], ["train", "-m", "seed=0,1"]])
def test_overrides_that_the_method_does_not_use_are_named_once(command, small_run, monkeypatch, capfd):
    for module in ("commands", "sweep"):
        monkeypatch.setattr(f"dmseg.cli.{module}.run_all", lambda runs, settings: 1)
    words = ["method=softseg", "loss=ce_sdl", "optim.lr=0.5", "optim.decay_norm_and_bias=true", "optim.poly_power=0.8"]
    main([*command, *small_run, *words])
    said = [line for line in capfd.readouterr().err.splitlines() if "has no effect" in line]
    assert [line.split(" ")[0] for line in said] == words[1:4]
    assert said[1] == "optim.lr=0.5 has no effect: method=softseg does not use optim.lr"
