"""The examples of docs/how-to/losses.md run, and the script that searches for rho finds what is known."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

REPO = Path(__file__).parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (REPO / "docs" / "how-to" / "losses.md").read_text(), flags=re.DOTALL)


def test_there_are_examples():
    assert len(BLOCKS) == 4


@pytest.mark.parametrize("block", BLOCKS, ids=["torch", "monai", "lightning", "smp"])
def test_example(block):
    torch.manual_seed(0)
    exec(compile(block, "docs/how-to/losses.md", "exec"), {"__name__": "example"})


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("search_rho", REPO / "scripts" / "search_rho.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("variant", [1, 2])
def test_the_search_climbs_to_three_halves_and_no_higher_than_is_proved(script, variant):
    found = script.search(variant, size=2, starts=50, steps=200, seed=0)
    assert 1.49 < found.ratio <= (1 + 5**0.5) / 2
    ratio = script.ratios(found.triple[:, None], script.OVERLAPS[variant])
    assert float(ratio) == pytest.approx(found.ratio)


def test_the_script_prints_a_row_for_each_variant_and_size(script, capsys):
    script.main(["--sizes", "1", "2", "--starts", "5", "--steps", "5"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "known: 1.5 <= rho <= 1.618034"
    assert len(lines) == 2 + 4
