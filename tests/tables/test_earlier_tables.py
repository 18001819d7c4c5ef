"""What a table replaces, what it asks to be computed, and what it says is missing."""

import numpy as np
import pandas as pd
import pytest
from conftest import store_run

from dmseg.cli.main import main
from dmseg.runs.status import summarise
from dmseg.runs.store import RunStore
from dmseg.tables.earlier import keep_earlier
from dmseg.tables.numbers import TableData
from dmseg.tables.planning import TablePlanner
from dmseg.tables.spec import read_spec


def planned(words, metrics=()):
    spec = read_spec("2").with_metrics(metrics) if metrics else read_spec("2")
    return TablePlanner(words, [spec]).plan()[0]


def fill(runs, value=0.8, seconds=1.0):
    rng = np.random.default_rng(0)
    for run in runs:
        rows = [{"case": case, "dice": value, "bdice": value, "ece": rng.random()} for case in run.split.validation]
        store_run(run, rows, seconds=seconds)


@pytest.fixture
def study(small_run, tmp_path):
    """The words and the folder of a whole Table 2."""
    fill(planned(small_run).runs)
    assert main(["table", "table=2", *small_run]) == 0
    return small_run, tmp_path / "results/tables"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("table2*") if path.is_file()}


def test_a_table_with_fewer_numbers_does_not_replace_one_with_more(study, capfd):
    words, folder = study
    whole = contents(folder)
    assert set(whole) == {"table2.md", "table2.csv", "table2.tex", "table2_cases.csv"}
    capfd.readouterr()
    for more, said in (
        (
            ["optim.lr=0.06"],
            "it has 15 cells with a number, the new one has 0; its settings differ: optim.lr was 0.01",
        ),
        (["evaluate.bins=5"], ""),
    ):
        assert main(["table", "table=2", *words, *more]) == 0
        assert said in capfd.readouterr().err
        assert pd.read_csv(folder / "table2.csv")["value"].isna().all()
        kept = contents(folder / "earlier")
        assert {name.replace("-1", ""): content for name, content in kept.items()} == whole
    assert main(["table", "table=2", *words]) == 0
    assert contents(folder) == whole
    assert len(contents(folder / "earlier")) == 4, "a table without a number is not kept"


def test_a_table_of_other_runs_does_not_replace_one_silently(study, capfd):
    words, folder = study
    whole = contents(folder)
    other = [*words, "optim.lr=0.06"]
    fill(planned(other).runs, 0.7)
    assert main(["table", "table=2", *other]) == 0
    assert "is kept in" in (said := capfd.readouterr().err)
    assert "optim.lr was 0.01, is 0.06" in said
    assert set(contents(folder / "earlier").values()) == set(whole.values())


def test_every_table_that_is_replaced_is_kept(study, capfd):
    words, folder = study
    replaced = [contents(folder)]
    for lr in (0.06, 0.07):
        fill(planned([*words, f"optim.lr={lr}"]).runs, 0.7)
        assert main(["table", "table=2", *words, f"optim.lr={lr}"]) == 0
        replaced.append(contents(folder))
    text = (folder / "table2.csv").read_text()
    (folder / "table2.csv").write_text(text.replace(",70.0,", ",71.0,", 1))
    replaced[-1] = contents(folder)
    capfd.readouterr()
    assert main(["table", "table=2", *words, "optim.lr=0.07"]) == 0
    assert "1 cell has a different number under the new settings" in capfd.readouterr().err
    for number, content in enumerate(replaced, 1):
        kept = {name.replace(f"-{number}", ""): item for name, item in contents(folder / "earlier").items()}
        assert {name: kept[name] for name in content} == content
    assert len(contents(folder / "earlier")) == 4 * len(replaced)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\xff\xfe\x00",
        b"a,b\n1,2\n",
        b"value\n1\n",
        b'metric,value\ndice,"1',
        b'metric,value\ndice,"71,0"\nece,2\n',
        b"metric,value\ndice,\nece,x\n",
    ],
    ids=["empty", "binary", "other columns", "values alone", "truncated", "decimal comma", "text"],
)
def test_an_earlier_table_that_cannot_be_read_is_kept(damaged, tmp_path):
    cells = pd.DataFrame({"task": ["kidney"], "metric": ["dice"], "method": ["ours"], "value": [70.0]})
    new = TableData(read_spec("2"), cells, "qubiq", False, "full", "paper")
    before = {"table2.csv": damaged, "table2.md": b"| 71.00 |", "table2.tex": b"71.00", "table2_cases.csv": b"case\n"}
    for number in (1, 2):
        for name, content in before.items():
            (tmp_path / name).write_bytes(content)
        place = tmp_path / "earlier" / f"table2-{number}"
        said = keep_earlier(new, tmp_path, None)
        assert said.startswith(f"the earlier table 2 is kept in {place}.*: its CSV file cannot be read (")
        assert contents(tmp_path) == {}
        kept = {name: (place.parent / name.replace("2", f"2-{number}", 1)).read_bytes() for name in before}
        assert kept == before
    cells.to_csv(tmp_path / "table2.csv", index=False)
    assert keep_earlier(new, tmp_path, None) == "", "the table that replaces it can be read"
    assert len(contents(tmp_path / "earlier")) == 2 * len(before)


