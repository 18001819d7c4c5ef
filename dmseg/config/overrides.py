"""Parses overrides with Hydra's parser and translates keys of earlier versions; reads mappings by dotted key."""

import dataclasses
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, OverrideType, Quote, QuotedString
from hydra.errors import HydraException

from dmseg.config.reserved import refuse_hydra
from dmseg.config.resources import resource
from dmseg.config.settings import MethodSettings
from dmseg.errors import UserError, cut, first_line
from dmseg.files.names import fault_of_name

log = logging.getLogger(__name__)
PATH_KEYS = (
    "data.root",
    "distill.teacher.model.weights",
    "distill.teacher.weights",
    "folds.file",
    "folds.groups",
    "model.weights",
    "paths.data",
    "paths.prepared",
    "paths.results",
)
"""Keys whose value is a path, in which ``~`` is expanded."""
LOSS_KEYS = {
    "ce_weight": "terms.ce.weight",
    "kl": "terms.ce.kl",
    "region_weight": "terms.region.weight",
    "region": "terms.region",
}
"""Keys of the loss before it had terms, and the current ones."""
CROSS_ENTROPY = "dmseg.losses.SoftCrossEntropyLoss"
"""The loss whose weight was ``ce_weight``."""
RETIRED_LABELS = (
    "there is no key labels.{}: a fusion that returns floats gives soft labels; to choose how labels are resampled, "
    "set labels.interpolation to nearest, linear or rater"
)
"""Message about ``labels.soft`` and ``labels.targets``, which were keys of earlier versions."""
_RETIRED_LABELS_KEY = re.compile(r"[+~]*(?:[\w.]+\.)?labels\.(soft|targets)(?:@[^=]*)?(?:=|$)")
_OLD_LOSS_KEY = re.compile(r"([+~]*)((?:distill\.teacher\.)?)loss\.(ce_weight|kl|region_weight|region)(?=[.=@]|$)")
_LOSS_MAPPING = re.compile(r"[+]*loss\s*=\s*\{")


@lru_cache(maxsize=4096)
def parse_override(text: str) -> Override:
    """Parses one override; keys of earlier versions are translated.

    Raises:
        UserError: if it is malformed, or chooses a file of a group by a path instead of a name.
    """
    try:
        parsed = OverridesParser.create().parse_override(quote_path(current_override(text)))
    except HydraException as error:
        if "=" not in text and not text.startswith("~"):
            raise UserError(f"'{cut(text)}' is not an override; write key=value") from None
        said = cut(first_line(error, ""))
        raise UserError(f"'{cut(text)}' cannot be parsed ({said}); put the value in quotes: key='\"value\"'") from None
    except (ValueError, RecursionError):  # a number with thousands of digits; lists nested too deeply
        raise UserError(f"'{cut(text)}' cannot be parsed: it is too long or too deeply nested") from None
    group = dotted(parsed.key_or_group)
    if not group:
        raise UserError(f"'{cut(text)}' has no key; write key=value, without spaces around =")
    if parsed.type is not OverrideType.DEL and is_group(group):  # Hydra would follow ".." and absolute paths
        value = parsed.value()
        for name in value.list if isinstance(value, ChoiceSweep) else value if isinstance(value, list) else [value]:
            if isinstance(name, str) and (fault := fault_of_name(name)):
                raise UserError(f"'{cut(text)}' must choose a file of configs/{group} by its name, but {fault}")
            if isinstance(name, str) and name.endswith(".yaml"):  # Hydra would take it, but not its labels or defaults
                said = f"'{cut(text)}' must choose a file of configs/{group} without .yaml"
                raise UserError(f"{said}: {group}={cut(name.removesuffix('.yaml'))}")
    return parsed


def dotted(name: str) -> str:
    """The key or config group of an override, with dots: ``hydra.launcher`` for ``hydra/launcher``."""
    return name.strip("/").replace("/", ".")


def is_group(key: str) -> bool:
    """Whether a dotted key is a group of ``configs``."""
    return os.path.isdir(resource("configs") / key.replace(".", "/"))  # also False if the key is too long for a path


def refuse_reserved(overrides: Sequence[str]) -> None:
    """Refuses overrides of Hydra's configuration, of plugins, ``method.unused`` and retired keys, and lists of files.

    Raises:
        UserError: if there is such an override.
    """
    for text in overrides:
        refuse_hydra(text)
        parsed = parse_override(text)
        key, value = dotted(parsed.key_or_group), parsed.value()
        if key.partition(".")[0] == "plugins":
            raise UserError(f"'{cut(text)}': plugins are named on the command line only, as plugins=[FILE.py]")
        if key == "method.unused" or (key == "method" and isinstance(value, dict) and "unused" in value):
            raise UserError(f"'{text}': method.unused cannot be overridden; it belongs to the method's YAML file")
        if isinstance(value, list) and is_group(key):  # Hydra would mix the files
            several = f"train and cv take several with -m {key}={','.join(map(str, value)) or 'A,B'}"
            advice = f"write {key}={value[0]}" if len(value) == 1 else several
            raise UserError(f"'{cut(text)}' must choose one file of configs/{key}, not a list; {advice}")
    for text in overrides:
        if found := _RETIRED_LABELS_KEY.match(text):
            raise UserError(RETIRED_LABELS.format(found[1]))


