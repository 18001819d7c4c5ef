"""What interpolations of a configuration may read: other keys; the environment only where it cannot change a number."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.resolvers import oc

from dmseg.config.overrides import PATH_KEYS
from dmseg.errors import UserError

ENVIRONMENT_KEYS = (*PATH_KEYS, "wandb.entity", "wandb.project")
"""Keys that may be read from the environment (``${oc.env:NAME}``)."""
RESOLVERS = ("oc.create", "oc.decode", "oc.dict.keys", "oc.dict.values", "oc.env", "oc.select")
"""Resolvers that may be used."""

_RESOLVER = re.compile(r"\$\{\s*([\w.]+)\s*:")
_MARK = "<from the environment>"


def check_interpolations(config: DictConfig | dict[str, Any]) -> None:
    """Refuses resolvers other than `RESOLVERS`, and the environment under other keys than `ENVIRONMENT_KEYS`.

    A value of the environment counts wherever it ends up, also by way of another key.

    Raises:
        UserError: if there is one.
        omegaconf.errors.OmegaConfBaseException: if an interpolation cannot be resolved.
    """
    plain = OmegaConf.to_container(config) if isinstance(config, DictConfig) else config
    used = {(key, name) for key, text in _texts(plain) if "$" in text for name in _RESOLVER.findall(text)}
    for key, name in sorted(used):
        if name not in RESOLVERS:
            raise UserError(f"{key} uses the resolver '{name}'; only {', '.join(RESOLVERS)} may be used")
    if any(name == "oc.env" for _, name in used):
        _check_environment(OmegaConf.create(plain))  # type: ignore[arg-type]


def _check_environment(config: DictConfig) -> None:
    """Resolves a copy in which every variable of the environment is a mark, and looks where the marks end."""
    OmegaConf.register_new_resolver("oc.env", lambda *_: _MARK, replace=True)
    try:
        marked = OmegaConf.to_container(config, resolve=True)
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
    for key, text in _texts(marked):
        if _MARK in text and key not in ENVIRONMENT_KEYS:
            raise UserError(
                f"{key} reads the environment, but only paths, wandb.entity and wandb.project may; write its value"
            )


def _texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:  # noqa: ANN401
    """All texts of nested containers with their dotted keys, keys of mappings included."""
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
