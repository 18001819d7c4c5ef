"""Tables 1 and 2 from a run store, against plain computations."""

import itertools

import numpy as np
import pandas as pd
import pytest
from conftest import store_run
from scipy import stats

from dmseg.config.compose import compose_settings
from dmseg.data.prepared import PreparedTask
from dmseg.errors import UserError
from dmseg.files.names import folder_of_all
from dmseg.runs.sources import prepare_task
from dmseg.runs.store import RunStore
from dmseg.tables.collected import collect_cases
from dmseg.tables.numbers import TableData, comparison_cells
from dmseg.tables.paper import paper_table
from dmseg.tables.rater_agreement import agreement_cells
from dmseg.tables.render import to_csv, to_latex, to_markdown, write_table
from dmseg.tables.spec import read_spec

SPEC = read_spec("2")
METHODS = [column.key for column in SPEC.columns]


def runs_of(plan, task, method):
    return next(row for row in plan.rows if row.task.name == task).runs[method]


def fill(plan, scores):
    """Stores made-up scores as if the runs had been trained."""
    store = RunStore(plan_results(plan))
    for row in plan.rows:
        for method, run in ((method, run) for method, runs in row.runs.items() for run in runs):
            rows = [{"case": case, **scores(row.task.name, method, case)} for case in run.split.validation]
            store_run(run, rows)
    return store


def plan_results(plan):
    from pathlib import Path

    return Path(plan.settings.paths.results)


def filled_cases(plan):
    fill(plan, made_up)
    return collect_cases(plan)


def made_up(task, method, case):
    rng = np.random.default_rng([ord(letter) for letter in task + method + case])
    better = 0.05 if method == "weighted" else 0.0
    dice = 0.7 + better + 0.02 * rng.random()
    missing = task == "kidney-1" and case == "case03"
    return {"dice": np.nan if missing else dice, "bdice": dice - 0.1, "ece": 0.02 - better / 10 + 0.001 * rng.random()}


def test_the_plan_has_all_runs_once(plan):
    assert sum(len(row.runs) for row in plan.rows) == 15
    assert len(plan.runs) == 75
    assert len({run.experiment_id for run in plan.runs}) == 15
    assert {run.settings.fold for run in runs_of(plan, "prostate-1", "random")} == set(range(5))


def test_cells_are_means_over_all_cases(plan):
    cells = comparison_cells(plan, filled_cases(plan)).set_index(["task", "method", "metric"])
    ids = [f"case{number:02d}" for number in range(1, 13)]
    for task, method, metric in itertools.product(["prostate-1", "kidney-1"], METHODS, SPEC.metrics):
        values = np.array([made_up(task, method, case)[metric] for case in ids])
        assert cells.loc[(task, method, metric), "value"] == pytest.approx(100 * np.nanmean(values))
        assert cells.loc[(task, method, metric), "n"] == np.isfinite(values).sum()


def test_the_all_row_is_the_plain_mean_of_the_tasks_and_tests_patients(plan):
    cells = comparison_cells(plan, filled_cases(plan))
    own = cells[(cells["method"] == "weighted") & (cells["metric"] == "dice")].set_index("task")
    assert own.loc["all", "value"] == pytest.approx(own.drop("all")["value"].mean())
    # Two prostate tasks share twelve patients, the kidney has twelve others, one of them without a Dice.
    assert own.loc["all", "n_pairs"] == 23
    ids = [f"case{number:02d}" for number in range(1, 13)]
    differences = [
        np.mean([made_up(task, "weighted", case)["dice"] - made_up(task, "majority", case)["dice"] for task in tasks])
        for tasks in (("prostate-1", "prostate-2"), ("kidney-1",))
        for case in ids
    ]
    kept = [value for value in differences if not np.isnan(value)]
    assert own.loc["all", "p_value"] == pytest.approx(stats.wilcoxon(kept).pvalue)


def test_marks_are_for_better_and_significant_only(plan):
    cells = comparison_cells(plan, filled_cases(plan)).set_index(["task", "method", "metric"])
    assert cells.loc[("prostate-1", "weighted", "dice"), "significant"]
    assert cells.loc[("prostate-1", "weighted", "ece"), "significant"], "lower is better"
    assert not cells.loc[("prostate-1", "majority", "dice"), "significant"]
    assert cells.loc[("prostate-1", "weighted", "dice"), "effect_size"] == 1.0
    assert (cells["p_holm"].dropna() >= cells["p_value"].dropna()).all()


