"""Every key of the configuration with values of the wrong type, shape or size: settings, or one plain message."""

import copy
import math
import random
from contextlib import suppress

import pytest
from omegaconf import OmegaConf

from dmseg.cli.expand import expand
from dmseg.config.components import bind
from dmseg.config.compose import compose_plain, compose_settings, restore_settings, to_settings
from dmseg.config.resources import resource
from dmseg.config.settings import Settings
from dmseg.errors import UserError, shown
from dmseg.tables.spec import read_spec

CHOICES = (
    [],
    ["data=lidc"],
    ["data=kits"],
    ["data=phantom_lits"],
    ["labels=smoothing"],
    ["labels=weighted"],
    ["method=mrnet", "model=unet_tiny"],
    ["method=softseg"],
    ["method=mc_dropout"],
    ["distill=kd"],
    ["launcher=slurm"],
    ["protocol=release"],
)
VALUES = (
    "x", "", "y" * 3000, "\0", "a\0b", "üß中", "\udcff", "???", None, True, -1, 0, 1, 0.5, 10**30, 10**400, 10**5000,
    math.nan, math.inf, -math.inf, 1e30, [], [None], [{}], ["a", "b"], [1, 2], [[1], [2]], {}, {"a": 1}, {1: 2},
    {None: 1}, {"_target_": 1}, {"_target_": "dmseg.labels.fusion.uniform"}, b"x",
)  # fmt: skip
WRITTEN = (
    "x", "''", "null", "nan", "inf", "1e400", "-1", "0.5", "true", "9" * 400, "9" * 5000, "[]", "[a,b]", "[[1],[2]]",
    "{}", "{a:1}", "{1:2}", "{_target_:1}", "'" + "y" * 3000 + "'", "'ü中'", "'\0'", "'\u202e'", "???", "'${seed}'",
    "'${'", "'${oc.env:NOPE}'", "'${nope:1}'", "../config", "/etc/passwd", "", "\"\n\"", "[" * 2000 + "]" * 2000,
)  # fmt: skip
ODD = (
    "~evaluate.reference._target_", "evaluate.reference=5", "~evaluate.reference", "+method.unused=[x]",
    "data.window=[a,b]", "device=meta", "device=mps", "device=xpu", "device=cuda:-1", "device=", "device=cuda:x",
    "folds.count=x", "data=../config", "data=/etc/passwd", "data=", "data=null", "data=[a]", "data={a:1}", "~data",
    "~protocol", "protocol.interpolation=5", "~protocol.classes.hard", "profile=5", "distill=5", "distill={}",
    "+distill.teacher=5", "launcher.job=5", "wandb=5", "threads=x", "workers=[1]", "train.scale=[1,2,3]",
    "train.scale=[nan,nan]", "labels.smoothing={1:2}", "model.options={1:2}", "=", "", "~", "+", "a..b=1",
    "data@x=qubiq", "+data=qubiq", "labels._target_=dmseg.labels.fusion", "loss.region=5",
    "loss.terms.region._target_=torch.nn.Module", "loss={ce_weight:1,region:x}", "loss.terms=5", "loss.terms={a:5}",
    "loss={terms:x,kl:1}", "~loss.terms.ce.weight", "~loss.terms.ce", "+loss.terms.loss={a:1}",

    "model.architecture=[a]", "seed=${seed}", "seed=glob(*)", "seed=choice(1,2)", "x" * 5000 + "=1", "-m", "--help=1",
)  # fmt: skip


def said(call, *arguments):
    """What a call says of a mistake, None where there is none; any other exception is the test's."""
    try:
        assert isinstance(call(*arguments), Settings)
    except UserError as error:
        text = str(error)
        assert text.strip()
        assert len(text.splitlines()) <= 3
        assert len(text) < 800
        return text
    return None


def keys(node, trail=()):
    for name, value in node.items():
        yield (*trail, name)
        if isinstance(value, dict):
            yield from keys(value, (*trail, name))


def changed(plain, path, change):
    node = copy.deepcopy(plain)
    inner = node
    for name in path[:-1]:
        inner = inner[name]
    change(inner, path[-1])
    return node


@pytest.mark.parametrize("choice", CHOICES, ids=lambda words: "-".join(words) or "default")
def test_every_key_with_every_odd_value(choice):
    plain = compose_plain(choice)
    chance = random.Random(str(choice))
    refused = 0
    for path in keys(plain):
        node = changed(plain, path, lambda group, name: group.pop(name))
        said(to_settings, node)
        for value in chance.sample(VALUES, 8) if choice else VALUES:
            node = changed(plain, path, lambda group, name, value=value: group.update({name: copy.deepcopy(value)}))
            refused += said(to_settings, node) is not None
    assert refused > 100


def test_keys_of_all_files_as_they_are_written_on_the_command_line():
    """A sample, as composing takes its time; the seed is fixed."""
    chance = random.Random(0)
    words = []
    for file in sorted(resource("configs").glob("[!t]*/*.yaml")):
        group = file.parent.name
        node = OmegaConf.to_container(OmegaConf.load(file))
        for path in keys(node, (group,)):
            key = ".".join(map(str, path))
            words += [[f"{group}={file.stem}", f"{mark}{key}={value}"] for mark in ("", "+") for value in WRITTEN]
            words += [[f"{group}={file.stem}", f"~{key}"], [f"{group}={file.stem}", f"+{key}.new=1"]]
    for overrides in chance.sample(words, 40):
        said(compose_settings, overrides)


@pytest.mark.parametrize("word", ODD, ids=lambda word: shown(word)[:40])
def test_odd_words(word):
    said(compose_settings, [word])
    with suppress(UserError):
        expand([word])


@pytest.mark.parametrize("word", ["device=meta", "device=mps", "device=xpu", "device=cuda:-1", "device=cuda:x"])
def test_a_device_that_cannot_train_is_refused_before_anything(word):
    assert "but must be auto, cpu, cuda or cuda:N" in said(compose_settings, [word])


@pytest.mark.parametrize("node", [{}, {"labels": 5}, {"labels": {}}, {"labels": {}, "distill": {"teacher": []}}])
def test_stored_settings_of_another_shape(node, tmp_path):
    assert said(restore_settings, node, tmp_path)


def test_what_a_constructor_raises_is_one_line():
    with pytest.raises(UserError, match=r"the options of 'loss.terms.x' do not fit torch\.nn\.Conv2d: ") as caught:
        bind("torch.nn.Conv2d", {"in_channels": 1, "out_channels": -1, "kernel_size": "x"}, where="loss.terms.x",
             n_positional=0)()  # fmt: skip
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [("x", "'x'"), (10**5000, "an int too large to be shown"), ("é" * 500, "...")],
    ids=["short", "number", "long"],
)
def test_values_in_messages_are_cut(value, expected):
    assert expected in shown(value)
    assert len(shown(value)) <= 130


def test_a_current_folder_that_is_gone(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert said(compose_settings, []) == "the current folder no longer exists; change to another one"


@pytest.mark.parametrize("name", ["../config", "./2", "2.yaml", "", "9" * 5000, "a\0b", "/etc/passwd", "*"])
def test_a_table_is_chosen_by_name_and_not_by_path(name):
    with pytest.raises(UserError, match="there is no table") as caught:
        read_spec(name)
    assert len(str(caught.value)) < 300
