"""wandb's offline files, read back: one for each run, under the run's own id, whatever the environment says."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from wandb_reader import WandbRecord

from dmseg.cli.main import main
from dmseg.metrics.levels import BDICE_LEVELS
from dmseg.runs.store import RunStore
from dmseg.training.checkpoint import Checkpoints, Interrupted

pytest.importorskip("wandb")


@pytest.fixture
def words(small_run):
    """Overrides of a small run with a record that may have images."""
    return [*small_run, "train.epochs=4", "tracker=offline", "wandb.images=true"]


@pytest.fixture
def recorded(tmp_path):
    """Reads all records of the results folder, by the name of the run or as a list."""

    def read(as_list=False):
        found = [WandbRecord(path) for path in sorted((tmp_path / "results").glob("wandb/offline-run-*/*.wandb"))]
        assert len({record.run.run_id for record in found}) == len(found), "one file for each run"
        return found if as_list else {record.run.display_name: record for record in found}

    return read


def test_a_record_shows_what_a_person_looks_for(words, tmp_path, recorded, monkeypatch):
    for name, value in {"RUN_ID": "stolen", "RESUME": "must", "NAME": "other", "RUN_GROUP": "g", "TAGS": "t"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    mine = ["labels=uniform", "fold=2", "wandb.tags=[first,try]", "wandb.notes='why not'", "evaluate.every=2"]
    assert main(["train", *words, *mine]) == 0
    (run_id,) = RunStore(tmp_path / "results").run_ids()
    record = recorded()["nodule · uniform · dml1 · fold 2"]
    run, folder = record.run, next((tmp_path / "results").glob("wandb/offline-run-*/files"))
    assert (run.run_id, run.job_type, run.project, run.notes) == (run_id, "train", "dmseg", "why not")
    assert run.run_group.startswith("lidc/nodule · uniform · dml1 · unet_tiny · ")
    assert set(run.tags) == {"lidc", "uniform", "plain", "paper", "first", "try"}
    assert record.exit_code == 0
    flat = {key: value for key, value in record.config.items() if not key.startswith("_wandb")}
    assert (flat["optim.lr"], flat["labels.name"], flat["run_id"]) == (0.01, "uniform", run_id)
    assert [key for key, value in flat.items() if isinstance(value, dict)] == [], "no nested groups"
    assert str(tmp_path) not in json.dumps(flat), "no paths"
    assert {name: metric.step_metric for name, metric in record.metrics.items()} == {
        "epoch": "", "train/*": "epoch", "validation/*": "epoch",
    }  # fmt: skip

    history = pd.read_csv(tmp_path / "results" / "runs" / run_id / "history.csv")
    for name in ("loss", "ce", "region", "lr"):
        assert list(record.column(f"train/{name}").values()) == pytest.approx(list(history[name]))
    cases = pd.read_csv(tmp_path / "results" / "runs" / run_id / "cases.csv")
    for name in ("dice", "bdice", "ece"):
        curve = record.column(f"validation/{name}")
        assert list(curve) == [history["step"][1], history["step"].iloc[-1]], "every other epoch"
        assert list(curve.values())[-1] == pytest.approx(cases[name].mean())
        assert record.summary[f"validation/{name}"] == pytest.approx(cases[name].mean())
    assert all(value > 0 for value in record.column("train/slices_per_second").values())

    table = json.loads(next(folder.glob("media/table/cases_*.json")).read_text())
    assert sorted(row[table["columns"].index("case")] for row in table["data"]) == sorted(cases["case"])
    curve = json.loads(next(folder.glob("media/table/dice_over_thresholds*.json")).read_text())
    assert sum(row[2] for row in curve["data"]) / len(BDICE_LEVELS) == pytest.approx(cases["bdice"].mean())
    assert list(folder.glob("media/table/reliability*.json"))
    last = record.history[-1]
    assert set(last["predictions/layers/all_masks"][0]) == {"raters", "label", "probability", "error"}
    assert last["predictions/panels/count"] == last["predictions/layers/count"] >= 2


def test_folds_keep_their_own_ids(words, tmp_path, recorded, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "stolen")
    assert main(["cv", *words, "train.epochs=1", "folds.count=2"]) == 0
    store = RunStore(tmp_path / "results")
    assert {record.run.run_id for record in recorded().values()} == set(store.run_ids())


def test_a_student_an_agent_has_started_takes_its_id_and_the_teacher_does_not(words, tmp_path, recorded, monkeypatch):
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("wandb_version: 1\nlabels: {value: uniform}\n")
    agent = {"RUN_ID": "agents1", "SWEEP_ID": "sweep1", "PROJECT": "sweeps", "SWEEP_PARAM_PATH": str(parameters)}
    for name, value in agent.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    words = [*words, "train.epochs=1", "labels=uniform", "evaluate.metrics=[dice_slices]"]
    assert main(["train", *words, "distill=kd"]) == 0
    found = {record.run.job_type: record for record in recorded().values()}
    assert found["train"].run.run_id == "agents1"
    assert (found["train"].run.sweep_id, found["train"].run.project) == ("sweep1", "sweeps")
    ids = set(RunStore(tmp_path / "results").run_ids())
    assert found["train"].config["labels"] == "uniform"
    assert {found["train"].config["run_id"], found["teacher"].run.run_id} == ids
    assert found["teacher"].run.sweep_id == ""
    for path in (tmp_path / "results").glob("wandb/offline-run-*-agents1/*.wandb"):
        path.unlink()
    monkeypatch.setenv("WANDB_RUN_ID", "agents2")  # the agent tries the same values again
    assert main(["train", *words, "distill=kd"]) == 0
    again = {record.run.run_id: record for record in recorded().values()}["agents2"]
    assert again.summary["validation/dice"] == found["train"].summary["validation/dice"]
    assert again.summary["validation/dice_slices"] == pytest.approx(again.summary["validation/dice"]), (
        "of one slice each"
    )
    monkeypatch.setenv("WANDB_RUN_ID", "agents3")
    assert main(["cv", *words, "folds.count=2"]) == 0
    pooled = {record.run.run_id: record for record in recorded().values()}["agents3"]
    cases = pd.concat(
        pd.read_csv(tmp_path / "results" / "runs" / run_id / "cases.csv") for run_id in pooled.config["runs"]
    )
    assert pooled.run.job_type == "sweep"
    assert pooled.summary["validation/dice"] == pytest.approx(cases["dice"].mean())


def test_a_run_that_was_interrupted_or_scored_again_has_one_whole_record(words, tmp_path, recorded, monkeypatch):
    def stop(self, steps, state):
        self.save(steps, state())
        if steps == 5:
            raise Interrupted("stopped")

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "after_step", stop)
        assert main(["train", *words, "evaluate.every=1"]) != 0
    (stopped,) = recorded().values()
    assert stopped.exit_code == 1
    assert main(["train", *words, "evaluate.every=1"]) == 0
    (record,) = recorded().values()
    history = pd.read_csv(next((tmp_path / "results" / "runs").glob("*/history.csv")))
    assert list(record.column("train/loss").values()) == pytest.approx(list(history["loss"]))
    curve = record.column("validation/dice")
    assert list(curve) == list(history["step"]), "validations of the first session are kept"
    assert stopped.column("validation/dice").items() <= curve.items()
    assert main(["train", *words, "evaluate.every=1", "evaluate.crop=0.5"]) == 0
    (again,) = recorded().values()
    curves = [one.column("validation/bdice") for one in (record, again)]
    assert [list(curve.items())[:-1] for curve in curves] == [list(curves[0].items())[:-1]] * 2
    names = [{name for row in one.history for name in row if name.startswith("validation/")} for one in (record, again)]
    assert names == [{"validation/dice", "validation/bdice", "validation/ece"}] * 2, "the same charts"
    assert again.summary["validation/bdice"] != record.summary["validation/bdice"]
    assert any(name.endswith("/ece") and name.startswith("evaluation ") for name in again.summary)


def test_a_file_is_whole_when_it_is_closed_however_slow_wandbs_own_process_is(tmp_path):
    """The process ends at once afterwards, as commands do."""
    code = f"""
