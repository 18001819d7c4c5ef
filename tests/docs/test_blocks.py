"""The code and the commands of README and the documentation work.

- ``python`` blocks are executed, those of one page in order and with the same names.
- ``bash`` blocks: every ``dmseg`` command must compose, that of one table down to the runs behind its
  cells; ``make`` targets must exist, and the ``dmseg`` commands behind them compose too. Other programs
  are listed in `OTHERS`.
- ``<!-- run: key=value ... -->`` above a ``bash`` block: its commands are carried out, with these overrides added.
- Blocks without a language, and those of other languages, show files or output.
- Commands within the text (`` `dmseg plan table=2` ``) must compose as well.
"""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from doc_pages import PAGES, REPO, blocks, name, prose

from dmseg.cli.description import MULTIRUN
from dmseg.cli.expand import expand
from dmseg.cli.extensions import use_extensions
from dmseg.cli.main import main
from dmseg.cli.parser import checked
from dmseg.cli.registry import COMMANDS
from dmseg.cli.tables import split_tables
from dmseg.cli.words import take_inference, take_seeds
from dmseg.config.compose import compose_settings
from dmseg.report.figures import FIGURES
from dmseg.runs.inventory import choose
from dmseg.tables.request import parse_request

ALL = [block for page in PAGES for block in blocks(page)]
LANGUAGES = {"python", "bash", "yaml", "json", "text", "bibtex", "{toctree}", "{include}", "{eval-rst}"}
OTHERS = {
    "pip": "installs packages",
    "python": "its script must exist",
    "wandb": "needs an account",
    "pytest": "runs the tests",
    "export": "sets an environment variable",
    "source": "activates an environment",
}
"""Programs other than dmseg and make in ``bash`` blocks, each with the reason why it is not run."""
ELSEWHERE = {
    "docs/how-to/losses.md": "tests/losses/test_loss_docs.py",
    "docs/how-to/calibration.md": "tests/calibration/test_calibration_docs.py",
}
"""Pages whose ``python`` blocks another test executes, each block by itself."""
COMPOSING = ("prepare", "train", "cv")
TABLES = ("reproduce", "table", "report", "figures", "plan", "explain")
PLACEHOLDERS = re.compile(r"\b[A-Z]+\b|\.\.\.|…")


def test_every_block_has_a_known_language():
    assert {block.language.split()[0] for block in ALL if block.language} <= LANGUAGES


def test_what_is_run_elsewhere_is_run():
    assert all(Path(page).name in (REPO / test).read_text() for page, test in ELSEWHERE.items())


PYTHON = sorted({block.page for block in ALL if block.language == "python"} - set(ELSEWHERE))


@pytest.mark.parametrize("page", PYTHON)
def test_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = {"__name__": "example"}
    for block in blocks(REPO / page):
        if block.language == "python":
            code = "\n" * block.line + block.code
            exec(compile(code, block.page, "exec"), names)


def commands(block):
    """The commands of a block: its assignments filled in, comments left out."""
    text = re.sub(r"\\\n\s*", "", block.code)
    variables = {}
    for found in re.finditer(r'^([A-Z_]+)="(.*?)"$', text, re.M | re.S):
        variables[found[1]] = " ".join(found[2].split())
    text = re.sub(r'^[A-Z_]+=".*?"$', "", text, flags=re.M | re.S)
    for line in text.splitlines():
        for variable, value in variables.items():
            line = line.replace(f"${variable}", value)
        if words := shlex.split(line, comments=True):
            yield words


def dmseg_commands(words):
    """The arguments of the dmseg commands behind a line of a shell."""
    if words[0] == "dmseg":
        return [words[1:]]
    if words[0] != "make":
        assert words[0] in OTHERS, f"{words[0]} is not in OTHERS"
        if words[0] == "python" and words[1] != "-m":
            assert (REPO / words[1]).is_file()
        return []
    shown = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", *words[1:]], cwd=REPO, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    return [shlex.split(line)[1:] for line in shown.stdout.splitlines() if re.match(r"\S+/dmseg ", line)]


