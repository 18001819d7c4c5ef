"""Seeds, intervals and tests of a table, against plain computations from the scores of its cases."""

import dataclasses
import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dmseg.runs.sources import prepare_tasks
from dmseg.stats.paired import least_p_value
from dmseg.tables.columns import SCORES
from dmseg.tables.inference import Inference, TaskScores, comparison_numbers, differences
from dmseg.tables.numbers import TableData, comparison_cells
from dmseg.tables.planning import TablePlanner
from dmseg.tables.render import to_markdown
from dmseg.tables.spec import read_spec

TASKS = ("prostate-1", "prostate-2", "kidney-1")
FULL = read_spec("2")
SPEC = dataclasses.replace(FULL, columns=tuple(item for item in FULL.columns if item.key in ("majority", "uniform")))
SPEC = dataclasses.replace(
    SPEC,
    blocks=tuple(
        dataclasses.replace(block, cells={key: block.cells[key] for key in ("majority", "uniform")})
        for block in SPEC.blocks
    ),
)


def planned(shared_qubiq, tmp_path, *overrides, seeds=(0, 1, 2)):
    def chosen(settings, notify):
        return [data for data in prepare_tasks(settings, notify) if data.task.name in TASKS]

    words = ["data=qubiq", "model=unet_tiny", *shared_qubiq, f"paths.results='{tmp_path}'", *overrides]
    return TablePlanner(words, [SPEC], open_tasks=chosen, seeds=seeds).plan()[0]


@pytest.fixture(scope="module")
def three(shared_qubiq, tmp_path_factory):
    """Two columns for three tasks, of which two share twelve patients, under three seeds."""
    return planned(shared_qubiq, tmp_path_factory.mktemp("three"))


def made_up(plan, noise=0.03, shift=0.0, random=0):
    """Per-case scores with effects of case, network and chance, and with some that are missing."""
    rng = np.random.default_rng(random)
    rows = []
    for row in plan.rows:
        for method, runs in row.runs.items():
            for run in runs:
                network = rng.normal(0, noise) + shift * (method == "uniform")
                for case in run.split.validation:
                    dice = 0.8 + network + 0.01 * int(case[-2:]) + rng.normal(0, 0.02)
                    gone = (method, run.settings.seed, case, row.task.name) in GONE
                    rows.append(
                        {**dict(zip(("data", "model", "task"), row.key, strict=True)), "method": method,
                         "cohort": row.task.cohort, "seed": run.settings.seed, "fold": run.settings.fold,
                         "run_id": run.run_id, "case": case, "dice": math.nan if gone else dice,
                         "bdice": dice - 0.1 - 0.02 * rng.random(), "ece": 0.2 - dice / 5}
                    )  # fmt: skip
    return pd.DataFrame(rows)


GONE = {("uniform", 1, "case03", "prostate-1"), ("majority", 0, "case09", "prostate-1")}


def by_hand(cases, task, metric, method, seeds=(0, 1, 2)):
    """{case: (fold, [score under each seed])} of the cases that have all scores."""
    own = cases[(cases["task"] == task) & (cases["method"] == method)]
    found = {}
    for case in sorted(set(own["case"])):
        rows = own[own["case"] == case].set_index("seed")
        values = [100 * float(rows.loc[seed, metric]) for seed in seeds]
        if all(map(math.isfinite, values)):
            found[case] = (int(rows["fold"].iloc[0]), values)
    return found


def difference_by_hand(cases, task, metric, seeds=(0, 1, 2)):
    one, two = (by_hand(cases, task, metric, method, seeds) for method in ("uniform", "majority"))
    return {
        case: (one[case][0], [a - b for a, b in zip(one[case][1], two[case][1], strict=True)])
        for case in one
        if case in two
    }


def cluster_t(found):
    """Mean and interval by cluster-robust least squares on an intercept (CR1, t with F - 1), generally written."""
    y = np.array([np.mean(values) for _, values in found.values()])
    group = np.array([fold for fold, _ in found.values()])
    x = np.ones((len(y), 1))
    bread = np.linalg.inv(x.T @ x)
    beta = bread @ x.T @ y
    scores = [x[group == g].T @ (y - x @ beta)[group == g] for g in np.unique(group)]
    n_groups = len(scores)
    meat = n_groups / (n_groups - 1) * sum(np.outer(score, score) for score in scores)
    half = stats.t.ppf(0.975, n_groups - 1) * math.sqrt((bread @ meat @ bread)[0, 0])
    return beta[0], beta[0] - half, beta[0] + half


