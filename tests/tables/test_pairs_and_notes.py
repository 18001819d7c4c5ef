"""Which values a test compares, which n a table prints, and what stands under it."""

import dataclasses
import io
import re

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt

from dmseg.cli.main import main
from dmseg.tables.notes import plan_notes
from dmseg.tables.numbers import TableData, comparison_cells
from dmseg.tables.planning import TablePlanner
from dmseg.tables.render import to_csv, to_latex, to_markdown
from dmseg.tables.spec import read_spec

SPEC = read_spec("2")
ODD = r"Tumour_50% & more | <b>$x$ {y} ~^ \input{z} #1"


def with_tasks(plan, *tasks):
    return dataclasses.replace(plan, rows=tuple(row for row in plan.rows if row.task.name in tasks))


def cases_of(plan, score):
    """A frame of per-case scores; `score` gives the Dice of a task, column and number of a case, or None for no row."""
    rows = [
        {**dict(zip(("data", "model", "task"), row.key, strict=True)), "method": method, "cohort": row.task.cohort,
         "run_id": run.run_id, "case": case, "dice": dice, "bdice": 0.5, "ece": 0.1}
        for row in plan.rows
        for method, runs in row.runs.items()
        for run in runs
        for case in run.split.validation
        if (dice := score(row.task.name, method, int(case.removeprefix("case")))) is not None
    ]  # fmt: skip
    return pd.DataFrame(rows)


def made(plan, score):
    """The cells, by task and column for Dice, and the table."""
    cells = comparison_cells(plan, cases_of(plan, score))
    dice = cells[cells["metric"] == "dice"].set_index(["task", "method"])
    return dice, TableData(plan.spec, cells, "qubiq", False, "paper", "paper")


def test_the_all_row_compares_each_case_and_task_before_it_averages(plan):
    """Ten patients, two tasks; in three patients uniform predicts nothing where majority has a false positive.

    Uniform is better by 0.0001, 0.0002, ... 0.0010, the same in both tasks. Means over the tasks that each column has
    would make it better by 0.1206: (3 * 0.4 + 0.0001 * (...)) / 10.
    """

    def score(task, method, number):
        if number > 10:
            return None
        if task == "prostate-2" and number <= 3 and method in ("majority", "uniform"):
            return 0.0 if method == "majority" else np.nan
        return 0.8 + (0.0001 * number if method == "uniform" else 0.0)

    dice, table = made(with_tasks(plan, "prostate-1", "prostate-2"), score)
    cell = dice.loc[("all", "uniform")]
    assert cell["mean_difference"] == pytest.approx(0.055)
    # Over tasks: 0.00055 in the first, (4 + ... + 10) / 7 = 7 times 0.0001 in the second.
    assert cell["mean_difference_tasks"] == pytest.approx((0.055 + 0.07) / 2)
    assert cell["p_value"] == 2 / 2**10, "the exact Wilcoxon test of ten differences of one sign"
    assert cell["effect_size"] == 1
    assert (cell["n"], cell["n_values"], cell["n_tasks"]) == (10, 17, 2)
    assert (cell["n_pairs"], cell["n_value_pairs"], cell["n_dropped"]) == (10, 17, 3)
    assert dice.loc[("all", "majority"), "n_values"] == 20
    assert cell["value"] == pytest.approx((80.055 + 80.07) / 2), "the plain mean over tasks of means over cases"
    text = to_markdown(table)
    assert "All Dice 10 patients (17 to 20 values of cases and tasks)" in text
    assert "All Dice (Majority 20, Random 20, Uniform 17, Weighted 20, LS 20)" in text
    assert "Prostate T2 Dice (Majority 10, Random 10, Uniform 7, Weighted 10, LS 10)" in text
    assert "Prostate T1 Dice (" not in text


def test_a_patient_without_any_pair_is_no_pair(plan):
    def score(task, method, number):
        gone = {"majority": task == "prostate-1", "uniform": task == "prostate-2"}.get(method, False)
        return np.nan if number == 4 and gone else 0.7 + 0.001 * number + (0.01 if method == "uniform" else 0)

    dice, table = made(with_tasks(plan, "prostate-1", "prostate-2"), score)
    cell = dice.loc[("all", "uniform")]
    assert (cell["n"], cell["n_values"], cell["n_pairs"], cell["n_value_pairs"]) == (12, 23, 11, 22)
    assert cell["mean_difference"] == pytest.approx(1)
    assert (
        "All Dice (Majority 23, Random 24 of which 23 in the test, Uniform 23 of which 22 in the test"
        in to_markdown(table)
    )


