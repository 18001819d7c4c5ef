"""The check of the demo's tables: what fails it, and what it says."""

import runpy
from pathlib import Path

import pandas as pd
import pytest

SCRIPT = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "check_demo.py"))
TASKS = ("kidney-1", "prostate-1", "brain-tumor-2", "all")


def table_2(**values: float) -> pd.DataFrame:
    """Cells of two columns; `values` replaces the majority Dice of tasks."""
    marks = {("kidney-1", "bdice"): "better", ("prostate-1", "bdice"): "worse", ("prostate-1", "ece"): "better"}
    rows = []
    for task in TASKS:
        for method in ("majority", "uniform"):
            for metric in ("dice", "bdice", "ece"):
                value = values.get(task.replace("-", "_"), 80.0) if method == "majority" else 80.0
                mark = marks.get((task, metric), "") if method == "uniform" else ""
                rows.append((2, task, method, metric, value, mark))
    return pd.DataFrame(rows, columns=["table", "task", "method", "metric", "value", "diff_mark"])


def write(tmp_path: Path, cells: pd.DataFrame) -> list[str]:
    path = tmp_path / "table2.csv"
    cells.to_csv(path, index=False)
    return [str(path)]


def test_a_whole_table_passes_and_says_where_soft_labels_pay(tmp_path, capsys):
    assert SCRIPT["main"](write(tmp_path, table_2())) == 0
    said = capsys.readouterr().out
    assert "demo passed: every cell has a number; Table 2" in said
    assert "BDice of 3 tasks better on 1 (kidney-1), worse on 1 (prostate-1); ECE of 3 tasks better on 1" in said
    assert "worse on 0." in said


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kidney_1": 59.0}, "kidney-1: majority Dice 59.00 %, not above 60 %"),
        ({"prostate_1": float("nan")}, "3 cells have no number"),
    ],
)
def test_a_table_that_is_not_as_it_should_be_fails(tmp_path, capsys, values, message):
    assert SCRIPT["main"](write(tmp_path, table_2(**values))) == 1
    assert message in capsys.readouterr().err


def test_tasks_that_are_hard_in_the_paper_may_be_below_the_floor(tmp_path):
    assert SCRIPT["main"](write(tmp_path, table_2(brain_tumor_2=30.0))) == 0
