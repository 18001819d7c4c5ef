"""Runs recorded in a local MLflow store, read back with MLflow's own client."""

import pandas as pd
import pytest

from dmseg.cli.main import main
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
        assert run.data.params["optim.lr"] == "0.01"
        losses = client.get_metric_history(run.info.run_id, "train/loss")
        assert [metric.value for metric in losses] == pytest.approx(list(history["loss"]))
        artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
        assert artifacts == {"cases.json", "reliability.json", "dice_over_thresholds.json", "predictions"}


def test_a_server_that_cannot_be_reached_costs_two_seconds(small_run, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert main(["train", *small_run, "tracker=mlflow"]) == 0
    assert sum("tracker=mlflow has failed" in item.message for item in caplog.records) == 1
