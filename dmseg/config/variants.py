"""Variants of a configuration: the base is composed once, and the overrides of each variant are merged into it.

Composing takes a tenth of a second, and the paper's tables are variants of three bases. A base is stored in plain
containers, because OmegaConf takes long to copy a configuration. Overrides that cannot simply be merged are composed by
Hydra, so that a variant always equals what Hydra composes from both.
"""

import copy
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import OverrideType
from omegaconf import OmegaConf

from dmseg.config.compose import compose_config, method_labels, resolve_config, to_settings
from dmseg.config.config_dir import config_dir, config_file, file_content
from dmseg.config.overrides import dotted, get, is_group, parse_override, refuse_reserved
from dmseg.config.settings import Settings
from dmseg.config.teacher import sets_teacher
from dmseg.errors import UserError


class Base:
    """A composed configuration from which variants are derived.

    Args:
        overrides: in Hydra's grammar. They take precedence over those of a variant.

    Raises:
        UserError: if an override is malformed or a key unknown.
    """

    def __init__(self, overrides: Sequence[str]) -> None:
        self._overrides = tuple(overrides)
        self._config = _composed(overrides)
        self._own_groups = {_group(override) for override in overrides}
        self._made: dict[tuple[str, ...], Settings] = {}

    def settings(self, variant: Sequence[str] = ()) -> Settings:
        """The settings of base and variant; computed once for each variant.

        Args:
            variant: overrides that come before the base's own.

        Raises:
            UserError: if they do not fit the base.
        """
        key = tuple(variant)
        if key not in self._made:
            self._made[key] = to_settings(resolve_config(self._variant(key), (*key, *self._overrides)))
        return self._made[key]

    def changed(self, overrides: Sequence[str]) -> "Base":
        """The same base with more overrides, which take precedence over all others; it is not composed again.

        Args:
            overrides: each sets one key that the base has.

        Raises:
            UserError: if the base has no such key, or an override does more than set a key.
        """
        new = copy.copy(self)
        new._overrides, new._made = (*self._overrides, *overrides), {}
        new.__dict__.pop("plain", None)
        new._own_groups = self._own_groups | {_group(override) for override in overrides}
        for override in overrides:
            try:
                new._config = _with_change(new._config, *_change(override, config_dir()))
            except _NotMergeable:
                raise UserError(f"'{override}' does not match any key of this configuration") from None
        return new

    def composed(self, variant: Sequence[str] = ()) -> dict[str, Any]:
        """The configuration of base and variant, resolved to plain containers."""
        return resolve_config(self._variant(tuple(variant)), (*variant, *self._overrides))

    def has(self, key: str, variant: Sequence[str] = ()) -> bool:
        """Whether the configuration of base and variant has a dotted key, even if its value is null."""
        absent = object()
        return get(self._variant(tuple(variant)), key, absent) is not absent

    @cached_property
    def plain(self) -> dict[str, Any]:
        """The base itself, resolved to plain containers."""
        return resolve_config(self._config, self._overrides)

    def _variant(self, variant: tuple[str, ...]) -> dict[str, Any]:
        """The configuration of base and variant with unresolved interpolations; callers must not change it."""
        variant = (*method_labels((*variant, *self._overrides)), *variant)
        refuse_reserved(variant)
        config = self._config
        try:
            for override in variant:
                if _group(override) in self._own_groups:
                    raise _NotMergeable
                config = _with_change(config, *_change(override, config_dir()))
        except _NotMergeable:
            return _composed([*variant, *self._overrides])  # which may report a mistake
        return config


class _NotMergeable(Exception):
    """An override that only Hydra can apply."""


def _composed(overrides: Sequence[str]) -> dict[str, Any]:
    """A configuration in plain containers with unresolved interpolations."""
    return OmegaConf.to_container(compose_config(overrides))  # type: ignore[return-value]


def _with_change(config: dict[str, Any], key: str, value: Any, merge: bool) -> dict[str, Any]:  # noqa: ANN401
    """A configuration after a `_change`; unchanged parts are shared with the earlier one.

    Raises:
        _NotMergeable: if the configuration has no such key.
    """
    name, _, rest = key.partition(".")
    if name not in config or (rest and not isinstance(config[name], dict)):
        raise _NotMergeable
    if rest:
        return config | {name: _with_change(config[name], rest, value, merge)}
    return config | {name: _merged(config[name], value) if merge else value}


def _merged(before: Any, value: Any) -> Any:  # noqa: ANN401
    """Merges a value into an earlier one as OmegaConf does: mappings key by key, anything else is replaced."""
    if not isinstance(value, dict):
        if isinstance(value, list) and isinstance(before, dict):
            raise _NotMergeable
        return value
    if not isinstance(before, dict) or not value.keys() <= before.keys():
        raise _NotMergeable
    return before | {name: _merged(before[name], item) for name, item in value.items()}


def _group(override: str) -> str:
    return dotted(parse_override(override).key_or_group).partition(".")[0]


@lru_cache(maxsize=1024)
def _change(override: str, folder: Path | None) -> tuple[str, Any, bool]:
    """The key and the value that an override sets, and whether mappings are merged into the earlier value.

    Mappings are merged, as in Hydra, except for the content of a group's file. The value must not be changed. `folder`
    is the config dir, a key of the cache.

    Raises:
        _NotMergeable: if the override does more than set a key.
    """
    parsed = parse_override(override)
    if parsed.type is not OverrideType.CHANGE or parsed.is_sweep_override() or parsed.package is not None:
        raise _NotMergeable
    if sets_teacher(parsed) or "$" in override or "???" in override:  # Hydra checks interpolations and missing values
        raise _NotMergeable
    key, value = parsed.key_or_group, parsed.value()
    if not is_group(key) or isinstance(value, dict):
        return key, value, True
    if value is None:
        return key, None, False
    path = config_file(key, str(value))
    if not path.is_file() or "# @package" in path.read_text(encoding="utf-8"):
        raise _NotMergeable
    content = file_content(path)
    if not isinstance(content, dict) or "defaults" in content:
        raise _NotMergeable
    return key, content, False
