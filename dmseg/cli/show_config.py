"""The command ``dmseg config``: the composed configuration, its comments, and where each value comes from."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from dmseg.cli.messages import set_up_logging
from dmseg.config.compose import to_settings
from dmseg.config.origins import Origins, find_origins
from dmseg.config.overrides import flatten
from dmseg.config.typed import guess
from dmseg.errors import UserError, cut
from dmseg.text import printable

WIDTH = 100
"""Maximum width of a comment in columns."""


def show_config(argv: Sequence[str]) -> int:
    """Prints the configuration as YAML, or the keys that are named.

    Raises:
        UserError: if the configuration is wrong, or a key does not exist.
    """
    set_up_logging()
    named = [word for word in argv if "=" not in word and not word.startswith("~")]
    origins = find_origins([word for word in argv if word not in named])
    to_settings(origins.plain)
    known = [key for key, _ in flatten(origins.plain)]
    for name in named:
        if name not in known:
            raise UserError(f"the configuration has no key '{cut(name)}'{guess(name, known, '')}")
    chosen = {  # the named keys, the groups around them and everything inside them
        key for key in known for name in named if f"{key}.".startswith(f"{name}.") or f"{name}.".startswith(f"{key}.")
    }
    print("\n".join(_lines(origins, origins.plain, "", chosen if named else set(known))))
    return 0


def _lines(origins: Origins, node: Mapping[str, Any], prefix: str, wanted: set[str]) -> Iterator[str]:
    """A group of the configuration as lines of YAML: comments above the keys, sources behind the values.

    Args:
        origins: the configuration.
        node: the group.
        prefix: its dotted name with a final dot; empty for the whole configuration.
        wanted: dotted names of the keys to print, including those of the groups that contain them.
    """
    indent = "  " * prefix.count(".")
    for name, value in node.items():
        key = f"{prefix}{name}"
        if key not in wanted:
            continue
        for line in textwrap.wrap(printable(origins.comments.get(key, "")), WIDTH - len(indent) - 2):
            yield f"{indent}# {line}"
        source = printable(origins.sources.get(key, ""))
        ending = f"  # {source}" if source else ""
        if isinstance(value, Mapping) and value:
            yield f"{indent}{_text(name)}:{ending}"
            yield from _lines(origins, value, f"{key}.", wanted)
        else:
            yield f"{indent}{_text(name)}: {_text(value)}{ending}"


def _text(value: Any) -> str:  # noqa: ANN401
    """A value in one line of YAML."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
