"""The HTML report: complete, partial, empty and damaged tables, and names that are made to break it."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from browser import CHROMIUM, Browser
from conftest import store_run, write_lidc
from PIL import Image

from dmseg.cli.main import main
from dmseg.metrics.counting import count_stored
from dmseg.report.gallery import galleries
from dmseg.report.gather import gather_rows
from dmseg.report.html import Report, render, write_report
from dmseg.report.table_figures import write_table_figures
from dmseg.report.tracking.journal import journal_path
from dmseg.runs.pack_file import write_pack
from dmseg.runs.seal import seal
from dmseg.runs.store import RunStore
from dmseg.tables.collected import collect_cases
from dmseg.tables.inference import DEFAULT
from dmseg.tables.numbers import comparison_content
from dmseg.tables.open_choices import explain_tables
from dmseg.tables.planning import TablePlanner
from dmseg.tables.spec import read_spec
from dmseg.training.pictures import Gallery

ODD = "a<b & \"c\" 'd' <img src=x onerror=alert(1)> {{ 7*7 }} $x$"


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)

    def having(self, name):
        return [attributes[name] for _, attributes in self.tags if name in attributes]

    def count(self, tag):
        return sum(name == tag for name, _ in self.tags)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Overrides of Table 2 of a small LIDC, one of whose patients has an odd name."""
    place = tmp_path_factory.mktemp("report")
    tree = write_lidc(place / "lidc", 12, np.random.default_rng(1))
    patients = sorted((tree / "LIDC-IDRI-slices").iterdir())
    patients[3].rename(patients[3].with_name(f"LIDC-IDRI-0004 {ODD}"))
    return ["data=lidc", f"data.root='{tree}'", "data.size=32", "model=unet_tiny", f"paths.prepared='{place / 'p'}'"]


def fill(run, seed, packs=True, history=True):
    """Stores made-up scores, counts and pictures of a run."""
    rng = np.random.default_rng([seed, run.settings.fold])
    rows, counts, gallery = [], {}, Gallery()
    for case in run.split.validation:
        raters = rng.random((4, 1, 32, 32)) < 0.3
        reference, probability = raters.mean(axis=0, dtype=np.float32), rng.random((1, 32, 32), dtype=np.float32)
        counts[case] = count_stored(probability, raters, reference)
        gallery.add(case, rng.integers(0, 255, (1, 1, 32, 32), dtype=np.uint8), raters, reference, probability)
        dice = float(rng.uniform(0.5, 0.9))
        rows.append({"case": case, "dice": dice, "bdice": dice - 0.1, "ece": 0.02, "n_slices": 1, "n_raters": 4})
    store_run(run, rows, counts=counts)
    place = RunStore(run.results).folder(run.run_id)
    if packs:
        write_pack(place / "pack.npz", gallery.chosen({row["case"]: row["dice"] for row in rows}))
    if history:
        pd.DataFrame({"epoch": [1, 2], "step": [3, 6], "lr": [0.1, 0.05], "loss": [0.9, 0.4]}).to_csv(
            place / "history.csv", index=False
        )
    (place / "DONE").unlink()
    seal(place)


def planned(words, tmp_path):
    return TablePlanner([*words, f"paths.results='{tmp_path}'"], [read_spec("2")]).plan()[0]


def reported(plan):
    cases = collect_cases(plan)
    return Report(comparison_content(plan, cases, DEFAULT), plan, cases)


@pytest.fixture(scope="module")
def complete(words, tmp_path_factory):
    """The plan of a table all of whose runs are stored."""
    plan = planned(words, tmp_path_factory.mktemp("complete"))
    for seed, runs in enumerate(plan.rows[0].runs.values()):
        for run in runs:
            fill(run, seed)
    return plan


def check_page(text):
    """What every report must be: whole, of unique ids, with descriptions, without anything from elsewhere."""
    page = Page(text)
    ids = page.having("id")
    assert len(ids) == len(set(ids))
    for link in page.having("href") + page.having("src"):
        assert link.startswith(("#", "data:", "../runs/", "../failed/")), link
        assert not link.startswith("#") or link[1:] in ids
    assert all(attributes.get("aria-label") for tag, attributes in page.tags if attributes.get("role") == "img")
    assert page.count("script") == page.count("style") == page.count("h1") == 1
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    return page


