"""Completion in bash, zsh and fish: scripts that ask dmseg for the words that may follow, and the answers.

Answers read only small files: importing Hydra or an adapter would take longer than a person waits for a key.
"""

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from dmseg.cli.description import Command, Key, group_files
from dmseg.cli.registry import COMMANDS
from dmseg.config.allowed import ALLOWED, TRACKERS
from dmseg.config.resources import resource
from dmseg.config.yaml_lines import Line, base, is_global, lines
from dmseg.data.known_tasks import KNOWN_TASKS
from dmseg.errors import UserError

SCRIPTS = {
    "bash": """\
_dmseg() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        COMPREPLY+=("$line")
    done < <(_DMSEG_COMPLETE=bash _DMSEG_LINE="${COMP_LINE:0:COMP_POINT}" _DMSEG_BREAKS="$COMP_WORDBREAKS" \\
        "${COMP_WORDS[0]}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -gt 0 && ${COMPREPLY[0]} == *[=/] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -F _dmseg dmseg
""",
    "zsh": """\
#compdef dmseg
_dmseg() {
    local line value
    local -a open open_shown full full_shown
    for line in "${(@f)$(_DMSEG_COMPLETE=zsh _DMSEG_LINE="${(j: :)${(@)words[1,CURRENT]}}" $words[1] 2>/dev/null)}"; do
        value=${line%%$'\\t'*}
        [[ -z $value ]] && continue
        if [[ $value == *[=/] ]]; then
            open+=("$value"); open_shown+=("${line/$'\\t'/  -- }")
        else
            full+=("$value"); full_shown+=("${line/$'\\t'/  -- }")
        fi
    done
    (( $#open )) && compadd -l -S '' -d open_shown -a open
    (( $#full )) && compadd -l -d full_shown -a full
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _dmseg "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
    compdef _dmseg dmseg
fi
""",
    "fish": """\
function __dmseg_complete
    set -l program (commandline -opc)[1]
    env _DMSEG_COMPLETE=fish _DMSEG_LINE=(commandline -cp | string collect) $program 2>/dev/null
end
complete -c dmseg -f -a '(__dmseg_complete)'
""",
}
"""The scripts that turn completion on, by shell."""

TEACHER = "distill.teacher."
"""The beginning of a teacher's keys."""
BOOL = ("true", "false")
WORDS = {
    "device": ("auto", "cpu", "cuda"),
    "figure": ("1", "soft-labels", "calibration"),
    "test": ("wilcoxon", "permutation"),
    "zero_method": ("wilcox", "pratt", "zsplit"),
    "status": ("done", "running", "failed", "interrupted", "damaged"),
    "fold": ("0", "1", "2", "3", "4"),
    "distill": ("null", "kd"),
    "tracker": TRACKERS,
}
"""Values of keys that are neither in a group nor in `dmseg.config.allowed.ALLOWED`."""
_RUN_ID = re.compile(r"[0-9a-f]{16}")


class Candidate(NamedTuple):
    """A word that may follow.

    Attributes:
        text: the word.
        meaning: what it means; may be empty.
    """

    text: str
    meaning: str = ""


def print_script(argv: Sequence[str]) -> int:
    """Prints the script of a shell (``dmseg completion bash``).

    Raises:
        UserError: if no shell is named, or one that has no script.
    """
    if len(argv) != 1 or argv[0] not in SCRIPTS:
        raise UserError(f"name a shell: {', '.join(f'dmseg completion {shell}' for shell in SCRIPTS)}")
    print(SCRIPTS[argv[0]], end="")
    return 0


def answer(shell: str, environment: Mapping[str, str]) -> int:
    """Prints the words that may stand at the cursor, one on each line, for the script of a shell.

    Args:
        shell: what the script sets: ``bash``, ``zsh`` or ``fish``; click's ``bash_source`` prints the script.
        environment: with the line up to the cursor, and for bash the characters that end a word.

    Returns:
        The exit status.
    """
    name, _, rest = shell.partition("_")
    if name not in SCRIPTS or rest not in ("", "source"):
        return 1
    if rest:
        return print_script([name])
    words, current, quoted = split_line(environment.get("_DMSEG_LINE", ""))
    with suppress(UserError, OSError):
        found = [item for item in candidates(words[1:], current) if item.text.startswith(current)]
        breaks = environment.get("_DMSEG_BREAKS", "") if name == "bash" and not quoted else ""
        cut = max((current.rfind(sign) for sign in "=:" if sign in breaks), default=-1) + 1
        for text, meaning in dict(found).items():
            plain = text[cut:] if quoted or name != "bash" else re.sub(r"([^\w\-=/.,:+@%~])", r"\\\1", text[cut:])
            print(plain if name == "bash" or not meaning else f"{plain}\t{' '.join(meaning.split())}")
    return 0


