"""Files of a config dir stand beside those of dmseg, are used only by name, and can do no more than a command line."""

import re

import pytest

from dmseg.cli.expand import expand
from dmseg.cli.extensions import use_extensions
from dmseg.cli.main import main
from dmseg.config.compose import compose_settings
from dmseg.config.config_dir import GROUPS, config_options, use_config_dir
from dmseg.config.resources import resource
from dmseg.config.variants import Base
from dmseg.errors import UserError
from dmseg.tables.columns import SCORES
from dmseg.tables.planning import TablePlanner
from dmseg.tables.request import parse_request
from dmseg.tables.spec import read_spec, table_numbers

LOSS = (resource("configs") / "loss" / "ce_dml1.yaml").read_text().replace("weight: 0.25", "weight: 0.125")
TABLE = """
title: Mine
kind: comparison
reference: dml
columns:
  dml: {title: DML, overrides: [loss=ce_dml1]}
  mine: {title: Mine, overrides: [loss=mine]}
blocks:
  - {data: [qubiq], models: [unet_tiny], metrics: [dice]}
"""


@pytest.fixture
def put(tmp_path):
    """Writes files of a config dir; returns it."""

    def write(**files):
        for name, text in files.items():
            path = tmp_path / "my configs, [1]" / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "my configs, [1]"

    yield write
    use_config_dir(None)


@pytest.mark.parametrize("form", ["{0} {1}", "{0}={1}"])
def test_a_file_is_chosen_by_its_name(put, form):
    folder = put(loss__mine=LOSS)
    words = form.format("--config-dir", "DIR").split()
    rest = use_extensions("train", ["fold=1", *(word.replace("DIR", str(folder)) for word in words), "loss=mine"])
    assert rest == ["fold=1", "loss=mine"]
    assert compose_settings(rest).loss.terms["ce"].weight == 0.125
    assert compose_settings(["fold=1"]).loss.terms["ce"].weight == 0.25


def test_without_the_flag_nothing_of_it_is_known(put):
    use_extensions("train", [f"--config-dir={put(loss__mine=LOSS)}"])
    compose_settings(["loss=mine"])
    use_extensions("train", [])
    with pytest.raises(UserError, match="loss='mine' does not exist; choose from ce, ce_dml1, ce_dml2, ce_sdl"):
        compose_settings(["loss=mine"])


def test_every_group_takes_files(put):
    ours = {
        "data": "lidc",
        "labels": "weighted",
        "loss": "ce_dml2",
        "method": "plain",
        "model": "unet_tiny",
        "table": "2",
    }
    assert set(ours) == set(GROUPS)
    texts = {group: (resource("configs") / group / f"{name}.yaml").read_text() for group, name in ours.items()}
    texts["data"] = texts["data"].replace("name: lidc", "name: mine")
    use_config_dir(put(**{f"{group}__mine": text for group, text in texts.items()}))
    for group in GROUPS:
        assert "mine" in config_options(group)
        if group != "table":
            named = [f"data.name={ours[group]}"] if group == "data" else []
            assert compose_settings([f"{group}=mine", *named]) == compose_settings([f"{group}={ours[group]}"])
    assert read_spec("mine").columns == read_spec("2").columns
    assert "mine" not in map(str, table_numbers())  # what tables=all stands for


def test_the_files_of_dmseg_have_the_names_of_their_data_sets():
    for name in config_options("data"):
        assert compose_settings([f"data={name}"]).data.name == name


def test_a_key_that_a_file_of_ones_own_lacks_is_named_with_the_file(put, capfd):
    text = (resource("configs") / "data/lidc.yaml").read_text().replace("name: lidc", "name: mine")
    folder = put(data__mine=re.sub(r"(?m)^crop:.*\n", "", text))
    words = ["train", "--config-dir", str(folder), "data=mine"]
    assert main(words) == 2
    file = folder / "data/mine.yaml"
    assert f"{file} sets no crop; add crop: 1.0, or set train.crop=1.0, evaluate.crop=1.0" in capfd.readouterr().err
    assert main([*words, "train.crop=1", "evaluate.crop=1", "data.rgb=true"]) == 2
    said = capfd.readouterr().err
    assert "unknown key 'data.rgb'" in said
    assert f"\nfor an argument of your own component, write +data.rgb, or add it to {file}" in said
    use_config_dir(folder)
    assert (
        compose_settings(["data=mine", "train.crop=1", "evaluate.crop=1", "+data.rgb=true"]).data.options["rgb"] is True
    )


