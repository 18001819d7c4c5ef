"""Resolves the interpolations of a configuration as OmegaConf does, in less time.

OmegaConf parses every interpolation with a grammar. Nearly all are names of other keys (``${protocol.smooth}``), which
are looked up here; OmegaConf resolves configurations with other interpolations or with mistakes.
"""

import re
from typing import Any

from omegaconf import OmegaConf

_KEY = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_WHOLE = re.compile(rf"\$\{{({_KEY})\}}")
_SELECT = re.compile(rf"\$\{{oc\.select:({_KEY}),([a-z]\w*_\w*)\}}")
"""A key, and its default, which contains an underscore and therefore is text."""
_DEEPEST = 50


class _Unusual(Exception):
    """An interpolation that OmegaConf has to resolve."""


def resolved(config: dict[str, Any]) -> dict[str, Any]:
    """Resolves the interpolations of a configuration.

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