def split_line(line: str) -> tuple[list[str], str, bool]:
    """The words before the cursor, the word at the cursor as far as it is typed, and whether a quote is open in it."""
    for ending in ("", "'", '"'):
        with suppress(ValueError):
            words = shlex.split(f"{line}x{ending}")
            return words[:-1], words[-1][:-1], bool(ending)
    return line.split(), "", False


def candidates(words: Sequence[str], current: str) -> Iterable[Candidate]:
    """The candidates for the word at the cursor.

    Args:
        words: the words between ``dmseg`` and the cursor.
        current: the word at the cursor as far as it is typed.
    """
    if words and words[0] == "help":
        return candidates(words[1:], current) if len(words) < 3 and "=" not in current else ()
    if not words:
        names = [Candidate(name, command.summary) for name, command in COMMANDS.items()]
        flags = [Candidate("--help", "Show this help."), Candidate("--version", "Show the version.")]
        return [*names, Candidate("help", "Show a help text."), *(flags if current.startswith("-") else ())]
    command = COMMANDS.get(words[0])
    if command is None:
        return ()
    before: list[Candidate] = []
    rest = list(words[1:])
    if command.actions:
        if rest and rest[0] in command.actions:
            command, rest = command.actions[rest[0]], rest[1:]
        else:
            if not rest:
                before = [Candidate(name, action.summary) for name, action in command.actions.items()]
            if not command.default_action:
                return before
            command = command.actions[command.default_action]
    return [*before, *_arguments(command, rest, current)]


def _arguments(command: Command, words: Sequence[str], current: str) -> Iterator[Candidate]:
    """Options, keys and values of a command or action."""
    if words and words[-1] == "--config-dir":
        yield from _paths("", current, folders=True)
        return
    if current.startswith("-"):
        yield Candidate("--help", "Show this help.")
        for option in command.options:
            yield from (Candidate(name, option.meaning) for name in option.names)
        if current.startswith("--config-dir="):
            yield from _paths("--config-dir=", current.partition("=")[2], folders=True)
        return
    scope, colon, typed = current.rpartition(":") if re.match(r"\w+:[\w.]*(=|$)", current) else ("", "", current)
    key, equals, value = typed.partition("=")
    if equals:
        for found in _values(command, [*words, *([f"data={scope}"] if colon else [])], key.lstrip("+"), value):
            yield Candidate(f"{scope}{colon}{key}={found.text}", found.meaning)
        return
    described = {item.name: item for item in _keys(command) if re.fullmatch(r"[a-z_.]+", item.name)}
    for name, item in described.items():
        if item.values:
            yield Candidate(f"{scope}{colon}{name}=", item.meaning)
    for item in _keys(command):  # words that are given without key=
        if item.name == "ID":
            named = [word.partition("=")[2] for word in words if word.startswith("paths.results=")]
            for folder in [Path(os.path.expanduser(name)) for name in named] or sorted(Path("results").glob("*")):
                ids = (path.name for path in (folder / "runs").glob("*") if _RUN_ID.fullmatch(path.name))
                yield from map(Candidate, sorted(ids))
        elif item.name == "KEY":
            yield from (Candidate(name, meaning) for name, meaning in _all_keys(words))
        elif item.name == "SHELL":
            yield from map(Candidate, SCRIPTS)
    if command.composes and typed:
        for name, meaning in _all_keys(words):
            if name not in described:
                yield Candidate(f"{scope}{colon}{name}=", meaning)


def _keys(command: Command) -> Iterator[Key]:
    return (key for section in command.sections for key in section.keys)


