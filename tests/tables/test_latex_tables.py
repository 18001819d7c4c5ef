"""LaTeX tables: a float with caption and label that pdfLaTeX typesets within the text."""

import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from dmseg.tables.inference import DEFAULT
from dmseg.tables.numbers import TableData, comparison_cells
from dmseg.tables.render import LATEX_PACKAGES, to_latex


@pytest.fixture
def table(plan):
    rng = np.random.default_rng(0)
    rows = [
        {"data": row.data, "model": row.model, "task": row.task.name, "method": method, "cohort": row.task.cohort,
         "seed": run.settings.seed, "fold": run.settings.fold, "run_id": run.run_id, "case": case,
         **{name: rng.uniform(0.5, 0.9) for name in ("dice", "bdice", "ece")}}
        for row in plan.rows for method, runs in row.runs.items() for run in runs for case in run.split.validation
    ]  # fmt: skip
    cells = comparison_cells(plan, pd.DataFrame(rows), DEFAULT)
    return TableData(plan.spec, cells, "qubiq", True, "paper", "paper")


def test_a_table_is_a_float_with_caption_and_label(table):
    text = to_latex(table, ("a note",))
    lines = text.splitlines()
    assert LATEX_PACKAGES in lines
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == text.count(r"\caption{") == 1
    assert r"\label{tab:dmseg-2}" in lines
    assert lines.index(r"\label{tab:dmseg-2}") > next(i for i, line in enumerate(lines) if line.startswith(r"\caption"))
    assert "Phantom data" in text


def test_latex_typesets_the_table_within_the_text(table, tmp_path):
    if (program := shutil.which("pdflatex")) is None:
        pytest.skip("there is no pdflatex here")
    packages = LATEX_PACKAGES.removeprefix("% Needs ").removesuffix(".").replace(" and ", "\n")
    titles = {"method_title": table.cells["method_title"] + " of a long name", "task_title": "50 % & more: a_b^c ~ \\x"}
    wide = TableData(table.spec, table.cells.assign(**titles), "qubiq", False, "paper", "paper")
    body = to_latex(table) + to_latex(wide).replace("dmseg-2}", "dmseg-wide}")
    (tmp_path / "t.tex").write_text(
        f"\\documentclass{{article}}\n{packages}\n\\begin{{document}}\n{body}\\ref{{tab:dmseg-2}}\\end{{document}}\n"
    )
    words = [program, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "t.tex"]
    for _ in range(2):
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert "undefined" not in done.stdout
    assert (tmp_path / "t.pdf").read_bytes().startswith(b"%PDF")
