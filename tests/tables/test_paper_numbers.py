"""The transcribed numbers: complete, and consistent with each other as the paper's tables are."""

from decimal import ROUND_DOWN, Decimal

import numpy as np
import pytest

from dmseg.config import resources
from dmseg.errors import UserError
from dmseg.tables.paper import paper_table

QUBIQ = [
    "prostate-1",
    "prostate-2",
    "brain-growth-1",
    "brain-tumor-1",
    "brain-tumor-2",
    "brain-tumor-3",
    "kidney-1",
]
ROWS = {1: 14, 2: 120, 3: 40, 4: 56, 5: 6, 6: 12, 7: 8, 8: 14}
COLUMNS = ["table", "task", "backbone", "method", "metric", "value", "bold"]
# (table, method, metric): mean of the rows cut off after two decimals, printed
MISPRINTS = {(3, "mrnet", "bdice"): ("76.29", "76.18"), (2, "majority", "dice"): ("76.81", "76.80")}


def number(table, task, method, metric="dice", backbone=None):
    found = paper_table(table).query("task == @task and method == @method and metric == @metric")
    if backbone is not None:
        found = found[found["backbone"] == backbone]
    assert len(found) == 1
    return found["value"].iloc[0]


@pytest.mark.parametrize("table", ROWS)
def test_every_number_is_there_once(table):
    frame = paper_table(table)
    assert list(frame.columns) == COLUMNS
    assert len(frame) == ROWS[table]
    assert set(frame["table"]) == {str(table)}
    assert not frame.duplicated(["task", "backbone", "method", "metric"]).any()


@pytest.mark.parametrize("table", ROWS)
def test_numbers_are_printed_as_per_cent_with_two_decimals(table):
    frame = paper_table(table)
    shares = frame[frame["metric"] != "raters"]["value"]
    assert shares.str.fullmatch(r"\d{1,2}\.\d\d").all()
    assert set(frame["metric"]) <= {"dice", "bdice", "ece", "raters"}
    errors = frame[frame["metric"] == "ece"]["value"].astype(float)
    assert (errors < 2).all()
    assert (shares.drop(errors.index).astype(float) > 30).all()


@pytest.mark.parametrize("table", [2, 3])
def test_the_row_all_is_the_mean_of_the_tasks_cut_off(table):
    frame = paper_table(table)
    for (method, metric), group in frame.groupby(["method", "metric"]):
        values = group.set_index("task")["value"]
        assert sorted(values.index) == sorted([*QUBIQ, "all"])
        mean = sum(Decimal(values[task]) for task in QUBIQ) / len(QUBIQ)
        cut = str(mean.quantize(Decimal("0.01"), rounding=ROUND_DOWN))
        expected = MISPRINTS.get((table, method, metric), (cut, cut))
        assert (cut, values["all"]) == expected, (method, metric)


def test_the_mean_of_the_majority_cut_off_in_binary_is_the_printed_one():
    values = paper_table(2).query("method == 'majority' and metric == 'dice' and task != 'all'")["value"]
    assert str(np.trunc(100 * values.astype(float).sum() / 7) / 100) + "0" == number(2, "all", "majority")


def test_table_1_has_the_raters_of_section_3_1():
    frame = paper_table(1).query("metric == 'raters'").set_index("task")["value"]
    assert frame.to_dict() == dict(zip(QUBIQ, "6673333", strict=True))


def test_table_3_ours_is_the_better_average_of_table_2():
    for task in QUBIQ:
        method = "uniform" if task == "brain-tumor-2" else "weighted"
        assert number(3, task, "ours", "bdice") == number(2, task, method, "bdice")


@pytest.mark.parametrize("task", ["lits", "kits"])
def test_tables_4_to_8_share_their_runs(task):
    resnet18, resnet50 = "unet_resnet18", "unet_resnet50"
    hard = number(4, task, "hard", backbone=resnet18)
    assert number(6, task, "hard") == number(7, task, "hard") == hard
    assert number(4, task, "kd", backbone=resnet18) == number(7, task, "kde") == number(8, task, "1e-3")
    assert number(6, task, "dml1") == number(7, task, "dml") == number(8, task, "0")
    assert number(5, task, "dml1") == number(4, task, "hard", backbone=resnet50)


def test_tables_5_and_6_take_their_qubiq_row_from_table_2():
    assert number(5, "qubiq", "dml1") == number(2, "all", "majority")
    assert number(6, "qubiq", "hard", "bdice") == number(2, "all", "majority", "bdice")
    assert number(6, "qubiq", "dml1", "bdice") == number(2, "all", "weighted", "bdice")


def test_table_4_prints_the_best_of_each_row_bold():
    frame = paper_table(4)
    assert set(frame["bold"]) == {"0", "1"}
    for (task, backbone, metric), group in frame.groupby(["task", "backbone", "metric"]):
        values = group.set_index("method")["value"].astype(float)
        best = values.idxmin() if metric == "ece" else values.idxmax()
        bold = set(group[group["bold"] == "1"]["method"])
        # both soft labels are bold in one row
        both = (task, backbone, metric) == ("kits", "deeplabv3plus_resnet18", "dice")
        assert bold == ({"smoothing", "kd"} if both else {best})


def test_only_table_4_marks_numbers():
    assert all(set(paper_table(table)["bold"]) == {""} for table in ROWS if table != 4)


@pytest.mark.parametrize("table", [0, 9])
def test_other_tables_do_not_exist(table):
    with pytest.raises(UserError, match=f"no table {table}"):
        paper_table(table)


def test_resources_are_found_in_the_package_first_then_in_the_repository(tmp_path, monkeypatch):
    package = tmp_path / "dmseg"
    package.mkdir()
    monkeypatch.setattr(resources, "_PACKAGE", package)
    with pytest.raises(UserError, match="'paper' is missing"):
        resources.resource("paper")
    (tmp_path / "results" / "paper").mkdir(parents=True)
    assert resources.resource("paper") == tmp_path / "results" / "paper"
    with pytest.raises(UserError, match=r"table1\.csv"):
        paper_table(1)
    (package / "paper").mkdir()
    (tmp_path / "configs").mkdir()
    assert resources.resource("paper") == package / "paper"
    assert resources.resource("configs") == tmp_path / "configs"
