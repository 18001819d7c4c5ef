"""Links within the documentation lead somewhere, and every page can be reached."""

import importlib.util
import re
from pathlib import Path

import pytest
from doc_pages import PAGES, REPO, anchors, links, name

OUTSIDE = ("https://", "http://", "mailto:")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_and_anchors_exist(page):
    text = page.read_text(encoding="utf-8")
    broken = []
    for target in links(text):
        if target.startswith(OUTSIDE):
            continue
        path, _, anchor = target.partition("#")
        file = page if not path else (page.parent / path).resolve()
        exists = file.exists() and file.is_relative_to(REPO)
        if not exists or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            broken.append(target)
    assert broken == []


def toctree(page):
    """The pages that a page's tables of contents name."""
    for tree in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        for entry in re.findall(r"^(?!:)(?:.*<)?([\w/.-]+)>?$", tree, re.M):
            yield (page.parent / f"{entry}.md").resolve()


def test_every_page_of_the_site_is_in_a_table_of_contents():
    reached, left = set(), [REPO / "docs" / "index.md"]
    while left:
        page = left.pop()
        assert page.is_file(), page
        reached.add(page)
        left += [entry for entry in toctree(page) if entry not in reached]
    assert {name(page) for page in (REPO / "docs").rglob("*.md")} == {name(page) for page in reached}


SOURCES = [
    path
    for folder in ("dmseg", "configs", "scripts", "bench", "tests")
    for path in (REPO / folder).rglob("*")
    if path.suffix in (".py", ".yaml")
]


@pytest.mark.parametrize("folder", ["dmseg", "configs", "scripts", "bench", "tests", "pages"])
def test_pages_named_in_messages_and_comments_exist(folder):
    files = PAGES if folder == "pages" else [path for path in SOURCES if path.is_relative_to(REPO / folder)]
    named = {(found, name(path)) for path in files for found in mentioned(path)}
    assert {item for item in named if not (REPO / item[0]).is_file()} == set()


def mentioned(path: Path):
    return re.findall(r"(?<![\w/.])(?:docs/[\w/-]+\.md|(?:data|results)/README\.md)", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_code_that_links_name_is_in_the_file(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"\[`(\w+)`\]\(([^)#]+\.py)\)", text)
    assert [item for item in named if not re.search(rf"\b{item[0]}\b", (page.parent / item[1]).read_text())] == []


def test_the_site_rewrites_links_to_pages_outside_docs():
    spec = importlib.util.spec_from_file_location("conf", REPO / "docs" / "conf.py")
    conf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conf)
    text = (
        "[a](../../data/README.md#x) [`b`](../../dmseg/errors.py) [c](../extending.md) [d](https://e.org) ![f](g.png)"
    )
    page = "[a](../reference/data.md#x) `b` (`dmseg/errors.py`) [c](../extending.md) [d](https://e.org) ![f](g.png)"
    assert conf.resolve_links(text, "docs/how-to", "how-to/x.md") == page
    assert conf.resolve_links("[a](docs/index.md) [b](SECURITY.md)", "", "project/contributing.md") == (
        "[a](../index.md) [b](security.md)"
    )
    assert all((REPO / name).is_file() and (REPO / "docs" / page).is_file() for name, page in conf.INCLUDED.items())


def test_the_checks_find_what_is_broken(tmp_path):
    page = '# A title: `x`\n[a](b.md#c) ![d](e.png) `[f](g)`\n```\n[h](i)\n```\n<img src="j">\n## A title: `x`\n'
    assert links(page) == ["b.md#c", "e.png", "j"]
    assert anchors(page) == ["a-title-x", "a-title-x-1"]