def test_a_plugin_without_its_config_dir_is_told_so(put, tmp_path, capfd):
    plugin = tmp_path / "own_plugin_file.py"
    plugin.write_text("")
    assert main(["train", "data=mine"]) == 2
    assert "--config-dir" not in capfd.readouterr().err
    assert main(["train", "data=mine", f"plugins={plugin}"]) == 2
    assert "data='mine' does not exist; choose from decathlon" in (said := capfd.readouterr().err)
    assert "for a file of your own, add --config-dir FOLDER" in said
    use_extensions("train", [])


def test_sweeps_find_them(put):
    use_config_dir(put(labels__mine_1=LOSS, labels__mine_2=LOSS))
    assert expand(["labels=glob(mine*)"]).choices == (("labels=mine_1", "labels=mine_2"),)


def test_cells_of_tables_and_their_variants_find_them(put):
    use_config_dir(put(loss__mine=LOSS, table__mine=TABLE))
    planner = TablePlanner(
        ["data=qubiq", "task=kidney-1", "model.weights=null"], [read_spec("mine")], open_tasks=lambda *_: []
    )
    assert planner is not None
    base = Base(["fold=1"])
    assert base.settings(["loss=mine"]) == compose_settings(["loss=mine", "fold=1"])
    assert base.settings(["loss=mine"]).loss.terms["ce"].weight == 0.125
    use_config_dir(None)
    with pytest.raises(UserError, match="loss='mine' does not exist"):
        Base(["fold=1"]).settings(["loss=mine"])


def test_the_same_name_in_another_folder_is_another_file(put, tmp_path):
    use_config_dir(put(loss__mine=LOSS))
    assert Base([]).settings(["loss=mine"]).loss.terms["ce"].weight == 0.125
    (tmp_path / "b" / "loss").mkdir(parents=True)
    (tmp_path / "b" / "loss" / "mine.yaml").write_text(LOSS.replace("0.125", "0.5"))
    use_config_dir(tmp_path / "b")
    assert Base([]).settings(["loss=mine"]).loss.terms["ce"].weight == 0.5


def test_a_teacher_finds_them(put):
    use_config_dir(put(loss__mine=LOSS))
    settings = compose_settings(["distill=kd", "distill.teacher.loss=mine"])
    assert settings.distill.teacher.loss.terms["ce"].weight == 0.125
    assert settings.loss.terms["ce"].weight == 0.25


def test_a_method_brings_its_labels(put):
    use_config_dir(put(method__mine="name: mine\n_target_: dmseg.methods.base.Method\nlabels: {default: weighted}\n"))
    assert compose_settings(["method=mine"]).labels.name == "weighted"


