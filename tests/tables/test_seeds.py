"""``seeds=``: which runs a table has, and what becomes of it in files and exports."""

import re
import runpy
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import REPO, store_run
from scipy import stats

from dmseg.cli.main import main
from dmseg.cli.words import take_seeds
from dmseg.errors import UserError
from dmseg.runs.store import RunStore
from dmseg.tables.exported import plan_from_text, plan_to_text
from dmseg.tables.planning import TablePlanner
from dmseg.tables.spec import read_spec


@pytest.mark.parametrize(
    ("word", "seeds"),
    [
        ("seeds=1", (0,)),
        ("seeds=3", (0, 1, 2)),
        ("seeds=[4]", (4,)),
        ("seeds=[7, 0,2]", (0, 2, 7)),
        ("seeds=0,5", (0, 5)),
    ],
)
def test_seeds_are_a_number_or_a_list(word, seeds):
    assert take_seeds(["data=lidc", word, "fold=0"]) == (seeds, ["data=lidc", "fold=0"])
    assert take_seeds(["data=lidc", "fold=0"]) == ((), ["data=lidc", "fold=0"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("seeds=0", "must be a number of seeds from 1 to 100"),
        ("seeds=[0,0]", "0 is listed twice"),
        ("seeds=-2", "must be a number of seeds, such as 3, or a list of whole numbers"),
        ("seeds=[1,-2]", "a list of whole numbers from 0"),
        ("seeds=1.5", "a list of whole numbers from 0"),
        ("seeds=[0,true]", "a list of whole numbers from 0"),
        ("seeds=[]", "a list of whole numbers from 0"),
        ("seeds=", "a list of whole numbers from 0"),
        ("seeds=[9223372036854775808]", "from 0 to 9223372036854775807"),
        ("seeds=2 seed=0", "'seed=0' cannot be given together with 'seeds=2'"),
        ("seeds=2 +seed=0", "cannot be given together"),
        ("lidc:seed=1 seeds=2", "'lidc:seed=1' cannot be given together"),
        ("seeds=2 seeds=3", "seeds is given twice: '2' and '3'"),
    ],
)
@pytest.mark.parametrize(
    "command", ["reproduce table=2", "table table=2", "plan table=2", "cv", "export-results table=2 to=x"]
)
def test_other_seeds_are_refused_in_one_line(command, words, said, capfd):
    assert main([*command.split(), "data=lidc", *words.split()]) == 2
    shown = capfd.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train seeds=2", "'seeds=2' is for tables and for cv without -m; sweep over seeds with -m seed=0,1,2"),
        ("cv -m seeds=2", "'seeds=2' is for tables and for cv without -m; in a sweep write seed=0,1,2"),
        ("table table=2 from=x seeds=2", "an export has its own settings and seeds"),
        ("table table=2 test=bootstrap", "test is 'bootstrap', but must be wilcoxon or permutation"),
        ("reproduce table=2 zero_method=drop", "zero_method is 'drop', but must be wilcox, pratt or zsplit"),
        ("table table=2 holm=1", "holm is '1', but must be true or false"),
        ("table table=2 test=permutation zero_method=pratt", "zero_method is an option of test=wilcoxon"),
        ("plan table=2 seeds=2 test=permutation", "unknown key 'test'"),
    ],
)
def test_words_in_the_wrong_place(words, said, capfd):
    assert main(words.split()) == 2
    assert said in capfd.readouterr().err


def test_runs_are_those_of_single_seeds(small_run):
    """Each seed's runs have the ids that ``seed=N`` gives them; the first seed comes first."""
    planned = TablePlanner(small_run, [read_spec("2")], seeds=(0, 3)).plan()[0]
    alone = {seed: TablePlanner([*small_run, f"seed={seed}"], [read_spec("2")]).plan()[0] for seed in (0, 3)}
    assert [run.run_id for run in planned.runs] == [run.run_id for seed in (0, 3) for run in alone[seed].runs]
    for column, runs in planned.rows[0].runs.items():
        one, two = (alone[seed].rows[0].runs[column] for seed in (0, 3))
        assert [run.run_id for run in runs] == [run.run_id for run in (*one, *two)]
        assert len({run.experiment_id for run in runs}) == 2
    assert planned.seeds == [0, 3]


