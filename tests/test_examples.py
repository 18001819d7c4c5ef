"""The commands of the examples' own pages, run in a folder of a user's, on as little data as they can do with."""

import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from dmseg.cli.extensions import use_extensions
from dmseg.cli.main import main
from dmseg.config.components import KINDS
from dmseg.runs.store import RunStore

EXAMPLES = Path(__file__).parents[1] / "examples"
PHANTOM = ["data.phantom.cases={kidney:10}", "train.epochs=1", "train.min_steps=2"]
SHORT = {"my_dataset": ["train.epochs=1"]}


def commands(name):
    text = (EXAMPLES / name / "README.md").read_text()
    return [
        shlex.split(line) for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()
    ]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with a copy of the examples, whose generated data all examples share."""
    folder = tmp_path_factory.mktemp("workplace")
    shutil.copytree(EXAMPLES, folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def at_work(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    path = list(sys.path)
    yield workplace
    use_extensions("train", [])
    assert sys.path == path


def run(words, name):
    """Runs a command of a page; a training with few steps."""
    if words[0] == "python":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", words[1:])
            runpy.run_path(words[1], run_name="__main__")
        return
    short = SHORT.get(name, PHANTOM) if words[1] == "train" else []
    assert main([*words[1:], *short]) == 0, words


@pytest.mark.slow
@pytest.mark.parametrize("name", ["my_loss", "my_fusion", "my_dataset", "my_method"])
def test_an_example_runs_as_its_page_says(name, at_work, capfd):
    found = commands(name)
    assert found
    for words in found:
        run(words, name)
    store = RunStore(at_work / "results" / ("my_dataset" if name == "my_dataset" else "phantom"))
    settings = [store.read_json(run_id, "config.json") for run_id in store.run_ids()]
    used = [item["identity"] for item in settings if f"{name}." in str(item["settings"])]
    assert used
    if name != "my_dataset":  # an adapter counts in the store, by the digest of what it read
        assert all(any(str(value).startswith("sha256:") for value in item["code"].values()) for item in used)
    if name == "my_loss":
        assert any("workers=2" in words for words in found)
        rows = pd.read_csv(next((at_work / "results" / "phantom" / "sweeps").glob("*.csv")))
        assert list(rows["loss"]) == ["my_loss", "ce_dml1"]
        assert set(rows["status"]) == {"done"}


@pytest.mark.parametrize("name", ["my_loss", "my_fusion", "my_dataset", "my_method"])
def test_an_example_is_one_python_file_one_yaml_file_and_a_page(name):
    files = sorted(path for path in (EXAMPLES / name).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert [path.suffix for path in sorted(files, key=lambda path: path.suffix)] == [".md", ".py", ".yaml"]
    (yaml,) = (path for path in files if path.suffix == ".yaml")
    assert yaml.parent.name in {where.partition(".")[0] for where in KINDS}
    assert yaml.stem == name
