"""Words that are no overrides, and values in Python's form."""

import re
from pathlib import Path

import pytest
import yaml

from dmseg.cli.main import main
from dmseg.cli.parser import checked, from_python
from dmseg.cli.registry import COMMANDS
from dmseg.config.compose import compose_plain, compose_settings
from dmseg.errors import UserError


@pytest.mark.parametrize(
    ("word", "instead"),
    [
        ("--config-name=x", "profile=demo"),
        ("--config-path", "profile=demo"),
        ("-cn", "profile=demo"),
        ("--cfg", "'dmseg config' with the same keys"),
        ("-c", "'dmseg config' with the same keys"),
        ("--info", "'dmseg config' with the same keys"),
        ("--experimental-rerun=x", "same command"),
        ("--optim.lr=0.003", "write optim.lr=0.003"),
        ("-fold=1", "write fold=1"),
        ("--workers", "key=value"),
        ("hydra/launcher=joblib", "workers=4 or launcher=slurm"),
        ("hydra.launcher.n_jobs=4", "workers=4 or launcher=slurm"),
        ("hydra/sweeper=optuna", "docs/how-to/sweeps.md"),
        ("hydra.sweeper.params={a:1}", "docs/how-to/sweeps.md"),
        ("hydra.sweep.dir=/x", "name=NAME"),
        ("hydra.run.dir=/x", "paths.results"),
        ("+hydra.callbacks.x._target_=os.system", "leave it out"),
        ("~hydra.output_subdir", "leave it out"),
        ("+launcher@hydra.callbacks=slurm", "leave it out"),
    ],
)
@pytest.mark.parametrize("command", [["train"], ["train", "-m"], ["cv", "--multirun"], ["plan"]])
def test_flags_and_settings_of_hydra_are_refused_in_one_line(command, word, instead, capfd):
    assert main([*command, "labels=uniform", word]) == 2
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert word in said[0] or word.partition("=")[0] in said[0]
    assert instead in said[0]


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"train", "cv"}))
def test_only_train_and_cv_sweep(command, capfd):
    assert main([command, "-m"]) == 2
    assert capfd.readouterr().err == f"dmseg: -m is for train and cv; '{command}' has no sweeps\n"


def test_a_name_needs_a_sweep(capfd):
    assert main(["train", "name=x"]) == 2
    assert capfd.readouterr().err == "dmseg: 'name=x' names the table of a sweep, and needs -m\n"


def test_overrides_pass():
    words = ["-m", "labels=a,b", "+hydrant.x=1", "~x", "data.root=/a-b/--c", "runs=hydra"]
    assert checked("train", words) == words


@pytest.mark.parametrize(
    ("word", "key", "wanted"),
    [
        ("distill=None", "distill", None),
        ("model.weights=None", "model.weights", None),
        ("evaluate.ged=True", "evaluate.ged", True),
        ("optim.lr=3e-05", "optim.lr", 3e-05),
        ("train.scale=[0.9, 1.1]", "train.scale", [0.9, 1.1]),
        ("optim={'lr': 0.003, 'momentum': 0.8}", "optim.lr", 0.003),
        ("labels={'smoothing': {'kind': 'uniform', 'epsilon': 0.1, 'kernel': None}}", "labels.smoothing.kernel", None),
        ("model={'options': {'decoder_channels': [8, 4]}}", "model.options.decoder_channels", [8, 4]),
    ],
)
def test_values_in_pythons_form_are_composed(word, key, wanted):
    node = compose_plain(checked("train", [word]))
    for name in key.split("."):
        node = node[name]
    assert node == wanted
    assert type(node) is type(wanted)


@pytest.mark.parametrize("word", ["a={x:1}", "a=[b,c]", "a=[1,2],[3]", "a='None'", "a=[1", "a={1,2}", r"a=['\n']", "a"])
def test_hydras_own_form_stays(word):
    assert from_python(word) == word


def test_a_flag_is_never_taken_for_a_value():
    with pytest.raises(UserError, match="no option '--'"):
        checked("train", ["--"])


def test_the_documented_agent_calls_train_with_words_that_are_composed():
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "sweeps.md").read_text()
    sweep = yaml.safe_load(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1])
    assert sweep["command"][:2] == ["dmseg", "train"]
    assert sweep["command"][-1] == "${args_no_hyphens}"
    values = {name: node["values"] for name, node in sweep["parameters"].items() if "values" in node}
    for index in range(3):
        args = {name: {"value": choice[index % len(choice)]} for name, choice in values.items()}
        made = utils.create_sweep_command_args({"args": args | {"optim.lr": {"value": 0.0031}}})["args_no_hyphens"]
        settings = compose_settings(checked("train", [*sweep["command"][2:-1], *made]))
        assert settings.optim.lr == 0.0031
        assert settings.labels.name == values["labels"][index]
        assert settings.model.weights == values["model.weights"][index % 2]
        assert settings.train.scale == values["train.scale"][index % 2]
