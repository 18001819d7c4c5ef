"""Keys of earlier versions, which are translated to current ones with a warning."""

import dataclasses
import logging
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

log = logging.getLogger(__name__)

LOSS_KEYS = {
    "ce_weight": "terms.ce.weight",
    "kl": "terms.ce.kl",
    "region_weight": "terms.region.weight",
    "region": "terms.region",
}
"""Keys of the loss before it had terms, and the current ones."""
CROSS_ENTROPY = "dmseg.losses.SoftCrossEntropyLoss"
"""The loss whose weight was ``ce_weight``."""

_KEY = re.compile(r"([+~]*)((?:distill\.teacher\.)?)loss\.(ce_weight|kl|region_weight|region)(?=[.=@]|$)")
_GROUP = re.compile(r"[+]*loss\s*=\s*\{")


@lru_cache(maxsize=4096)
def current_override(text: str) -> str:
    """Returns an override with the current name of its key; text that cannot be parsed is not changed."""
    if found := _KEY.match(text):
        _announce(found[3], found[2])
        return f"{found[1]}{found[2]}loss.{LOSS_KEYS[found[3]]}{text[found.end() :]}"
    if not _GROUP.match(text):
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


@lru_cache(maxsize=16)
def _announce(key: str, teacher: str = "") -> None:
    """Logs the current name of a key, once per process; `teacher` is the prefix of a teacher's keys."""
    log.warning("%sloss.%s is deprecated; use %sloss.%s", teacher, key, teacher, LOSS_KEYS[key])


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