def cell(cells, task, method="uniform", metric="dice"):
    return cells.set_index(["task", "method", "metric"]).loc[(task, method, metric)]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("metric", ["dice", "bdice", "ece"])
def test_a_cell_and_its_difference_against_least_squares_with_clusters(three, task, metric):
    cases = made_up(three)
    found = cell(comparison_cells(three, cases), task, metric=metric)
    own = cases[(cases["task"] == task) & (cases["method"] == "uniform")]
    means = [100 * own[own["seed"] == seed][metric].mean() for seed in range(3)]
    assert found["value"] == pytest.approx(np.mean(means))
    assert found["sd_seeds"] == pytest.approx(math.sqrt(sum((item - np.mean(means)) ** 2 for item in means) / 2))
    assert (found["n_seeds"], found["n_seeds_planned"], found["n_seeds_compared"]) == (3, 3, 3)
    _, low, high = cluster_t(by_hand(cases, task, metric, "uniform"))
    assert (found["ci_low"], found["ci_high"]) == (pytest.approx(low), pytest.approx(high))
    pairs = difference_by_hand(cases, task, metric)
    mean, low, high = cluster_t(pairs)
    assert found["mean_difference"] == pytest.approx(mean)
    assert (found["diff_ci_low"], found["diff_ci_high"]) == (pytest.approx(low), pytest.approx(high))
    assert found["n_pairs"] == len(pairs) == (10 if (task, metric) == ("prostate-1", "dice") else 12)
    per_case = [np.mean(values) for _, values in pairs.values()]
    assert found["p_value"] == pytest.approx(stats.wilcoxon(per_case).pvalue)
    of_seeds = [np.mean([values[seed] for _, values in pairs.values()]) for seed in range(3)]
    assert found["sign_agreement"] == pytest.approx(np.mean([item * mean > 0 for item in of_seeds]))


def test_the_same_splits_and_where_the_variance_comes_from(three):
    """Mean squares of cases, networks and rest within folds, summed in loops."""
    cases = made_up(three)
    found = cell(comparison_cells(three, cases), "kidney-1")
    folds = {}
    for fold, values in difference_by_hand(cases, "kidney-1", "dice").values():
        folds.setdefault(fold, []).append(values)
    tables = [np.array(values).T for _, values in sorted(folds.items())]
    squares, freedom = np.zeros(3), np.zeros(3)
    for table in tables:
        seeds, n = table.shape
        grand = table.mean()
        squares[0] += sum(seeds * (table[:, c].mean() - grand) ** 2 for c in range(n))
        squares[1] += sum(n * (table[s].mean() - grand) ** 2 for s in range(seeds))
        squares[2] += sum(
            (table[s, c] - table[s].mean() - table[:, c].mean() + grand) ** 2 for s in range(seeds) for c in range(n)
        )
        freedom += [n - 1, seeds - 1, (n - 1) * (seeds - 1)]
    harmonic = len(tables) / sum(1 / table.shape[1] for table in tables)
    parts = squares / freedom / (len(tables) * 3 * harmonic)
    variance, degrees = parts[0] + parts[1] - parts[2], None
    if variance > max(parts[:2]):
        degrees = variance**2 / sum(parts**2 / freedom)
    else:
        variance, degrees = max(zip(parts[:2], freedom[:2], strict=True))
    half = stats.t.ppf(0.975, degrees) * math.sqrt(variance)
    assert found["diff_same_splits_low"] == pytest.approx(found["mean_difference"] - half)
    assert found["diff_same_splits_high"] == pytest.approx(found["mean_difference"] + half)
    _, low, high = cluster_t(difference_by_hand(cases, "kidney-1", "dice"))
    clustered = ((high - low) / 2 / stats.t.ppf(0.975, 4)) ** 2
    amounts = np.maximum([parts[0] - parts[2], parts[1] - parts[2], clustered - variance, parts[2]], 0)
    names = ["share_cases", "share_networks", "share_split", "share_rest"]
    assert list(found[names]) == pytest.approx(list(amounts / amounts.sum()))


