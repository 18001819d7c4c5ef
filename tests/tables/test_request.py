"""What a table compares cannot be overridden, in any form; other settings reach the cells that have them."""

import re
from dataclasses import replace

import pytest

from dmseg.cli.main import main
from dmseg.config.compose import compose_settings
from dmseg.config.config_dir import use_config_dir
from dmseg.config.resources import resource
from dmseg.errors import UserError
from dmseg.tables.planning import TablePlanner
from dmseg.tables.request import compared, parse_request
from dmseg.tables.spec import read_spec, table_names

MINE = """staple: {title: STAPLE, overrides: [labels=staple]}
  svls: {title: SVLS, overrides: [labels=svls]}
  rater: {title: Rater, overrides: [labels=rater, labels.rater=mask-2, labels.anonymous_raters=position]}"""
TABLES = [name for name in table_names() if name != "1"]
VALUES = {
    "labels": "uniform",
    "loss": "ce",
    "method": "softseg",
    "distill": "kd",
    "distill.kde": "null",
    "distill.kde.bandwidth": "1e-3",
    "distill.teacher_region": "true",
    "evaluate.ged": "false",
}
EXPECTED = {
    "2": {"labels"},
    "3": {"labels", "method"},
    "4": {"labels", "distill"},
    "5": {"labels", "loss"},
    "6": {"labels", "distill", "distill.kde", "loss"},
    "7": {"labels", "distill", "distill.kde", "distill.teacher_region"},
    "8": {"labels", "distill", "distill.kde", "distill.kde.bandwidth"},
    "methods": {"labels", "method", "evaluate.ged"},
}


def refused(name, overrides):
    """The message of a refusal, before anything is read: the data sets do not exist here."""
    with pytest.raises(UserError) as caught:
        TablePlanner(overrides, [read_spec(name)])
    assert len(str(caught.value).splitlines()) <= 3
    return str(caught.value)


@pytest.mark.parametrize("name", TABLES)
def test_what_a_table_compares(name):
    assert set(compared([read_spec(name)]).keys) == EXPECTED[name]


FORMS = ("{}", "+{}", "++{}", "~{}", "qubiq:{}", "lits:{}", "qubiq:++{}")


@pytest.mark.parametrize(
    ("name", "form"),
    [
        (name, form)
        for name in TABLES
        for form in FORMS
        if ":" not in form or form.partition(":")[0] in {block.data for block in read_spec(name).blocks}
    ],
)
def test_compared_keys_are_refused_in_every_form(name, form):
    for key in EXPECTED[name]:
        text = form.format(f"{key}={VALUES[key]}")
        assert f"sets {key}, which the cells of table {name} set themselves" in refused(name, [text])


@pytest.mark.parametrize(
    ("name", "text", "key"),
    [
        ("2", "labels={name: mine}", "labels"),
        ("2", "labels._target_=dmseg.labels.fusion.uniform", "labels"),
        ("2", "labels.name=mine", "labels"),
        ("2", "~labels", "labels"),
        ("2", "~labels.smoothing", "labels"),
        ("2", "labels=majority,uniform", "labels"),
        ("2", "+loss@labels=ce", "labels"),
        ("2", "+loss@labels.smoothing=ce", "labels"),
        ("2", "labels@_global_=uniform", "labels"),
        ("2", "+profile@_global_=demo", "labels"),
        ("6", "loss={ce_weight: 1}", "loss"),
        ("6", "loss.terms.ce._target_=dmseg.losses.FocalCrossEntropyLoss", "loss"),
        ("6", "loss.terms={region: {_target_: dmseg.losses.SoftDiceLoss}}", "loss"),
        ("6", "loss.region._target_=dmseg.losses.SoftDiceLoss", "loss"),
        ("6", "loss.region={_target_: dmseg.losses.SoftDiceLoss}", "loss"),
        ("8", "distill.kde={bandwidth: 0.1}", "distill.kde"),
        ("8", "distill.kde=null", "distill.kde"),
        ("methods", "evaluate={ged: false}", "evaluate.ged"),
        ("methods", "evaluate={bins: 20}", "evaluate.ged"),
    ],
)
def test_whole_mappings_packages_and_deletions_are_refused(name, text, key):
    assert f"'{text}' sets {key}, which the cells of table {name} set" in refused(name, [text])


