"""Which cells each open choice affects, against what is known of the tables, and what the command prints."""

import pytest

from dmseg.cli.main import main
from dmseg.config.compose import compose_settings
from dmseg.data.folds import Split
from dmseg.runs.identity import run_identity
from dmseg.tables.open_choices import explain_tables
from dmseg.tables.spec import read_spec


@pytest.fixture(scope="module")
def explained():
    made = {}

    def explain(number, *overrides):
        if (number, overrides) not in made:
            table = explain_tables(overrides, [read_spec(number)])[0]
            made[number, overrides] = table, {item.choice.key: item for item in table.choices if item.choice.key}
        return made[number, overrides]

    return explain


def columns(item):
    return {column for _, column in item.touched}


def rows(item):
    return {row for row, _ in item.touched}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_table_2(explained):
    table, found = explained("2")
    assert table.columns == ("majority", "random", "uniform", "weighted", "smoothing")
    assert columns(found["protocol.disjoint_weight"]) == {"weighted"}
    assert columns(found["protocol.classes.hard"]) == {"majority", "random"}
    assert columns(found["protocol.classes.soft"]) == {"uniform", "weighted", "smoothing"}
    assert columns(found["protocol.interpolation.soft"]) == {"uniform", "weighted"}
    assert columns(found["labels.smoothing.epsilon"]) == {"smoothing"}
    for key in ("protocol.kde_keys", "protocol.volume_crop", "protocol.deeplab_decoder", "distill.kde.n_key"):
        assert not found[key].touched
    for key in ("protocol.warmup", "protocol.resnet", "protocol.auxiliary_weight", "protocol.qubiq_intensity",
                "protocol.kl", "evaluate.empty", "folds.kind"):  # fmt: skip
        assert found[key].touched == table.cells
        assert table.describe(found[key].touched) == "all cells"


def test_table_4(explained):
    networks = ["model=unet_resnet50,unet_mobilenetv2,deeplabv3plus_resnet18"]
    table, found = explained("4", "data=phantom_lits,phantom_kits", *networks)
    students = {row for row in table.rows if "resnet50" not in row}
    assert {row for row, column in table.cells if column == "kd"} == students, "a teacher is not its own student"
    assert {(row, "kd") for row in students} == found["protocol.kde_keys"].touched
    teacher = {(row, "kd") for row in students}
    wide = {cell for cell in table.cells if "unet_resnet50" in cell[0]}
    assert found["protocol.unet_resnet50_channels"].touched == wide | teacher
    unets = {cell for cell in table.cells if " unet" in cell[0]}
    assert found["protocol.unet_head_kernel"].touched == unets | teacher
    resnets = {cell for cell in table.cells if "resnet" in cell[0]}
    assert found["protocol.resnet"].touched == resnets | teacher
    assert rows(found["protocol.deeplab_decoder"]) == {row for row in table.rows if "deeplab" in row}
    assert columns(found["protocol.deeplab_decoder"]) == {"hard", "smoothing", "kd"}
    for key in ("protocol.volume_crop", "protocol.head_dropout", "data.slices"):
        assert found[key].touched == table.cells
    assert not found["protocol.qubiq_intensity"].touched
    assert columns(found["protocol.classes.hard"]) == {"hard", "kd"}
    assert table.describe(found["protocol.kde_keys"].touched) == "column KD"
    assert table.describe(found["protocol.resnet"].touched) == (
        "all columns of unet_resnet50, deeplabv3plus_resnet18; column KD of unet_mobilenetv2"
    )


def test_table_8(explained):
    table, found = explained("8", "data=phantom_lits")
    calibrated = {"5e-5", "1e-4", "5e-4", "1e-3", "5e-3", "1e-2"}
    for key in ("protocol.kde_keys", "distill.kde.n_key", "distill.kde.balanced"):
        assert columns(found[key]) == calibrated
    for key in ("distill.temperature", "distill.teacher.labels", "protocol.unet_resnet50_channels"):
        assert columns(found[key]) == {"0", *calibrated}
    assert found["protocol.resnet"].touched == table.cells


def test_values_in_force(explained):
    overrides = ("protocol=release", "optim.warmup=0.2", "protocol.smooth=0.5", "evaluate.bins=20")
    _, found = explained("2", *overrides)
    given = compose_settings(overrides)
    assert found["protocol.warmup"].values == (str(given.optim.warmup),) == ("0.2",)
    assert not found["protocol.warmup"].touched, "the key itself is set"
    assert found["protocol.decoder_lr_factor"].values == ("10.0",)
    assert found["protocol.resnet"].values == ("d",)
    assert found["protocol.smooth"].values == ("0.5",)
    assert found["evaluate.bins"].values == ("20",)
    assert found["labels.smoothing.epsilon"].values == ("0.5",)
    assert found["distill.kde.n_key"].values == ()


def test_touched_cells_are_those_whose_ids_change(explained):
    """Composed by Hydra with the release's value as an override."""

    def identity(column, *overrides):
        words = ["data=qubiq", "model=unet_resnet50", f"labels={column}", "task=kidney-1", "model.weights=null"]
        return run_identity(compose_settings([*words, *overrides]), "fp32", "0", Split(("a",), ("b",)))

    table, found = explained("2")
    for key in ("protocol.kl", "protocol.classes.hard", "protocol.disjoint_weight", "protocol.initialization"):
        item = found[key]
        changed = {
            column for column in table.columns if identity(column) != identity(column, f"{key}={item.choice.release}")
        }
        assert columns(item) == changed, key


def test_the_command_prints_every_choice_within_80_columns(capfd):
    assert main(["explain", "tables=1,2", "data=phantom"]) == 0
    out, _ = capfd.readouterr()
    assert max(map(len, out.splitlines())) <= 80
    assert "Traceback" not in out
    flat = " ".join(out.split())
    assert "weight of a rater without overlap with the majority (protocol.disjoint_weight)" in flat
    assert "paper: 0.0 | release: 1.0 | used here: 0.0 affects column Weighted" in flat
    assert flat.count("how often a random rater is drawn") == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name one table or several"),
        (["table=2", "labels=uniform"], "which the cells of table 2 set themselves"),
        (["table=2", "data=lits"], "has no row in table 2"),
        (["table=1", "data=lits"], "needs a data set with several raters"),
        (["table=2", "protocol=nope"], "protocol='nope' does not exist"),
    ],
)
def test_mistakes_are_one_message(words, said, capfd):
    assert main(["explain", *words]) == 2
    assert said in capfd.readouterr().err
