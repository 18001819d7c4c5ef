"""Reads the command line: finds the command, checks its options and arguments, and prints help.

Overrides (``key=value``, ``+key=value``, ``~key``) are left to Hydra's grammar, except that values in Python's form are
rewritten.
"""

import ast
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NoReturn

import click

from dmseg import __version__
from dmseg.cli import output
from dmseg.cli.description import MULTIRUN, Command
from dmseg.cli.extensions import use_extensions
from dmseg.cli.registry import (
    CLOSING,
    COMMANDS,
    COMPLETION,
    EXAMPLES,
    EXIT_STATUSES,
    HELP_EXAMPLES,
    OTHER_KEYS,
    SUMMARY,
)
from dmseg.cli.words import is_true, take_words
from dmseg.config.reserved import refuse_hydra
from dmseg.errors import UserError, cut

HELP = ("-h", "--help")
WIDTH = 100
"""Maximum width of a help text in columns."""
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


@dataclass(frozen=True)
class Call:
    """What a command line asks for.

    Attributes:
        function: ``module:function``.
        argv: the arguments of the function.
    """

    function: str
    argv: list[str]


def parse(argv: Sequence[str]) -> Call | None:
    """Finds the function to call. Prints help or the version if the arguments ask for it, and then returns None.

    Raises:
        UserError: if a command, action or option does not exist.
    """
    root = build()
    try:
        with root.make_context("dmseg", list(argv) or ["--help"]) as context:
            call: Call | None = root.invoke(context)
            return call
    except click.exceptions.Exit:
        return None
    except click.UsageError as error:
        raise UserError(f"{error.format_message().rstrip('.')}; see 'dmseg --help'") from None


def build() -> click.Group:
    """Builds the command line for click."""
    version = _option(["--version"], "Show the version.", lambda ctx: f"dmseg {__version__}")
    root = _Root("dmseg", params=[version, _help_option()], add_help_option=False)
    for name, command in COMMANDS.items():
        if command.actions:
            group = _Actions(name, command)
            for action, described in command.actions.items():
                group.add_command(_Leaf(action, described))
            root.add_command(group)
        else:
            root.add_command(_Leaf(name, command))
    root.add_command(_HelpCommand())
    return root


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


def checked(command: str, argv: Sequence[str]) -> list[str]:
    """Checks the arguments of a command, and rewrites values in Python's form as Hydra's.

    Args:
        command: name of the command.
        argv: the arguments.

    Raises:
        UserError: if an argument is an unknown option, or sets a key of Hydra's own.
    """
    has_sweeps, swept = bool(COMMANDS[command].sweep), set(MULTIRUN.names) & set(argv)
    for word, following in zip(argv, [*argv[1:], ""], strict=False):
        flag, equals, value = word.partition("=")
        if word in MULTIRUN.names and not has_sweeps:
            raise UserError(f"{word} is for train and cv; '{command}' has no sweeps")
        if word.startswith("-") and word not in MULTIRUN.names:
            if flag in _HYDRA_FLAGS:
                raise UserError(f"'{word}' is not an option of dmseg: {_HYDRA_FLAGS[flag]}")
            if equals:
                raise UserError(f"'{word}': keys are written without leading hyphens; write {flag.lstrip('-')}={value}")
            raise UserError(f"there is no option '{word}'; {_instead(command, word, following)}")
        if word.startswith("name=") and has_sweeps and not swept:
            raise UserError(f"'{word}' names the table of a sweep, and needs -m")
        if word.startswith("seeds=") and (command == "train" or swept):
            instead = "sweep over seeds with -m seed=0,1,2" if command == "train" else "in a sweep write seed=0,1,2"
            raise UserError(f"'{cut(word)}' is for tables and for cv without -m; {instead}")
        refuse_hydra(word)
    return [from_python(word) for word in argv]


def from_python(word: str) -> str:
    """Rewrites an override whose value is in Python's form, as a wandb agent writes it, in Hydra's form.

    ``None`` is null; a list or mapping may hold ``None`` and quoted keys: ``optim={'lr': 0.003}``.
    """
    key, _, value = word.partition("=")
    if value == "None":
        return f"{key}=null"
    if not value.startswith(("[", "{")) or "\\" in value:
        return word
    from dmseg.cli.expand import hydra_literal

    try:
        return f"{key}={hydra_literal(ast.literal_eval(value))}"
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # not Python's form
        return word


class _Root(click.Group):
    """``dmseg``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Checks the arguments of the command before click looks at them."""
        if not ctx.resilient_parsing and not set(HELP) & set(args):
            if args[0].startswith("-") and args[0] != "--version":
                near = get_close_matches(args[0], ["--version", "--help"], n=1)
                advice = f"did you mean '{near[0]}'?" if near else "options of a command follow its name"
                raise UserError(f"there is no option 'dmseg {args[0]}'; {advice}")
            if "--version" in args:
                args = ["--version"]
            if args[0] in COMMANDS:
                args = [args[0], *checked(args[0], use_extensions(args[0], take_quiet(args[0], args[1:])))]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds a command by its name."""
        if args[0] not in self.commands and not ctx.resilient_parsing:
            _refuse(f"there is no command '{args[0]}'", args[0], self.commands)
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the help of dmseg."""
        formatter.write_usage("dmseg", "COMMAND [OPTION]... [KEY=VALUE]...")
        _write_text(formatter, SUMMARY)
        _write_list(formatter, "Commands", [(name, str(command.short_help)) for name, command in self.commands.items()])
        _write_options(ctx, formatter)
        _write_list(formatter, "Exit status", EXIT_STATUSES)
        _write_examples(formatter, EXAMPLES)
        _write_text(formatter, CLOSING)
        _write_text(formatter, f"Completion in bash: {COMPLETION}; for zsh and fish see 'dmseg completion --help'")


