"""The files of config groups: those of dmseg, and those in the folder of ``--config-dir``."""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dmseg.config.overrides import LOSS_KEYS
from dmseg.config.resources import resource
from dmseg.errors import UserError, cut, shown
from dmseg.files.names import expand_home, fault_of_name
from dmseg.files.regular import is_junk, read_regular
from dmseg.files.schema import DEEPEST, GROUP, TEXT, Check, mapping, name, nullable, record

GROUPS = ("data", "labels", "loss", "method", "model", "table")
"""Groups to which a config dir may add files."""
LARGEST = 2**18
"""Largest size of one of its files in bytes."""

_CHECKS: Mapping[str, Check] = {
    "data": record({}, {"tables": nullable(mapping(TEXT, name))}),
    "method": record({}, {"labels": nullable(mapping(TEXT, name))}),
}
"""Checks of the keys that are read before the configuration is composed and checked as a whole."""
_DIRECTIVE = re.compile(r"^\s*#\s*@", re.MULTILINE)
_dir: Path | None = None


def use_config_dir(folder: Path | None) -> None:
    """Adds the files of a folder to the config groups; they have no effect unless they are chosen.

    Args:
        folder: a folder with a subfolder for each group, like ``configs``; None for none.

    Raises:
        UserError: if it is missing, contains a file outside the groups or with the name of a file of dmseg, or a file
            is not YAML or sets keys that a file of its group cannot set.
    """
    global _dir
    _dir = None
    if folder is None:
        return
    folder = Path(expand_home(str(folder), "--config-dir")).absolute()
    anywhere = f"{folder}/{{{','.join(GROUPS)}}}"
    if not folder.is_dir():
        raise UserError(f"--config-dir={folder} is not a folder; name one that holds {', '.join(GROUPS)}")
    try:
        entries = sorted(path for path in folder.iterdir() if not is_junk(path.name))
        if (lost := next(filter(_is_yaml, entries), None)) is not None:
            raise UserError(f"{lost} belongs to no group; move it to {anywhere}")
        for path in filter(_holds_yaml, entries):
            if path.name not in GROUPS:
                raise UserError(f"{path} is not a config group; move its files to {anywhere}")
        files = [(file, path.name) for path in entries if path.name in GROUPS for file in sorted(path.iterdir())]
        for file, group in files:
            _check_file(file, group)
    except OSError as error:
        raise UserError(f"--config-dir={folder} cannot be read: {error.filename}: {error.strerror}") from None
    if not any(_is_yaml(file) for file, _ in files):
        raise UserError(f"--config-dir={folder} contains no YAML files; put them in {anywhere}")
    _dir = folder


def config_dir() -> Path | None:
    """The absolute path of the folder in use, None for none."""
    return _dir


def config_file(group: str, option: str) -> Path:
    """The path of a file of a group, whether it exists or not."""
    own = resource("configs") / group / f"{option}.yaml"
    return own if _dir is None or group not in GROUPS or own.is_file() else _dir / group / f"{option}.yaml"


def config_options(group: str) -> list[str]:
    """Names of the files of a group, sorted: those of dmseg and those of the config dir."""
    folders = [resource("configs") / group, *([_dir / group] if _dir is not None and group in GROUPS else [])]
    return sorted(path.stem for folder in folders for path in folder.glob("*.yaml") if not is_junk(path.name))


def file_content(path: Path) -> dict[str, Any]:
    """The content of a file of a group with unresolved interpolations; callers must not change it.

    The file is read again only if it has changed.
    """
    return _content(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _content(path: Path, changed: int) -> dict[str, Any]:
    return OmegaConf.to_container(OmegaConf.load(path)) or {}  # type: ignore[return-value]


def _is_yaml(path: Path) -> bool:
    return path.suffix in (".yaml", ".yml") and not is_junk(path.name)


def _holds_yaml(path: Path) -> bool:
    return path.is_dir() and any(map(_is_yaml, path.iterdir()))


def _check_file(path: Path, group: str) -> None:
    """Refuses a file that cannot belong to a group, is too large or not YAML, or sets keys outside its group.

    Aliases can turn a short file into a huge one; they and deep nesting are found before values are constructed.
    """
    if _holds_yaml(path):
        raise UserError(f"{path}: a group has no folders; move its files to {path.parent}")
    if not _is_yaml(path) or path.is_dir():
        return
    if path.suffix != ".yaml" or fault_of_name(path.stem):
        raise UserError(f"{path} must be named NAME.yaml; rename it")
    if (resource("configs") / group / path.name).is_file():
        raise UserError(f"{path} has the name of a file of dmseg, configs/{group}/{path.name}; rename it")
    if group == "table" and path.stem.isdecimal():
        raise UserError(f"{path}: numbers are names of the paper's tables; rename it")
    try:
        text = read_regular(path, LARGEST, follow=True).decode()
        if _DIRECTIVE.search(text):
            raise UserError(f"{path} may not have a line that begins with '# @': it sets keys of its own group only")
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"aliases (*{event.anchor}) are not allowed; write the values")
            if depth > DEEPEST:
                raise ValueError(f"it is nested more than {DEEPEST} levels deep")
        node = OmegaConf.to_container(OmegaConf.create(text))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as YAML: {cut(' '.join(str(error).split()), 200)}") from None
    if not isinstance(node, dict) or not node or not all(isinstance(key, str) for key in node):
        raise UserError(f"{path} must contain a mapping (name: ..., _target_: ...)")
    for key in ("defaults", "plugins"):
        if key in node:
            instead = "write all its keys" if key == "defaults" else "plugins are named on the command line only"
            raise UserError(f"{path} may not set '{key}'; {instead}")
    try:
        _CHECKS.get(group, GROUP)(node, str(path))
    except ValueError as error:
        raise UserError(str(error)) from None
    if group == "loss" and not node.keys() & {"terms", *LOSS_KEYS}:
        raise UserError(f"{path} has no key 'terms'; write terms: {{NAME: {{weight: 1.0, _target_: MODULE.CLASS}}}}")
    if group == "data" and node.get("name") != path.stem:
        said = f"has name={shown(node['name'])}, but" if "name" in node else "has no key 'name':"
        raise UserError(f"{path} {said} a data set has the name of its file; write name: {path.stem}")
