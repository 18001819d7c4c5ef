"""Interpolations of a configuration: which are allowed and how they are resolved; the default folder of a phantom."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.resolvers import oc

from dmseg.config.overrides import PATH_KEYS
from dmseg.errors import UserError

ENVIRONMENT_KEYS = (*PATH_KEYS, "wandb.entity", "wandb.project")
"""Keys that may be read from the environment (``${oc.env:NAME}``)."""
RESOLVERS = ("oc.create", "oc.decode", "oc.dict.keys", "oc.dict.values", "oc.env", "oc.select")
"""Resolvers that may be used."""

PHANTOM_PLACE = "{other}"
"""Part of ``data.root`` that stands for the settings of a phantom which the folder's name does not spell out."""
PHANTOM_NAMED = ("_target_", "seed", "scale")
"""Settings that the name spells out."""
PHANTOM_DEFAULTS = {"view": (None,), "spread": (1,), "raters": (None,), "cases": (None, 25)}
"""Settings that are left out of the name, each with the values for which it is left out."""

_RESOLVER = re.compile(r"\$\{\s*([\w.]+)\s*:")
_MARK = "<from the environment>"
_KEY = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_WHOLE = re.compile(rf"\$\{{({_KEY})\}}")
_SELECT = re.compile(rf"\$\{{oc\.select:({_KEY}),([a-z]\w*_\w*)\}}")
"""A key, and its default, which contains an underscore and therefore is text."""
_DEEPEST = 50


def check_interpolations(config: dict[str, Any]) -> None:
    """Refuses resolvers other than `RESOLVERS`, and the environment in keys other than `ENVIRONMENT_KEYS`.

    A key that refers to a value from the environment is refused, too.

    Raises:
        UserError: if there is one.
        omegaconf.errors.OmegaConfBaseException: if an interpolation cannot be resolved.
    """
    used = {(key, name) for key, text in _texts(config) if "$" in text for name in _RESOLVER.findall(text)}
    for key, name in sorted(used):
        if name not in RESOLVERS:
            raise UserError(f"{key} uses the resolver '{name}'; only {', '.join(RESOLVERS)} may be used")
    if not any(name == "oc.env" for _, name in used):
        return
    # resolve a copy with a mark in place of each environment variable, and see which keys contain the mark
    OmegaConf.register_new_resolver("oc.env", lambda *_: _MARK, replace=True)
    try:
        marked = OmegaConf.to_container(OmegaConf.create(config), resolve=True)
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
    for key, text in _texts(marked):
        if _MARK in text and key not in ENVIRONMENT_KEYS:
            raise UserError(
                f"{key} reads the environment, but only paths, wandb.entity and wandb.project may; write its value"
            )


def resolved(config: dict[str, Any]) -> dict[str, Any]:
    """Resolves the interpolations of a configuration as OmegaConf does, in less time.

    OmegaConf parses every interpolation with a grammar. Nearly all are names of other keys (``${protocol.smooth}``),
    which are looked up here; OmegaConf resolves configurations with other interpolations or with mistakes.

    Args:
        config: the configuration in plain containers; it is not changed.

    Raises:
        omegaconf.errors.OmegaConfBaseException: if a value is missing, or an interpolation cannot be resolved.
    """
    try:
        found: dict[str, Any] = _resolve(config, config, 0)
    except (_Unusual, KeyError):
        found = OmegaConf.to_container(OmegaConf.create(config), resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    return found


def name_phantom(data: Any) -> None:  # noqa: ANN401
    """Replaces ``{other}`` in the root of a composed data set, in place.

    Args:
        data: the group ``data``; anything that is not a phantom with this default folder is not changed.
    """
    if not isinstance(data, dict) or not isinstance(data.get("phantom"), dict):
        return
    if isinstance(data.get("root"), str) and PHANTOM_PLACE in data["root"]:
        others = {
            name: value
            for name, value in data["phantom"].items()
            if name not in PHANTOM_NAMED and value not in PHANTOM_DEFAULTS.get(name, ())
        }
        text = json.dumps(others, sort_keys=True, default=str)
        ending = f"-{hashlib.sha256(text.encode()).hexdigest()[:8]}" if others else ""
        data["root"] = data["root"].replace(PHANTOM_PLACE, ending)


def _texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:  # noqa: ANN401
    """All texts of nested containers with their dotted keys, including the keys of mappings."""
    if isinstance(node, str):
        yield key, node
    elif isinstance(node, Mapping):
        for name, value in node.items():
            inner = f"{key}.{name}" if key else str(name)
            yield inner, str(name)
            yield from _texts(value, inner)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value, key)


class _Unusual(Exception):
    """An interpolation that OmegaConf has to resolve."""


def _resolve(node: Any, root: dict[str, Any], depth: int) -> Any:  # noqa: ANN401
    """A copy of a node with all interpolations resolved."""
    if depth > _DEEPEST:  # perhaps a cycle
        raise _Unusual
    if isinstance(node, dict):
        return {key: _resolve(value, root, depth + 1) for key, value in node.items()}
    if isinstance(node, list):
        return [_resolve(value, root, depth + 1) for value in node]
    if not isinstance(node, str) or ("$" not in node and node != "???"):
        return node
    if whole := _WHOLE.fullmatch(node):
        return _resolve(_look_up(whole[1], root, depth + 1), root, depth + 1)
    if select := _SELECT.fullmatch(node):
        try:
            found = _look_up(select[1], root, depth + 1)
        except KeyError:
            return select[2]
        return _resolve(found, root, depth + 1)
    if "\\" in node or "$" in _WHOLE.sub("", node) or node == "???":
        raise _Unusual
    values = {key: _resolve(_look_up(key, root, depth + 1), root, depth + 1) for key in _WHOLE.findall(node)}
    if any(isinstance(value, dict | list) for value in values.values()):
        raise _Unusual
    return _WHOLE.sub(lambda match: str(values[match[1]]), node)


def _look_up(key: str, root: dict[str, Any], depth: int) -> Any:  # noqa: ANN401
    """The value of a dotted key, which may be an interpolation itself."""
    node: Any = root
    for name in key.split("."):
        node = _resolve(node, root, depth + 1) if isinstance(node, str) else node
        if not isinstance(node, dict):
            raise _Unusual
        node = node[name]
    return node
