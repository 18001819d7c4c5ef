"""The raters' agreement: the table, its report and its figure show the same numbers."""

import re

import numpy as np
import pandas as pd
import pytest
from conftest import disc, save_png, write_lidc
from PIL import Image

from dmseg.cli.main import main


@pytest.fixture
def disjoint_rater(tmp_path):
    """Overrides of a LIDC with four patients, in one of which a rater marks another place than the three others."""
    tree = write_lidc(tmp_path / "lidc", 4, np.random.default_rng(1))
    folder = tree / "LIDC-IDRI-slices" / "LIDC-IDRI-0001" / "nodule-0"
    for rater, (centre, radius) in enumerate([(20, 8), (21, 8), (20, 7), (3, 4)]):
        save_png(folder / f"mask-{rater}" / "slice-0.png", 255 * disc(32, (centre, centre), radius))
    paths = [f"paths.prepared='{tmp_path / 'prepared'}'", f"paths.results='{tmp_path / 'results'}'"]
    return ["table=1", "data=lidc", f"data.root='{tree}'", "data.size=32", *paths]


def dice_by_hand(tree, disjoint):
    """Mean over patients of the mean Dice between raters and majority, from the PNG files."""
    means = []
    for patient in sorted((tree / "LIDC-IDRI-slices").iterdir()):
        masks = [np.asarray(Image.open(path)) > 0 for path in sorted(patient.glob("nodule-0/mask-*/slice-0.png"))]
        vote = np.sum(masks, axis=0) >= 3
        scores = [2 * (mask & vote).sum() / (mask.sum() + vote.sum()) for mask in masks]
        means.append(np.mean([score or disjoint for score in scores]))
    return 100 * np.mean(means)


@pytest.mark.parametrize(("words", "disjoint"), [([], 0), (["protocol=release"], 1), (["agreement.disjoint=0.5"], 0.5)])
def test_the_report_and_the_figure_show_the_mean_of_the_table(words, disjoint, disjoint_rater, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "dmseg.report.table_figures.write_agreement_figure", lambda stem, values, *rest: drawn.append(values) or [stem]
    )
    for command in ("table", "report", "figures"):
        assert main([command, *disjoint_rater, *words]) == 0
    expected = dice_by_hand(tmp_path / "lidc", disjoint)
    cells = pd.read_csv(tmp_path / "results" / "tables" / "table1.csv").set_index("metric")
    assert cells.loc["dice", "value"] == pytest.approx(expected)
    (values,) = drawn[0].values()
    assert values.mean() == pytest.approx(expected)
    page = (tmp_path / "results" / "reports" / "table1.html").read_text("utf-8")
    assert f"{expected:.2f} (n 4)." in page
    for text in (page, (tmp_path / "results" / "tables" / "table1.md").read_text("utf-8").replace("\\", "")):
        assert (f"counts as Dice {disjoint:g}, not 0" in text) is (disjoint > 0)


def test_cases_of_different_tasks_are_not_joined(shared_qubiq, tmp_path):
    assert main(["report", "table=1", "data=qubiq", *shared_qubiq, f"paths.results='{tmp_path}'"]) == 0
    page = (tmp_path / "reports" / "table1.html").read_text("utf-8")
    assert "Raters and majority" in page
    assert not re.search(r'class="pairs"', page)