def test_a_data_set_fills_the_rows_of_the_papers(put):
    lidc = (resource("configs") / "data" / "lidc.yaml").read_text()
    use_config_dir(put(data__mine=lidc.replace("name: lidc", "name: mine").replace("qubiq: lidc", "qubiq: mine")))
    assert parse_request(["data=mine"]).data == {"qubiq": "mine"}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"loss__ce": LOSS}, "loss/ce.yaml has the name of a file of dmseg, configs/loss/ce.yaml; rename it"),
        ({"losses__mine": LOSS}, "losses is not a config group"),
        ({"protocol__mine": LOSS}, "protocol is not a config group"),
        ({"hydra__mine": LOSS}, "hydra is not a config group"),
        ({"mine": LOSS}, "mine.yaml belongs to no group"),
        ({"config": LOSS}, "config.yaml belongs to no group"),
        ({"loss__sub__mine": LOSS}, "a group has no folders"),
        ({"loss__.mine": LOSS}, "contains no YAML files"),
        ({"table__9": TABLE}, "numbers are names of the paper's tables"),
        ({"loss__mine": "plugins: [x.py]\n" + LOSS}, "may not set 'plugins'; plugins are named on the command line"),
        ({"loss__mine": "defaults: [ce]\n" + LOSS}, "may not set 'defaults'"),
        ({"loss__mine": "# @package _global_\nplugins: [evil.py]\n"}, "may not have a line that begins with '# @'"),
        ({"loss__mine": "# a\n  #  @package hydra\nx: 1\n"}, "may not have a line that begins with '# @'"),
        ({"loss__mine": "name: [\n"}, "cannot be read as YAML"),
        ({"loss__mine": "name: a\nname: b\n"}, "cannot be read as YAML"),
        ({"loss__mine": "name: !!python/object/apply:os.system [id]\n"}, "cannot be read as YAML"),
        ({"loss__mine": "a: &a [x, x]\nb: [*a, *a]\n"}, "aliases (*a) are not allowed"),
        ({"loss__mine": f"name: {'[' * 60}{']' * 60}\n"}, "nested more than 50 levels deep"),
        ({"loss__mine": "- a\n"}, "must contain a mapping"),
        ({"loss__mine": "1: a\n"}, "must contain a mapping"),
        ({"loss__mine": ""}, "must contain a mapping"),
        ({"loss__mine": "x: '" + "y" * 2**18 + "'\n"}, "it has more than 0.25 MiB"),
        ({"loss__mine": "name: mine\n_target_: a.B\n"}, "loss/mine.yaml has no key 'terms'; write terms: {"),
        ({"data__mine": "_target_: a.B\n"}, "mine.yaml has no key 'name': a data set has the name of its file"),
        ({"data__mine": "name: lidc\n"}, "mine.yaml has name='lidc', but a data set has the name of its file"),
        ({"data__mine": "tables: [qubiq]\n"}, "tables is"),
        ({"data__mine": "tables: {qubiq: ../x}\n"}, "cannot be a name"),
        ({"method__mine": "labels: {default: '../x'}\n"}, "cannot be a name"),
    ],
)  # fmt: skip
def test_what_a_config_dir_may_not_hold(put, files, said, capfd):
    assert main(["train", "--config-dir", str(put(**files))]) == 2
    err = capfd.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_pipe_is_not_waited_for(put):
    import os

    folder = put(loss__mine=LOSS)
    os.mkfifo(folder / "loss" / "pipe.yaml")
    with pytest.raises(UserError, match=r"pipe\.yaml cannot be read: it is not a regular file"):
        use_config_dir(folder)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config-dir"], "--config-dir needs a folder"),
        (["--config-dir", "-m"], "--config-dir needs a folder"),
        (["--config-dir="], "--config-dir needs a folder"),
        (["--config-dir=nowhere"], "nowhere is not a folder"),
        (["--config-dir=~nobody-of-this-name"], "--config-dir is '~nobody-of-this-name', but the home folder"),
        (["--config-dir", "a", "--config-dir", "b"], "--config-dir is given twice"),
        (["-cd", "a"], "write --config-dir DIR"),
    ],
)
def test_arguments_that_name_no_folder(words, said, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words]) == 2
    assert said in capfd.readouterr().err


TINY = (resource("configs") / "model" / "unet_tiny.yaml").read_text().replace("name: unet_tiny\n", "")
HOSTILE = [
    ("labels", "_target_: os.system", "is not allowed"),
    ("labels", "_target_: dmseg.labels.fusion.uniform\nx: ${oc.env:SECRET}", "reads the environment"),
    ("labels", "_target_: dmseg.labels.fusion.uniform\nx: ${now:%Y}", "uses the resolver 'now'"),
    ("method", "_target_: torch.load", "is not allowed"),
    ("loss", "region: {_target_: torch.load}\nce_weight: 1.0\nregion_weight: 1.0\nkl: false", "is not allowed"),
    ("model", f"{TINY}hydra: {{callbacks: {{x: {{_target_: os.system}}}}}}", "unknown key"),
]