def test_teachers_are_of_the_same_seed(tmp_path):
    paths = [f"paths.{name}='{tmp_path / name}'" for name in ("data", "prepared", "results")]
    small = ["data=phantom_lits", "data.size=16", "profile.phantom_scale=0.2", "fold=0", *paths]
    planned = TablePlanner(small, [read_spec("7")], seeds=(0, 1)).plan()[0]
    students = [run for run in planned.runs if run.teacher is not None]
    assert {run.settings.seed for run in students} == {0, 1}
    assert all(run.teacher.settings.seed == run.settings.seed for run in students)


@pytest.fixture
def study(small_run):
    """Overrides of a finished table of one task under two seeds, and its plan."""
    plan = TablePlanner(small_run, [read_spec("2")], seeds=(0, 1)).plan()[0]
    for run in plan.runs:
        rng = np.random.default_rng([run.settings.seed, run.settings.fold, len(run.settings.labels.name)])
        rows = [
            {"case": case, "dice": 0.8 + 0.1 * rng.random(), "bdice": 0.7 + 0.1 * rng.random(), "ece": 0.01}
            for case in run.split.validation
        ]
        store_run(run, rows)
    return small_run, plan


def cells_of(folder):
    return pd.read_csv(folder / "tables" / "table2.csv", keep_default_na=False, na_values=[""]).set_index(
        ["method", "metric"]
    )


def test_the_files_of_a_table_are_enough_to_check_it(study, tmp_path, capfd):
    words, _ = study
    assert main(["table", "table=2", *words, "seeds=2"]) == 0
    text = capfd.readouterr().out
    cells = cells_of(tmp_path / "results")
    cases = pd.read_csv(tmp_path / "results" / "tables" / "table2_cases.csv")
    for (method, metric), cell in cells.iterrows():
        own = cases[cases["method"] == method]
        means = 100 * own.groupby("seed")[metric].mean()
        assert cell["value"] == pytest.approx(means.mean())
        assert cell["sd_seeds"] == pytest.approx(means.std(ddof=1), abs=1e-12)
        assert f"{means.mean():.2f} ± {means.std(ddof=1):.2f}" in text
        of_folds = [100 * part[metric].mean() for _, part in own.groupby("fold")]
        weights = own.groupby("fold").size().to_numpy() / len(own)
        variance = 5 / 4 * sum((weights * (np.array(of_folds) - weights @ of_folds)) ** 2)
        assert (cell["ci_high"] - cell["ci_low"]) / 2 == pytest.approx(stats.t.ppf(0.975, 4) * np.sqrt(variance))
        assert len(cell["experiment_id"].split()) == 2
        assert len(cell["runs"].split()) == 10
        assert set(cell["runs"].split()) == set(own["run_id"])
    assert "Seeds: 0, 1." in text
    assert main(["plan", "table=2", *words, "seeds=3"]) == 0
    assert capfd.readouterr().out.splitlines()[1].split()[:4] == ["2", "15", "75", "50"]


def test_a_damaged_run_costs_its_seed(study, tmp_path, capfd, caplog):
    words, plan = study
    gone = plan.rows[0].runs["uniform"][7]
    assert gone.settings.seed == 1
    (RunStore(gone.results).folder(gone.run_id) / "cases.csv").write_text("case,dice\n")
    assert main(["table", "table=2", *words, "seeds=2"]) == 0
    out = capfd.readouterr().out
    assert f"run {gone.run_id} is left out" in caplog.text
    cells = cells_of(tmp_path / "results")
    assert cells.loc[("uniform", "dice"), ["n_seeds", "n_seeds_planned"]].tolist() == [1, 2]
    assert cells.loc[("majority", "dice"), "n_seeds"] == 2
    assert cells.loc[("uniform", "dice"), "n_seeds_compared"] == 1
    assert "Dice Uniform 1 of 2 seeds" in out
    assert main(["table", "table=2", *words]) == 0
    alone = cells_of(tmp_path / "results")
    assert alone.loc[("uniform", "dice"), "value"] == pytest.approx(cells.loc[("uniform", "dice"), "value"])
    for run in plan.rows[0].runs["uniform"][:1]:
        shutil.rmtree(RunStore(run.results).folder(run.run_id))
    assert main(["table", "table=2", *words, "seeds=2"]) == 0
    capfd.readouterr()
    empty = cells_of(tmp_path / "results")
    assert np.isnan(empty.loc[("uniform", "dice"), "value"])
    assert empty.loc[("uniform", "dice"), "n_seeds"] == 0