class _Actions(click.Group):
    """A command that has actions."""

    def __init__(self, name: str, command: Command) -> None:
        super().__init__(name, params=[_help_option()], add_help_option=False, short_help=command.summary)
        self.described = command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Fills in the action that is meant where none is named."""
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        if self.described.default_action and (not args or "=" in args[0]):
            args = [self.described.default_action, *args]
        if not args:
            usages = " or ".join(f"'dmseg {self.name} {action}'" for action in self.commands)
            raise UserError(f"'dmseg {self.name}' needs an action: write {usages}")
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds an action by its name."""
        if args[0] not in self.commands and not ctx.resilient_parsing:
            _refuse(f"'dmseg {self.name}' has no action '{args[0]}'", args[0], self.commands)
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the help of the command."""
        formatter.write_usage(ctx.command_path, self.described.usage)
        _write_text(formatter, self.described.text)
        _write_list(formatter, "Actions", [(name, str(item.short_help)) for name, item in self.commands.items()])
        _write_options(ctx, formatter)
        _write_examples(formatter, [action.examples[0] for action in self.described.actions.values()])


class _Leaf(click.Command):
    """A command without actions, or an action."""

    def __init__(self, name: str, command: Command) -> None:
        params: list[click.Parameter] = [
            click.Argument(["overrides"], nargs=-1, type=click.UNPROCESSED),
            *(
                click.Option(
                    list(option.names),
                    metavar=option.metavar,
                    is_flag=option is MULTIRUN,
                    expose_value=option is MULTIRUN,  # --config-dir is taken out of the arguments before
                    help=option.meaning,
                )
                for option in command.options
            ),
            _help_option(),
        ]
        # Unknown options are refused earlier, unless --help is given as well.
        super().__init__(
            name,
            context_settings={"ignore_unknown_options": True},
            callback=self._call,
            params=params,
            add_help_option=False,
            short_help=command.summary,
        )
        self.described = command

    def _call(self, overrides: tuple[str, ...], multirun: bool = False) -> Call:
        return Call(self.described.sweep if multirun else self.described.function, list(overrides))

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the help of the command."""
        formatter.write_usage(ctx.command_path, self.described.usage)
        _write_text(formatter, self.described.text)
        for section in self.described.sections:
            _write_list(formatter, section.title, [(key.term, key.description) for key in section.keys])
        if self.described.composes:
            _write_text(formatter, OTHER_KEYS)
        _write_options(ctx, formatter)
        _write_examples(formatter, self.described.examples)


class _HelpCommand(click.Command):
    """``dmseg help``."""

    def __init__(self) -> None:
        words = click.Argument(["words"], nargs=-1)
        summary = "Show the help of dmseg, of a command or of an action."
        params = [words, _help_option()]
        super().__init__(
            "help",
            callback=lambda words: parse([*words, "--help"]),
            params=params,
            add_help_option=False,
            short_help=summary,
        )

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the help of the command."""
        formatter.write_usage(ctx.command_path, "[COMMAND [ACTION]]")
        _write_text(formatter, str(self.short_help))
        _write_options(ctx, formatter)
        _write_examples(formatter, HELP_EXAMPLES)


def _refuse(fault: str, name: str, known: Collection[str]) -> NoReturn:
    """Refuses a name, with the known one that begins like it or is most like it."""
    begins = [item for item in known if name and item.startswith(name)]
    near = begins if len(begins) == 1 else get_close_matches(name, known, n=1)
    raise UserError(f"{fault}; did you mean '{near[0]}'?" if near else f"{fault}; choose from {', '.join(known)}")


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
        return f"settings are written key=value: write {cut(key)}={cut(following)}; see 'dmseg {command} --help'"
    near = get_close_matches(word.lstrip("-"), described.key_names(), n=1)
    example = f": {near[0]}=VALUE" if near else ""
    return f"settings are written key=value{example}; see 'dmseg {command} --help'"


def _option(names: Sequence[str], meaning: str, show: Callable[[click.Context], str]) -> click.Option:
    """An option that prints something and ends the command."""

    def callback(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            print(show(ctx))
            ctx.exit()

    return click.Option(list(names), is_flag=True, is_eager=True, expose_value=False, help=meaning, callback=callback)


def _help_option() -> click.Option:
    return _option(HELP, "Show this help.", _help_text)


def _help_text(ctx: click.Context) -> str:
    formatter = click.HelpFormatter(max_width=WIDTH)
    ctx.command.format_help(ctx, formatter)
    return formatter.getvalue().rstrip("\n")


def _write_text(formatter: click.HelpFormatter, text: str) -> None:
    formatter.write_paragraph()
    formatter.write_text(text)


def _write_list(formatter: click.HelpFormatter, title: str, rows: Sequence[tuple[str, str]]) -> None:
    with formatter.section(title):
        formatter.write_dl(rows)


def _write_options(ctx: click.Context, formatter: click.HelpFormatter) -> None:
    options = [param for param in ctx.command.params if isinstance(param, click.Option)]
    _write_list(formatter, "Options", [record for option in options if (record := option.get_help_record(ctx))])


def _write_examples(formatter: click.HelpFormatter, examples: Iterable[tuple[str, str]]) -> None:
    """Writes command lines, each on one line, so that they can be copied."""
    with formatter.section("Examples"):
        for command, meaning in examples:
            formatter.write(f"  {command}\n      {meaning}\n")