@pytest.mark.parametrize(("group", "text", "said"), HOSTILE)
def test_a_file_can_do_no_more_than_an_override(put, group, text, said, monkeypatch):
    monkeypatch.setenv("SECRET", "hush")
    use_config_dir(put(**{f"{group}__mine": f"name: mine\n{text}\n"}))
    for overrides in ([f"{group}=mine"], ["distill=kd", f"distill.teacher.{group}=mine"])[
        : 1 if group == "method" else 2
    ]:
        with pytest.raises(UserError, match=said) as caught:
            compose_settings(overrides)
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("hydra.searchpath=[/x]", "leave it out"),
        ("method.unused=[optim]", "method.unused cannot be overridden"),
        ("plugins=[evil.py]", "plugins are named on the command line only"),
        ("+plugins=[evil.py]", "plugins are named on the command line only"),
        ("loss=../../x", "must choose a file of configs/loss by its name"),
        ("labels._target_=os.system", "is not allowed"),
    ],
)
def test_a_cell_of_a_table_can_do_no_more_either(override, said):
    with pytest.raises(UserError, match=said):
        Base([]).settings([override])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("title: Mine\nkind", "kind", "has no key 'title'"),
        ("kind: comparison", "kind: magic", "kind is 'magic', but must be one of agreement, comparison"),
        ("reference: dml", "reference: none", "names the column 'none', but has dml, mine"),
        ("metrics: [dice]", "metrics: [speed]", f"but must be one of {', '.join(SCORES)}"),
        ("data: [qubiq]", "data: [mine]", "but must be one of qubiq, lits, kits"),
        ("metrics: [dice]", "metrics: [dice], cells: {other: [x=1]}", "names the column 'other'"),
        ("kind: comparison", "kind: comparison\nshell: rm", "has the unknown key 'shell'"),
        ("overrides: [loss=mine]", "overrides: loss=mine", "but must be a list"),
    ],
)
def test_a_table_must_be_one(put, old, new, said):
    assert old in TABLE
    use_config_dir(put(table__mine=TABLE.replace(old, new)))
    with pytest.raises(UserError, match=r"table/mine\.yaml") as caught:
        read_spec("mine")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("lables=uniform", "unknown key 'lables'; did you mean 'labels'?"),
        ("labels=unifrm", "labels='unifrm' does not exist; choose from majority"),
        ("labels", "'labels' is not an override; write key=value"),
        ("optim.lr=abc", "optim.lr is 'abc', but must be a number"),
        ("hydra.verbose=1", "'hydra.verbose=1': dmseg uses Hydra to read settings only"),
    ],
)
@pytest.mark.parametrize("of_block", [False, True])
def test_a_mistake_in_a_column_names_the_column_and_the_file_before_data_are_prepared(put, override, said, of_block):
    text = TABLE.replace("[loss=mine]", "[loss=ce_sdl]" if of_block else f"[{override}]")
    if of_block:
        text = text.replace("metrics: [dice]", f"metrics: [dice], cells: {{mine: [{override}]}}")
    folder = put(table__my_table=text)
    use_config_dir(folder)
    with pytest.raises(UserError) as caught:
        TablePlanner(["data=qubiq"], [read_spec("my_table")], open_tasks=lambda *_: pytest.fail("prepares")).plan()
    first, second = str(caught.value).splitlines()
    assert first.startswith(said)
    assert second == f"in the column mine of {folder}/table/my_table.yaml"


@pytest.mark.parametrize(
    ("table", "override", "said"),
    [
        ("my_table", "optim.lr=abc", r"^optim\.lr is 'abc', but must be a number$"),
        ("2", "model=nothing", r"^model='nothing' does not exist"),
        ("2", "labels.ties=foo", "ties is 'foo'"),
        ("3", "method.passes=0", r"method\.passes is 0"),
    ],
)
def test_a_mistake_of_the_command_line_is_not_blamed_on_a_column(put, table, override, said):
    use_config_dir(put(table__my_table=TABLE.replace("[loss=mine]", "[loss=ce_sdl]")))
    with pytest.raises(UserError, match=said) as caught:
        TablePlanner(["data=phantom", override], [read_spec(table)], open_tasks=lambda *_: pytest.fail("opens")).plan()
    assert "in the column" not in str(caught.value)