def test_a_report_has_everything(complete, words):
    report = reported(complete)
    choices = explain_tables([*words, f"paths.results='{complete.settings.paths.results}'"], [read_spec("2")])[0]
    page = check_page(render(Report(report.content, complete, report.cases, choices)))
    text = "".join(page.text)
    cell = report.content.cells.iloc[0]
    assert f"{cell['value']:.2f}" in text
    assert all(run.run_id in text for run in complete.runs)
    assert text.count("protocol.kl") >= 1
    assert "Incomplete" not in text
    assert "PHANTOM" not in text
    assert page.count("image") == 7 + 5 * 3 * 3  # image, reference, 5 predictions; 3 panels of 3 cases of 5 columns
    labels = page.having("aria-label")
    assert sum(label.startswith("Dice: Dice (%) of 12 cases") for label in labels) == 1
    assert sum(label.startswith("Training loss") for label in labels) == 1
    points = re.search(r'aria-label="Dice: .*?</svg>', render(report), re.S)[0].count("h0")
    assert points == 12 * 5


def test_validations_that_a_tracker_recorded_are_drawn_in_per_cent(words, tmp_path):
    plan = planned(words, tmp_path)
    first, second, third = next(iter(plan.rows[0].runs.values()))[:3]
    for run in (first, second, third):
        fill(run, 0)
    for run, scores in ((first, (0.25, 0.5, 0.75)), (second, (0.5,))):
        lines = [
            {"step": 3 * epoch, "epoch": epoch, "train/loss": 1.0, "validation/dice": score, "validation/nsd": 0.5}
            for epoch, score in enumerate(scores, 1)
        ]
        journal_path(tmp_path, run.run_id).parent.mkdir(exist_ok=True)
        journal_path(tmp_path, run.run_id).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    text = render(reported(plan))
    chart = re.search(r'<svg[^>]*aria-label="Dice of the validation cases during training: .*?</svg>', text, re.S)[0]
    [line] = re.findall(r'class="line[^"]*" d="M([^"]*)"', chart)  # one score alone is no curve
    places = [tuple(map(float, place.split())) for place in line.split("L")]
    heights = {float(label): float(at) - 3.5 for at, label in re.findall(r'<text x="41" y="([\d.]+)">(\d+)<', chart)}
    low, high = min(heights), max(heights)
    shown = [low + (high - low) * (y - heights[low]) / (heights[high] - heights[low]) for _, y in places]
    assert shown == pytest.approx([25, 50, 75], abs=0.2)
    assert text.count("of the validation cases during training:") == 1, "only scores of the table"


def test_odd_names_stay_text(complete):
    text = render(reported(complete))
    page = check_page(text)
    assert ODD in "".join(page.text)
    assert ODD not in text
    assert not [value for tag, attributes in page.tags if tag == "img" for value in attributes]


def test_best_median_and_worst_are_those_of_all_folds(complete):
    report = reported(complete)
    row = next(gather_rows(complete, report.cases))
    [gallery] = galleries([row])
    for column, (title, cases) in zip(row.columns, gallery.extremes, strict=True):
        scores = column.scores["dice"]
        assert title == column.column.title
        assert cases[0].title.startswith(f"best: Dice {scores.max():.1f} %, {scores.idxmax()},")
        assert cases[2].title.startswith(f"worst: Dice {scores.min():.1f} %, {scores.idxmin()},")


def test_a_table_without_runs_is_reported(words, tmp_path):
    page = check_page(render(reported(planned(words, tmp_path))))
    text = "".join(page.text)
    assert "missing: 25 of 25 runs." in text
    assert "No finished runs yet." in text


def test_partial_damaged_and_old_runs_are_named(words, tmp_path):
    plan = planned(words, tmp_path)
    runs = list(plan.rows[0].runs.values())
    for run in runs[0]:
        fill(run, 0)
    for run in runs[1]:
        fill(run, 1, packs=False, history=False)
    store = RunStore(runs[0][0].results)
    damaged, other = (store.folder(runs[0][index].run_id) for index in (0, 1))
    (damaged / "cases.csv").write_text("x")
    shutil.rmtree(other)
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / f"{other.name}.log").write_text("no")
    text = "".join(check_page(render(reported(plan))).text)
    for said in ("missing: 15 of 25 runs.", "damaged: 1 of 25 runs.", "failed: 1 of 25 runs."):
        assert said in text
    assert f"Run {damaged.name}: runs/{damaged.name}/cases.csv" in text
    assert str(tmp_path) not in text
    assert "5 finished runs were stored without pictures" in text
    assert "evaluate.add_packs=true" in text


