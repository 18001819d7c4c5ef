"""Variants of a configuration: the base is composed once, and the overrides of each variant are merged into it.

Composing takes a tenth of a second, and the paper's tables are variants of three bases. A base is stored in plain
containers, because OmegaConf takes long to copy a configuration. Overrides that cannot simply be merged are composed by
Hydra, so that a variant always equals what Hydra composes from both.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import OverrideType
from omegaconf import OmegaConf

from dmseg.config.compose import compose_config, method_labels, resolve_config, to_settings
from dmseg.config.config_dir import config_dir, config_file, file_content
from dmseg.config.label_kind import refuse_retired_overrides
from dmseg.config.overrides import dotted, get, is_group, parse_override, refuse_reserved
from dmseg.config.settings import Settings
from dmseg.config.teacher import sets_teacher
from dmseg.errors import UserError


@dataclass(frozen=True)
class _Change:
    """One override of a variant.

    Attributes:
        key: dotted key, or a config group.
        value: the value, or the content of the group's file, in plain containers that must not be changed.
        merge: whether to merge a mapping into the earlier value, as Hydra does except for files of groups.
    """

    key: str
    value: Any
    merge: bool

    @property
    def group(self) -> str:
        return self.key.partition(".")[0]


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
        new._own_groups = self._own_groups | {_group(override) for override in overrides}
        for override in overrides:
            try:
                new._config = _with_change(new._config, _simple_change(override, config_dir()))
            except _OnlyHydraKnows:
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
        for override in variant:
            refuse_reserved(override)
        refuse_retired_overrides(variant)
        changes = [_simple_change(override, config_dir()) for override in variant]
        if None in changes or any(change.group in self._own_groups for change in changes if change):
            return _composed([*variant, *self._overrides])
        config = self._config
        try:
            for change in changes:
                config = _with_change(config, change)
        except _OnlyHydraKnows:
            return _composed([*variant, *self._overrides])  # which may report a mistake
        return config


class _OnlyHydraKnows(Exception):
    """A change that only Hydra can apply."""


def _composed(overrides: Sequence[str]) -> dict[str, Any]:
    """A configuration in plain containers with unresolved interpolations."""
    return OmegaConf.to_container(compose_config(overrides))  # type: ignore[return-value]


def _with_change(config: dict[str, Any], change: _Change | None) -> dict[str, Any]:
    """A configuration after a change; unchanged parts are shared with the earlier one.

    Raises:
        _OnlyHydraKnows: if it is not a simple change, or the configuration has no such key.
    """
    if change is None:
        raise _OnlyHydraKnows
    name, _, rest = change.key.partition(".")
    if name not in config or (rest and not isinstance(config[name], dict)):
        raise _OnlyHydraKnows
    if rest:
        return config | {name: _with_change(config[name], replace(change, key=rest))}
    return config | {name: _merged(config[name], change.value) if change.merge else change.value}


def _merged(before: Any, value: Any) -> Any:  # noqa: ANN401
    """Merges a value into an earlier one as OmegaConf does: mappings key by key, anything else is replaced."""
    if not isinstance(value, dict):
        if isinstance(value, list) and isinstance(before, dict):
            raise _OnlyHydraKnows
        return value
    if not isinstance(before, dict) or not value.keys() <= before.keys():
        raise _OnlyHydraKnows
    return before | {name: _merged(before[name], item) for name, item in value.items()}


def _group(override: str) -> str:
    return dotted(parse_override(override).key_or_group).partition(".")[0]


@lru_cache(maxsize=1024)
def _simple_change(override: str, folder: Path | None) -> _Change | None:
    """The change of an override, or None if only Hydra can apply it; `folder` is the config dir, a key of the cache."""
    parsed = parse_override(override)
    is_change = parsed.type is OverrideType.CHANGE and not sets_teacher(parsed)
    if not is_change or parsed.is_sweep_override() or parsed.package is not None:
        return None
    key, value = parsed.key_or_group, parsed.value()
    if "$" in override or "???" in override:  # interpolations, which Hydra checks, and missing values
        return None
    if not is_group(key) or isinstance(value, dict):
        return _Change(key, value, merge=True)
    if value is None:
        return _Change(key, None, merge=False)
    path = config_file(key, str(value))
    if not path.is_file() or "# @package" in path.read_text(encoding="utf-8"):
        return None
    node = file_content(path)
    return _Change(key, node, merge=False) if isinstance(node, dict) and "defaults" not in node else None
