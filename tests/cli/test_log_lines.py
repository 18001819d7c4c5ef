"""Messages of logs on standard error: one line each, however long, and each once."""

import subprocess
import sys

import numpy as np
from conftest import save_nifti

PROGRAM = """
import logging
from dmseg.cli.messages import set_up_logging
set_up_logging()
logging.getLogger("dmseg.data").warning("%s is \\x1b[31mred", "/a long/path" * 30)
logging.warning("of the root [bold]logger[/bold]")
hub = logging.getLogger("huggingface_hub")
hub.addHandler(logging.StreamHandler())
logging.getLogger("huggingface_hub.utils").error("retrying")
try:
    1 / 0
except ZeroDivisionError:
    logging.exception("failed")
"""


def test_lines_are_neither_wrapped_nor_repeated():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    lines = done.stderr.splitlines()
    assert lines[0] == "/a long/path" * 30 + " is \\x1b[31mred"
    assert lines[1] == "of the root [bold]logger[/bold]"
    assert lines[2:5] == ["retrying", "failed", "Traceback (most recent call last):"]
    assert lines[-1] == "ZeroDivisionError: division by zero"


def test_a_fault_is_printed_once_with_its_whole_path(tmp_path):
    root = tmp_path / "a very long name for the folder of an institute" / "and another one inside of it, also long"
    for number in range(4):
        for kind in ("volume", "segmentation"):
            save_nifti(root / f"{kind}-{number}.nii.gz", np.full((4, 4, 3), 2), np.uint8)
    broken = [root / f"volume-{number}.nii.gz" for number in (1, 3)]
    for path in broken:
        path.write_bytes(path.read_bytes()[:30])
    words = ["prepare", "data=lits", f"data.root='{root}'", "data.size=16", f"paths.prepared={tmp_path / 'p'}"]
    done = subprocess.run([sys.executable, "-m", "dmseg", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    for path in broken:
        assert sum(f"{path} cannot be read" in line for line in lines) == 1
    assert lines[2].startswith("lits/tumour: 2 of 4 cases cannot be read: volume-1, volume-3")


def test_prepare_names_cases_without_slices(tmp_path):
    for number in range(3):
        save_nifti(tmp_path / f"volume-{number}.nii", np.arange(48).reshape(4, 4, 3), np.uint8)
        save_nifti(tmp_path / f"segmentation-{number}.nii", np.full((4, 4, 3), 0 if number == 1 else 2), np.uint8)
    words = ["prepare", "data=lits", f"data.root={tmp_path}", "data.size=16", f"paths.prepared={tmp_path / 'p'}"]
    done = subprocess.run([sys.executable, "-m", "dmseg", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert done.stdout.startswith("lits/tumour: 2 cases, 6 slices, ")
    assert "lits/tumour: 1 of 3 cases has no slices to keep (volume-1); they count in folds" in done.stderr
