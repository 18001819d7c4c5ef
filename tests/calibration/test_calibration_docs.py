"""The examples of docs/calibration.md run."""

import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[2] / "docs" / "calibration.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=["kernel", "bandwidth", "temperature"])
def test_example(block):
    torch.manual_seed(0)
    exec(compile(block, "docs/calibration.md", "exec"), {"__name__": "example"})
