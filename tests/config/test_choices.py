"""The list of open choices against the protocol files, what both protocols compose, and the page in the docs."""

import runpy
from pathlib import Path

import pytest
import yaml

from dmseg.config.choices import OPEN_CHOICES, TOPICS, written
from dmseg.config.compose import compose_plain
from dmseg.config.resources import resource
from dmseg.config.variants import Base

REPO = Path(__file__).parents[2]
PROTOCOL = [choice for choice in OPEN_CHOICES if choice.key.startswith("protocol.")]
OTHERS = [choice for choice in OPEN_CHOICES if choice.key and choice not in PROTOCOL]


def leaves(node, prefix="protocol."):
    for name, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@pytest.mark.parametrize("name", ["paper", "release"])
def test_every_key_of_a_protocol_is_listed_with_its_value(name):
    file = yaml.safe_load((resource("configs") / f"protocol/{name}.yaml").read_text())
    assert file.pop("name") == name
    assert dict(leaves(file)) == {choice.key: getattr(choice, name) for choice in PROTOCOL}


@pytest.mark.parametrize("name", ["paper", "release"])
def test_every_other_key_has_the_listed_value_in_both_protocols(name):
    contexts = {choice.context for choice in OTHERS}
    composed = {context: compose_plain([f"protocol={name}", *context]) for context in contexts}
    for choice in OTHERS:
        value = composed[choice.context]
        for part in choice.key.split("."):
            assert part in value, choice.key
            value = value[part]
        value = value["name"] if isinstance(value, dict) and "name" in value else value
        assert value == getattr(choice, name), choice.key
        assert choice.paper == choice.release != choice.other


@pytest.mark.parametrize("name", ["paper", "release"])
def test_what_a_protocol_chooses_acts_where_the_list_says(name):
    bases = {choice.context: Base([f"protocol={name}", *choice.context]) for choice in PROTOCOL}
    for choice in (choice for choice in PROTOCOL if choice.acts):
        assert bases[choice.context].has(choice.acts), choice.acts
        value = bases[choice.context].plain
        for part in choice.acts.split("."):
            value = value[part]
        assert value in (getattr(choice, name), "auto"), choice.acts


def test_the_list_is_whole_and_says_why():
    assert (
        len({choice.title for choice in OPEN_CHOICES})
        == len(OPEN_CHOICES)
        == sum(len(topic.choices) for topic in TOPICS)
    )
    keys = [choice.key for choice in OPEN_CHOICES if choice.key]
    assert len(keys) == len(set(keys))
    for choice in OPEN_CHOICES:
        assert choice.source
        assert bool(choice.why) == (not choice.key)
        assert (
            not choice.key
            or (choice.paper != choice.release) == (choice.other is None)
            or choice.key == "model.weights"
        )


@pytest.mark.parametrize(
    "word",
    ["n_key", "balanced", "epsilon", "smoothing.kernel", "region.reduction", "protocol.resnet", "model.weights",
     "reference", "evaluate.empty", "random rater", "teacher.labels", "methods of Table 3", "seed", "statistical test",
     "folds.kind", "qubiq_intensity"],
)  # fmt: skip
def test_what_cannot_be_determined_is_listed(word):
    """The open choices that the reading of paper and code ended with."""
    assert any(word in f"{choice.title} {choice.key}" for choice in OPEN_CHOICES)


def test_values_are_written_as_they_are_typed():
    values = [None, True, False, 0.5, 3, "d", "", [1, 2.0], {"a": None}]
    assert [written(value) for value in values] == [
        "null", "true", "false", "0.5", "3", "d", "''", "[1,2.0]", "{a:null}",
    ]  # fmt: skip


def test_the_page_has_the_list():
    script = runpy.run_path(str(REPO / "scripts" / "generate_choices.py"))
    text = script["PAGE"].read_text()
    assert text == script["page"](text), "run: python scripts/generate_choices.py"
    for choice in OPEN_CHOICES:
        assert f"| {choice.title} |" in text
