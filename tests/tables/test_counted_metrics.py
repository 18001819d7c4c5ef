"""Metrics that tables compute from the counts of runs: cells, the rule for ties, notes, and runs without counts."""

import numpy as np
import pytest
from conftest import store_run, write_lidc
from one_case import count_one

from dmseg.cli.main import main
from dmseg.errors import UserError
from dmseg.metrics.counting import count_stored
from dmseg.metrics.named import COUNT_METRICS
from dmseg.metrics.scores import case_scores
from dmseg.tables.collected import collect_cases
from dmseg.tables.columns import SCORES
from dmseg.tables.notes import plan_notes, table_notes
from dmseg.tables.numbers import TableData, comparison_cells
from dmseg.tables.planning import TablePlanner
from dmseg.tables.spec import read_spec

METRICS = ("dice", "brier", "volume_bias")


@pytest.fixture
def planned(tmp_path):
    tree = write_lidc(tmp_path / "lidc", 8, np.random.default_rng(1))
    words = [
        "data=lidc", f"data.root='{tree}'", "data.size=32", "model=unet_tiny", "folds.count=2",
        f"paths.prepared='{tmp_path / 'prepared'}'", f"paths.results='{tmp_path / 'results'}'",
    ]  # fmt: skip
    return words, TablePlanner(words, [read_spec("2").with_metrics(METRICS)]).plan()[0]


def fill(plan, n_raters=4, without=()):
    """Stores made-up predictions of all runs; returns the counts by column and case."""
    found = {}
    for (method, runs), seed in zip(plan.rows[0].runs.items(), range(99), strict=False):
        rng = np.random.default_rng(seed)
        for run in runs:
            rows, counts = [], {}
            for case in run.split.validation:
                raters = rng.random((n_raters, 1, 9, 9)) < 0.4
                p, reference = rng.random((1, 9, 9), dtype=np.float32), raters.mean(axis=0).astype(np.float32)
                counts[case] = count_stored(p, raters, reference)
                scores = case_scores(count_one(p, 2 * raters.sum(axis=0) > n_raters, reference))
                rows.append({"case": case, **scores, "n_slices": 1, "n_raters": n_raters})
            found.setdefault(method, {}).update(counts)
            store_run(run, rows, counts=None if run.run_id in without else counts)
    return found


def cells_of(plan):
    return comparison_cells(plan, collect_cases(plan)).set_index(["method", "metric"])


def test_cells_are_means_over_the_cases(planned):
    _, plan = planned
    found = fill(plan)
    cells = cells_of(plan)
    for method, counts in found.items():
        for metric in ("brier", "volume_bias"):
            expected = np.mean([COUNT_METRICS[metric](item) for item in counts.values()]) * SCORES[metric].factor
            assert cells.loc[(method, metric), "value"] == pytest.approx(expected)
            assert cells.loc[(method, metric), "n"] == 8
        other = 100 * np.mean([COUNT_METRICS["dice_other_ties"](item) for item in counts.values()])
        assert cells.loc[(method, "dice"), "dice_other_ties"] == pytest.approx(other)
        assert cells.loc[(method, "dice"), "value"] != pytest.approx(other)
    assert cells.xs("brier", level="metric")["dice_other_ties"].isna().all()


def test_columns_are_compared_by_the_absolute_value_of_their_mean_bias(planned):
    _, plan = planned
    found = fill(plan)
    cells = cells_of(plan)
    reference, other = plan.spec.reference, next(name for name in found if name != plan.spec.reference)
    biases = {name: [COUNT_METRICS["volume_bias"](item) for item in found[name].values()] for name in found}
    difference = 100 * (abs(np.mean(biases[other])) - abs(np.mean(biases[reference])))
    expected = -difference if plan.spec.reference_is_ours else difference
    assert cells.loc[(other, "volume_bias"), "mean_difference"] == pytest.approx(expected)


def notes_of(plan, ties="background"):
    data = TableData(plan.spec, comparison_cells(plan, collect_cases(plan)), "lidc", False, "paper", "paper", ties=ties)
    return " ".join(table_notes(data, plan_notes(plan), "bold"))


def test_notes_give_dice_under_both_rules_where_raters_are_even(planned):
    _, plan = planned
    fill(plan)
    cells, text = cells_of(plan), notes_of(plan)
    first = plan.spec.shown[0]
    assert "a tie counts as background. With ties as foreground" in text
    assert f"{first.title} {cells.loc[(first.key, 'dice'), 'dice_other_ties']:.2f}" in text
    assert "no counts are stored" not in text
    assert "a tie counts as foreground. With ties as background" in notes_of(plan, "foreground")
    assert "The columns differ in the class of tied pixels (evaluate.ties). With the other" in notes_of(plan, "")


def test_an_odd_number_of_raters_has_no_ties(planned):
    _, plan = planned
    fill(plan, n_raters=3)
    assert cells_of(plan)["dice_other_ties"].isna().all()
    assert "With ties" not in notes_of(plan)


def test_a_cell_with_one_run_without_counts_is_empty_and_says_why(planned):
    _, plan = planned
    method = plan.spec.reference
    gone = plan.rows[0].runs[method][0].run_id
    fill(plan, without=[gone])
    cells = cells_of(plan)
    assert np.isnan(cells.loc[(method, "brier"), "value"])
    assert not np.isnan(cells.loc[(method, "dice"), "value"])
    assert cells["value"].isna().sum() == 2
    assert "Brier, Volume bias: the cells of 1 run are empty" in notes_of(plan)
    assert "imported without weights" in notes_of(plan)  # made-up runs have none


def test_metrics_of_the_command_line(planned, capsys):
    words, plan = planned
    fill(plan)
    assert main(["table", "table=2", "metrics=[nll,agreement_kappa]", *words]) == 0
    shown = capsys.readouterr().out
    assert "NLL" in shown
    assert "Fleiss' kappa" in shown
    assert "BDice is" not in shown
    for wrong in ("metrics=[nothing]", "metrics=[]", "metrics=[dice,dice]", "metrics=[raters]"):
        assert main(["table", "table=2", wrong, *words]) == 2
        assert "metrics" in capsys.readouterr().err


def test_every_metric_can_be_shown():
    assert set(COUNT_METRICS) <= set(SCORES)
    spec = read_spec("2").with_metrics(list(COUNT_METRICS))
    assert spec.metrics == tuple(COUNT_METRICS)
    with pytest.raises(UserError, match="not a metric"):
        spec.with_metrics(["../x"])