def test_single_tasks_say_which_cases_are_dropped(plan):
    """The same n, but not the same cases: n alone would not show it."""

    def score(task, method, number):
        missing = {"majority": 1, "uniform": 2}.get(method)
        return np.nan if number == missing else 0.7 + 0.001 * number + (0.01 if method == "uniform" else 0)

    dice, table = made(with_tasks(plan, "kidney-1"), score)
    cell = dice.loc[("kidney-1", "uniform")]
    assert (cell["n"], cell["n_pairs"], cell["n_dropped"]) == (11, 10, 2)
    assert cell["mean_difference"] == pytest.approx(1)
    text = to_markdown(table)
    assert "Kidney Dice (Majority 11, Random 12 of which 11 in the test, Uniform 11 of which 10 in the test" in text
    assert "A row over several tasks" not in text, "there is none"


def test_columns_of_equal_n_need_no_further_note(plan):
    _, table = made(with_tasks(plan, "kidney-1"), lambda task, method, number: 0.7 + 0.001 * number)
    text = to_markdown(table)
    assert "n: Kidney Dice, BDice, ECE 12." in text
    assert "different cases" not in text


def test_a_cell_that_reads_worse_is_not_marked(plan):
    """Over patients uniform is better (12 times 0.1 against once -0.5, p < .05), over tasks and as printed worse."""

    def score(task, method, number):
        if method != "uniform":
            return 0.6 if task == "prostate-1" or number == 1 else np.nan
        return 0.7 + 0.001 * number if task == "prostate-1" else (0.1 if number == 1 else np.nan)

    dice, _ = made(with_tasks(plan, "prostate-1", "kidney-1"), score)
    cell = dice.loc[("all", "uniform")]
    assert cell["p_value"] < 0.05
    assert cell["mean_difference"] > 0 > cell["mean_difference_tasks"]
    assert cell["value"] < dice.loc[("all", "majority"), "value"]
    assert (cell["significant"], cell["mark"]) == (False, "")


def test_missing_runs_are_not_a_different_n(plan):
    one = with_tasks(plan, "kidney-1")
    cases = cases_of(one, lambda task, method, number: 0.7 + 0.001 * number)
    gone = one.rows[0].runs["uniform"][2].run_id
    cells = comparison_cells(one, cases[cases["run_id"] != gone])
    text = to_markdown(TableData(SPEC, cells, "qubiq", False, "paper", "paper"))
    assert "n: Kidney Dice, BDice, ECE 12." in text
    assert "different cases" not in text
    assert "3 of 15 cells have no number yet" in text


def test_without_the_reference_nothing_is_tested(plan):
    one = with_tasks(plan, "kidney-1")
    cases = cases_of(one, lambda task, method, number: 0.7 + 0.001 * number)
    cells = comparison_cells(one, cases[cases["method"] != "majority"])
    assert cells["p_value"].isna().all()
    assert "in the test" not in to_markdown(TableData(SPEC, cells, "qubiq", False, "paper", "paper"))


def test_networks_and_lines_of_the_same_title_are_told_apart(plan):
    row = with_tasks(plan, "kidney-1").rows[0]
    slim = dataclasses.replace(row.settings.model, name="unet_slim")
    rows = (row, dataclasses.replace(row, settings=dataclasses.replace(row.settings, model=slim)))
    title = f"UNet {slim.encoder}"
    for across in (False, True):
        both = dataclasses.replace(plan, spec=dataclasses.replace(SPEC, across=across), rows=rows)
        dice, table = made(both, lambda task, method, number: 0.7 + 0.001 * number)
        assert list(dict.fromkeys(dice["model_title"])) == [f"{title} (unet_tiny)", f"{title} (unet_slim)"]
        for render in (to_markdown, to_latex, to_csv):
            assert re.search(r"\(unet\\?_tiny\)", render(table))
            assert re.search(r"\(unet\\?_slim\)", render(table))
    twin = dataclasses.replace(row.task, name="kidney-2")
    both = dataclasses.replace(plan, rows=(row, dataclasses.replace(row, task=twin)))
    dice, _ = made(both, lambda task, method, number: 0.7)
    assert list(dict.fromkeys(dice["task_title"])) == ["Kidney (qubiq/kidney-1)", "Kidney (qubiq/kidney-2)", "All"]


def test_titles_that_differ_stay_as_they_are(plan):
    dice, _ = made(plan, lambda task, method, number: 0.7)
    assert list(dict.fromkeys(dice["task_title"])) == ["Prostate T1", "Prostate T2", "Kidney", "All"]
    assert set(dice["model_title"]) == {f"UNet {plan.settings.model.encoder}"}


