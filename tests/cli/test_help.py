"""Help of every command and action, refusals with a suggestion, completion, and the generated reference."""

import os
import resource
import runpy
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from dmseg.cli.expand import expand, hydra_literal
from dmseg.cli.main import main
from dmseg.cli.parser import parse
from dmseg.cli.registry import COMMANDS
from dmseg.cli.tables import split_tables
from dmseg.cli.words import TEST_WORDS, take_inference, take_seeds
from dmseg.config.compose import compose_plain, compose_settings
from dmseg.runs.inventory import FIELDS
from dmseg.tables.request import compared, parse_request

REPO = Path(__file__).parents[2]
DESCRIBED = {
    **{(name,): command for name, command in COMMANDS.items()},
    **{(name, action): item for name, command in COMMANDS.items() for action, item in command.actions.items()},
}
"""Every command and action, by the words that name it."""
LEAVES = {words: command for words, command in DESCRIBED.items() if not command.actions}
ALL = sorted(DESCRIBED)


def shown(capfd, *words):
    assert main(list(words)) == 0
    out, said = capfd.readouterr()
    assert not said
    return out


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_each_command_and_action_has_help_of_its_own(words, capfd):
    text = shown(capfd, *words, "--help")
    assert text.startswith(f"Usage: dmseg {' '.join(words)} ")
    assert text == shown(capfd, *words, "-h") == shown(capfd, "help", *words)
    assert DESCRIBED[words].actions or text == shown(capfd, *words, "fold=0", "-h", "labels=x")
    examples = [line.strip() for line in text.splitlines() if line.startswith("  dmseg ")]
    assert len(examples) >= 2
    assert all(line.startswith(f"dmseg {words[0]} ") for line in examples)
    flat = " ".join(text.split())
    assert " ".join(DESCRIBED[words].text.split()) in flat
    for section in DESCRIBED[words].sections:
        assert f"\n{section.title}:\n" in text
        for key in section.keys:
            assert f"\n  {key.term} " in text or f"\n  {key.term}\n" in text


def test_the_help_of_dmseg_names_every_command(capfd):
    text = shown(capfd, "--help")
    assert text == shown(capfd, "-h") == shown(capfd, "help") == shown(capfd)
    for name, command in COMMANDS.items():
        assert f"\n  {name} " in text
        assert command.summary in " ".join(text.split())


def test_keys_have_the_names_defaults_and_files_of_the_configuration():
    """Composed by Hydra; a default in brackets is no value."""
    node, checked = compose_plain([]), 0
    for words, command in LEAVES.items():
        for key in (key for section in command.sections for key in section.keys if command.composes):
            if key.name in (
                "table",
                "tables",
                "figure",
                "name",
                "from",
                "to",
                "weights",
                "images",
                "metrics",
                "plugins",
                "NAME:key",
            ):
                continue
            if key.name in ("seeds", "quiet", "KEY", "metrics", *TEST_WORDS):
                continue
            if key.name in ("data.labels_only", "data.slices_per_case"):
                assert key.name.partition(".")[2] in compose_plain(["data=kits"])["data"]
                continue
            value = node
            for part in key.name.split("."):
                assert part in value, f"{words}: {key.name}"
                value = value[part]
            if key.group:
                files = sorted(path.stem for path in (REPO / "configs" / key.name).glob("*.yaml"))
                assert key.description.startswith(f"{key.meaning}: {', '.join(files)}")
                value = value["name"] if isinstance(value, dict) and "name" in value else value
            if key.default and not key.default.startswith("(") and key.default != "qubiq,lits,kits":
                value = value["kind"] if key.name == "launcher" else value
                assert key.default == hydra_literal(value), f"{words}: {key.name}"
                checked += 1
    assert checked > 60


def test_preparing_promises_no_folds_but_those_that_it_counts_slices_in():
    command = COMMANDS["prepare"]
    (section,) = [item for item in command.sections if any(key.name == "folds.groups" for key in item.keys)]
    assert "data.labels_only=true" in section.title
    assert "folds" not in command.summary


@pytest.mark.parametrize("words", sorted(LEAVES), ids=" ".join)
def test_the_examples_are_accepted(words):
    command = LEAVES[words]
    for line, meaning in command.examples:
        assert meaning
        call = parse(line.split()[1:])
        sweep = "-m" in line.split()
        assert call.function == (command.sweep if sweep else command.function)
        overrides = [
            word for word in call.argv if not word.startswith(("to=", "weights=", "from=", "name=", "figure="))
        ]
        overrides = take_inference(take_seeds(overrides)[1])[1]
        if words[0] == "runs":
            assert all("=" not in word or word.partition("=")[0] in {*FIELDS, *KEYS_OF_RUNS} for word in overrides)
        elif any(word.startswith("table") for word in overrides):
            specs, rest = split_tables(overrides)
            request = parse_request(rest)
            for data in dict.fromkeys(request.data.values()):
                for override in request.overrides_of(data)[1:]:
                    compared(specs).check(override)
                compose_settings(request.overrides_of(data))
        elif sweep:
            assert len(expand(overrides)) > 1
            for combination in expand(overrides).combinations():
                compose_settings(combination.overrides)
        elif command.composes:
            compose_settings([word for word in overrides if words != ("config",) or "=" in word])


KEYS_OF_RUNS = {"paths.results", "aside", "confirm", "quiet"}


