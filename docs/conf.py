"""Sphinx configuration: `make docs`."""

import posixpath
import re
from pathlib import Path
from typing import Any

import dmseg

REPO = Path(__file__).parents[1]

project = "dmseg"
author = "The dmseg developers"
copyright = author
release = dmseg.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = f"dmseg {release}"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["tables.css"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"undoc-members": False}
napoleon_google_docstring = True
napoleon_use_ivar = True
default_role = "code"

INCLUDED = {
    "data/README.md": "reference/data.md",
    "results/README.md": "reference/results.md",
    "results/measured/README.md": "reference/measured.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "SECURITY.md": "project/security.md",
}
"""Pages of the repository outside `docs/`, and the pages of the site that include them."""


def resolve_links(text: str, folder: str, page: str) -> str:
    """Rewrites the links of a text for the page of the site on which it appears.

    Links to pages of the repository lead to the pages that include them, and links to other files become their names.

    Args:
        text: Markdown.
        folder: the folder of the text's own file, from the repository's root.
        page: the page on which it appears, from `docs/`.
    """

    def rewritten(found: re.Match[str]) -> str:
        label, target = found[1], found[2]
        if re.match(r"\w+:|#", target):
            return found[0]
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(folder, path))
        path = f"docs/{INCLUDED[path]}" if path in INCLUDED else path
        if not path.startswith("docs/"):
            return label if label.strip("`") == path else f"{label} (`{path}`)"
        path = posixpath.relpath(path, posixpath.dirname(f"docs/{page}"))
        return f"[{label}]({path}#{anchor})" if anchor else f"[{label}]({path})"

    return re.sub(r"(?<!!)\[([^][]*)\]\(([^()\s]+)\)", rewritten, text)


def on_page(app: Any, page: str, source: list[str]) -> None:  # noqa: ANN401
    """Rewrites the links of a page."""
    source[0] = resolve_links(source[0], posixpath.dirname(f"docs/{page}"), f"{page}.md")


def on_include(app: Any, path: Path, page: str, content: list[str]) -> None:  # noqa: ANN401
    """Rewrites the links of an included file; `page` is only the last part of the page's name."""
    name = posixpath.normpath(posixpath.join("docs", path.as_posix()))
    content[0] = resolve_links(content[0], posixpath.dirname(name), INCLUDED[name])


def on_docstring(app: Any, kind: str, name: str, of: object, options: Any, lines: list[str]) -> None:  # noqa: ANN401
    """Escapes plain text of docstrings that is markup in reStructuredText: shapes ``(*spatial)`` and ``|x|``."""
    lines[:] = [re.sub(r"(``.*?``)|([*|])", lambda found: found[1] or f"\\{found[2]}", line) for line in lines]


def setup(app: Any) -> None:  # noqa: ANN401
    """Connects the hooks."""
    app.connect("source-read", on_page)
    app.connect("include-read", on_include)
    app.connect("autodoc-process-docstring", on_docstring, priority=400)  # before napoleon