def check(argv):
    """Composes what a command of dmseg would carry out."""
    if argv[0].startswith("-") or argv[0] == "help":
        return
    command, words = argv[0], argv[1:]
    assert command in COMMANDS
    words = checked(command, use_extensions(command, words))
    if set(MULTIRUN.names) & set(words):
        overrides = [word for word in words if word not in MULTIRUN.names and not word.startswith("name=")]
        combinations = expand(overrides).combinations()
        for combination in (combinations[0], combinations[-1]):
            compose_settings(combination.overrides)
    elif command in COMPOSING:
        compose_settings(take_seeds(words)[1] if command == "cv" else words)
    elif command in TABLES or any(word.startswith("tables=") for word in words):
        check_table(words)
    elif command == "data":
        assert words[0] in ("status", "verify")
        compose_settings(words[1:])
    elif command == "runs":
        rest = words[1:] if words and words[0] in ("list", "show", "verify", "prune") else words
        own = ("paths.results=", "aside=", "confirm=")
        choose([], [word for word in rest if "=" in word and not word.startswith(own)])
    elif command == "track":
        own = ("paths.results=", "tracker=", "wandb.", "again=", "tables=")
        choose([], [word for word in words if "=" in word and not word.startswith(own)])
    elif command == "config":
        compose_settings([word for word in words if "=" in word])
    elif command == "completion":
        assert words[0] in ("bash", "zsh", "fish")
    else:
        assert command in ("export-results", "import-results")
        assert all(word.partition("=")[0] in ("to", "from", "paths.results", "weights", "images") for word in words)


def check_table(words):
    if figures := [word.removeprefix("figure=") for word in words if word.startswith("figure=")]:
        assert set(figures) <= set(FIGURES)
        compose_settings([word for word in words if not word.startswith("figure=")])
        return
    words = [word for word in words if not word.startswith(("to=", "weights="))]
    words = [
        re.sub(r"^(model\.weights)=(?!imagenet$).*", r"\1=null", word) for word in words
    ]  # planning reads the file
    specs, overrides = split_tables(words)
    overrides = take_inference(take_seeds(overrides)[1])[1]
    if not any(word.startswith("from=") for word in overrides):
        plan = parse_request(overrides, [block.data for spec in specs for block in spec.blocks])
        if all(spec.kind == "agreement" for spec in specs):
            compose_settings(overrides)
        elif len(specs) == 1:
            assert main(["plan", *take_inference(words)[1]]) == 0
        else:
            for data in dict.fromkeys(plan.data.values()):
                of_columns = ("distill.", "method.", "labels.")  # keys that only some columns have
                compose_settings([word for word in plan.overrides_of(data) if not word.startswith(of_columns)])


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A folder without data, where planning is all that a table can do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "examples").symlink_to(REPO / "examples")
    yield tmp_path
    use_extensions("train", [])
    (tmp_path / "examples").unlink()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "composing must write nothing"


SHELL = [block for block in ALL if block.language == "bash"]


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands_compose(block, nowhere, capfd):
    for words in commands(block):
        for argv in dmseg_commands(words):
            check(argv)


INLINE = sorted(
    {
        (found, name(page))
        for page in PAGES
        for found in re.findall(
            r"`(dmseg [a-z-]+ [^`]*=[^`]*)`", " ".join(prose(page.read_text(encoding="utf-8")).split())
        )
        if not PLACEHOLDERS.search(found) and not found.endswith("=") and "|" not in found and "[" not in found
    }
)


@pytest.mark.parametrize("command", sorted({command for command, _ in INLINE}))
def test_commands_in_the_text_compose(command, nowhere, capfd):
    check(shlex.split(command)[1:])


RUN = [block for block in SHELL if block.mark.startswith("run:")]


def test_marks_are_known():
    assert {block.mark for block in ALL if block.mark} == {block.mark for block in RUN}
    assert len(RUN) >= 3


@pytest.mark.parametrize("page", sorted({block.page for block in RUN}))
def test_marked_commands_run(page, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    for block in RUN:
        added = shlex.split(block.mark.removeprefix("run:"))
        for words in commands(block) if block.page == page else ():
            assert words[0] == "dmseg"
            assert main([*words[1:], *added]) == 0, capfd.readouterr().err


@pytest.mark.parametrize("block", [block for block in ALL if block.language in ("yaml", "json")], ids=str)
def test_data_blocks_parse(block):
    assert yaml.safe_load(block.code) is not None


def test_the_checks_refuse_what_is_wrong(nowhere):
    from dmseg.errors import UserError

    for wrong in ("train labels=unifrom", "cv -m seed=range(", "plan table=99", "runs colour=red", "train -x"):
        with pytest.raises((UserError, AssertionError)):
            check(wrong.split())
    with pytest.raises(AssertionError):
        dmseg_commands(["make", "reproduce-everything"])
    assert os.getcwd() == str(nowhere)