def test_the_command_line_exits_with_2_and_names_the_key(capsys):
    assert main(["plan", "tables=2,5", "data=phantom", "loss=ce"]) == 2
    assert "'loss=ce' sets loss, which the cells of table 5 set themselves" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["data=lidc", "data.size=16", "+data.new=1", "fold=0", "task=kidney-1"])
def test_a_column_cannot_set_what_all_columns_share(small_run, text):
    (block,) = read_spec(2).blocks
    changed = replace(block, cells={**block.cells, "uniform": ("labels=uniform", text)})
    spec = replace(read_spec(2), blocks=(changed,))
    with pytest.raises(
        UserError, match=rf"'{re.escape(text)}' cannot be set for one column(.|\n)*the column uniform of"
    ):
        TablePlanner(small_run, [spec])


@pytest.mark.parametrize("more", [[], ["evaluate.empty=one"]])
def test_columns_that_are_alike_are_not_blamed_on_the_command_line(small_run, more):
    (block,) = read_spec(2).blocks
    changed = replace(block, cells={**block.cells, "uniform": ("labels=majority", "evaluate.bins=15")})
    with pytest.raises(UserError, match=r"^the columns majority and uniform of .*2\.yaml train the same runs"):
        TablePlanner([*small_run, *more], [replace(read_spec(2), blocks=(changed,))]).plan()


def test_seeds_do_not_replace_the_seed_of_a_column(small_run):
    (block,) = read_spec(2).blocks
    changed = replace(block, cells={**block.cells, "uniform": ("labels=uniform", "seed=4")})
    with pytest.raises(UserError, match="seeds= sets seed, which the cells of table 2 set themselves"):
        TablePlanner(small_run, [replace(read_spec(2), blocks=(changed,))], seeds=(0, 1))


@pytest.mark.parametrize(
    "text", ["seed=3", "fold=1", "loss=ce", "distill=kd", "evaluate.ged=true", "method=mc_dropout"]
)
def test_what_table_2_does_not_compare_stays_free(small_run, text):
    row = TablePlanner([*small_run, "fold=0", text], [read_spec(2)]).plan()[0].rows[0]
    assert len({runs[0].experiment_id for runs in row.runs.values()}) == 5


def cells_of(small_run, name, *more):
    row = TablePlanner([*small_run, "fold=0", *more], [read_spec(name)]).plan()[0].rows[0]
    return {column: runs[0].settings for column, runs in row.runs.items()}


def test_options_of_a_compared_group_reach_the_cells_that_have_them(small_run):
    plain = cells_of(small_run, 2)
    found = cells_of(small_run, 2, "labels.smoothing.epsilon=0.3", "++labels.disjoint_weight=1")
    assert found["smoothing"].labels.smoothing.epsilon == 0.3
    assert found["weighted"].labels.options == {"disjoint_weight": 1, "ties": "background"}
    for column in ("majority", "random", "uniform"):
        assert found[column] == plain[column]


def test_the_rule_for_ties_reaches_the_cells_with_a_majority(small_run):
    plain = TablePlanner([*small_run, "fold=0"], [read_spec(2)]).plan()[0].rows[0]
    found = TablePlanner([*small_run, "fold=0", "labels.ties=foreground"], [read_spec(2)]).plan()[0].rows[0]
    changed = {column for column, runs in found.runs.items() if runs[0].run_id != plain.runs[column][0].run_id}
    assert changed == {"majority", "weighted", "smoothing"}
    same = TablePlanner([*small_run, "fold=0", "labels.ties=background"], [read_spec(2)]).plan()[0].rows[0]
    assert [runs[0].run_id for runs in same.runs.values()] == [runs[0].run_id for runs in plain.runs.values()]


def test_options_of_labels_that_depend_on_the_task_reach_them_too(shared_qubiq, tmp_path):
    given = ["data=qubiq", *shared_qubiq, "model=unet_tiny", f"paths.results='{tmp_path}'", "fold=0"]
    rows = TablePlanner([*given, "labels.ties=foreground"], [read_spec(3)]).plan()[0].rows
    for row in rows:
        labels = {column: runs[0].settings.labels for column, runs in row.runs.items()}
        assert labels["mc_dropout"].options["ties"] == "foreground"
        of_ours = {"disjoint_weight": 0.0, "ties": "foreground"} if row.task.name != "brain-tumor-2" else {}
        assert labels["ours"].options == of_ours
    assert "brain-tumor-2" in {row.task.name for row in rows}


