r"""Names and titles made safe for where they are shown: a terminal, Markdown, LaTeX or CSV.

They come from data sets, configurations and imported results, so they may hold anything. Every text that is shown goes
through the function of its place.
"""

import math
import re

NOT_PERCENT = frozenset({"ged"})
"""Scores that are shown as they are; all others are fractions, shown in per cent."""

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""What makes a spreadsheet read a cell as a formula."""

_MARKDOWN = re.compile(
    r"[\\`*|\[~$]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # between two letters or digits an underscore is only an underscore
    r"|<(?=[A-Za-z/!?])|&(?=#?\w+;)"  # a tag, a character reference
    r"|#(?=#*$)"  # the end of a heading
)

_LATEX = {
    **{character: f"\\{character}" for character in "_&%#${}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\char34{}",
    "[": "{[}", "*": "{*}",  # after \\ they would be an argument
    "–": r"\textendash{}", "—": r"\textemdash{}", "†": r"\textdagger{}", "…": r"\dots{}",
}  # fmt: skip
_LATEX_MATHS = {
    "±": r"\pm", "×": r"\times", "÷": r"\div", "·": r"\cdot", "°": r"^\circ", "²": "^2", "³": "^3",
    "≤": r"\leq", "≥": r"\geq", "≈": r"\approx", "→": r"\to",
    "α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "κ": r"\kappa", "λ": r"\lambda", "µ": r"\mu", "μ": r"\mu",
    "σ": r"\sigma", "τ": r"\tau",
}  # fmt: skip
_LATEX_LETTERS = frozenset(map(chr, range(0xC0, 0x17F))) - frozenset("ĦħĸĿŀŉŦŧ") | frozenset("«»‘’“”„¡¿§£")
"""What pdfLaTeX can set beyond ASCII with the encodings T1 and utf8 and no further package."""
_LATEX_LIGATURES = re.compile(r"([-'`,])(?=\1)|([?!])(?=`)")


def printable(text: str) -> str:
    r"""Spells out what cannot be printed, so that a terminal shows it instead of obeying it.

    Control characters (line ends and escape sequences among them), marks that change the reading direction and bytes
    of file names that are not UTF-8 become Python's escapes, such as ``\x1b``.
    """
    return "".join(item if item.isprintable() else item.encode("unicode_escape").decode() for item in text)


def printable_lines(text: str) -> str:
    """Like `printable`, but line ends stay."""
    return "\n".join(map(printable, text.splitlines()))


def one_line(text: str) -> str:
    """Like `printable`, but each run of white space, line ends included, becomes one space."""
    return printable(" ".join(text.split()))


def markdown(text: str) -> str:
    """Text for a line or a table cell of Markdown (CommonMark with GitHub's tables)."""
    return _MARKDOWN.sub(r"\\\g<0>", one_line(text))


def latex(text: str) -> str:
    """Text for a line or a table cell that pdfLaTeX can set (encodings T1 and utf8).

    A letter that those lack becomes its number, ``[U+4E2D]``.
    """
    joined = "".join(map(_latex_character, one_line(text)))
    return _LATEX_LIGATURES.sub(r"\g<0>{}", joined)


def latex_comment(text: str) -> str:
    """Text as one LaTeX comment."""
    return f"% {one_line(text)}"


def csv_text(text: str) -> str:
    """Text for a cell of a CSV file: one that a spreadsheet would take for a formula gets an apostrophe in front."""
    shown = printable(text)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown


def score_text(name: str, value: float) -> str:
    """A mean score as commands print it: ``dice 84.30 %``, ``ged 0.231``."""
    if math.isnan(value):
        return f"{name} undefined (no case has a score)"
    return f"{name} {value:.3f}" if name in NOT_PERCENT else f"{name} {100 * value:.2f} %"


def _latex_character(character: str) -> str:
    if character in _LATEX:
        return _LATEX[character]
    if character in _LATEX_MATHS:
        return rf"\ensuremath{{{_LATEX_MATHS[character]}}}"
    if character.isascii() or character in _LATEX_LETTERS:
        return character
    return f"{{[}}U+{ord(character):04X}]"
