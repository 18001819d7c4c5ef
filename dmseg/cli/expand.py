"""Expands a sweep in Hydra's grammar into combinations of plain overrides."""

import inspect
import itertools
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser, create_functions
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, Quote, QuotedString, Sweep
from hydra.errors import HydraException

from dmseg.config.config_dir import config_options
from dmseg.config.overrides import PATH_KEYS
from dmseg.errors import UserError, cut, first_line

LIMIT = 100_000
"""Largest number of combinations of a sweep."""

_BARE = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)
_WORDS_WITH_A_TYPE = {"null", "true", "false", "inf", "nan"}


@dataclass(frozen=True)
class Combination:
    """One point of a sweep.

    Attributes:
        overrides: all of its overrides, in the order of the command line.
        values: the value of each swept key, as it is displayed.
    """

    overrides: tuple[str, ...]
    values: Mapping[str, str]


@dataclass(frozen=True)
class Grid:
    """A whole sweep.

    Attributes:
        choices: for each override of the command line, the plain overrides that it expands to.
        keys: the swept keys, each with its position in `choices`.
    """

    choices: tuple[tuple[str, ...], ...]
    keys: Mapping[str, int]

    def __len__(self) -> int:
        return math.prod(len(choice) for choice in self.choices)

    def combinations(self) -> list[Combination]:
        """All combinations; the last key changes fastest."""
        found = []
        for overrides in itertools.product(*self.choices):
            values = {key: _shown(overrides[place]) for key, place in self.keys.items()}
            if "data" in values:  # NAME:key=value applies to the data set NAME only, as in tables
                others = {_shown(word) for word in self.choices[self.keys["data"]]} - {values["data"]}
                own = [word.removeprefix(f"{values['data']}:") for word in overrides]
                overrides = tuple(word for word in own if word.partition(":")[0] not in others)
            if values.get("distill") == "null":  # without distillation its options have no effect
                overrides = tuple(word for word in overrides if not word.lstrip("+~").startswith("distill."))
            found.append(Combination(overrides, values))
        return found


def expand(overrides: Sequence[str]) -> Grid:
    """Expands each override into its values: ``a,b``, ``choice``, ``range``, ``glob``, ``sort``, ``shuffle``.

    Args:
        overrides: in Hydra's grammar. One without a comma that cannot be parsed is kept; composing it raises the error.

    Raises:
        UserError: if a sweep is malformed, has no values or too many, or if a swept key is given twice.
    """
    parsed = [_parse(word) for word in overrides]
    choices: list[tuple[str, ...]] = []
    keys: dict[str, int] = {}
    for place, (word, item) in enumerate(zip(overrides, parsed, strict=True)):
        swept = item is not None and (item.is_sweep_override() or _holds_sweep(item.value()))
        if item is None or not swept:
            choices.append((word,))
            continue
        same = [
            text
            for other, text in zip(parsed, overrides, strict=True)
            if other is not None and (other.key_or_group, other.package) == (item.key_or_group, item.package)
        ]
        if len(same) > 1:
            raise UserError(
                f"{item.key_or_group} is given twice: {' and '.join(same)}; write all its values in one list"
            )
        key = item.get_key_element()
        choices.append(tuple(f"{key}={text}" for text in _values(word, item)))
        keys[key.lstrip("+")] = place
    grid = Grid(tuple(choices), keys)
    if len(grid) > LIMIT:
        raise UserError(f"the sweep has {len(grid)} combinations, but at most {LIMIT} are allowed")
    return grid


