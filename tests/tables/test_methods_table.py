"""A table beyond the paper: methods by their scores and by the distance of their samples to the raters."""

import dataclasses
import re

import pandas as pd
import pytest

from dmseg.cli.tables import split_tables
from dmseg.errors import UserError
from dmseg.files.atomic import write_whole
from dmseg.runs.execute import execute
from dmseg.runs.store import RunStore
from dmseg.tables.collected import collect_cases
from dmseg.tables.exported import plan_file, plan_from_text, plan_to_text
from dmseg.tables.numbers import TableData, comparison_cells
from dmseg.tables.planning import TablePlanner
from dmseg.tables.render import write_table
from dmseg.tables.spec import read_spec, table_names, table_numbers

SPEC = read_spec("methods")
KEPT = ("mc_dropout", "ours")


@pytest.fixture
def plan(small_run):
    """Two of its columns, two folds, on the small LIDC tree."""
    blocks = [
        dataclasses.replace(block, cells={key: block.cells[key] for key in KEPT})
        for block in SPEC.blocks
        if block.model == "unet_resnet50"
    ]
    columns = tuple(column for column in SPEC.columns if column.key in KEPT)
    spec = dataclasses.replace(SPEC, blocks=tuple(blocks), columns=columns)
    return TablePlanner([*small_run, "folds.count=2"], [spec]).plan()[0]


def test_the_papers_tables_are_those_with_numbers():
    assert table_names()[-1] == "methods"
    assert table_numbers() == [int(name) for name in table_names()[:-1]]
    assert [spec.name for spec in split_tables(["tables=all"])[0]] == list(map(str, table_numbers()))
    assert [spec.name for spec in split_tables(["tables=2,methods"])[0]] == ["2", "methods"]
    with pytest.raises(UserError, match=r"there is no table 'nope'; choose from 1, 2, .*8, methods"):
        read_spec("nope")


def test_names_in_files_and_headings():
    assert (read_spec("2").stem, read_spec("2").paper) == ("table2", 2)
    assert read_spec("2").heading == f"Table 2. {read_spec('2').title}"
    assert (SPEC.stem, SPEC.heading, SPEC.paper) == ("table-methods", SPEC.title, 3)


def test_every_column_asks_for_the_distance_and_has_the_runs_of_table_2(plan, small_run):
    assert {run.settings.evaluate.ged for run in plan.runs} == {True}
    assert all("evaluate.ged=true" in overrides for block in SPEC.blocks for overrides in block.cells.values())
    weighted = TablePlanner([*small_run, "folds.count=2"], [read_spec("2")]).plan()[0].rows[0].runs["weighted"]
    ours = plan.rows[0].runs["ours"]
    assert [run.run_id for run in ours] == [run.run_id for run in weighted]
    assert {run.evaluation_id for run in ours}.isdisjoint(run.evaluation_id for run in weighted)


def test_from_runs_to_files_and_through_an_export(plan, tmp_path):
    for run in plan.runs:
        execute(run)
    cases = collect_cases(plan)
    cells = comparison_cells(plan, cases).set_index(["method", "metric"])
    for method in KEPT:
        own = pd.concat(
            RunStore(run.results).read_cases(run.run_id, run.evaluation_id) for run in plan.rows[0].runs[method]
        )
        assert cells.loc[(method, "ged"), "value"] == pytest.approx(own["ged"].mean())
    table = TableData(plan.spec, cells.reset_index(), "lidc", False, "paper", "paper")
    files = write_table(table, tmp_path / "tables")
    assert [path.name for path in files] == ["table-methods.md", "table-methods.tex", "table-methods.csv"]
    text = files[0].read_text()
    assert text.startswith(f"# {SPEC.title}\n")
    assert re.search(r"\| GED +\| +\**\d\.\d{3}\b", text), "a number in [0, 2], no percentage"
    assert "a number between 0 and 2, not a percentage; lower is better" in text
    frame = pd.read_csv(files[2])
    assert dict(zip(frame["metric"], frame["unit"], strict=True)) == {
        "dice": "percent", "bdice": "percent", "ece": "percent", "ged": "0 to 2",
    }  # fmt: skip
    assert frame.loc[frame["metric"] == "ged", "value"].between(0, 2).all()
    path = plan_file(tmp_path / "export", plan.spec)
    assert path.name == "table-methods.json"
    write_whole(path, plan_to_text(plan))
    again = plan_from_text(tmp_path / "export", SPEC)
    assert again.spec == plan.spec
    assert [run.evaluation_id for run in again.runs] == [run.evaluation_id for run in plan.runs]
    with pytest.raises(UserError, match="has no table 2; it has: methods"):
        plan_from_text(tmp_path / "export", read_spec("2"))


def test_a_smaller_distance_is_better(plan):
    rows = [
        {"data": "lidc", "model": "unet_tiny", "task": "nodule", "method": method, "cohort": plan.rows[0].task.cohort,
         "run_id": run.run_id, "experiment_id": run.experiment_id, "case": case,
         "dice": 0.5, "bdice": 0.5, "ece": 0.1, "ged": 0.4 + 0.001 * index - (0.1 if method == "ours" else 0.0)}
        for method in KEPT
        for run in plan.rows[0].runs[method]
        for index, case in enumerate(run.split.validation)
    ]  # fmt: skip
    cells = comparison_cells(plan, pd.DataFrame(rows)).set_index(["method", "metric"])
    assert cells.loc[("mc_dropout", "ged"), "mark"] == "worse"
    assert cells.loc[("ours", "ged"), "mark"] == "better"
    assert cells.loc[("ours", "dice"), "mark"] == ""
