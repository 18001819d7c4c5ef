"""What the tests of the documentation need of a Markdown page: its links, headings and code blocks."""

import re
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).parents[2]
PAGES = sorted(
    [
        *REPO.glob("*.md"),
        *(REPO / "docs").rglob("*.md"),
        REPO / "data" / "README.md",
        REPO / "results" / "README.md",
        *(REPO / "results").glob("*/README.md"),
    ]
)
"""Every page of the documentation."""

_FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*?) -->\n)?(?P<fence>`{3,})(?P<language>[^\n]*)\n(?P<code>.*?)^(?P=fence)$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: name of its page, from the repository's root.
        line: line of its fence.
        language: what stands behind the fence.
        mark: the comment on the line above, or an empty text.
        code: its content.
    """

    page: str
    line: int
    language: str
    mark: str
    code: str

    def __str__(self):
        return f"{self.page}:{self.line}"


def name(page):
    return str(page.relative_to(REPO))


def blocks(page):
    text = page.read_text(encoding="utf-8")
    return [
        Block(name(page), text.count("\n", 0, found.start()) + 1, found["language"], found["mark"] or "", found["code"])
        for found in _FENCE.finditer(text)
    ]


def prose(text):
    """A page without its fenced blocks and comments."""
    return re.sub(r"<!--.*?-->", "", _FENCE.sub("", text), flags=re.S)


def anchors(text):
    """The anchors of the headings, as GitHub forms them."""
    found = []
    for heading in re.findall(r"^#{1,6} (.+?)\s*$", prose(text), re.M):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found.append(f"{anchor}-{found.count(anchor)}" if anchor in found else anchor)
    return found


def links(text):
    """The targets of links and images."""
    visible = re.sub(r"`[^`\n]+`", "", prose(text))
    targets = re.findall(r"\]\(([^()\s]+)(?: \"[^\"]*\")?\)", visible) + re.findall(r'(?:src|href)="([^"]+)"', visible)
    return targets + re.findall(r"^\[[^]]+\]: (\S+)", visible, re.M)
