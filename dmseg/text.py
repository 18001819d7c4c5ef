r"""Escapes names and titles for a terminal, Markdown, LaTeX or CSV, and reads lists of names.

They come from data sets, configurations and imported results, so they may contain anything. Every text that is written
to one of these formats passes through the format's function.
"""

import math
import re

NOT_PERCENT = {"ged": (3, ""), "hd95": (3, " mm"), "brier": (4, ""), "nll": (4, ""), "agreement_kappa": (3, "")}
"""Scores that are not shown in per cent, with their number of decimals and unit."""

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""Characters that make a spreadsheet read a cell as a formula."""

_MARKDOWN = re.compile(
    r"[\\`*|\[~$]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # an underscore between two letters or digits has no effect
    r"|<(?=[A-Za-z/!?])|&(?=#?\w+;)"  # a tag or a character reference
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
"""Non-ASCII characters that pdfLaTeX can typeset with encodings T1 and utf8 and no further package."""
_LATEX_LIGATURES = re.compile(r"([-'`,])(?=\1)|([?!])(?=`)")


def counted(count: int, noun: str) -> str:
    """A number with its noun: ``1 run``, ``2 runs``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def split_list(text: str) -> list[str]:
    """The items of ``A,B`` or ``[A, B]``, without spaces around them; one empty item if there is none."""
    return [item.strip() for item in text.strip("[]").split(",")]


def printable(text: str) -> str:
    r"""Escapes characters that are not printable, so that a terminal shows them instead of interpreting them.

    Control characters (including line ends and escape sequences), marks that change the reading direction, and bytes
    of file names that are not UTF-8 become Python escapes such as ``\x1b``.
    """
    return "".join(item if item.isprintable() else item.encode("unicode_escape").decode() for item in text)


def printable_lines(text: str) -> str:
    """Like `printable`, but keeps line ends."""
    return "\n".join(map(printable, text.splitlines()))


def one_line(text: str) -> str:
    """Like `printable`, but replaces each run of white space, including line ends, by one space."""
    return printable(" ".join(text.split()))


def markdown(text: str) -> str:
    """Escapes text for a line or a table cell of Markdown (CommonMark with GitHub's tables)."""
    return _MARKDOWN.sub(r"\\\g<0>", one_line(text))


def latex(text: str) -> str:
    """Escapes text for a line or a table cell that pdfLaTeX can typeset (encodings T1 and utf8).

    A character that these lack becomes its code point, ``[U+4E2D]``.
    """
    joined = "".join(map(_latex_character, one_line(text)))
    return _LATEX_LIGATURES.sub(r"\g<0>{}", joined)


def latex_comment(text: str) -> str:
    """Formats text as one LaTeX comment."""
    return f"% {one_line(text)}"


def csv_text(text: str) -> str:
    """Escapes text for a cell of a CSV file; text that looks like a formula is prefixed with an apostrophe."""
    escaped = printable(text)
    return f"'{escaped}" if escaped.lstrip().startswith(_FORMULA) else escaped


def score_text(name: str, value: float, spread: float = math.nan) -> str:
    """Formats a mean score for the command line: ``dice 84.30 %``, ``ged 0.231``, ``dice 84.30 ± 0.52 %``.

    Args:
        name: name of the score.
        value: the mean, as it is stored; NaN if there is none.
        spread: its standard deviation over seeds; NaN for none.
    """
    if math.isnan(value):
        return f"{name} undefined (no case has a score)"
    shown = [number_text(name, number) for number in (value, spread) if not math.isnan(number)]
    return f"{name} {' ± '.join(shown)}{unit_text(name)}"


def number_text(name: str, value: float) -> str:
    """Formats a score without its unit: ``84.30`` for a Dice of 0.843, ``0.231`` for a GED."""
    return f"{value:.{NOT_PERCENT[name][0]}f}" if name in NOT_PERCENT else f"{100 * value:.2f}"


def unit_text(name: str) -> str:
    """The unit of a score after a number or a title: `` %``, `` mm`` or nothing."""
    return NOT_PERCENT[name][1] if name in NOT_PERCENT else " %"


def with_count(text: str, n: int, n_cases: int) -> str:
    """Appends the number of cases that a mean is over, if some cases have no value: ``dice 84.30 % (n 7)``.

    Args:
        text: the formatted mean.
        n: number of cases with a value; nothing is appended to the text of a mean over none.
        n_cases: number of all cases.
    """
    return f"{text} (n {n})" if 0 < n < n_cases else text


def _latex_character(character: str) -> str:
    if character in _LATEX:
        return _LATEX[character]
    if character in _LATEX_MATHS:
        return rf"\ensuremath{{{_LATEX_MATHS[character]}}}"
    if character.isascii() or character in _LATEX_LETTERS:
        return character
    return f"{{[}}U+{ord(character):04X}]"
