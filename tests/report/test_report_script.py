"""The script of the HTML report, on a small page of its own: sorting, links into folded parts, light and dark."""

from pathlib import Path

import pytest
from browser import CHROMIUM, Browser

import dmseg.report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

ROWS = (("case 10", "10", "10.0 %"), ("case 2", "", "none"), ("case 1", "-2.5", "−2.5 %"), ("b", "9", "9.0 %"))
"""Name, key and text of the second column."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Address of a page with a table, folded parts far below it, and the button."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    script = (Path(dmseg.report.__file__).parent / "templates" / "report.js").read_text("utf-8")
    rows = "".join(f'<tr><th>{name}</th><td data-key="{key}">{text}</td></tr>' for name, key, text in ROWS)
    path.write_text(
        '<!doctype html><meta charset="utf-8"><button id="theme" hidden>Light / dark</button>'
        f'<table class="sortable"><thead><tr><th>Case</th><th>Dice</th></tr></thead><tbody>{rows}</tbody></table>'
        '<div style="height: 5000px"></div><details id="outer"><summary>Outer</summary><div style="height: 5000px">'
        '</div><details id="inner"><summary>Inner</summary>text</details></details><div style="height: 5000px"></div>'
        f"<script>{script}</script>",
        "utf-8",
    )
    return path.as_uri()


def names(browser):
    return browser.run("[...document.querySelectorAll('tbody tr')].map((row) => row.cells[0].textContent)")


def sort(browser, column):
    browser.run(f"document.querySelectorAll('thead button')[{column}].click()")
    order = browser.run("[...document.querySelectorAll('thead th')].map((head) => head.getAttribute('aria-sort'))")
    return names(browser), order


def test_columns_are_sorted_by_their_keys_or_their_text(browser, page):
    browser.open(page)
    assert names(browser) == ["case 10", "case 2", "case 1", "b"]
    assert sort(browser, 1) == (["case 1", "b", "case 10", "case 2"], [None, "ascending"]), "empty ones are last"
    assert sort(browser, 1) == (["case 10", "b", "case 1", "case 2"], [None, "descending"])
    assert sort(browser, 0) == (["b", "case 1", "case 2", "case 10"], ["ascending", None])
    assert sort(browser, 0) == (["case 10", "case 2", "case 1", "b"], ["descending", None])
    assert sort(browser, 1)[1] == [None, "ascending"]
    assert browser.complaints() == []


STATE = """[document.getElementById('outer').open, document.getElementById('inner').open,
    Math.abs(document.getElementById('inner').getBoundingClientRect().top) < innerHeight]"""


def test_a_link_opens_what_it_leads_to(browser, page):
    browser.open(page)
    assert browser.run(STATE) == [False, False, False]
    browser.run("location.hash = '#inner'; new Promise((done) => setTimeout(done, 200))")
    assert browser.run(STATE) == [True, True, True]
    browser.open("about:blank")
    browser.open(f"{page}#inner")
    assert browser.run(STATE) == [True, True, True], "also when the page is opened with the link"
    browser.open("about:blank")
    browser.open(f"{page}#nothing")
    assert browser.run(STATE) == [False, False, False]
    assert browser.complaints() == []


@pytest.mark.parametrize("dark", [False, True])
def test_the_button_changes_between_light_and_dark(browser, page, dark):
    browser.open("about:blank")
    browser.open(page, dark=dark)
    assert browser.run("document.getElementById('theme').getBoundingClientRect().width") > 0
    expected = ["light", "dark", "light"] if dark else ["dark", "light", "dark"]
    for theme in expected:
        browser.run("document.getElementById('theme').click()")
        assert browser.run("document.documentElement.dataset.theme") == theme