import os, sys, threading
from pathlib import Path
sys.path.append({str(Path(__file__).parent)!r})
from wandb.sdk.lib.service.service_connection import ServiceConnection
from wandb_reader import WandbRecord
from dmseg.report.tracking.tracker import RunMetadata
from dmseg.report.tracking.wandb_files import WandbFile
told = ServiceConnection.inform_finish  # a message that finish() does not wait for
ServiceConnection.inform_finish = lambda *given, **named: threading.Timer(30, told, given, named).start()
file = WandbFile(Path({str(tmp_path)!r}), "dmseg", None)
file.begin(RunMetadata(id="one", name="one", group="all", job_type="train", tags=(), notes=None, config={{}}))
file.log(3, {{"epoch": 1, "train/loss": 0.5}})
file.end(True)
(path,) = Path({str(tmp_path)!r}).glob("wandb/offline-run-*/*.wandb")
record = WandbRecord(path)
print(record.run and record.run.job_type, record.column("train/loss"), record.exit_code, flush=True)
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "train {3: 0.5} 0\n", done.stderr


def test_images_of_real_data_stay_unless_they_are_asked_for(small_run, tmp_path, recorded, caplog):
    caplog.set_level(logging.INFO)
    assert main(["train", *small_run, "tracker=offline"]) == 0
    (record,) = recorded().values()
    assert not any("predictions" in name for row in record.history for name in row)
    assert not list((tmp_path / "results").glob("wandb/offline-run-*/files/media/images/**/*.png"))
    assert sum("wandb.images=true" in item.message for item in caplog.records) == 1
    assert main(["track", "tracker=offline", "wandb.images=true", f"paths.results={tmp_path / 'results'}"]) == 0
    (record,) = recorded().values()
    assert record.history[-1]["predictions/panels/count"] >= 2


