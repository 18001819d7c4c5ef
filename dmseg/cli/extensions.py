"""``plugins=[...]`` and ``--config-dir DIR``: the user's own code and configuration files."""

import sys
from collections.abc import Sequence
from pathlib import Path

from dmseg.errors import UserError

WITHOUT_SETTINGS = ("completion", "import-results", "runs", "track")
"""Commands that neither compose settings nor use components."""

_words: tuple[str, ...] = ()


def use_extensions(command: str, argv: Sequence[str]) -> list[str]:
    """Takes plugins and config dir out of the arguments of a command, and activates them in this process.

    Args:
        command: name of the command.
        argv: its arguments.

    Returns:
        The other arguments.

    Raises:
        UserError: if one is given twice or cannot be used, or the command does not support it.
    """
    global _words
    folders, plugins, rest = [], [], []
    left = list(argv)
    while left:
        word = left.pop(0)
        key, equals, value = word.partition("=")
        if key == "--config-dir":
            value = value if equals else left.pop(0) if left else ""
            if not value or value.startswith("-"):
                raise UserError("--config-dir needs a folder: --config-dir DIR")
            folders.append(value)
        elif key.lstrip("+~").partition("@")[0] == "plugins":
            if key != "plugins" or not value:
                raise UserError(f"'{word}': write plugins=[FILE.py,MODULE], with at least one")
            plugins.append(word)
        else:
            rest.append(word)
    _words = (*(f"--config-dir={folder}" for folder in folders), *plugins)
    if _words and command in WITHOUT_SETTINGS:
        raise UserError(f"dmseg {command} reads no configuration; leave {_words[0]} out")
    for given, name in ((folders, "--config-dir"), (plugins, "plugins")):
        if len(given) > 1:
            how = "name one folder" if given is folders else "name all in one list: plugins=[a.py,b.py]"
            raise UserError(f"{name} is given twice; {how}")
    if not _words and "dmseg.config.config_dir" not in sys.modules:
        return rest  # nothing to undo
    from dmseg.config.config_dir import use_config_dir
    from dmseg.config.plugins import find_plugins, use_plugins

    use_plugins(())
    use_config_dir(Path(folders[0]) if folders else None)
    use_plugins(find_plugins(_named(plugins[0])) if plugins else ())
    return rest


def words() -> tuple[str, ...]:
    """The arguments that name the extensions in use, for commands that a message proposes."""
    return _words


def _named(word: str) -> list[str]:
    """The plugins that an argument names: a list in Hydra's grammar, or one name as the shell gives it."""
    from hydra.core.override_parser.types import QuotedString

    from dmseg.config.overrides import parse_override

    text = word.partition("=")[2]
    if text[0] not in "['\"(" and "," not in text:
        return [text]
    parsed = parse_override(word)
    found = parsed.value()
    if parsed.is_sweep_override():
        raise UserError(f"'{word}': plugins cannot be swept; name all in one list: plugins=[a.py,b.py]")
    items = found if isinstance(found, list) else [found]
    names = [str(item.text if isinstance(item, QuotedString) else item) for item in items]
    if not names or not all(names):
        raise UserError(f"'{word}': write plugins=[FILE.py,MODULE], with at least one")
    return names
