"""``dmseg track``: stored runs and tables are recorded later, each once."""

import json
import sys
from pathlib import Path

import pytest

from dmseg.cli import track
from dmseg.cli.main import main
from dmseg.errors import UserError
from dmseg.runs.store import RunStore

sys.path.append(str(Path(__file__).parents[1] / "report"))
from fake_wandb import FakeServer
from wandb_reader import WandbRecord

pytest.importorskip("wandb")


@pytest.fixture
def stored(small_run, tmp_path):
    """The results folder of one run and of a Table 2 that has its number."""
    words = [*small_run, "train.epochs=1"]
    assert main(["train", *words, "labels=uniform"]) == 0
    assert main(["table", "table=2", *words]) == 0
    return tmp_path / "results"


def test_stored_runs_and_tables_are_sent_once(stored, monkeypatch, capfd):
    server = FakeServer()
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_RUN_ID", "stolen")
    ids = RunStore(stored).run_ids()
    capfd.readouterr()
    assert main(["track", "tracker=online", f"paths.results={stored}"]) == 0
    assert f"runs: {len(ids)} recorded with tracker=online, 0 already recorded" in capfd.readouterr().out
    sent = {upsert["name"]: upsert for upsert in server.upserts if upsert.get("jobType")}
    assert {name for name, upsert in sent.items() if upsert["jobType"] == "train"} == set(ids)
    (table,) = (upsert for upsert in sent.values() if upsert["jobType"] == "table")
    assert table["displayName"].startswith("Table 2 · lidc")
    assert len(server.upserts) >= len(ids) + 1
    before = len(server.upserts)
    assert main(["track", "tracker=online", f"paths.results={stored}"]) == 0
    said = capfd.readouterr().out
    assert f"runs: 0 recorded with tracker=online, {len(ids)} already recorded" in said
    assert "tables: 0 recorded with tracker=online, 1 already recorded" in said
    assert len(server.upserts) == before
    server.close()
    assert main(["track", "tracker=online", "again=true", f"paths.results={stored}"]) == 2
    assert "nothing was sent" in capfd.readouterr().err


def test_tables_are_recorded_with_the_papers_columns_and_files(stored, capfd):
    run_id = RunStore(stored).run_ids()[0]
    assert main(["track", "tracker=jsonl", run_id, f"paths.results={stored}"]) == 0
    said = capfd.readouterr().out
    assert "runs: 1 recorded" in said
    assert "tables: 0 recorded with tracker=jsonl, 0 already" in said, "who chooses runs gets runs"
    mine = ["wandb.project=mine", "wandb.entity=me", "wandb.tags=[late, more]", "wandb.notes=why"]
    assert main(["track", "tracker=offline", run_id, "tables=2", *mine, f"paths.results={stored}"]) == 0
    records = [WandbRecord(path) for path in stored.glob("wandb/offline-run-*/*.wandb")]
    (table,) = (record for record in records if record.run.job_type == "table")
    assert {record.run.run_id for record in records} == {run_id, table.run.run_id}
    assert {"table", "cells", "runs"} <= {name.split("/")[0] for row in table.history for name in row}
    assert "table2" in table.artifacts
    for record in records:
        assert (record.run.project, record.run.entity, record.run.notes) == ("mine", "me", "why")
        assert {"late", "more"} <= set(record.run.tags)
    tags = next(set(record.run.tags) for record in records if record is not table)
    assert "table 2" in tags
    capfd.readouterr()
    for words, said in (
        (["tracker=jsonl", "tables=9"], "table '9' has not been written"),
        (["tracker=nothing"], "tracker is 'nothing', but must be one of online"),
        ([], "name a tracker"),
        (["tracker=jsonl", "tracker=mlflow"], "tracker is given twice"),
        (["tracker=jsonl", "again=maybe"], "again is 'maybe'"),
        (["tracker=jsonl", "wandb.tag=mine"], "has no key 'wandb.tag'"),
        (["tracker=jsonl", "colour=red"], "runs cannot be selected by 'colour'"),
    ):
        assert main(["track", *words, f"paths.results={stored}"]) == 2
        assert said in capfd.readouterr().err


def test_a_table_that_is_written_with_a_tracker_is_recorded(small_run, tmp_path):
    assert main(["table", "table=2", *small_run, "tracker=jsonl"]) == 0
    (path,) = (tmp_path / "results" / "tracking").glob("*.jsonl")
    assert '"job_type": "table"' in path.read_text()


def test_runs_that_cannot_be_recorded_are_named_and_teachers_are_marked(small_run, tmp_path, monkeypatch, capfd):
    words = [*small_run, "train.epochs=1", "labels=uniform"]
    assert main(["train", *words, "distill=kd"]) == 0
    argv, results = (
        ["track", "tracker=jsonl", "again=true", f"paths.results={tmp_path / 'results'}"],
        tmp_path / "results",
    )
    assert main(argv) == 0
    records = [json.loads(path.open().readline())["run"] for path in (results / "tracking").glob("*.jsonl")]
    assert {record["job_type"] for record in records} == {"teacher", "train"}
    capfd.readouterr()
    run_id = next(record["id"] for record in records if record["job_type"] == "train")
    actual = track.record_run

    def record_run(store, name, *given):
        if name == run_id:
            raise UserError("its pictures are gone")
        actual(store, name, *given)

    with monkeypatch.context() as patched:
        patched.setattr(track, "record_run", record_run)
        assert main(argv) == 1
    out, err = capfd.readouterr()
    assert "runs: 1 recorded with tracker=jsonl, 0 already recorded, 1 failed" in out
    assert f"run {run_id}: its pictures are gone" in err
    (results / "runs" / run_id / "cases.csv").write_text("x")
    assert main(argv) == 1
    out, err = capfd.readouterr()
    assert "runs: 1 recorded with tracker=jsonl, 0 already recorded, 1 failed" in out
    assert f"{run_id} is damaged and is left out" in err
