"""The layers: nothing imports upwards, and planning needs no torch."""

import ast
from pathlib import Path

import pytest

import dmseg

ROOT = Path(dmseg.__file__).parent
LAYERS = (
    ("errors", "revision", "text", "limits", "activity"),
    ("files",),
    ("losses", "labels", "calibration", "metrics", "stats", "models"),
    ("config", "phantom"),
    ("data",),
    ("training",),
    ("methods",),
    ("runs",),
    ("launch", "tables"),
    ("report",),
    ("cli",),
)
"""From the ground up."""
SHARED = (0, 2)
"""Layers within which imports are allowed; elsewhere a subpackage imports only from the layers below it."""
LAYER_OF = {name: layer for layer, names in enumerate(LAYERS) for name in names}
FILES = sorted(path for path in ROOT.rglob("*.py") if path.name != "__main__.py" and path != ROOT / "__init__.py")


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("dmseg."):
            modules = [f"{node.module}.{name.name}" for name in node.names]
            known = [
                module for module in modules if (ROOT.parent / module.replace(".", "/")).with_suffix(".py").exists()
            ]
            yield from known or [node.module]
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("dmseg."))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_imports_upwards(path):
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for module in imported(path):
        other = module.split(".")[1]
        beside = other == own or LAYER_OF[other] == LAYER_OF[own] in SHARED
        assert beside or LAYER_OF[other] < LAYER_OF[own], f"{path.name} imports {module}"


def test_there_are_no_circles():
    graph = {
        ".".join(("dmseg", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): set(
            imported(path)
        )
        for path in FILES
    }
    done: set[str] = set()

    def visit(module, trail):
        assert module not in trail, " -> ".join([*trail, module])
        if module in done:
            return
        for other in graph.get(module, ()):
            visit(other, [*trail, module])
        done.add(module)

    for module in graph:
        visit(module, [])


def test_files_stay_readable():
    long = {path.name: len(path.read_text().splitlines()) for path in FILES if len(path.read_text().splitlines()) > 400}
    assert not long


def test_one_name_one_thing():
    names = [path.name for path in FILES if path.name != "__init__.py" and not path.name.startswith("_")]
    assert {name for name in names if names.count(name) > 1} == set()