def chosen_option(overrides: Sequence[str], group: str) -> str | None:
    """The file of a config group that the overrides choose; the last choice if there are several, None without one."""
    found = [
        item.value()
        for item in map(parse_override, overrides)
        if dotted(item.key_or_group) == group and item.type is not OverrideType.DEL
    ]
    names = [value for value in found if isinstance(value, str)]
    return names[-1] if names else None


def unused_overrides(overrides: Sequence[str], method: MethodSettings) -> list[str]:
    """One line for each override of a setting that the method does not use (``method.unused``)."""
    keys = {text: f"{dotted(parse_override(text).key_or_group)}." for text in overrides}
    return [
        f"{text} has no effect: method={method.name} does not use {unused}"
        for text, key in keys.items()
        for unused in method.unused
        if key.startswith(f"{unused}.")
    ]


def quote_path(text: str) -> str:
    """Quotes the value of a path, which may then contain any character: spaces, commas, brackets, ``=``.

    ``null`` and values in quotes are not changed.
    """
    key, equals, value = text.partition("=")
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if not equals or key.lstrip("+") not in PATH_KEYS or value in ("", "null") or is_quoted:
        return text
    return f"{key}={quoted(value)}"


def quoted(value: str) -> str:
    """Quotes a text for Hydra."""
    return QuotedString(value, Quote.single).with_quotes()


@lru_cache(maxsize=4096)
def current_override(text: str) -> str:
    """Returns an override with the current name of its key; text that cannot be parsed is not changed."""
    if found := _OLD_LOSS_KEY.match(text):
        _announce(found[3], found[2])
        return f"{found[1]}{found[2]}loss.{LOSS_KEYS[found[3]]}{text[found.end() :]}"
    if not _LOSS_MAPPING.match(text):
        return text
    try:
        parsed = OverridesParser.create().parse_override(text)
        value = parsed.value()
        if not isinstance(value, dict) or not set(value) & set(LOSS_KEYS):
            return text
        for name in LOSS_KEYS:
            if name in value:
                _announce(name)
        changed = dataclasses.replace(parsed, _value=translate_loss(value))
        return f"{parsed.get_key_element()}={changed.get_value_element_as_str()}"
    except (HydraException, ValueError, RecursionError):  # reported by `parse_override`
        return text


def translate_loss(loss: Mapping[str, Any]) -> dict[str, Any]:
    """Moves the keys of an earlier version to the terms, in the form of YAML files; other keys are not changed.

    Args:
        loss: some keys of a loss.
    """
    old = [key for key in LOSS_KEYS if key in loss]
    moved = {key: value for key, value in loss.items() if key not in LOSS_KEYS}
    if not old or not isinstance(moved.setdefault("terms", {}), Mapping):
        return dict(loss)
    terms = dict(moved["terms"])
    for key in sorted(old):  # `region`, a whole term, comes before `region_weight`, a key of it
        _, name, *option = LOSS_KEYS[key].split(".")
        before = terms.get(name, {})
        if not isinstance(before, Mapping):
            continue
        if option:
            terms[name] = {**before, option[0]: loss[key]}
        else:
            terms[name] = {**before, **loss[key]} if isinstance(loss[key], Mapping) else loss[key]
    return {**moved, "terms": terms}


def translate_stored_loss(loss: Mapping[str, Any]) -> dict[str, Any]:
    """The loss of a stored run in its current form (`translate_loss`), with the cross-entropy of earlier versions."""
    if "terms" in loss:
        return dict(loss)
    translated = translate_loss(loss)
    terms = translated.get("terms")
    if isinstance(terms, dict) and isinstance(terms.get("ce"), Mapping):
        terms["ce"] = {"_target_": CROSS_ENTROPY, **terms["ce"]}
    return translated


def get(node: Any, key: str, default: Any = None) -> Any:  # noqa: ANN401
    """Returns the value of a dotted key, or a default if there is no such key."""
    for name in key.split("."):
        if not isinstance(node, Mapping) or name not in node:
            return default
        node = node[name]
    return node


def flatten(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields each dotted key with its value, a mapping before its own keys."""
    for name, value in node.items():
        yield f"{prefix}{name}", value
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")


@lru_cache(maxsize=16)
def _announce(key: str, teacher: str = "") -> None:
    """Logs the current name of a key, once per process; `teacher` is the prefix of a teacher's keys."""
    log.warning("%sloss.%s is deprecated; use %sloss.%s", teacher, key, teacher, LOSS_KEYS[key])
