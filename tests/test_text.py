"""Names made safe: against a Markdown parser, pandas, and the rules of LaTeX."""

import io
import re

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from dmseg.tables.render import frame_to_csv
from dmseg.text import (
    csv_text,
    latex,
    latex_comment,
    markdown,
    one_line,
    printable,
    printable_lines,
    score_text,
    with_count,
)

ODD = r"Tumour_50% & more | <b> {x} $y$ ~^ \end #1 `code` *star* [link](x) &lt; --flag ''q'' ?`"
NAMES = st.text(max_size=30) | st.text(
    alphabet=r"\_&%#${}~^<>|*`[]()!-'\"a1 é–†α肝" + "\n\t\r\x1b\x00\u2028\u202e", max_size=30
)


@settings(deadline=None, derandomize=True)
@given(NAMES)
@example("\x1b[31mred\x07\r")
@example("\udce9")
def test_printable_text_has_no_character_that_a_terminal_obeys(text):
    shown = printable(text)
    assert shown.isprintable()
    shown.encode("utf-8")
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text
    assert "\n" not in one_line(text)


def test_escape_sequences_are_spelled_out():
    assert printable("a\x1b[1mb\u202ec\nd") == r"a\x1b[1mb\u202ec\nd"
    assert printable_lines("a\x1b\nb") == "a\\x1b\nb"
    assert one_line("a\n  b\tc ") == "a b c"


@settings(deadline=None, derandomize=True)
@given(NAMES)
@example(ODD)
@example("_a_ b_c __d__")
@example("\\|")
@example("a\\")
def test_markdown_is_read_as_the_text_that_went_in(text):
    table = f"| h | i |\n| - | - |\n| {markdown(text)} | x |"
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(table)
    cells = [token for token in tokens if token.type == "inline"]
    assert [cell.content for cell in cells[:2]] == ["h", "i"]
    assert [cell.content for cell in cells[3:]] == ["x"], "as many cells as there are"
    assert {item.type for item in cells[2].children} <= {"text", "text_special"}
    assert "".join(item.content for item in cells[2].children) == one_line(text)


@settings(deadline=None, derandomize=True)
@given(NAMES)
@example(ODD)
def test_markdown_headings_and_paragraphs_keep_the_text(text):
    for line in (f"# Table {markdown(text)}", f"_Data: {markdown(text)}._"):
        tokens = MarkdownIt("commonmark").parse(line)
        (inline,) = [token for token in tokens if token.type == "inline"]
        shown = "".join(item.content for item in inline.children)
        assert shown in (f"Table {one_line(text)}".strip(), f"Data: {one_line(text)}.")


def test_markdown_leaves_what_is_only_text():
    assert markdown("unet_tiny, p < 0.05, R&D, 5 # 3") == "unet_tiny, p < 0.05, R&D, 5 # 3"
    assert markdown("a | <b> *c* `d` _e_ &amp;") == r"a \| \<b> \*c\* \`d\` \_e\_ \&amp;"


COMMANDS = r"\\(?:[_&%#${}]|(?:text\w+|char34|dots)\{\}|ensuremath\{(?:\\[a-z]+|\^(?:\\circ|[23]))\})"


@settings(deadline=None, derandomize=True)
@given(NAMES)
@example(ODD)
def test_latex_has_escaped_specials_only_and_balanced_braces(text):
    shown = latex(text)
    rest = re.sub(COMMANDS, "", shown)
    rest = rest.replace("{[}", "").replace("{*}", "").replace("{}", "")
    assert not re.search(r"[\\{}_&%#$~^<>|\"*\[]", rest), rest
    assert shown.isprintable()
    assert not re.search(r"[^\x20-\x7eÀ-ž«»‘’“”„¡¿§£]", shown), "characters that pdfLaTeX can set"


def test_latex_by_hand():
    assert latex("UNet test_resnet") == r"UNet test\_resnet"
    assert latex("50% & {x}") == r"50\% \& \{x\}"
    assert latex(r"\input{~/x}^2") == r"\textbackslash{}input\{\textasciitilde{}/x\}\textasciicircum{}2"
    assert latex("[1] – α肝 --") == r"{[}1] \textendash{} \ensuremath{\alpha}{[}U+809D] -{}-"
    assert latex_comment("a\n\\input{x}") == r"% a \input{x}"


@settings(deadline=None, derandomize=True)
@given(st.lists(NAMES, min_size=1, max_size=5))
@example(["=1+1", " @SUM(A1)", "-1", "+1", "a,b", '"', "a\r\nb", "NA", ""])
def test_csv_reads_back_as_the_safe_text(texts):
    frame = pd.DataFrame({"title": texts, "value": [-1.5] * len(texts)})
    read = pd.read_csv(io.StringIO(frame_to_csv(frame)), keep_default_na=False)
    text = pd.read_csv(io.StringIO(frame_to_csv(frame)), keep_default_na=False, dtype=str)
    assert list(text["title"]) == [csv_text(item) for item in texts]
    assert not text["title"].str.strip().str.startswith(("=", "+", "-", "@")).any()
    assert list(read["value"]) == [-1.5] * len(texts), "numbers stay numbers"


def test_csv_text_is_neutralised_where_a_spreadsheet_would_compute():
    assert [csv_text(item) for item in ("=1", "-x", "@x", "+x", "a=1", "")] == ["'=1", "'-x", "'@x", "'+x", "a=1", ""]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("dice", 0.843, "dice 84.30 %"),
        ("ged", 0.2314, "ged 0.231"),
        ("ece", float("nan"), "ece undefined (no case has a score)"),
    ],
)
def test_scores_in_words(name, value, expected):
    assert score_text(name, value) == expected


def test_a_mean_over_some_of_the_cases_says_of_how_many():
    shown = [with_count("dice 84.30 %", n, 10) for n in (10, 7, 0)]
    assert shown == ["dice 84.30 %", "dice 84.30 % (n 7)", "dice 84.30 %"]
