"""Many configurations from one: a base is composed once, and variants of it are merged in without composing again.

Composing takes a tenth of a second, and the paper's tables are variants of three bases. What cannot be merged simply is
composed anew, so that a variant always equals what Hydra makes of variant and base together.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import OverrideType
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dmseg.config.compose import compose_config, method_labels, resolve_config, to_settings
from dmseg.config.config_dir import config_dir, config_file
from dmseg.config.label_kind import refuse_retired_overrides
from dmseg.config.overrides import dotted, is_group, parse_override, refuse_reserved
from dmseg.config.settings import Settings
from dmseg.config.teacher import sets_teacher
from dmseg.errors import UserError


@dataclass(frozen=True)
class _Change:
    """One override of a variant.

    Attributes:
        key: dotted key, or a config group.
        value: the value, or the content of the group's file.
        merge: whether a mapping is merged into what is there, as Hydra does with all but the files of groups.
    """

    key: str
    value: Any
    merge: bool

    @property
    def group(self) -> str:
        return self.key.partition(".")[0]


class Base:
    """A composed configuration, of which variants are made.

    Args:
        overrides: in Hydra's grammar. They come after a variant's own, so they win.

    Raises:
        UserError: if an override is malformed or a key unknown.
    """

    def __init__(self, overrides: Sequence[str]) -> None:
        self._overrides = tuple(overrides)
        self._config = compose_config(overrides)
        self._own_groups = {_group(override) for override in overrides}
        self._made: dict[tuple[str, ...], Settings] = {}

    def settings(self, variant: Sequence[str] = ()) -> Settings:
        """The settings of base and variant; the same ones are made once.

        Args:
            variant: overrides that come before the base's own.

        Raises:
            UserError: if they do not fit.
        """
        key = tuple(variant)
        if key not in self._made:
            self._made[key] = to_settings(resolve_config(self._variant(key), (*key, *self._overrides)))
        return self._made[key]

    def changed(self, overrides: Sequence[str]) -> "Base":
        """The same base with more overrides, which win over all others; it is not composed again.

        Args:
            overrides: each sets one key that the base has.

        Raises:
            UserError: if the base has no such key, or an override does more than to set one.
        """
        new = copy.copy(self)
        new._overrides, new._made = (*self._overrides, *overrides), {}
        new._own_groups = self._own_groups | {_group(override) for override in overrides}
        new._config = self._config.copy()
        for override in overrides:
            change = _simple_change(override, config_dir())
            if change is None or not self.has(change.key):
                raise UserError(f"'{override}' sets no key of this configuration")
            OmegaConf.update(new._config, change.key, change.value, merge=change.merge)
        return new

    def composed(self, variant: Sequence[str] = ()) -> dict[str, Any]:
        """The configuration of base and variant, resolved to plain containers."""
        return resolve_config(self._variant(tuple(variant)), (*variant, *self._overrides))

    def has(self, key: str, variant: Sequence[str] = ()) -> bool:
        """Whether the configuration of base and variant has a dotted key, be its value null."""
        *groups, name = key.split(".")
        node: Any = self._variant(tuple(variant))
        for group in groups:
            node = node.get(group) if isinstance(node, DictConfig) and group in node else None
        return isinstance(node, DictConfig) and name in node

    @cached_property
    def plain(self) -> dict[str, Any]:
        """The base itself, resolved to plain containers."""
        return resolve_config(self._config, self._overrides)

    def _variant(self, variant: tuple[str, ...]) -> DictConfig:
        variant = (*method_labels((*variant, *self._overrides)), *variant)
        for override in variant:
            refuse_reserved(override)
        refuse_retired_overrides(variant)
        changes = [_simple_change(override, config_dir()) for override in variant]
        if None in changes or any(change.group in self._own_groups for change in changes if change):
            return compose_config([*variant, *self._overrides])
        config = self._config.copy()
        try:
            for change in filter(None, changes):
                OmegaConf.update(config, change.key, change.value, merge=change.merge)
        except OmegaConfBaseException:
            return compose_config([*variant, *self._overrides])  # says what is wrong
        return config


def _group(override: str) -> str:
    return dotted(parse_override(override).key_or_group).partition(".")[0]


@lru_cache(maxsize=1024)
def _simple_change(override: str, folder: Path | None) -> _Change | None:
    """What an override changes, or None where only Hydra can tell; `folder` is the config dir in use."""
    parsed = parse_override(override)
    is_change = parsed.type is OverrideType.CHANGE and not sets_teacher(parsed)
    if not is_change or parsed.is_sweep_override() or parsed.package is not None:
        return None
    key, value = parsed.key_or_group, parsed.value()
    if not is_group(key) or isinstance(value, dict):
        return _Change(key, value, merge=True)
    node = None if value is None else group_file(config_file(key, str(value)))
    return None if value is not None and node is None else _Change(key, node, merge=False)


@lru_cache(maxsize=256)
def group_file(path: Path) -> DictConfig | None:
    """The content of a file of a group; None where it is missing, or has a header or a defaults list of its own."""
    if not path.is_file() or "# @package" in path.read_text(encoding="utf-8"):
        return None
    node = OmegaConf.load(path)
    return node if isinstance(node, DictConfig) and "defaults" not in node else None
