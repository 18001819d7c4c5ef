"""Interpolations may read other keys, and the environment only where it cannot change results."""

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

_RESOLVER = re.compile(r"\$\{\s*([\w.]+)\s*:")
_MARK = "<from the environment>"


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
