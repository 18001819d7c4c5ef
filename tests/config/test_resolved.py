"""Interpolations are resolved as OmegaConf resolves them."""

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dmseg.config import interpolations as module
from dmseg.config.compose import compose_config
from dmseg.config.interpolations import resolved

USUAL = {
    "whole": {"a": 1, "b": "${a}"},
    "types": {"a": {"x": 1.0, "y": None, "z": True, "t": "1"}, "b": "${a}", "c": "${a.y}", "d": ["${a.z}", "${a.t}"]},
    "chain": {"a": "${b.x}", "b": "${c}", "c": {"x": "${d}"}, "d": [1, "${e}"], "e": "text"},
    "within text": {"a": 3, "b": "n", "c": "x${a}-${b}y"},
    "values within text": {"a": 1e-3, "b": "x${a}", "c": True, "d": "x${c}", "e": None, "f": "x${e}"},
    "select": {"a": {"x": "y"}, "b": "${oc.select:a.x,not_there}", "c": "${oc.select:a.z,not_there}"},
    "select of null": {"a": {"x": None}, "b": "${oc.select:a.x,not_there}"},
}
UNUSUAL = {
    "relative": {"a": {"b": 1, "c": "${.b}"}},
    "escaped": {"a": 1, "b": r"\${a}", "c": r"\\${a}"},
    "brackets": {"a": {"b": 1}, "c": "${a[b]}"},
    "index": {"a": [1, 2], "b": "${a.1}"},
    "nested": {"a": "b", "b": 2, "c": "${${a}}"},
    "select of a number": {"b": "${oc.select:a,1}", "c": "${oc.select:a,null}"},
    "spaces": {"a": 1, "b": "${ a }"},
    "group within text": {"a": {"b": 1}, "c": "x${a}"},
    "group with a reference within text": {"a": {"b": "${d}"}, "c": "x${a}", "d": 1},
    "dollar": {"a": "$5"},
}
MISTAKES = {
    "missing": {"a": "???"},
    "missing by name": {"a": "???", "b": "${a}"},
    "unknown": {"a": "${b}"},
    "unknown inside": {"a": {"x": 1}, "b": "${a.y}"},
    "inside a number": {"a": 1, "b": "${a.y}"},
    "cycle": {"a": "${b}", "b": "${a}"},
}


def by_omegaconf(config):
    return OmegaConf.to_container(OmegaConf.create(config), resolve=True, throw_on_missing=True)


@pytest.mark.parametrize("name", [*USUAL, *UNUSUAL])
def test_as_omegaconf_resolves_it(name):
    config = {**USUAL, **UNUSUAL}[name]
    assert repr(resolved(config)) == repr(by_omegaconf(config))


@pytest.mark.parametrize("name", USUAL)
def test_names_of_keys_need_no_grammar(name, monkeypatch):
    expected = by_omegaconf(USUAL[name])
    monkeypatch.delattr(module.OmegaConf, "to_container")
    assert resolved(USUAL[name]) == expected


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_omegaconfs_errors(name):
    with pytest.raises(OmegaConfBaseException) as expected:
        by_omegaconf(MISTAKES[name])
    with pytest.raises(OmegaConfBaseException) as found:
        resolved(MISTAKES[name])
    assert str(found.value) == str(expected.value)


@pytest.mark.parametrize(
    "words",
    [
        [], ["protocol=release"], ["profile=demo", "data=phantom"], ["data=kits", "distill=kd"],
        ["profile=demo", "distill=kd", "method=mrnet"], ["data=lits", "labels=uniform", "model=deeplabv3plus_resnet18"],
    ],
)  # fmt: skip
def test_the_projects_own_configuration(words, monkeypatch):
    config = OmegaConf.to_container(compose_config(words))
    expected = by_omegaconf(config)
    monkeypatch.delattr(module.OmegaConf, "to_container")
    assert repr(resolved(config)) == repr(expected)