def hydra_literal(value: Any) -> str:  # noqa: ANN401
    """Writes a value in Hydra's grammar; Hydra parses it to the same value.

    Raises:
        TypeError: if the grammar cannot express it.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, QuotedString | str):
        text = value.text if isinstance(value, QuotedString) else value
        is_bare = _BARE.fullmatch(text) and text.lower() not in _WORDS_WITH_A_TYPE
        return text if is_bare else QuotedString(text, Quote.single).with_quotes()
    if isinstance(value, list):
        return f"[{','.join(map(hydra_literal, value))}]"
    if isinstance(value, dict):
        items = []
        for key, item in value.items():  # keys cannot be quoted
            text = re.sub(r"[\\()\[\]{}:=, \t]", r"\\\g<0>", key) if isinstance(key, str) else hydra_literal(key)
            items.append(f"{text}:{hydra_literal(item)}")
        return f"{{{','.join(items)}}}"
    raise TypeError(f"{type(value).__name__} cannot be written as a value")


def _shown(word: str) -> str:
    """The value of an override for display, without quotes."""
    item = _parse(word)
    value = None if item is None else item.value()
    return value if isinstance(value, str) else word.partition("=")[2]


def _parse(word: str) -> Override | None:
    """Parses an override; returns None if it is not in Hydra's grammar.

    Raises:
        UserError: if it uses a function wrongly, or looks like a list of values that cannot be parsed.
    """
    try:
        return _parser().parse_override(word)
    except HydraException as error:
        cause = error.__cause__
        if "," not in word and word.partition("=")[0].lstrip("+") in PATH_KEYS:  # composing puts it in quotes
            return None
        if isinstance(cause, ValueError | TypeError | HydraException | AssertionError):  # raised by a function
            raise UserError(f"'{word}': {first_line(cause)}") from None
        key, _, value = word.partition("=")
        if "," in value:
            raise UserError(
                f"'{word}' cannot be parsed as values; put values with special characters in quotes: "
                f"""{key}='"first","second"'"""
            ) from None
        return None
    except (ValueError, RecursionError):
        raise UserError(f"'{cut(word)}' cannot be parsed: it is too long or too deeply nested") from None


def _values(word: str, item: Override) -> list[str]:
    """The values of a sweep, written as in overrides."""
    value: Any = item.value()
    if isinstance(value, Glob):
        options = config_options(item.key_or_group)
        if not options:
            raise UserError(
                f"'{word}': glob() chooses among the files of a config group (labels, loss, ...); list the values"
            )
        if not (found := value.filter(options)):
            raise UserError(f"'{word}' matches none of {', '.join(options)}")
        return found
    try:
        texts = [hydra_literal(element) for element in value.list] if isinstance(value, ChoiceSweep) else []
    except TypeError:
        texts = []
    if not texts:
        raise UserError(
            f"'{word}': a sweep cannot be part of a list, a mapping or another sweep; write all values in one list"
        )
    return texts


def _holds_sweep(value: Any) -> bool:  # noqa: ANN401
    if isinstance(value, list | dict):
        return any(map(_holds_sweep, value.values() if isinstance(value, dict) else value))
    return isinstance(value, Sweep | Glob)


@cache
def _parser() -> OverridesParser:
    """Hydra's parser, with our own functions: their values are exact, in a fixed order and finite in number."""
    functions = create_functions()
    own: dict[str, Callable[..., Any]] = {
        "choice": _choice,
        "range": _range,
        "shuffle": _shuffle,
        "interval": _refuse("interval() has no list of values; write them, or range(start,stop,step)"),
        "tag": _refuse("tags have no effect here; leave tag() out"),
    }
    functions.functions |= own
    functions.definitions |= {name: inspect.signature(function) for name, function in own.items()}
    return OverridesParser(functions)


def _choice(*args: Any) -> ChoiceSweep:  # noqa: ANN401
    if len(args) == 1 and isinstance(args[0], ChoiceSweep):
        return ChoiceSweep(list=args[0].list)
    if not args:
        raise ValueError("choice() has no values")
    return ChoiceSweep(list=list(args))


def _shuffle(*args: Any) -> ChoiceSweep:  # noqa: ANN401
    """The values in a shuffled order that is the same each time."""
    values = list(_choice(*args).list)
    random.Random(0).shuffle(values)
    return ChoiceSweep(list=values)


def _range(start: int | float, stop: int | float | None = None, step: int | float = 1) -> ChoiceSweep:
    """Numbers from start up to stop, without stop itself; all are floats if any argument is one."""
    first, last = (0, start) if stop is None else (start, stop)
    if not all(math.isfinite(number) for number in (first, last, step)) or not step:
        raise ValueError("start, stop and step must be finite, and step not 0")
    exact = [Decimal(repr(number)) for number in (first, last, step)]
    count = max(0, math.ceil((exact[1] - exact[0]) / exact[2]))
    if not 0 < count <= LIMIT:
        raise ValueError(f"this range has {count or 'no'} values, but must have 1 to {LIMIT}")
    kind = int if all(isinstance(number, int) for number in (first, last, step)) else float
    return ChoiceSweep(list=[kind(exact[0] + index * exact[2]) for index in range(count)])


def _refuse(reason: str) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        raise ValueError(reason)

    return function