def test_an_export_gives_the_same_table(study, tmp_path, capfd):
    words, plan = study
    export = tmp_path / "export"
    assert main(["table", "table=2", *words, "seeds=2"]) == 0
    assert main(["export-results", "table=2", *words, "seeds=2", f"to={export}"]) == 0
    assert len(RunStore(export).run_ids()) == 50
    assert main(["table", "table=2", f"from={export}"]) == 0
    capfd.readouterr()
    files = [folder / "tables" / "table2.csv" for folder in (tmp_path / "results", export)]
    assert files[0].read_bytes() == files[1].read_bytes()
    again = plan_from_text(export, read_spec("2"))
    assert again.seeds == [0, 1]
    assert plan_to_text(again) == plan_to_text(plan)
    assert main(["table", "table=2", f"from={export}", "test=permutation", "holm=true"]) == 0
    assert "permutation test" in capfd.readouterr().out
    other = tmp_path / "other"
    assert main(["import-results", f"from={export}", f"paths.results={other}"]) == 0
    elsewhere = [word for word in words if not word.startswith("paths.results")]
    assert main(["table", "table=2", *elsewhere, f"paths.results='{other}'", "seeds=2"]) == 0
    assert "50 of 50 runs were imported" in capfd.readouterr().out
    imported = cells_of(other)
    assert imported["value"].to_numpy() == pytest.approx(cells_of(export)["value"].to_numpy())


def test_a_column_against_itself(study, tmp_path, capfd):
    words, plan = study
    script = runpy.run_path(str(REPO / "scripts" / "aa_test.py"))
    splits = list(script["halves"](range(6)))
    assert len(splits) == len({frozenset(map(frozenset, split)) for split in splits}) == 10
    file = tmp_path / "aa.csv"
    assert script["main"](["column=uniform", "seeds=2", "metrics=dice,ece", *words, f"to={file}"]) == 0
    out = capfd.readouterr().out
    assert "Dice, single tasks: of 1 comparisons without a difference" in out
    row = pd.read_csv(file).set_index("metric").loc["dice"]
    found = {}
    for run in plan.rows[0].runs["uniform"]:
        cases = RunStore(run.results).read_cases(run.run_id, run.evaluation_id).set_index("case")["dice"]
        found.setdefault(run.settings.seed, {}).update(100 * cases)
    differences = [found[0][case] - found[1][case] for case in found[0]]
    assert row["seeds"] == "0 | 1"
    assert row["mean_difference_tasks"] == pytest.approx(np.mean(differences))
    assert row["p_value"] == pytest.approx(stats.wilcoxon(differences).pvalue)
    assert row["by_test"] == (row["p_value"] < 0.05)
    assert row["by_interval"] == (row["diff_ci_low"] > 0 or row["diff_ci_high"] < 0)
    for wrong, said in (
        (["seeds=3"], "3 seeds cannot be split into halves"),
        (["seeds=4"], "10 of 20 runs are missing; add train=true"),
        (["column=none"], "table 2 has no column 'none'; choose from majority"),
        (["metrics=ged"], "table 2 has no score 'ged'"),
    ):
        with pytest.raises(UserError, match=re.escape(said)):
            script["main"]([*wrong, *words])


def test_cv_prints_each_seed_and_their_mean(small_run, capfd):
    words = [*small_run, "train.epochs=1", "folds.count=2", "seeds=[0,2]"]
    assert main(["cv", *words]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 4 + 3
    assert [line.split(":")[0] for line in lines[4:]] == [
        "seed 0, mean over 12 cases", "seed 2, mean over 12 cases", "mean ± SD over 2 seeds"
    ]  # fmt: skip
    one, two = (float(line.split("bdice ")[1].split()[0]) for line in lines[4:6])
    mean, spread = lines[6].split("bdice ")[1].split(" %")[0].split(" ± ")
    assert float(mean) == pytest.approx((one + two) / 2, abs=0.011)
    assert float(spread) == pytest.approx(abs(one - two) / 2**0.5, abs=0.011)
    assert main(["cv", *words[:-1], "seed=2"]) == 0
    assert capfd.readouterr().out.splitlines()[:2] == lines[2:4]