def test_a_table_of_ones_own_may_compare_the_new_labels(small_run, tmp_path):
    (tmp_path / "mine" / "table").mkdir(parents=True)
    text = (resource("configs") / "table" / "2.yaml").read_text()
    text = text.replace("uniform: {title: Uniform, overrides: [labels=uniform]}", MINE)
    (tmp_path / "mine" / "table" / "mine.yaml").write_text(text)
    use_config_dir(tmp_path / "mine")
    try:
        found = cells_of(small_run, "mine", "labels.ties=foreground")
        labels = {column: settings.labels for column, settings in found.items()}
    finally:
        use_config_dir(None)
    assert list(labels) == ["majority", "random", "staple", "svls", "rater", "weighted", "smoothing"]
    assert (labels["staple"].interpolation, labels["svls"].smoothing.kind) == ("linear", "svls")
    assert labels["svls"].options == {"ties": "foreground"}
    assert labels["rater"].options == {"rater": "mask-2", "anonymous_raters": "position"}


def test_options_of_one_data_set_stay_with_it(small_run):
    assert cells_of(small_run, 2, "lidc:labels.smoothing.epsilon=0.3")["smoothing"].labels.smoothing.epsilon == 0.3
    assert cells_of(small_run, 2, "lidc:fold=3")["smoothing"].fold == 3


@pytest.mark.parametrize("text", ["labels.smoothing.epsilom=0.3", "+labels.typo=1", "labels.smoothing.a.b=1"])
def test_an_option_that_no_cell_has_is_refused(small_run, text):
    with pytest.raises(UserError, match=rf"'{text.lstrip('+')}' sets a key that no cell of table 2 has"):
        cells_of(small_run, 2, text)


@pytest.mark.parametrize(
    ("name", "more", "culprit"),
    [
        (2, ["method=mrnet", "method.anonymous_raters=position"], "'method=mrnet'"),
        (2, ["labels.smoothing=null"], "'labels.smoothing=null'"),
        (
            2,
            ["labels.smoothing.epsilon=0.3", "labels.smoothing={kind: uniform, epsilon: 0.1}"],
            r"'labels.smoothing={kind: uniform, epsilon: 0.1}'",
        ),
        (6, ["loss.region.variant=2"], "'loss.region.variant=2'"),
    ],
)
def test_columns_that_become_the_same_experiment_are_refused(small_run, name, more, culprit):
    with pytest.raises(
        UserError, match=rf"^{culprit}[^']* makes the columns \w+ and \w+ of table {name} the same experi"
    ):
        cells_of(small_run, name, *more)


def test_a_mapping_means_the_same_in_a_cell_as_in_train(small_run):
    texts = ["loss.region={smooth: 2}", "evaluate={bins: 20}", "+model={encoder_options: {pad_type: same}}"]
    cell = cells_of(small_run, 2, *texts)["uniform"]
    alone = compose_settings([*small_run, "labels=uniform", *texts])
    for part in ("loss", "labels", "evaluate", "model"):
        assert getattr(cell, part) == getattr(alone, part)
    assert cell.loss.terms["region"].options["variant"] == 1  # merged, as Hydra does


def test_networks_of_one_data_set():
    request = parse_request(["data=phantom", "phantom:model=unet_tiny,unet_slim", "model=unet_resnet18"])
    assert request.models_of("phantom") == ("unet_tiny", "unet_slim")
    assert request.models_of("phantom_lits") == ("unet_resnet18",)
    with pytest.raises(UserError, match="cannot be set for one of them"):
        parse_request(["data=phantom", "phantom:data=lidc"])
    for key in ("data", "model"):
        with pytest.raises(UserError, match=f"{key} is given twice"):
            parse_request(["data=phantom", f"{key}=phantom", f"{key}=lidc"])


@pytest.mark.parametrize("task", ["brain-tumor-2", "qubiq/brain-tumor-2"])
def test_labels_of_a_method_follow_the_task_however_it_is_written(task):
    assert compose_settings(["method=ours", f"task={task}"]).labels.name == "uniform"
    assert compose_settings(["method=ours", f"++task='{task}'"]).labels.name == "uniform"
    assert compose_settings(["method=ours", "task=qubiq/kidney-1"]).labels.name == "weighted"