@pytest.mark.parametrize("across", [False, True])
def test_odd_names_come_through_every_format(plan, across):
    spec = dataclasses.replace(SPEC, across=across, title=ODD)
    one = dataclasses.replace(with_tasks(plan, "kidney-1"), spec=spec)
    _, table = made(one, lambda task, method, number: 0.7 + 0.001 * number)
    names = {"task_title": ODD, "model_title": f"UNet {ODD}", "method_title": "=1+1\n"}
    odd = dataclasses.replace(table, cells=table.cells.assign(**names), data=ODD, profile=ODD)
    notes = (f"Network: {ODD}\n\\end{{tabular}}",)

    tokens = MarkdownIt("commonmark").enable("table").parse(to_markdown(odd, notes))
    inline = ["".join(item.content for item in token.children) for token in tokens if token.type == "inline"]
    assert inline[:2] == [
        f"Table 2. {ODD}",
        f"Data: {ODD}. Profile: {ODD}. Protocol: paper. The paper's numbers in brackets.",
    ]
    assert any(text.startswith(ODD) for text in inline[2:])
    assert not [token for token in tokens if token.type == "html_block"]
    assert f"Network: {ODD} \\end{{tabular}}" in inline

    body = [line for line in to_latex(odd, notes).splitlines() if not line.startswith("%")]
    rows = [line for line in body if line.endswith(r"\\")]
    assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1, "as many cells in each row"
    assert not [row for row in rows if re.search(r"(?<!\\)[_%#$^~]|\\input", row)]
    assert sum(line.startswith(r"\end{tabular}") for line in body) == 1
    assert r"Tumour\_50\% \& more \textbar{} \textless{}b\textgreater{}" in "\n".join(rows)

    read = pd.read_csv(io.StringIO(to_csv(odd)), keep_default_na=False)
    assert set(read["task_title"]) == {ODD}
    assert set(read["method_title"]) == {"'=1+1\\n"}
    assert read["value"].dtype == np.float64


def test_the_folds_are_those_that_there_are(tmp_path, small_run):
    def folds(*overrides):
        return plan_notes(TablePlanner([*small_run, *overrides], [SPEC]).plan()[0])[0]

    kind = "contiguous blocks of the sorted case ids"
    assert folds() == f"Folds: 5-fold cross-validation ({kind}), each case is validated once."
    assert folds("folds.count=2") == f"Folds: 2-fold cross-validation ({kind}), each case is validated once."
    assert folds("folds.kind=shuffled", "folds.seed=3").startswith("Folds: 5-fold cross-validation (shuffled, seed 3)")
    assert folds("fold=0") == (
        f"Folds: fold 0 only (5 folds, {kind}): the 2 cases of the validation set, no others are scored."
    )
    assert "fold 4 only (5 folds" in folds("fold=4")
    assert "the 4 cases of" in folds("fold=4"), "the last block has the rest"


def test_settings_that_a_column_changes_are_named_with_it(small_run):
    def notes(*changes):
        (block,) = SPEC.blocks
        cells = {**block.cells, "uniform": (*block.cells["uniform"], *changes)}
        spec = dataclasses.replace(SPEC, blocks=(dataclasses.replace(block, cells=cells),))
        words = [word for word in small_run if not word.startswith("train.epochs=")]
        return plan_notes(TablePlanner(words, [spec]).plan()[0])[1]

    start = "BDice reference: uniform fusion of the raters. Both masks empty: skip. Network: unet_tiny. Epochs: lidc "
    assert notes() == f"{start}60."
    others = ", ".join(column.title for column in SPEC.columns if column.key != "uniform")
    (title,) = [column.title for column in SPEC.columns if column.key == "uniform"]
    changed = notes("evaluate.empty=one", "train.epochs=7", "evaluate.reference._target_=dmseg.labels.fusion.majority")
    assert f"Both masks empty: skip ({others}), one ({title})." in changed
    assert f"Epochs: lidc 60 ({others}), 7 ({title})." in changed
    assert f"majority fusion of the raters ({title})" in changed


def test_a_folder_that_is_no_export_is_named(tmp_path, capsys):
    (tmp_path / "table2.csv").write_text("a")
    assert main(["table", "table=2", f"from={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"dmseg: {tmp_path} has no table 2: it is not an export (no folder 'plans'); 'dmseg export")
    assert main(["table", "table=2", f"from={tmp_path}/nowhere"]) == 2
    assert "/nowhere has no table 2: the folder does not exist" in capsys.readouterr().err


def test_every_score_of_the_specifications_can_be_shown():
    from dmseg.tables.columns import SCORES
    from dmseg.tables.spec import table_names

    assert {metric for name in table_names() for metric in read_spec(name).metrics} <= set(SCORES)
    for name in table_names():
        titles = [column.title for column in read_spec(name).columns]
        assert len(set(titles)) == len(titles)
