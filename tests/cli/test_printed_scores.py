"""The scores that ``cv`` and ``runs show`` print: means, and how many cases they are over."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from conftest import store_run

from dmseg.cli.main import main
from dmseg.config.compose import compose_settings
from dmseg.data.labels import select_cases
from dmseg.runs.plan import plan_folds, plan_run
from dmseg.runs.sources import prepare_task


@pytest.mark.parametrize(("words", "seeds"), [([], [0]), (["seeds=2"], [0, 1])])
def test_a_mean_over_fewer_cases_says_over_how_many(words, seeds, small_run, capfd):
    """The first case of each fold has no Dice, under seed 1 none has a BDice in the first fold."""
    words = [*words, *small_run, "folds.count=2"]
    for seed in seeds:
        settings = compose_settings([*words[-len(small_run) - 1 :], f"seed={seed}"])
        data = prepare_task(settings)
        for run in plan_folds(settings, data):
            rows = [
                {"case": case, "dice": 0.5, "bdice": 0.25, "ece": 0.125, "n_slices": 1, "n_raters": 4}
                for case in run.split.validation
            ]
            rows[0]["dice"] = float("nan")
            rows[1]["dice"] = 0.25
            for row in rows if seed == 1 and run.settings.fold == 0 else []:
                row["bdice"] = float("nan")
            store_run(run, rows)
    assert main(["cv", *words]) == 0
    means = [line for line in capfd.readouterr().out.splitlines() if re.search("mean over", line)]
    dice = f"{(2 * 25 + 8 * 50) / 10:.2f} % (n 10)"  # 12 cases, 2 of them without, 2 of 25 %
    expected = [f"mean over 12 cases: dice {dice}  bdice 25.00 %  ece 12.50 %"]
    if len(seeds) > 1:
        expected = [
            f"seed 0, {expected[0]}",
            f"seed 1, mean over 12 cases: dice {dice}  bdice 25.00 % (n 6)  ece 12.50 %",
        ]
    assert means == expected


def test_a_score_that_no_case_has_is_null_in_json(small_run, capfd):
    settings = compose_settings(small_run)
    run = plan_run(settings, prepare_task(settings))
    row = {"dice": float("nan"), "bdice": float("nan"), "ece": 0.125, "n_slices": 1, "n_raters": 4}
    store_run(run, [{"case": case, **row} for case in run.split.validation])
    results = next(word for word in small_run if word.startswith("paths.results"))
    assert main(["runs", "show", run.run_id, results]) == 0
    refused = {"parse_constant": lambda text: pytest.fail(f"{text} is not JSON")}
    scores = json.loads(capfd.readouterr().out, **refused)["scores"]
    assert scores == {"dice": None, "bdice": None, "ece": 0.125}


def test_metrics_from_counts_are_printed_and_written(small_run, tmp_path, capfd):
    words = [*small_run, "folds.count=2", "evaluate.metrics=[brier,ece_raters]", "evaluate.save_predictions=true"]
    assert main(["cv", *words]) == 0
    printed = capfd.readouterr().out
    settings = compose_settings(words)
    data = prepare_task(settings)
    scores = []
    for run in plan_folds(settings, data):
        for case in select_cases(data, run.split.validation):
            p = np.load(run.results / "runs" / run.run_id / "predictions" / f"{case.case}.npy").astype(np.float64)
            votes = data.annotations(case).reshape(-1, *p.shape)
            scores.append(np.mean((p - (votes.sum(axis=0) > len(votes) / 2)) ** 2))
    mean = np.mean(scores)
    assert re.search(rf"mean over 12 cases: .*  brier {mean:.4f}  ece_raters \d+\.\d\d %", printed)
    assert main(["cv", "-m", *words, "labels=majority,uniform", "name=metrics"]) == 0
    assert re.search(r"^row .* ece %  brier +ece_raters %  status", capfd.readouterr().out, re.MULTILINE)
    (table,) = tmp_path.rglob("metrics.csv")
    rows = pd.read_csv(table).set_index("labels")
    assert rows.loc["majority", "brier"] == pytest.approx(mean, rel=1e-6)
    assert (rows["brier_n"] == 12).all()
    metrics = "evaluate.metrics=[brier],[nll]"
    assert (
        main(["cv", "-m", *(word for word in words if not word.startswith("evaluate.metrics")), metrics, "name=each"])
        == 0
    )
    (table,) = tmp_path.rglob("each.csv")
    first, second = pd.read_csv(table).to_dict("records")
    assert (first["brier"], np.isnan(first["nll"])) == (pytest.approx(mean, rel=1e-6), True)
    assert np.isnan(second["brier"])
    assert second["nll"] > 0
