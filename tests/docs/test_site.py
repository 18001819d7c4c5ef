"""The documentation's website is built without a warning, and every link within it leads somewhere."""

import re
import subprocess
import sys
from urllib.parse import unquote

import pytest
from doc_pages import REPO

pytest.importorskip("sphinx", reason="needs dmseg[docs]")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", REPO / "docs", folder]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder


def broken(folder):
    """Links and images within a site whose file or anchor is missing, as (page, target)."""
    pages = {path: path.read_text(encoding="utf-8") for path in folder.rglob("*.html")}
    named = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in pages.items()}
    for page, text in pages.items():
        for target in re.findall(r'<(?:a|img|link|script)\b[^>]*?\b(?:href|src)="([^"]+)"', text):
            path, _, anchor = unquote(target).partition("#")
            file = (page.parent / path.partition("?")[0]).resolve() if path else page
            if re.match(r"\w+:|//", target) or (file in pages and (not anchor or anchor in named[file])):
                continue
            if anchor or not file.is_file():
                yield str(page.relative_to(folder)), target


def test_the_site_is_built_without_a_warning_and_its_links_lead_somewhere(site):
    found = list(broken(site))
    assert found == []
    assert {"index.html", "extending.html", "reference/configuration.html"} <= {
        str(path.relative_to(site)) for path in site.rglob("*.html")
    }


def test_a_missing_page_or_anchor_is_found(tmp_path):
    (tmp_path / "a.html").write_text('<p id="x"><a href="#x"></a><a class="y" href="b.html#z"></a><img src="c.png">')
    (tmp_path / "b.html").write_text('<a href="a.html#x"></a><a href="a.html?v=1"></a><a href="https://e.org/d"></a>')
    assert list(broken(tmp_path)) == [("a.html", "b.html#z"), ("a.html", "c.png")]
