"""The description of a command: its keys, options, examples and actions. Help and parser are built from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from dmseg.config.resources import resource


@dataclass(frozen=True)
class Key:
    """A key of a command, as its help shows it.

    Attributes:
        name: dotted name.
        values: placeholder for its value, such as ``NAME``; ``""`` for a word that is given without ``key=``.
        meaning: what it sets, without a full stop.
        default: its default; ``""`` for none. In brackets if it is a description and not a value.
        group: whether it chooses a file of a config group; then the help lists the files.
    """

    name: str
    values: str
    meaning: str
    default: str = ""
    group: bool = False

    @property
    def term(self) -> str:
        """How it is typed: ``fold=N``."""
        return f"{self.name}={self.values}" if self.values else self.name

    @property
    def explanation(self) -> str:
        """Its meaning, with the files of a config group."""
        return f"{self.meaning}: {', '.join(group_files(self.name))}" if self.group else self.meaning

    @property
    def description(self) -> str:
        """Its explanation and default."""
        return f"{self.explanation} [default: {self.default.strip('()')}]" if self.default else self.explanation


@dataclass(frozen=True)
class Section:
    """Keys under one heading.

    Attributes:
        title: the heading.
        keys: the keys.
    """

    title: str
    keys: tuple[Key, ...]


@cache
def group_files(group: str) -> list[str]:
    """Names of the files of a config group."""
    return sorted(path.stem for path in (resource("configs") / group).glob("*.yaml"))


def pick(section: Section, *names: str) -> tuple[Key, ...]:
    """Some keys of a section."""
    return tuple(key for key in section.keys if key.name in names)


@dataclass(frozen=True)
class Option:
    """An option of a command.

    Attributes:
        names: how it is typed, short form first.
        meaning: what it does.
        metavar: name of its value; None for an option without one.
    """

    names: tuple[str, ...]
    meaning: str
    metavar: str | None = None


MULTIRUN = Option(("-m", "--multirun"), "Sweep: keys may have several values, such as labels=majority,uniform.")
CONFIG_DIR = Option(("--config-dir",), "Folder with YAML files of your own, laid out as configs/.", "DIR")


@dataclass(frozen=True)
class Command:
    """A command, or an action of one.

    Attributes:
        summary: one line for lists of commands.
        text: what it does, in paragraphs.
        function: ``module:function``, called with the arguments after the name; returns an exit status. ``""`` for a
            command that only has actions.
        sections: its own keys.
        examples: command lines, each with what it does.
        composes: whether it reads the configuration, so that any other key and ``--config-dir`` may be given.
        sweep: the function that runs it with ``-m``; ``""`` for a command without sweeps.
        actions: its actions, by name.
        default_action: the action that is meant where none is named; ``""`` if one must be named.
    """

    summary: str
    text: str
    function: str = ""
    sections: tuple[Section, ...] = ()
    examples: tuple[tuple[str, str], ...] = ()
    composes: bool = True
    sweep: str = ""
    actions: Mapping[str, "Command"] = field(default_factory=dict)
    default_action: str = ""

    @property
    def options(self) -> tuple[Option, ...]:
        """Its options, without ``--help``."""
        return (*([MULTIRUN] if self.sweep else []), *([CONFIG_DIR] if self.composes else []))

    @property
    def usage(self) -> str:
        """What follows its name."""
        if self.actions:
            return "ACTION [KEY=VALUE]..."
        words = [key.name for section in self.sections for key in section.keys if not key.values]
        return " ".join(["[OPTION]...", *(f"[{word}]..." for word in words), "[KEY=VALUE]..."])

    def key_names(self) -> set[str]:
        """Names of its own keys, and of those of its actions."""
        own = {key.name for section in self.sections for key in section.keys}
        return own.union(*(action.key_names() for action in self.actions.values()))