def test_missing_runs_leave_empty_cells(plan):
    store = fill(plan, made_up)
    gone = runs_of(plan, "kidney-1", "uniform")[2]
    (store.folder(gone.run_id) / "DONE").unlink()
    cells = comparison_cells(plan, collect_cases(plan)).set_index(["task", "method", "metric"])
    assert np.isnan(cells.loc[("kidney-1", "uniform", "dice"), "value"])
    assert np.isnan(cells.loc[("all", "uniform", "dice"), "value"])
    assert not np.isnan(cells.loc[("all", "random", "dice"), "value"])


def test_no_runs_at_all_still_make_a_table(plan):
    cells = comparison_cells(plan, collect_cases(plan))
    assert cells["value"].isna().all()
    assert "cells have no number yet" in to_markdown(TableData(SPEC, cells, "qubiq", False, "paper", "paper"))


def test_the_papers_numbers_stand_beside_ours(plan):
    cells = comparison_cells(plan, filled_cases(plan)).set_index(["task", "method", "metric"])
    assert cells.loc[("prostate-1", "weighted", "bdice"), "paper"] == 95.37
    paper = paper_table(2)
    assert len(paper) == 120
    with pytest.raises(UserError, match="no table 9"):
        paper_table(9)


def test_rendered_tables_say_what_they_are(plan, tmp_path):
    cells = comparison_cells(plan, filled_cases(plan))
    real, phantom = (TableData(SPEC, cells, name, name == "phantom", "demo", "paper") for name in ("qubiq", "phantom"))
    for render in (to_markdown, to_latex):
        assert "PHANTOM" in render(phantom)
        assert "phantom" not in render(real).lower()
    lines = to_markdown(real).splitlines()
    header = next(line for line in lines if line.startswith("| Dataset"))
    assert [item.strip() for item in header.strip("|").split("|")] == [
        "Dataset",
        "Metric",
        "Majority",
        "Random",
        "Uniform",
        "Weighted",
        "LS",
    ]
    row = next(line for line in lines if line.startswith("| Prostate T1"))
    value = cells.set_index(["task", "method", "metric"]).loc[("prostate-1", "weighted", "dice"), "value"]
    assert rf"**{value:.2f}**\* (95.99)" in row, "better by the test and by the interval"
    assert rf"\textcolor{{red}}{{{value:.2f}}}$^{{*}}$" in to_latex(real)
    files = write_table(real, tmp_path / "tables")
    assert [path.name for path in files] == ["table2.md", "table2.tex", "table2.csv"]
    frame = pd.read_csv(tmp_path / "tables" / "table2.csv")
    assert np.allclose(frame["value"], cells["value"])
    assert "phantom" in to_csv(phantom)


def test_table_1_by_hand(tmp_path, qubiq_tree):
    words = [f"data.root='{qubiq_tree}'", "data.size=40", f"paths.prepared='{tmp_path}'", "task=prostate-1"]
    store = prepare_task(compose_settings(words))
    cells = agreement_cells([PreparedTask(store.folder)], disjoint=0.0).set_index("metric")
    scores = []
    for case in store.cases:
        masks = store.annotations(case).astype(bool)
        vote = masks.sum(axis=0) >= len(masks) // 2 + 1
        scores.append(np.mean([2 * (mask & vote).sum() / (mask.sum() + vote.sum()) for mask in masks]))
    assert cells.loc["dice", "value"] == pytest.approx(100 * np.mean(scores))
    assert cells.loc["raters", "value"] == 6
    assert cells.loc["dice", "paper"] == 96.49


def test_an_unknown_table():
    with pytest.raises(UserError, match="there is no table '9'; choose from 1, 2"):
        read_spec("9")


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["results/a", "results/a"], "results/a"),
        (["results/a", "results/b"], "results"),
        (["a", "b"], "."),
        (["../a", "b"], ".."),
        (["{here}/a", "b"], "{here}"),
        (["{here}/a", "{here}/b/c"], "{here}"),
        (["/a", "/b"], "/a"),
    ],
)
def test_the_folder_of_a_table_contains_all_results_folders(folders, expected, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    found = folder_of_all([folder.format(here=tmp_path / "work") for folder in folders])
    assert str(found) == expected.format(here=tmp_path / "work")