def test_the_all_row_adds_up_cohorts(three):
    """Two tasks share patients and folds, the third has others: written out for each cohort."""
    cases = made_up(three)
    cells = comparison_cells(three, cases)
    found = cell(cells, "all")
    means, variances = {}, []
    for cohort in (("prostate-1", "prostate-2"), ("kidney-1",)):
        u = np.zeros(5)
        for task in cohort:
            pairs = difference_by_hand(cases, task, "dice")
            means[task] = np.mean([np.mean(values) for _, values in pairs.values()])
            for fold in range(5):
                inside = [np.mean(values) for place, values in pairs.values() if place == fold]
                u[fold] += len(inside) / len(pairs) * (np.mean(inside) - means[task]) / 3
        variances.append(5 / 4 * sum(u**2))
    mean, variance = np.mean(list(means.values())), sum(variances)
    half = stats.t.ppf(0.975, variance**2 / sum(item**2 / 4 for item in variances)) * math.sqrt(variance)
    assert found["mean_difference_tasks"] == pytest.approx(mean)
    assert (found["diff_ci_low"], found["diff_ci_high"]) == (pytest.approx(mean - half), pytest.approx(mean + half))
    assert found["value"] == pytest.approx(np.mean([cell(cells, task)["value"] for task in TASKS]))
    own = cases[cases["method"] == "uniform"].groupby(["seed", "task"])["dice"].mean().groupby("seed").mean()
    assert found["sd_seeds"] == pytest.approx(100 * own.std(ddof=1))
    assert math.isnan(found["share_cases"])


def test_a_seed_counts_when_all_its_folds_are_there(three):
    cases = made_up(three)
    gone = next(
        run.run_id
        for row in three.rows
        if row.task.name == "kidney-1"
        for run in row.runs["uniform"]
        if (run.settings.seed, run.settings.fold) == (1, 3)
    )
    kept = cases[cases["run_id"] != gone]
    cells = comparison_cells(three, kept)
    found = cell(cells, "kidney-1")
    own = cases[(cases["task"] == "kidney-1") & (cases["method"] == "uniform") & (cases["seed"] != 1)]
    assert found["value"] == pytest.approx(100 * own.groupby("seed")["dice"].mean().mean())
    assert (found["n_seeds"], found["n_seeds_planned"], found["n_seeds_compared"]) == (2, 3, 2)
    mean, low, _ = cluster_t(difference_by_hand(cases, "kidney-1", "dice", (0, 2)))
    assert (found["mean_difference"], found["diff_ci_low"]) == (pytest.approx(mean), pytest.approx(low))
    assert cell(cells, "all")["n_seeds"] == 2
    assert cell(cells, "kidney-1", "majority")["n_seeds"] == 3
    text = to_markdown(TableData(SPEC, cells, "qubiq", False, "paper", "paper"))
    assert "Kidney Dice Uniform 2 of 3 seeds" in text
    assert "rough" in text
    none = comparison_cells(three, kept[~((kept["method"] == "uniform") & (kept["fold"] == 0))])
    empty = cell(none, "kidney-1")
    assert math.isnan(empty["value"])
    assert (empty["n_seeds"], empty["n_pairs"], empty["diff_mark"]) == (0, 0, "")
    apart = cases[(cases["method"] == "uniform") == (cases["seed"] == 2)]
    lonely = cell(comparison_cells(three, apart), "kidney-1")
    assert lonely["n_seeds"] == 1
    assert (lonely["n_seeds_compared"], lonely["n_pairs"]) == (0, 0), "the columns share no seed"
    assert math.isnan(lonely["p_value"])


def test_two_marks(three):
    """A difference in one direction under every network is marked twice, luck of networks only by the test."""
    cells = comparison_cells(three, made_up(three, noise=0.001, shift=0.1))
    for metric in ("dice", "ece"):
        assert cell(cells, "kidney-1", metric=metric)[["mark", "diff_mark"]].tolist() == ["better", "better"]
    worse = comparison_cells(three, made_up(three, noise=0.001, shift=-0.1))
    assert cell(worse, "kidney-1")[["mark", "diff_mark"]].tolist() == ["", ""], "significantly worse"
    ours = dataclasses.replace(three, spec=dataclasses.replace(SPEC, reference_is_ours=True))
    swapped = comparison_cells(ours, made_up(three, noise=0.001, shift=-0.1))
    assert cell(swapped, "kidney-1")[["mark", "diff_mark"]].tolist() == ["worse", "worse"]
    assert cell(swapped, "kidney-1", "majority")[["mark", "diff_mark"]].tolist() == ["better", "better"]
    assert cell(swapped, "kidney-1")["diff_ci_low"] > 0, "signs as those of mean_difference"
    lucky = made_up(three, noise=0.0)
    of_fold = np.array([0.12, 0.001, 0.002, 0.001, 0.002])
    lucky["dice"] += np.where(lucky["method"] == "uniform", of_fold[lucky["fold"]] + 0.05 * lucky["dice"], 0)
    lucky.loc[lucky["method"] == "majority", "dice"] = lucky.loc[
        lucky["method"] == "uniform", "dice"
    ].to_numpy() - np.where(lucky.loc[lucky["method"] == "uniform", "fold"] == 0, 0.3, 0.001)
    found = cell(comparison_cells(three, lucky), "kidney-1")
    assert found[["mark", "diff_mark"]].tolist() == ["better", ""]