def test_the_commands_write_reports_and_figures(tmp_path, capsys):
    words = ["data=phantom", "profile=demo", "task=kidney-1", f"paths.results='{tmp_path / 'results'}'"]
    words += [f"paths.data='{tmp_path / 'data'}'", f"paths.prepared='{tmp_path / 'prepared'}'"]
    assert main(["report", "tables=1,2", *words]) == 0
    printed = capsys.readouterr().out.splitlines()
    for name in ("table1", "table2"):
        path = tmp_path / "results" / "reports" / f"{name}.html"
        text = "".join(check_page(path.read_text("utf-8")).text)
        assert "PHANTOM DATA" in text
        assert str(path) in printed
    assert main(["figures", "table=2", *words]) == 2
    assert "nothing to draw" in capsys.readouterr().err
    assert main(["figures", "table=2", "from="]) == 2
    assert "from= names no folder" in capsys.readouterr().err
    assert main(["figures", "table=1", *words]) == 0
    names = sorted(path.name for path in (tmp_path / "results" / "figures").iterdir())
    assert names == [f"table1-agreement.{ending}" for ending in ("pdf", "png", "svg")]


def test_figures_are_drawn_in_three_formats(complete, tmp_path):
    rows = list(gather_rows(complete, reported(complete).cases))
    files = write_table_figures("table2", rows, tmp_path / "one", phantom=True)
    kinds = ("cases-lidc-nodule", "reliability", "threshold", "agreement")
    assert sorted(path.name for path in files) == sorted(
        f"table2-{kind}.{ending}" for kind in kinds for ending in ("pdf", "png", "svg")
    )
    assert files[0].read_bytes().startswith(b"\x89PNG")
    again = write_table_figures("table2", rows, tmp_path / "two", phantom=True)
    assert [path.read_bytes() for path in files] == [path.read_bytes() for path in again]


@pytest.fixture(scope="module")
def opened(complete, tmp_path_factory):
    """A browser, and the address of a report on disk."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    folder = tmp_path_factory.mktemp("browser")
    path = write_report(reported(complete), folder)
    browser = Browser(folder / "profile")
    yield browser, path.as_uri()
    browser.close()


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_the_report_and_asks_for_nothing(opened, width, dark, tmp_path):
    browser, url = opened
    browser.open(url, width, dark=dark)
    browser.run("document.querySelectorAll('details').forEach((item) => { item.open = true })")
    browser.screenshot(tmp_path / "page.png")
    assert browser.complaints() == []
    assert [item for item in browser.requests() if not item.startswith("data:")] == [url]
    assert browser.run("document.documentElement.scrollWidth") == width
    dark_page = browser.run("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark_page == dark
    with Image.open(tmp_path / "page.png") as shot:
        assert len(shot.convert("RGB").getcolors(1 << 24)) > 10


def test_the_page_works_with_the_keyboard(opened):
    browser, url = opened
    browser.open(url)
    first = "document.querySelector('#all-cells table')"
    column = f"[...{first}.tBodies[0].rows].map((row) => Number(row.cells[3].dataset.key))"
    assert browser.run(f"[...{first}.tHead.rows[0].cells].every((cell) => cell.firstChild.tagName === 'BUTTON')")
    browser.run(f"{first}.tHead.rows[0].cells[3].firstChild.focus()")
    for way in (1, -1):
        browser.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", text="\r", code="Enter")
        browser.call("Input.dispatchKeyEvent", type="keyUp", key="Enter", code="Enter")
        found = browser.run(column)
        assert len(found) == 15
        assert found == sorted(found, reverse=way < 0)
    target = browser.run("document.querySelector('#table tbody a').getAttribute('href')")
    browser.run("document.querySelector('#table tbody a').focus()")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", text="\r", code="Enter")
    assert browser.run(f"new Promise((done) => setTimeout(() => done(document.querySelector('{target}').open), 200))")
    browser.run("document.getElementById('theme').click()")
    assert browser.run("document.documentElement.dataset.theme") == "dark"
    assert browser.complaints() == []