def _values(command: Command, words: Sequence[str], name: str, value: str) -> Iterator[Candidate]:
    """Values of a key; after a comma those of a further item."""
    key = next((item for item in _keys(command) if item.name == name), None)
    metavar = key.values if key is not None else ""
    if metavar in ("FOLDER", "FILE"):
        yield from _paths("", value, folders=metavar == "FOLDER")
        return
    several = {"-m", "--multirun"} & set(words) or metavar.endswith("...")
    start, comma, _ = value.rpartition(",") if several else ("", "", value)
    for text in _choices(words, name, metavar):
        if not comma or text not in start.split(","):
            yield Candidate(f"{start}{comma}{text}")


def _choices(words: Sequence[str], name: str, metavar: str) -> Iterable[str]:
    """The values that a key may have; tasks are those of the chosen data set's adapter, and those that are prepared."""
    own = name.removeprefix(TEACHER)
    group = "table" if name == "tables" else own
    if name in WORDS:
        return WORDS[name]
    if name == "task":
        data = _chosen(words, "data", "qubiq").split(",")[0]
        path, known = _group_file(words, "data", data), list[str]()
        while path is not None:
            named = [line.value for line in lines(path) if line.key == "_target_"]
            known += KNOWN_TASKS.get(named[0], ()) if named else ()
            path = None if named or (first := base(path)) is None else _group_file(words, "data", first)
        prepared = Path(os.path.expanduser(_chosen(words, "paths.prepared", "data/prepared"))) / data
        stored = (re.fullmatch(r"(.+)-\d+-[0-9a-f]{8}", item.name) for item in prepared.glob("*"))
        return list(dict.fromkeys([*known, *sorted(found[1] for found in stored if found)]))
    if (resource("configs") / group).is_dir():
        more = [path.stem for folder in _config_dirs(words) for path in sorted((folder / group).glob("*.yaml"))]
        return [*group_files(group), *more, *(["all"] if name == "tables" else [])]
    if own in ALLOWED:
        return ALLOWED[own]
    if metavar in ("BOOL", "true"):
        return BOOL
    value = next((line.value for line in _config_lines(words) if line.key == name), "")
    return BOOL if value in BOOL else ()


def _all_keys(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """All keys of the configuration that the words choose, with their comments."""
    yield from {line.key: line.comment for line in _config_lines(words) if line.value}.items()


def _config_lines(words: Sequence[str]) -> Iterator[Line]:
    """Lines of the configuration: config.yaml and the chosen file of each group, with full dotted names."""
    main = resource("configs") / "config.yaml"
    entries = re.findall(r"^  - (\w+): (\w+)", main.read_text(encoding="utf-8"), re.MULTILINE)
    yield from (line for line in lines(main) if not line.key.startswith("defaults"))
    groups = [("", group, default) for group, default in entries]
    if _chosen(words, "distill", "null") != "null":
        groups += [(TEACHER, group, default) for _, group, default in groups if group in ("model", "labels", "loss")]
    for teacher, group, default in groups:
        path = _group_file(words, group, _chosen(words, f"{teacher}{group}", default).split(",")[0])
        while path is not None:
            prefix = "" if is_global(path) else f"{teacher}{group}."
            yield from (line._replace(key=f"{prefix}{line.key}") for line in lines(path) if line.key != "defaults")
            path = None if (first := base(path)) is None else _group_file(words, group, first)


def _chosen(words: Sequence[str], key: str, default: str) -> str:
    return next((word.partition("=")[2] for word in reversed(words) if word.startswith(f"{key}=")), default)


def _group_file(words: Sequence[str], group: str, name: str) -> Path | None:
    folders = (resource("configs"), *_config_dirs(words))
    return next((path for folder in folders if (path := folder / group / f"{name}.yaml").is_file()), None)


def _config_dirs(words: Sequence[str]) -> list[Path]:
    """The folder that ``--config-dir`` names."""
    named = [word.partition("=")[2] for word in words if word.startswith("--config-dir=")]
    named += [after for word, after in pairwise(words) if word == "--config-dir"]
    return [Path(os.path.expanduser(name)) for name in named if name]


def _paths(prefix: str, typed: str, folders: bool) -> Iterator[Candidate]:
    """Files and folders that begin as typed; a folder ends with a slash."""
    parent, slash, start = typed.rpartition("/")
    place = Path(os.path.expanduser(f"{parent}{slash}" or "."))
    with suppress(OSError):
        for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
            if entry.name.startswith(".") and not start.startswith("."):
                continue
            if entry.is_dir() or not folders:
                yield Candidate(f"{prefix}{parent}{slash}{entry.name}{'/' if entry.is_dir() else ''}")
