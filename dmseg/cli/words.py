"""Arguments that are not keys of the configuration: ``seeds=``, ``test=``, ``zero_method=``, ``holm=``."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, get_args

from dmseg.errors import UserError, check_choice, cut

if TYPE_CHECKING:
    from dmseg.tables.inference import Inference

MOST_SEEDS = 100
"""Maximum number of seeds in one command."""
TEST_WORDS = ("test", "zero_method", "holm")
_SEED = re.compile(r"(\w+:)?[+~]*seeds?(=|$)")


def take_seeds(argv: Sequence[str]) -> tuple[tuple[int, ...], list[str]]:
    """Takes ``seeds=N`` or ``seeds=[A,B]`` out of the arguments.

    Returns:
        The seeds in ascending order, 0 to N - 1 for ``seeds=N``, none if they are not given; and the other arguments.

    Raises:
        UserError: if the seeds are not distinct whole numbers from 0, or ``seed=`` is given as well.
    """
    given, rest = take_words(argv, ("seeds",))
    if not given:
        return (), rest
    text = given["seeds"]
    for word in rest:
        if _SEED.match(word):
            raise UserError(f"'{cut(word)}' cannot be given together with 'seeds={cut(text)}'; leave one out")
    fault = f"seeds is '{cut(text)}', but must be"
    largest = 2**63 - 1
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    items = [item.strip() for item in inner.split(",")]
    if not all(re.fullmatch(r"\d{1,19}", item, re.ASCII) for item in items):
        raise UserError(f"{fault} a number of seeds, such as 3, or a list of whole numbers from 0, such as [0,1,2]")
    numbers = [int(item) for item in items]
    if inner == text and len(numbers) == 1:
        if not 1 <= numbers[0] <= MOST_SEEDS:
            raise UserError(f"{fault} a number of seeds from 1 to {MOST_SEEDS}; seeds=3 means the seeds 0, 1 and 2")
        return tuple(range(numbers[0])), rest
    if len(numbers) > MOST_SEEDS or max(numbers) > largest:
        raise UserError(f"{fault} at most {MOST_SEEDS} seeds from 0 to {largest}")
    if twice := [number for number in numbers if numbers.count(number) > 1]:
        raise UserError(f"{fault} distinct seeds: {twice[0]} is listed twice")
    return tuple(sorted(numbers)), rest


def take_inference(argv: Sequence[str]) -> tuple["Inference", list[str]]:
    """Takes ``test=``, ``zero_method=`` and ``holm=`` out of the arguments.

    Raises:
        UserError: if a value is unknown, or ``zero_method`` is given for a test that has none.
    """
    given, rest = take_words(argv, TEST_WORDS)
    from dmseg.stats.paired import ZeroMethod
    from dmseg.tables.inference import Inference

    test, zero_method = given.get("test", "wilcoxon"), given.get("zero_method", "wilcox")
    check_choice("test", test, ("wilcoxon", "permutation"))
    check_choice("zero_method", zero_method, get_args(ZeroMethod))
    if test != "wilcoxon" and "zero_method" in given:
        raise UserError(f"zero_method is an option of test=wilcoxon; leave it out, as test={test} has none")
    return Inference(test, zero_method, is_true(given, "holm")), rest  # type: ignore[arg-type]


def is_true(given: Mapping[str, str], key: str) -> bool:
    """Whether ``key=true`` is among the given words; false if the key is missing.

    Raises:
        UserError: if its value is neither true nor false.
    """
    value = given.get(key, "false")
    check_choice(key, value.lower(), ("true", "false"))
    return value.lower() == "true"


def take_words(argv: Sequence[str], keys: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Separates the words ``key=value`` of some keys from the others.

    Raises:
        UserError: if one is given twice.
    """
    given: dict[str, str] = {}
    rest = []
    for word in argv:
        key, equals, value = word.partition("=")
        if not equals or key not in keys:
            rest.append(word)
        elif key in given:
            raise UserError(f"{key} is given twice: '{cut(given[key])}' and '{cut(value)}'")
        else:
            given[key] = value.strip("'\"")
    return given, rest
