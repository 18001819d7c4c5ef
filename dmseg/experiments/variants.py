"""Many configurations from one: a base is composed once, and variants of it are merged in without composing again.

Composing takes a tenth of a second, and the paper's tables are variants of three bases. What cannot be merged simply is
composed anew, so that a variant always equals what Hydra makes of variant and base together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dmseg.experiments.compose import compose_config, compose_settings, method_labels, resolve_config, to_settings
from dmseg.resources import resource
from dmseg.settings import Settings


@dataclass(frozen=True)
class _Change:
    """One override of a variant: a dotted key and its value, or a whole group."""

    key: str
    value: Any

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
        self._own_groups = {override.lstrip("+~").partition("=")[0].partition(".")[0] for override in overrides}
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
            self._made[key] = self._make(key)
        return self._made[key]

    @cached_property
    def plain(self) -> dict[str, Any]:
        """The base itself, resolved to plain containers."""
        return resolve_config(self._config, self._overrides)

    def _make(self, variant: tuple[str, ...]) -> Settings:
        variant = (*method_labels((*variant, *self._overrides)), *variant)
        changes = [_simple_change(override) for override in variant]
        if None in changes or any(change.group in self._own_groups for change in changes if change):
            return compose_settings([*variant, *self._overrides])
        config = self._config.copy()
        try:
            for change in changes:
                OmegaConf.update(config, change.key, change.value, merge=False)  # type: ignore[union-attr]
        except OmegaConfBaseException:
            return compose_settings([*variant, *self._overrides])  # says what is wrong
        return to_settings(resolve_config(config, variant))


@lru_cache(maxsize=1024)
def _simple_change(override: str) -> _Change | None:
    """What an override changes, or None where only Hydra can tell."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return None
    if parsed.type is not OverrideType.CHANGE or parsed.is_sweep_override() or parsed.package is not None:
        return None
    key, value = parsed.get_key_element(), parsed.value()
    if not (resource("configs") / key).is_dir():
        return _Change(key, value)
    node = None if value is None else group_file(key, str(value))
    return None if value is not None and node is None else _Change(key, node)


@lru_cache(maxsize=256)
def group_file(group: str, option: str) -> DictConfig | None:
    """The content of a file of ``configs``; None where it is missing, or has a header or a defaults list of its own."""
    path = resource("configs") / group / f"{option}.yaml"
    if not path.is_file() or "# @package" in path.read_text(encoding="utf-8"):
        return None
    node = OmegaConf.load(path)
    return node if isinstance(node, DictConfig) and "defaults" not in node else None
