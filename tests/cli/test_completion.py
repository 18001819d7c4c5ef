"""Completion: what may follow, and the scripts in the real shells where they are installed."""

import os
import pty
import select
import shutil
import subprocess
import sys

import pytest

from dmseg.cli.completion import SCRIPTS, WORDS, candidates, split_line
from dmseg.cli.main import main
from dmseg.cli.registry import COMMANDS
from dmseg.config.allowed import ALLOWED
from dmseg.config.compose import compose_plain, compose_settings
from dmseg.config.config_dir import config_options
from dmseg.data.known_tasks import KNOWN_TASKS
from dmseg.errors import UserError
from dmseg.runs.sources import name_tasks


def texts(line):
    words, current, _ = split_line(line)
    return [item.text for item in candidates(words[1:], current) if item.text.startswith(current)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dmseg tr", ["train", "track"]),
        ("dmseg --v", ["--version"]),
        ("dmseg help runs ver", ["verify"]),
        ("dmseg data ", ["status", "verify"]),
        ("dmseg runs sh", ["show"]),
        ("dmseg train --m", ["--multirun"]),
        ("dmseg completion f", ["fish"]),
        ("dmseg train labels=uni", ["labels=uniform"]),
        ("dmseg train 'labels=uni", ["labels=uniform"]),
        ("dmseg train optim.l", ["optim.lr="]),
        ("dmseg train data=lits data.orient", ["data.orientation="]),
        ("dmseg train evaluate.ged=", ["evaluate.ged=true", "evaluate.ged=false"]),
        ("dmseg train evaluate.ties=f", ["evaluate.ties=foreground"]),
        ("dmseg train -m labels=majority,uni", ["labels=majority,uniform"]),
        ("dmseg train -m labels=majority,maj", []),
        ("dmseg train ++evaluate.ged=", ["++evaluate.ged=true", "++evaluate.ged=false"]),
        ("dmseg train distill=kd labels.ti", ["labels.ties="]),
        ("dmseg train data=phantom data.phantom.ra", ["data.phantom.raters="]),
        ("dmseg table data=qubiq,lid", ["data=qubiq,lidc"]),
        ("dmseg table lidc:labels=uni", ["lidc:labels=uniform"]),
        ("dmseg reproduce tables=a", ["tables=all"]),
        ("dmseg config optim.pol", ["optim.poly_power", "optim.poly_power="]),
        ("dmseg runs status=f", ["status=failed"]),
        ("dmseg train distill=kd distill.teacher.labels=uni", ["distill.teacher.labels=uniform"]),
        (
            "dmseg train distill=kd distill.teacher.labels=smoothing distill.teacher.labels.smoothing.k",
            ["distill.teacher.labels.smoothing.kind=", "distill.teacher.labels.smoothing.kernel="],
        ),
        ("dmseg train distill.teacher.labels.smoothing.k", []),
        ("dmseg nothing ", []),
        ("dmseg train no_such_key=", []),
    ],
)
def test_what_may_follow(line, expected):
    assert texts(line) == expected


