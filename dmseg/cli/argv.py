"""Checks the arguments of a command: overrides in Hydra's grammar, and options."""

import ast
from collections.abc import Sequence
from difflib import get_close_matches

from dmseg.cli import description, output
from dmseg.cli.registry import COMMANDS
from dmseg.cli.words import is_true, take_words
from dmseg.config.reserved import refuse_hydra
from dmseg.errors import UserError, cut

MULTIRUN = description.MULTIRUN.names

_CONFIG = "dmseg reads its own configuration; choose a file of a group (profile=demo) or set a key (train.epochs=2)"
_SHOW = "'dmseg config' with the same keys prints the configuration; 'dmseg runs show ID' that of a stored run"
_HYDRA_FLAGS = {
    **dict.fromkeys(("--config-name", "-cn", "--config-path", "-cp"), _CONFIG),
    "-cd": "write --config-dir DIR",
    **dict.fromkeys(("--cfg", "-c", "--resolve", "--package", "-p", "--info", "-i"), _SHOW),
    **dict.fromkeys(("--run", "-r"), "without -m a command does one run; leave it out"),
    **dict.fromkeys(("--shell-completion", "-sc"), "see the end of 'dmseg --help' for completion"),
    "--experimental-rerun": "rerun the same command to resume",
    "--hydra-help": "see 'dmseg --help'",
}


def checked(command: str, argv: Sequence[str]) -> list[str]:
    """Checks the arguments of a command, and rewrites values in Python's form as Hydra's.

    Args:
        command: name of the command.
        argv: the arguments.

    Raises:
        UserError: if an argument is an unknown option, or sets a key of Hydra's own.
    """
    for word, following in zip(argv, [*argv[1:], ""], strict=False):
        if word.startswith("-"):
            _check_flag(command, word, following)
        if word.startswith("name=") and command in ("train", "cv") and not set(MULTIRUN) & set(argv):
            raise UserError(f"'{word}' names the table of a sweep, and needs -m")
        if word.startswith("seeds=") and (command == "train" or set(MULTIRUN) & set(argv)):
            instead = "sweep over seeds with -m seed=0,1,2" if command == "train" else "in a sweep write seed=0,1,2"
            raise UserError(f"'{cut(word)}' is for tables and for cv without -m; {instead}")
        refuse_hydra(word)
    return [from_python(word) for word in argv]


def take_quiet(command: str, argv: Sequence[str]) -> list[str]:
    """Takes ``quiet=true`` or ``quiet=false`` out of the arguments and obeys it; returns the others.

    Raises:
        UserError: if it is given twice or has another value, or the command or its action does nothing but print.
    """
    given, rest = take_words(argv, ("quiet",))
    quiet = is_true(given, "quiet")
    described, name = COMMANDS[command], command
    action = rest[0] if rest and "=" not in rest[0] else described.default_action
    if action in described.actions:
        described, name = described.actions[action], f"{command} {action}"
    if given and not described.actions and "quiet" not in described.key_names():
        raise UserError(f"'dmseg {name}' does nothing but print; leave quiet={cut(given['quiet'])} out")
    output.set_quiet(quiet)
    return rest


def _check_flag(command: str, word: str, following: str) -> None:
    flag, equals, value = word.partition("=")
    if word in MULTIRUN:
        if command in ("train", "cv"):
            return
        raise UserError(f"{word} is for train and cv; '{command}' has no sweeps")
    if flag in _HYDRA_FLAGS:
        raise UserError(f"'{word}' is not an option of dmseg: {_HYDRA_FLAGS[flag]}")
    if equals:
        raise UserError(f"'{word}': keys have no hyphens before them; write {flag.lstrip('-')}={value}")
    raise UserError(f"there is no option '{word}'; {_instead(command, word, following)}")


def _instead(command: str, word: str, following: str) -> str:
    """What to write in place of an option that does not exist.

    Args:
        command: name of the command.
        word: the option.
        following: the word after it, which may be meant as its value.
    """
    described = COMMANDS[command]
    options = [name for option in described.options for name in option.names]
    if near := get_close_matches(word, [*options, "--help"], n=1):
        return f"did you mean '{near[0]}'?"
    key = word.lstrip("-")
    if key and following and not following.startswith("-") and "=" not in following:
        known = [name for name in described.key_names() if name.rpartition(".")[2] == key.replace("-", "_")]
        key = known[0] if len(known) == 1 else key
        return f"settings are written key=value: write {cut(key)}={cut(following)}, see 'dmseg {command} --help'"
    near = get_close_matches(word.lstrip("-"), described.key_names(), n=1)
    example = f": {near[0]}=VALUE" if near else ""
    return f"settings are written key=value{example}, see 'dmseg {command} --help'"


def from_python(word: str) -> str:
    """Rewrites an override whose value is in Python's form, as a wandb agent writes it, in Hydra's form.

    ``None`` is null; a list or mapping may hold ``None`` and quoted keys: ``optim={'lr': 0.003}``.
    """
    key, _, value = word.partition("=")
    if value == "None":
        return f"{key}=null"
    if not value.startswith(("[", "{")) or "\\" in value:
        return word
    from dmseg.cli.expand import written

    try:
        return f"{key}={written(ast.literal_eval(value))}"
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # not Python's form
        return word
