"""The examples of docs/how-to/calibration.md run."""

import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "calibration.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=["kernel", "bandwidth", "temperature"])
def test_example(block):
    torch.manual_seed(0)
    exec(compile(block, "docs/how-to/calibration.md", "exec"), {"__name__": "example"})