def test_a_table_that_only_grows_is_replaced(small_run, tmp_path, capfd):
    runs = planned(small_run).runs
    fill(runs[:10])
    assert main(["table", "table=2", *small_run]) == 0
    fill(runs[10:])
    assert main(["table", "table=2", *small_run]) == 0
    assert main(["table", "table=2", *small_run]) == 0
    assert "kept in" not in capfd.readouterr().err
    assert not (tmp_path / "results/tables/earlier").exists()


def test_a_table_of_ged_asks_for_its_evaluation(study, capfd):
    words, _ = study
    plain, asked = planned(words).runs, planned(words, ["ged"]).runs
    stated = planned([*words, "evaluate.ged=true"]).runs
    assert [run.run_id for run in asked] == [run.run_id for run in plain]
    assert [run.evaluation_id for run in asked] == [run.evaluation_id for run in stated]
    assert not {run.evaluation_id for run in asked} & {run.evaluation_id for run in plain}
    capfd.readouterr()
    assert main(["table", "table=2", *words, "metrics=[ged]"]) == 0
    assert "25 of 25 runs are trained, but not scored with these settings" in capfd.readouterr().out


def test_runs_that_are_only_to_be_scored_are_not_missing(study, capfd):
    words, _ = study
    runs = planned([*words, "evaluate.bins=5"]).runs
    found = summarise(runs)
    assert found.counts == {"trained": 25}
    assert found.hours == pytest.approx(25 / 3600), "store_run states no time of training"
    capfd.readouterr()
    assert main(["plan", "table=2", *words, "evaluate.bins=5"]) == 0
    head, row = capfd.readouterr().out.splitlines()[:2]
    assert " ".join(head.split()) == "table experiments runs done to score running failed missing hours left"
    assert row.split() == ["2", "5", "25", "0", "25", "0", "0", "0", "0.01"]
    (RunStore(runs[0].results).folder(runs[0].run_id) / "cases.csv").write_text("x")
    assert summarise(runs).counts == {"trained": 24, "missing": 1}


def test_a_table_of_an_export_can_be_written_elsewhere(study, tmp_path, capfd):
    words, _ = study
    assert main(["export-results", "table=2", *words, f"to={tmp_path / 'export'}"]) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "export").rglob("*") if path.is_file()}
    source = [f"from={tmp_path / 'export'}", f"paths.results={tmp_path / 'own'}"]
    for command, place in (("table", "tables/table2.csv"), ("report", "reports/table2.html")):
        assert main([command, "table=2", *source]) == 0
        assert (tmp_path / "own" / place).is_file()
    assert {path: path.read_bytes() for path in (tmp_path / "export").rglob("*") if path.is_file()} == before
    assert main(["table", "table=2", *source, "optim.lr=0.1"]) == 2
    assert "leave 'optim.lr=0.1' out" in capfd.readouterr().err
