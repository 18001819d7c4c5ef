"""The page on configuration keys is what its script writes, and names every key."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import pytest

from dmseg.config.compose import compose_plain
from dmseg.config.origins import meanings

REPO = Path(__file__).parents[2]
PAGE = REPO / "docs" / "reference" / "configuration.md"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("reference", REPO / "scripts" / "generate_config_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_page_is_current(script):
    assert PAGE.read_text() == script.configuration(), "run: python scripts/generate_config_reference.py"


def leaves(node, prefix=""):
    for name, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


@pytest.mark.parametrize(
    "overrides",
    [[], ["data=lits", "distill=kd"], ["method=mrnet"], ["launcher=slurm", "labels=smoothing"], ["data=phantom"]],
)
def test_every_key_that_hydra_composes_is_on_the_page(overrides):
    composed = compose_plain(overrides)
    if composed["distill"]:
        del composed["distill"]["teacher"]  # composed from the groups model, labels and loss
    del composed["data"]["tables"]  # a mapping on one line
    page = PAGE.read_text()
    assert [key for key in leaves(composed) if f"| `{key}` |" not in page] == []


@dataclass
class Documented:
    """Settings.

    Attributes:
        a: first
            and more.
        b: ``c``.
    """

    a: int
    b: int


def test_a_missing_comment_falls_back_to_the_docstring(script):
    assert "| `optim.momentum` | `0.9` | momentum |" in PAGE.read_text()
    assert list(meanings(Documented, "x.")) == [("x.a", "first and more"), ("x.b", "`c`")]