def test_without_a_difference_only_the_second_mark_keeps_its_promise(three):
    """Networks that differ by luck: of 40 tables, the interval claims few differences, the test many."""
    row = next(row for row in three.rows if row.task.name == "kidney-1")
    kidney = dataclasses.replace(
        three, rows=(dataclasses.replace(row, block=dataclasses.replace(row.block, metrics=("dice",))),)
    )
    found = [cell(comparison_cells(kidney, made_up(kidney, noise=0.1, random=seed)), "kidney-1") for seed in range(60)]
    by_interval = sum((item["diff_ci_low"] > 0) or (item["diff_ci_high"] < 0) for item in found)
    by_test = sum(item["p_value"] < 0.05 for item in found)
    assert by_interval <= 6
    assert by_test > 2 * by_interval


@pytest.mark.parametrize(
    ("overrides", "seeds", "has_interval", "has_same_splits"),
    [
        (["fold=4"], (0,), False, False),
        (["fold=4"], (0, 1), False, True),
        (["folds.count=2"], (0, 1), False, True),
        ([], (3,), True, False),
    ],
)
def test_which_intervals_there_are(shared_qubiq, tmp_path, overrides, seeds, has_interval, has_same_splits):
    plan = planned(shared_qubiq, tmp_path, *overrides, seeds=seeds)
    cells = comparison_cells(plan, made_up(plan))
    found = cell(cells, "kidney-1")
    assert np.isfinite(found[["ci_low", "diff_ci_low", "diff_ci_high"]].astype(float)).all() == has_interval
    assert np.isfinite(found["diff_same_splits_low"]) == np.isfinite(found["share_rest"]) == has_same_splits
    text = to_markdown(TableData(SPEC, cells, "qubiq", False, "paper", "paper"))
    assert ("needs 3 folds with cases to compare, and is missing for the table" in text) != has_interval
    assert ("ONE SEED" in text) == (len(seeds) == 1)
    assert ("±" in next(line for line in text.splitlines() if line.startswith("| Kidney"))) == (len(seeds) > 1)
    assert ("Shares of the variance of a difference" in text) == has_same_splits
    assert math.isnan(found["sd_seeds"]) == (len(seeds) == 1)


def test_one_seed_is_enough_for_the_interval(three):
    cases = made_up(three)
    one = dataclasses.replace(
        three,
        rows=tuple(
            dataclasses.replace(
                row, runs={key: [run for run in runs if run.settings.seed == 1] for key, runs in row.runs.items()}
            )
            for row in three.rows
        ),
    )
    found = cell(comparison_cells(one, cases[cases["seed"] == 1]), "prostate-2")
    mean, low, high = cluster_t(difference_by_hand(cases, "prostate-2", "dice", (1,)))
    assert (found["mean_difference"], found["diff_ci_low"], found["diff_ci_high"]) == pytest.approx((mean, low, high))


def test_large_folds_are_warned_of(three):
    cases = made_up(three)
    numbers = cases["case"].str[-2:].astype(int)
    few = cases[(numbers <= 4) | (numbers >= 9)]  # folds of 2, 2, 0, 0, 4 cases
    keep = dataclasses.replace(three, rows=tuple(row for row in three.rows if row.task.name == "kidney-1"))
    assert "largest fold" not in to_markdown(table_of(keep, cases))
    masked = cases.assign(dice=cases["dice"].where(cases.index.isin(few.index)))
    cells = comparison_cells(keep, masked)
    assert cell(cells, "kidney-1")["largest_fold"] == 0.5
    assert "largest fold has more than 40 % of the cases (up to 50 %)" in to_markdown(table_of(keep, masked))
    assert "This concerns Kidney Dice." in to_markdown(table_of(keep, masked))


def table_of(plan, cases, inference=Inference()):  # noqa: B008
    cells = comparison_cells(plan, cases, inference)
    return TableData(plan.spec, cells, "qubiq", False, "paper", "paper", inference)


