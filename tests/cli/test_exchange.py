"""Results exported from one machine and taken up on another."""

import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import write_lidc

from dmseg.cli.main import main
from dmseg.runs.store import RunStore


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """Table 2 on a small LIDC tree, two folds of it."""
    place = tmp_path_factory.mktemp("study")
    tree = write_lidc(place / "lidc", 12, np.random.default_rng(1))
    words = [
        "data=lidc", f"data.root='{tree}'", "data.size=32", "model=unet_tiny", "train.epochs=1", "train.batch_size=4",
        "threads=1", f"paths.prepared='{place / 'prepared'}'", f"paths.results='{place / 'results'}'", "folds.count=2",
    ]  # fmt: skip
    assert main(["reproduce", "table=2", *words]) == 0
    return place / "results", words


@pytest.fixture
def exported(studied, tmp_path):
    folder = tmp_path / "a folder with spaces"
    assert main(["export-results", "tables=2", f"to='{folder}'", *studied[1]]) == 0
    return folder


def tables(results):
    return {path.suffix: path.read_bytes() for path in sorted((results / "tables").glob("table2.*"))}


def test_a_table_from_an_export_is_the_same_to_the_byte(studied, exported):
    assert main(["table", "table=2", f"from={exported}"]) == 0
    assert tables(exported) == tables(studied[0])


def test_the_export_is_tidy(studied, exported):
    frame = pd.read_csv(exported / "results.csv")
    cells = pd.read_csv(studied[0] / "tables" / "table2.csv").set_index(["metric", "method"])
    mine = 100 * frame.groupby("labels")[["dice", "bdice", "ece"]].mean()
    for metric in mine:
        for labels in mine.index:
            assert mine.loc[labels, metric] == pytest.approx(cells.loc[(metric, labels), "value"])
    run = next((exported / "runs").iterdir())
    assert {path.name for path in run.iterdir()} == {
        "DONE", "config.json", "manifest.json", "history.csv", "cases.csv", "evaluation.json",
        "counts.npz",
    }  # fmt: skip


def test_imported_runs_are_not_trained_again(studied, exported, tmp_path, capfd):
    elsewhere = tmp_path / "elsewhere"
    words = [*studied[1][:-2], f"paths.results='{elsewhere}'", studied[1][-1]]
    assert main(["import-results", f"from={exported}", f"paths.results={elsewhere}"]) == 0
    assert "10 of 10 runs are new" in capfd.readouterr().out
    assert main(["import-results", f"from={exported}", f"paths.results={elsewhere}"]) == 0
    assert "0 of 10 runs are new" in capfd.readouterr().out
    assert main(["reproduce", "table=2", *words]) == 0
    assert "10 runs, 10 already done, 0 to run" in capfd.readouterr().err
    found, expected = tables(elsewhere), tables(studied[0])
    assert found[".csv"] == expected[".csv"]
    assert b"10 of 10 runs were imported" in found[".md"]
    assert b"were imported" not in expected[".md"]
    assert main(["reproduce", "table=2", *words, "evaluate.bins=15"]) != 0
    assert "was imported without its weights" in capfd.readouterr().err


def test_with_weights_a_run_can_be_scored_anew(studied, tmp_path):
    folder, elsewhere = tmp_path / "export", tmp_path / "elsewhere"
    assert main(["export-results", f"to={folder}", "weights=true", f"paths.results={studied[0]}"]) == 0
    assert main(["import-results", f"from={folder}", f"paths.results={elsewhere}"]) == 0
    words = [*studied[1][:-2], f"paths.results='{elsewhere}'", studied[1][-1]]
    assert main(["reproduce", "table=2", *words, "evaluate.bins=15"]) == 0
    assert len(RunStore(elsewhere).run_ids()) == 10


def test_damage_is_found_before_it_is_imported(exported, tmp_path, capfd):
    path = next((exported / "runs").iterdir()) / "cases.csv"
    path.write_text(path.read_text().replace("0.", "0.9", 1))
    assert main(["import-results", f"from={exported}", f"paths.results={tmp_path / 'new'}"]) == 2
    assert "checksum differs" in capfd.readouterr().err


def test_an_export_has_a_folder_of_its_own(studied, tmp_path, capfd):
    results, words = studied
    (tmp_path / "link").symlink_to(results)
    before = sorted(results.rglob("*"))
    shutil.copytree(results, tmp_path / "other")
    assert main(["export-results", f"paths.results={results}", f"to={tmp_path / 'other'}"]) == 2
    assert f"is part of the results folder {tmp_path / 'other'}" in capfd.readouterr().err
    for place in (results, tmp_path / "link", results / "runs", results / "runs" / "shared"):
        assert main(["export-results", f"paths.results={results}", f"to={place}"]) == 2
        assert main(["export-results", "tables=2", *words, f"to={place}"]) == 2
        assert f"dmseg: {place} is part of the results folder {results}" in capfd.readouterr().err
    assert sorted(results.rglob("*")) == before


def test_no_export_without_a_finished_run(studied, tmp_path, capfd):
    words = [*studied[1], f"paths.results={tmp_path / 'elsewhere'}"]
    assert main(["export-results", "tables=2", *words, f"to={tmp_path / 'export'}"]) == 2
    assert f"no run is finished in {tmp_path / 'elsewhere'}" in capfd.readouterr().err
    assert not (tmp_path / "export").exists()


def test_a_damaged_plan_is_not_used(exported, capfd):
    path = exported / "plans" / "table2.json"
    path.write_text(path.read_text().replace("Weighted", "Weightef", 1))
    assert main(["table", "table=2", f"from={exported}"]) == 2
    assert "table2.json is damaged (its checksum differs)" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["export-results", "tables=2"], "to=FOLDER"),
        (["export-results", "to=", "paths.results=x"], "to=FOLDER"),
        (["export-results", "to=x"], "tables=2"),
        (["export-results", "to=x", "weights=yes", "paths.results=x"], "weights is 'yes', but must be true or false"),
        (["export-results", "to=x", "to=y", "paths.results=x"], "to is given twice: 'x' and 'y'"),
        (["import-results", "from=/nowhere", "paths.results=x"], "/nowhere is not an export"),
        (["import-results", "from=/nowhere"], "paths.results"),
        (["import-results", "from=/nowhere", "paths.results="], "paths.results=FOLDER is missing"),
        (["table", "table=2", "from="], "from= names no folder"),
        (["table", "table=2", "from=/nowhere"], "/nowhere has no table 2"),
        (["table", "table=2", "from=/nowhere", "seed=1"], "leave 'seed=1' out"),
    ],
)
def test_errors_of_use(words, named, capfd):
    assert main(words) == 2
    assert named in capfd.readouterr().err
