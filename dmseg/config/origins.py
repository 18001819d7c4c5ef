"""What ``dmseg config`` shows about a key: where its value comes from, and its description."""

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dmseg.config.compose import compose_config, hydra_initialised, hydra_words, in_plain_words, resolve_config
from dmseg.config.config_dir import config_file, file_content
from dmseg.config.overrides import flatten, parse_override
from dmseg.config.resources import resource
from dmseg.config.settings import Settings
from dmseg.config.teacher import TEACHER_KEY
from dmseg.config.yaml_lines import lines

COMMAND_LINE = "command line"
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


@dataclass(frozen=True)
class Origins:
    """A composed configuration, with the sources and comments of its keys.

    Attributes:
        plain: the configuration, resolved to plain containers.
        sources: where each value comes from, by dotted key; for a group, the chosen file.
        comments: comments by dotted key.
    """

    plain: dict[str, Any]
    sources: Mapping[str, str]
    comments: Mapping[str, str]


def find_origins(overrides: Sequence[str]) -> Origins:
    """Composes the configuration and finds where its values come from; reads no data.

    Raises:
        UserError: see `dmseg.config.compose.compose_settings`.
    """
    config = compose_config(overrides)
    plain = resolve_config(config, overrides)
    sources, comments = dict[str, str](), dict(meanings(Settings))
    with hydra_initialised(), in_plain_words(overrides):
        loader = GlobalHydra.instance().config_loader()
        listed = loader.compute_defaults_list("config", hydra_words(overrides), RunMode.RUN)
        for item in listed.defaults:
            if item.package is not None and item.package.partition(".")[0] == "hydra":
                continue
            group, _, option = str(item.config_path).rpartition("/")
            path = config_file(group, option) if group else resource("configs") / f"{option}.yaml"
            content = {key: value for key, value in file_content(path).items() if key != "defaults"}
            prefix = f"{item.package}." if item.package else ""
            shown = _shown(path)
            if item.package:
                sources[item.package] = shown
            sources |= {f"{prefix}{key}": shown for key in _leaves(content)}
            comments |= {f"{prefix}{line.key}": line.comment for line in lines(path) if line.comment}
    groups = {path.name for path in resource("configs").iterdir() if path.is_dir()}
    set_here = [str(parse_override(item).key_or_group) for item in overrides]
    values = [name for name in set_here if name not in groups and not TEACHER_KEY.fullmatch(f"{name}.")]
    for key in _leaves(plain):
        if any(key == name or key.startswith(f"{name}.") for name in values):
            sources[key] = COMMAND_LINE
    sources |= {name: COMMAND_LINE for name in set_here if name in sources and name not in groups}
    for name in groups & set(set_here) & set(sources):
        sources[name] += f", chosen on the {COMMAND_LINE}"
    return Origins(plain, {key: _with_reference(config, key, sources) for key in (*_leaves(plain), *groups)}, comments)


def _shown(path: Path) -> str:
    """The path of a file for display: as in the documentation for a file of dmseg, otherwise in full."""
    folder = resource("configs").absolute()
    return f"configs/{path.relative_to(folder)}" if path.is_relative_to(folder) else str(path)


def _with_reference(config: DictConfig, key: str, sources: Mapping[str, str]) -> str:
    """The source of a value; if it refers to another key, also the reference and the source of that key."""
    if (group := TEACHER_KEY.match(key)) and sources.get(key) != COMMAND_LINE:
        named = OmegaConf.to_container(config.distill.teacher, resolve=True)[group[1]]  # type: ignore[index]
        chooser = sources.get(f"distill.teacher.{group[1]}", COMMAND_LINE)
        chosen = f"on the {chooser}" if chooser == COMMAND_LINE else f"by {chooser}"
        return f"{_shown(config_file(group[1], str(named)))}, chosen {chosen}"
    source = sources.get(key, "")
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if not isinstance(node, DictConfig) or name not in node or not OmegaConf.is_interpolation(node, name):
        return source
    text = str(OmegaConf.to_container(node, resolve=False)[name])  # type: ignore[index,call-overload]
    found = _REFERENCE.fullmatch(text)
    ending = f" in {sources[found[1]]}" if found and found[1] in sources else ""
    return f"{source}: {text}{ending}"


def _leaves(node: Mapping[str, Any]) -> list[str]:
    """Dotted keys of the values in nested mappings; an empty mapping is a value."""
    return [key for key, value in flatten(node) if not (isinstance(value, Mapping) and value)]


def meanings(settings: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields the dotted keys of a settings class and its nested classes, each with its description."""
    _, _, section = (inspect.getdoc(settings) or "").partition("Attributes:\n")
    items = re.split(r"^(\w+): ", textwrap.dedent(section), flags=re.MULTILINE)
    texts = (" ".join(text.split()).rstrip(".").replace("``", "`") for text in items[2::2])
    described = dict(zip(items[1::2], texts, strict=True))
    hints: Mapping[str, Any] = get_type_hints(settings)
    for field in dataclasses.fields(settings):
        name = "_target_" if field.name == "target" else field.name
        if field.name in described:
            yield f"{prefix}{name}", described[field.name]
        for kind in (hints[field.name], *get_args(hints[field.name])):
            if dataclasses.is_dataclass(kind) and isinstance(kind, type):
                yield from meanings(kind, f"{prefix}{name}.")
