"""The command ``dmseg explain``: the open choices behind a table."""

import textwrap
from collections.abc import Iterator, Sequence

from dmseg.cli.messages import set_up_logging
from dmseg.cli.tables import split_tables
from dmseg.config.choices import TOPICS, written
from dmseg.tables.open_choices import ExplainedTable, explain_tables
from dmseg.text import printable

WIDTH = 80
"""Maximum width of a line in columns."""


def explain(argv: Sequence[str]) -> int:
    """Prints the open choices of tables."""
    specs, overrides = split_tables(argv)
    set_up_logging()
    for table in explain_tables(overrides, specs):
        print("\n".join(map(printable, describe(table))))
    return 0


def describe(table: ExplainedTable) -> Iterator[str]:
    """The lines of one table, of at most `WIDTH` columns."""
    titles = {column.key: column.title for column in table.spec.columns}
    yield from _wrapped("", table.spec.heading)
    yield from _wrapped("  rows     ", ", ".join(table.rows))
    yield from _wrapped("  columns  ", ", ".join(titles.get(key, key) for key in table.columns))
    found = {item.choice.title: item for item in table.choices}
    for topic in TOPICS:
        yield ""
        yield topic.title
        for choice in topic.choices:
            item = found[choice.title]
            yield from _wrapped("  ", choice.title + (f" ({choice.key})" if choice.key else ""))
            values = [("paper", choice.paper), ("release", choice.release)]
            texts = [f"{name}: {value if not choice.key else written(value)}" for name, value in values]
            if item.values:
                texts.append(f"used here: {' or '.join(item.values)}")
            yield from _wrapped("    ", " | ".join(texts))
            if not choice.key:
                yield from _wrapped("    no key   ", choice.why)
            elif item.fixed:
                yield from _wrapped("    affects  ", "set by the columns themselves")
            else:
                yield from _wrapped("    affects  ", table.describe(item.touched))
            yield from _wrapped("    source   ", choice.source)
    yield ""


def _wrapped(start: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=start, subsequent_indent=" " * max(len(start), 2), break_on_hyphens=False
    )