@pytest.mark.parametrize("data", ["qubiq", "phantom", "lidc", "lits", "kits", "phantom_lits", "phantom_kits"])
def test_tasks_are_those_of_the_chosen_data_set(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    offered = [text.removeprefix("task=") for text in texts(f"dmseg train data={data} task=")]
    try:
        known = [found.task.name for found in name_tasks(compose_settings([f"data={data}"]))]
    except UserError:  # a data set of several tasks under one structure each
        known = []
    assert known
    assert set(known) <= set(offered)
    target = compose_settings([f"data={data}"]).data.target
    assert set(offered) == set(KNOWN_TASKS[target])


def test_tasks_that_are_prepared_are_offered(tmp_path, monkeypatch):
    (tmp_path / "stores" / "phantom_decathlon" / "hippocampus-48-0123abcd").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert texts("dmseg train data=phantom_decathlon paths.prepared=stores task=") == ["task=hippocampus"]


def test_runs_and_folders_on_disk_are_offered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results" / "phantom" / "runs" / "0123456789abcdef").mkdir(parents=True)
    (tmp_path / "results" / "a file").touch()
    (tmp_path / ".hidden").mkdir()
    assert texts("dmseg runs paths.results=") == ["paths.results=results/"]
    assert texts("dmseg runs paths.results=.h") == ["paths.results=.hidden/"]
    assert "0123456789abcdef" in texts("dmseg runs show 01")
    assert texts("dmseg runs paths.results=res") == ["paths.results=results/"]
    assert texts("dmseg runs paths.results=results/") == ["paths.results=results/phantom/"]
    assert texts("dmseg train folds.file=results/a") == ["folds.file=results/a file"]


def test_files_of_a_config_dir_are_offered(tmp_path):
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text("name: mine\n")
    assert texts(f"dmseg train --config-dir {tmp_path} loss=mi") == ["loss=mine"]
    assert texts(f"dmseg train --config-dir={tmp_path} loss=mi") == ["loss=mine"]


def test_every_key_and_value_that_is_offered_exists():
    def keys(node, prefix=""):
        for name, value in node.items():
            yield f"{prefix}{name}"
            if isinstance(value, dict):
                yield from keys(value, f"{prefix}{name}.")

    known = set(keys(compose_plain([])))
    offered = {text.rstrip("=") for letter in "acdefloptw" for text in texts(f"dmseg train {letter}")}
    assert "optim.lr" in offered
    assert "optim" not in offered, "a group without a file has no value"
    own = {key.name for section in COMMANDS["train"].sections for key in section.keys}
    assert offered - own <= known
    for group in ("labels", "loss", "model", "method", "data", "protocol", "profile", "launcher"):
        assert [text.partition("=")[2] for text in texts(f"dmseg train {group}=")] == config_options(group)
    for name in ALLOWED:
        assert [text.partition("=")[2] for text in texts(f"dmseg train {name}=")] == list(ALLOWED[name])
    assert set(WORDS).isdisjoint(ALLOWED)


def test_answers_import_nothing_slow():
    code = "import sys; from dmseg.cli.main import main; main([])\n"
    code += "assert not {'torch', 'numpy', 'pandas', 'hydra', 'omegaconf', 'yaml', 'rich', 'click'} & set(sys.modules)"
    environment = {"_DMSEG_COMPLETE": "bash", "_DMSEG_LINE": "dmseg train data=phantom task=kid"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment)
    assert (done.stdout, done.stderr) == ("task=kidney-1\n", "")


def test_a_line_that_makes_no_sense_has_no_answer(capfd, monkeypatch):
    for line in ("", "dmseg 'a \"b", "dmseg train data=\\", "dmseg train task=\x00", "x" * 5000):
        monkeypatch.setenv("_DMSEG_COMPLETE", "bash")
        monkeypatch.setenv("_DMSEG_LINE", line.replace("\x00", "?"))
        assert main([]) == 0
    said = capfd.readouterr()
    assert said.err == ""


@pytest.mark.parametrize("words", [[], ["tcsh"], ["bash", "zsh"]], ids=str)
def test_an_unknown_shell_is_refused(words, capfd):
    assert main(["completion", *words]) == 2
    assert "dmseg completion bash" in capfd.readouterr().err


@pytest.fixture
def shell_environment(tmp_path):
    """An environment in which ``dmseg`` is this very package."""
    program = tmp_path / "bin" / "dmseg"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m dmseg "$@"\n')
    program.chmod(0o755)
    return os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "xterm"}


def script(tmp_path, shell, capfd):
    assert main(["completion", shell]) == 0
    path = tmp_path / f"dmseg.{shell}"
    path.write_text(capfd.readouterr().out)
    return path


def need(shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")


def test_in_bash(tmp_path, shell_environment, capfd):
    need("bash")
    path = script(tmp_path, "bash", capfd)
    lines = ["dmseg trai", "dmseg train labels=uni", "dmseg train data=phantom task=kid", "dmseg table lidc:labels=uni"]
    code = f"source {path}\ncomplete -p dmseg\n" + "".join(
        f"COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=(dmseg); _dmseg; echo \"${{COMPREPLY[*]}}\"\n"
        for line in lines
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, env=shell_environment, check=True)
    assert done.stdout.splitlines()[1:] == ["train", "uniform", "kidney-1", "uniform"], "bash ends a word at = and :"
    assert done.stderr == ""


def test_in_fish(tmp_path, shell_environment, capfd):
    need("fish")
    path = script(tmp_path, "fish", capfd)
    for line, expected in (("dmseg trai", "train"), ("dmseg train labels=uni", "labels=uniform")):
        code = f"source {path}; complete -C '{line}'"
        done = subprocess.run(["fish", "-c", code], capture_output=True, text=True, env=shell_environment, check=True)
        assert [row.partition("\t")[0] for row in done.stdout.splitlines()] == [expected]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_tab_key(shell, tmp_path, shell_environment, capfd):
    """In an interactive shell: the word is completed on the line, and the command gets it."""
    need(shell)
    path = script(tmp_path, shell, capfd)
    start = ["bash", "--norc", "--noprofile", "-i"] if shell == "bash" else ["zsh", "-f", "-i"]
    here, there = pty.openpty()
    with subprocess.Popen(
        start, stdin=there, stdout=there, stderr=there, env=shell_environment, close_fds=True
    ) as running:
        os.close(there)
        try:
            for typed, awaited in (
                ("PS1='ready'; PROMPT='ready'\n", "ready"),
                (f"source {path}; echo sour''ced\n", "sourced"),
                ("dmseg config labels.name labels=unif\t\n", "name: uniform"),
            ):
                os.write(here, typed.encode())
                assert wait_for(here, awaited), f"{awaited!r} does not appear"
        finally:
            running.kill()
            os.close(here)


def wait_for(terminal, text, seconds=60):
    shown = ""
    while select.select([terminal], [], [], seconds)[0]:
        try:
            shown += os.read(terminal, 4096).decode(errors="replace")
        except OSError:
            return False
        if text in shown:
            return True
    return False


def test_there_is_a_script_for_each_shell_that_is_named():
    assert set(SCRIPTS) == {"bash", "zsh", "fish"}