def test_tests_that_cannot_reject_say_so(three):
    cases = made_up(three, shift=0.2)
    few = cases.assign(dice=cases["dice"].where(cases["case"] <= "case05"))
    text = to_markdown(table_of(three, few))
    assert "tests over cases cannot reach p < 0.05" in text
    assert "Kidney Dice Uniform (p is at least 0.062)" in text, "2 / 2**5"
    assert cell(comparison_cells(three, few), "kidney-1")["least_p_value"] == 0.0625
    tied = cases.assign(dice=0.5)
    assert "Kidney Dice Uniform (no pair differs)" in to_markdown(table_of(three, tied))
    assert "cannot reach" not in to_markdown(table_of(three, cases))


def scores_of(values):
    """Differences of one task, (cases,), in five folds, under one seed."""
    index = pd.MultiIndex.from_product([["c"], range(len(values))], names=["cohort", "case"])
    return [TaskScores(pd.DataFrame({0: values}, index), pd.Series(np.arange(len(values)) % 5, index))]


def test_other_tests_over_cases():
    values = np.array([0.0, 0.0, 0.1, 0.3, -0.05, 0.2, 0.4, 0.15, 0.35])
    for method in ("wilcox", "pratt", "zsplit"):
        found = comparison_numbers(scores_of(values), SCORES["dice"], Inference(zero_method=method))
        assert found["p_value"] == pytest.approx(stats.wilcoxon(values, zero_method=method).pvalue)
        assert found["least_p_value"] == pytest.approx(stats.wilcoxon(abs(values), zero_method=method).pvalue)
    many = np.concatenate([np.zeros(54), [0.1, 0.2, 0.3, 0.4, 0.5, -0.6]])  # too many for an exact p-value
    least = {method: least_p_value(many, zero_method=method) for method in ("wilcox", "pratt", "zsplit")}
    for method, found in least.items():
        assert found == pytest.approx(stats.wilcoxon(abs(many), zero_method=method).pvalue)
    assert len(set(least.values())) == 3
    found = comparison_numbers(scores_of(values), SCORES["dice"], Inference("permutation"))
    sums = [abs(np.dot(signs, values)) for signs in itertools.product((-1, 1), repeat=len(values))]
    assert found["p_value"] == pytest.approx(np.mean(np.array(sums) >= abs(values.sum()) - 1e-12))
    assert found["least_p_value"] == 2 / 2**7, "seven differ"


def test_marks_after_holms_correction(three):
    cases = made_up(three, noise=0.01, shift=0.015)
    plain, corrected = (comparison_cells(three, cases, Inference(holm=on)) for on in (False, True))
    lost = plain["significant"] & ~corrected["significant"]
    assert lost.any()
    assert (plain.loc[lost, "p_value"] < 0.05).all()
    assert (plain.loc[lost, "p_holm"] >= 0.05).all()
    assert (corrected.loc[corrected["significant"], "p_holm"] < 0.05).all()
    assert (corrected["mark"] == corrected["significant"].map({True: "better", False: ""})).all()
    assert "after Holm's correction for all tests of a score" in to_markdown(
        table_of(three, cases, Inference(holm=True))
    )
    assert "permutation test" in to_markdown(table_of(three, cases, Inference("permutation")))
    assert "zero_method=pratt" in to_markdown(table_of(three, cases, Inference(zero_method="pratt")))


def test_a_bias_counts_by_its_absolute_value():
    """-2 is better than 3 although it is lower, and better than -4 although it is higher; the marks follow."""
    bias = dataclasses.replace(SCORES["dice"], factor=1.0, lower_is_better=True, absolute=True)
    rng = np.random.default_rng(0)
    index = pd.MultiIndex.from_product([["c"], [f"case{number:02d}" for number in range(20)]])
    folds = pd.Series(np.arange(20) // 4, index)

    def column(mean):
        return [TaskScores(pd.DataFrame(mean + 0.1 * rng.normal(size=(20, 2)), index, [0, 1]), folds)]

    for mean, other in ((-2, 3), (-2, -4), (2, 3), (2, -4)):
        found = comparison_numbers(differences(column(mean), column(other), bias), bias, Inference())
        assert found["mean_difference"] == pytest.approx(abs(mean) - abs(other), abs=0.2)
        assert found["diff_better"]
        assert found["test_better"]
        back = comparison_numbers(differences(column(other), column(mean), bias), bias, Inference())
        assert back["diff_ci_low"] > 0
        assert not back["diff_better"]
