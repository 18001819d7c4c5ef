"""Cases that are not independent: tests over groups of cases, and folds that the tasks of a cohort do not share."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dmseg.runs.sources import prepare_tasks
from dmseg.tables.columns import SCORES
from dmseg.tables.inference import Inference, TaskScores, comparison_numbers, interval
from dmseg.tables.numbers import TableData, comparison_cells
from dmseg.tables.planning import TablePlanner
from dmseg.tables.render import to_markdown
from dmseg.tables.spec import read_spec

FULL = read_spec("2")
SPEC = dataclasses.replace(
    FULL,
    columns=tuple(item for item in FULL.columns if item.key in ("majority", "uniform")),
    blocks=tuple(
        dataclasses.replace(block, cells={key: block.cells[key] for key in ("majority", "uniform")})
        for block in FULL.blocks
    ),
)
N_GROUPS = 5


@pytest.fixture
def grouped(shared_qubiq, tmp_path):
    """Two columns of one task, whose cases are those of five patients."""
    (tmp_path / "patients.csv").write_text(
        "case,group\n" + "".join(f"case{number:02d},patient{number % N_GROUPS}\n" for number in range(1, 13))
    )
    words = ["data=qubiq", "model=unet_tiny", *shared_qubiq, f"paths.results='{tmp_path}'"]
    words.append(f"folds.groups='{tmp_path / 'patients.csv'}'")

    def kidney(settings, notify):
        return [data for data in prepare_tasks(settings, notify) if data.task.name == "kidney-1"]

    return TablePlanner(words, [SPEC], open_tasks=kidney).plan()[0]


def made_up(plan):
    """Scores in which the second column is better for every case."""
    rng = np.random.default_rng(0)
    (row,) = plan.rows
    return pd.DataFrame(
        {**dict(zip(("data", "model", "task"), row.key, strict=True)), "method": method, "cohort": row.task.cohort,
         "seed": run.settings.seed, "fold": run.settings.fold, "run_id": run.run_id, "case": case,
         "dice": 0.5 + 0.1 * rng.random() + 0.2 * (method == "uniform"), "bdice": 0.5, "ece": 0.1}
        for method, runs in row.runs.items() for run in runs for case in run.split.validation
    )  # fmt: skip


def test_the_test_is_over_groups_of_cases(grouped):
    cases = made_up(grouped)
    cells = comparison_cells(grouped, cases)
    cell = cells.set_index(["method", "metric"]).loc[("uniform", "dice")]
    wide = cases.pivot(index="case", columns="method", values="dice")
    difference = wide["uniform"] - wide["majority"]
    means = difference.groupby([int(name[-2:]) % N_GROUPS for name in difference.index]).mean()
    assert len(means) == N_GROUPS
    assert cell["n_pairs"] == N_GROUPS
    assert cell["n_value_pairs"] == cell["n"] == len(difference) > N_GROUPS
    assert cell["p_value"] == cell["least_p_value"] == pytest.approx(stats.wilcoxon(means).pvalue)
    assert cell["p_value"] == 0.0625, "2 / 2**5: five patients cannot reach 0.05"
    assert not cell["significant"]
    assert cell["mean_difference"] == pytest.approx(100 * means.mean())
    assert cell["mean_difference_tasks"] == pytest.approx(100 * difference.mean())
    text = to_markdown(TableData(grouped.spec, cells, "qubiq", False, "paper", "paper"))
    assert "Tests are over the groups of folds.groups (n_pairs in the CSV), not over cases" in text
    assert "p is at least 0.062" in text


def test_without_the_file_tests_are_over_cases_and_say_so(grouped, tmp_path, caplog):
    cases = made_up(grouped)
    (tmp_path / "patients.csv").unlink()
    cells = comparison_cells(grouped, cases)
    assert cells.set_index(["method", "metric"]).loc[("uniform", "dice"), "n_pairs"] == cases["case"].nunique()
    assert "tests are over cases, as their groups are unknown: folds.groups=" in caplog.text
    assert "Tests are over the groups" not in to_markdown(TableData(grouped.spec, cells, "q", False, "paper", "paper"))


def task_scores(cases, folds, groups=None):
    index = pd.MultiIndex.from_product([["cohort"], list(cases)])
    values = pd.DataFrame({0: np.random.default_rng(len(cases)).normal(1, 1, len(cases))}, index)
    return TaskScores(values, pd.Series(folds, index), groups or {})


def test_groups_are_pooled_over_tasks():
    one, two = (task_scores("abcdef", [0, 0, 1, 1, 2, 2], dict(zip("abcdef", "xxyyzz", strict=True))) for _ in range(2))
    two = dataclasses.replace(two, values=two.values + 1)
    found = comparison_numbers([one, two], SCORES["dice"], Inference())
    means = (one.values[0].to_numpy() + 0.5).reshape(3, 2).mean(axis=1)
    assert found["n_pairs"] == 3
    assert found["p_value"] == pytest.approx(stats.wilcoxon(means).pvalue)


def test_tasks_of_a_cohort_without_common_folds_have_no_interval():
    """Case d is in fold 1 of one task and in fold 2 of the other: their folds cannot be added up."""
    one = task_scores("abcdef", [0, 0, 1, 1, 2, 2])
    same, fewer = task_scores("abcdef", [0, 0, 1, 1, 2, 2]), task_scores("abdef", [0, 0, 1, 2, 2])
    other = task_scores("abcdef", [0, 0, 1, 2, 2, 2])
    for second in (same, fewer):
        assert np.isfinite(interval([one, second]).low)
        assert "diff_ci_low" in comparison_numbers([one, second], SCORES["dice"], Inference())
    assert np.isnan(interval([one, other]).low)
    assert np.isnan(comparison_numbers([one, other], SCORES["dice"], Inference())["diff_ci_low"])