def test_a_sweep_and_its_runs_are_recorded_by_two_trackers_and_later_once(words, tmp_path, recorded, capfd):
    two = [word for word in words if not word.startswith("tracker=")] + ["train.epochs=1", "tracker=[jsonl,offline]"]
    assert main(["train", "-m", *two, "optim.lr=0.01,0.02", "name=rates"]) == 0
    ids = set(RunStore(tmp_path / "results").run_ids())
    assert len(ids) == 2
    found = {record.run.run_id: record for record in recorded(as_list=True)}
    (sweep,) = set(found) - ids
    assert {found[name].run.job_type for name in ids} == {"train"}
    assert (found[sweep].run.job_type, found[sweep].run.display_name) == ("sweep", "Sweep rates")
    assert found[sweep].summary["rows"] == 2
    journals = {path.stem: path for path in (tmp_path / "results" / "tracking").glob("*.jsonl")}
    assert set(journals) == set(found), "both trackers have the same records"
    stored = pd.read_csv(tmp_path / "results" / "sweeps" / "rates.csv")
    lines = [json.loads(line) for line in journals[sweep].read_text("utf-8").splitlines()]
    (table,) = [line for line in lines if line.get("table") == "sweep"]
    assert table["columns"] == list(stored)
    assert [row[table["columns"].index("optim.lr")] for row in table["rows"]] == [0.01, 0.02]
    capfd.readouterr()
    for again, counts in (("false", ("0", "2", "0", "1")), ("true", ("2", "0", "1", "0"))):
        argv = ["track", "tracker=offline", f"again={again}", f"paths.results={tmp_path / 'results'}"]
        assert main(argv) == 0
        out = capfd.readouterr().out
        for name, new, before in (("runs", *counts[:2]), ("tables", *counts[2:])):
            assert f"{name}: {new} recorded with tracker=offline, {before} already recorded" in out
        assert {record.run.run_id for record in recorded(as_list=True)} == set(found)
