"""Runs recorded in a local MLflow store, read back with MLflow's own client."""

import os
from dataclasses import replace

import pandas as pd
import pytest

from dmseg.cli.main import main
from dmseg.report.tracking.mlflow_tracker import MlflowTracker, destination
from dmseg.report.tracking.tracker import Report, RunMetadata
from dmseg.runs.store import RunStore

mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed (pip install 'dmseg[mlflow]')")


def test_a_run_is_recorded_once(small_run, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    results = tmp_path / "results"
    assert main(["train", *small_run, "tracker=mlflow", "wandb.images=true", "wandb.notes=mine"]) == 0
    (run_id,) = RunStore(results).run_ids()
    client = mlflow.MlflowClient(f"sqlite:///{results / 'tracking' / 'mlflow.db'}")
    history = pd.read_csv(results / "runs" / run_id / "history.csv")
    for again in (False, True):
        if again:
            assert main(["track", "tracker=mlflow", "again=true", f"paths.results={results}"]) == 0
        (run,) = client.search_runs([client.get_experiment_by_name("dmseg").experiment_id])
        assert (run.info.status, run.data.tags["dmseg.id"], run.info.run_name) == (
            "FINISHED", run_id, "nodule · majority · dml1 · fold 0",
        )  # fmt: skip
        tags = run.data.tags
        assert (tags["mlflow.note.content"], tags["job_type"]) == ("mine", "train")
        assert tags["group"].startswith("lidc/nodule · majority · dml1 · unet_tiny · ")
        assert {"lidc", "majority", "plain", "paper"} <= set(tags["tags"].split(", "))
        assert run.data.params["optim.lr"] == "0.01"
        cases = pd.read_csv(results / "runs" / run_id / "cases.csv")
        assert run.data.metrics["final/bdice"] == pytest.approx(cases["bdice"].mean())
        losses = client.get_metric_history(run.info.run_id, "train/loss")
        assert [metric.value for metric in losses] == pytest.approx(list(history["loss"]))
        artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
        assert artifacts == {"cases.json", "reliability.json", "dice_over_thresholds.json", "predictions"}
        assert run.info.artifact_uri.startswith((results / "tracking" / "mlflow").as_uri())


def test_a_run_that_fails_is_continued_with_what_it_had_not_yet(tmp_path, monkeypatch):
    """Names that MLflow refuses are changed, files are kept, and the environment is as it was before."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    (tmp_path / "table2.csv").write_text("a,b\n")
    config = {"loss.kwargs[0]": 1, "long": "x" * 9000, **{f"key{number}": number for number in range(150)}}
    metadata = RunMetadata("0" * 16, "a run", "a group", "table", ("a",), None, config)
    tracker = MlflowTracker(tmp_path / "results", "mine")
    client = mlflow.MlflowClient(destination(tmp_path / "results"))
    for number, status in enumerate(("FAILED", "FINISHED")):
        tracker.begin(replace(metadata, config={**config, f"new{number}": 1, "long": number or config["long"]}))
        (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
        assert run.info.status == "RUNNING"
        tracker.log(5, {"epoch": 1, "train/loss": 0.5})
        if number:
            tracker.show(Report(files=[tmp_path / "table2.csv"]))
        tracker.end(finished=bool(number))
        run = client.get_run(run.info.run_id)
        assert run.info.status == status
        assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 1
    assert set(run.data.params) == {"loss.kwargs_0_", "long", "new0", "new1"} | {
        f"key{number}" for number in range(150)
    }
    assert run.data.params["long"] == "x" * 6000, "what is recorded is not changed"
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["table2.csv"]
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


def test_a_server_that_cannot_be_reached_costs_two_seconds(small_run, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert main(["train", *small_run, "tracker=mlflow"]) == 0
    assert sum("tracker=mlflow has failed" in item.message for item in caplog.records) == 1
