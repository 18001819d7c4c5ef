"""Overrides as a shell hands them over: paths with any characters, and ``~``."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmseg.config.compose import compose_settings
from dmseg.config.overrides import PATH_KEYS, chosen_option, parse_override, quoted
from dmseg.errors import UserError

ODD = (
    "a(1)",
    "a=b",
    "a,b",
    "ä",
    "a#b",
    "a b",
    "[x]",
    "{y}",
    "x&y;z!",
    "it's",
    'say "no"',
    "back\\slash",
    "end\\",
    "123",
)


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("form", ["{}={}", "+{}={}", "++{}={}"])
def test_paths_may_hold_any_characters(name, form):
    assert parse_override(form.format("data.root", f"/x/{name}")).value() == f"/x/{name}"
    assert compose_settings([f"data.root=/x/{name}", f"paths.results={name}"]).data.root == f"/x/{name}"


@pytest.mark.parametrize("key", ["data.root", "paths.data", "paths.prepared", "paths.results", "model.weights"])
def test_home_is_expanded_in_every_path(key, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    group, name = key.split(".")
    assert getattr(getattr(compose_settings([f"{key}=~/p"]), group), name) == str(tmp_path / "p")
    assert key in PATH_KEYS


def test_home_is_expanded_behind_an_interpolation_and_in_a_teacher(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compose_settings(['paths.data="~/d"']).data.root == str(tmp_path / "d/qubiq")
    assert compose_settings(["paths={data: '~/d'}"]).paths.data == str(tmp_path / "d")
    taught = compose_settings(["distill=kd", "distill.teacher.weights=~/w", "model.weights=null"])
    assert taught.distill.teacher.model.weights == str(tmp_path / "w")


@pytest.mark.parametrize("key", PATH_KEYS)
def test_an_unknown_home_is_refused_in_every_path(key):
    with pytest.raises(UserError, match=r"is '~nobody-of-this-name/x', but the home folder .* is unknown") as caught:
        compose_settings(["distill=kd", f"{key}=~nobody-of-this-name/x"])
    group, _, name = key.partition(".")
    assert re.match(rf"{group}\..*{name.rpartition('.')[2]} is", str(caught.value))
    assert str(caught.value).endswith("or ./~nobody-of-this-name for a folder of this name")
    assert compose_settings([f"{key}=./~nobody-of-this-name/x", "distill=kd"])


@pytest.mark.parametrize("text", ["model.weights=null", "model.weights=imagenet"])
def test_words_that_are_no_paths_stay(text):
    assert compose_settings([text]).model.weights == {"null": None, "imagenet": "imagenet"}[text.partition("=")[2]]


@given(st.text(min_size=1))
def test_a_quoted_text_is_read_back(text):
    assert parse_override(f"wandb.project={quoted(text)}").value() == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wandb.project=a(1", "'wandb.project=a\\(1' cannot be parsed .*; put the value in quotes"),
        ("nonsense", "'nonsense' is not an override; write key=value"),
        ("--cfg", "'--cfg' is not an override"),
    ],
)
def test_what_cannot_be_parsed_is_named(text, message):
    with pytest.raises(UserError, match=message):
        compose_settings([text])


@pytest.mark.parametrize("key", ["seed", "folds.seed", "fold"])
def test_negative_seeds_are_refused(key):
    with pytest.raises(UserError, match=rf"^{key} is -1, but must lie between 0 and"):
        compose_settings([f"{key}=-1", "folds.kind=shuffled"])


def test_the_last_choice_of_a_group_counts():
    assert chosen_option(["labels=uniform", "labels.name=x", "++labels='weighted'"], "labels") == "weighted"
    assert chosen_option(["labels={name: x}", "~labels"], "labels") is None