def test_the_filters_of_runs_are_all_explained():
    for action in COMMANDS["runs"].actions.values():
        assert {*FIELDS, "ID", "paths.results"} <= action.key_names() <= {*FIELDS, "ID", *KEYS_OF_RUNS}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "there is no command 'trian'; did you mean 'train'?"),
        (["export"], "there is no command 'export'; did you mean 'export-results'?"),
        (["xyz"], "there is no command 'xyz'; choose from prepare, train, cv, "),
        (["help", "run"], "there is no command 'run'; did you mean 'runs'?"),
        (["help", "runs", "prone"], "'dmseg runs' has no action 'prone'; did you mean 'prune'?"),
        (["trian", "--help"], "there is no command 'trian'; did you mean 'train'?"),
        (["runs", "lst"], "'dmseg runs' has no action 'lst'; did you mean 'list'?"),
        (["data", "xyz"], "'dmseg data' has no action 'xyz'; choose from status, verify"),
        (["data"], "'dmseg data' needs an action: write 'dmseg data status' or 'dmseg data verify'"),
        (["--versoin"], "there is no option 'dmseg --versoin'; did you mean '--version'?"),
        (["-m", "train"], "there is no option 'dmseg -m'; options of a command follow its name"),
        (["train", "--foo"], "there is no option '--foo'; settings are written key=value; see 'dmseg train --help'"),
        (["cv", "--multirn"], "there is no option '--multirn'; did you mean '--multirun'?"),
        (["train", "-help"], "there is no option '-help'; did you mean '--help'?"),
        (["train", "-mh"], "there is no option '-mh'"),
        (["train", "--fold", "1"], "there is no option '--fold'; settings are written key=value: write fold=1; see"),
        (["train", "--optim.lr", "1e-3"], "settings are written key=value: write optim.lr=1e-3; see"),
        (["train", "--batch-size", "4", "fold=0"], "write train.batch_size=4; see 'dmseg train --help'"),
        (["train", "--fold"], "there is no option '--fold'; settings are written key=value: fold=VALUE; see"),
        (["train", "--fold", "labels=uniform"], "settings are written key=value: fold=VALUE; see"),
        (["plan", "table=2", "quiet=true"], "'dmseg plan' does nothing but print; leave quiet=true out"),
        (["runs", "list", "quiet=true"], "'dmseg runs list' does nothing but print; leave quiet=true out"),
        (["runs", "quiet=true"], "'dmseg runs list' does nothing but print; leave quiet=true out"),
        (["runs", "lst", "quiet=true"], "'dmseg runs' has no action 'lst'; did you mean 'list'?"),
        (["data", "status", "quiet=true"], "'dmseg data status' does nothing but print; leave quiet=true out"),
        (["train", "quiet=yes"], "quiet is 'yes', but must be true or false"),
        (["train", "quiet=true", "quiet=true"], "quiet is given twice: 'true' and 'true'"),
        (["runs", "show", "--id"], "there is no option '--id'; settings are written key=value"),
        (["runs", "verify", "--asid"], "settings are written key=value: aside=VALUE; see 'dmseg runs --help'"),
        (["train", "--"], "there is no option '--'"),
    ],
)
def test_wrong_names_are_refused_in_one_line_with_the_nearest_one(words, said, capfd):
    assert main(words) == 2
    out, err = capfd.readouterr()
    assert not out
    assert len(err.splitlines()) == 1
    assert err.startswith("dmseg: ")
    assert said in err


def test_flags_are_flags_wherever_they_stand(capfd):
    for words in (["train", "--version"], ["--version"], ["runs", "show", "--version"]):
        assert shown(capfd, *words).startswith("dmseg ")


def test_overrides_are_passed_on_as_they_are():
    words = [
        "optim.lr=-1",
        "model.weights=-x",
        "~distill",
        "+a.b=--help",
        "++c=-m",
        "data.root='/a b/--c'",
        "fold=0,1",
        "",
    ]
    assert parse(["train", *words]).argv == words
    assert parse(["train", *words]).function == "dmseg.cli.commands:train"
    for place in (0, 3, len(words)):
        for flag in ("-m", "--multirun"):
            call = parse(["train", *words[:place], flag, *words[place:]])
            assert (call.function, call.argv) == ("dmseg.cli.sweep:train", words)


def test_runs_lists_where_no_action_is_named():
    for words in ([], ["status=done"], ["labels=a", "fold=1"]):
        assert parse(["runs", *words]) == parse(["runs", "list", *words])
    assert parse(["runs", "show", "3f"]).function == "dmseg.cli.runs:show_run"


def dmseg(words, **environment):
    command = [sys.executable, "-m", "dmseg", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["runs", "show", "-h"]], ids=" ".join)
def test_help_is_quick(words):
    """Processor time, which other processes do not change; libraries that take longer are not imported."""
    times = []
    for _ in range(10):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert dmseg(words).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert statistics.median(times) < 0.3
    code = (
        f"import sys; from dmseg.cli.main import main; main({words})\n"
        "assert not {'torch', 'numpy', 'pandas', 'hydra', 'omegaconf', 'yaml', 'rich'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_fits_the_terminal():
    for columns in (60, 80, 200):
        text = dmseg(["train", "--help"], COLUMNS=str(columns)).stdout
        lines = [line for line in text.splitlines() if not line.startswith("  dmseg ")]
        assert max(map(len, lines)) <= min(columns, 100)


def test_the_reference_is_what_the_help_gives():
    generated = runpy.run_path(str(REPO / "scripts" / "generate_reference.py"))["command_line"]()
    assert (REPO / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8") == generated, (
        "run python scripts/generate_reference.py"
    )
    for words, command in LEAVES.items():
        assert f"\n### dmseg {' '.join(words)}\n" in generated or f"\n## dmseg {' '.join(words)}\n" in generated
        assert all(line in generated for line, _ in command.examples)
