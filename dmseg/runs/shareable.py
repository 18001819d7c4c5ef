"""Settings and manifests for an export: without paths, accounts, user names and host names."""

import copy
import os
import re
from pathlib import PurePath, PureWindowsPath
from typing import Any

FOLDERS = ("data.root", "paths.data", "paths.prepared", "paths.results")
"""Settings that name a folder, which is removed entirely."""
FILES = ("model.weights", "distill.teacher.model.weights", "folds.file", "folds.groups")
"""Settings that may name a file, of which only the last part is kept."""
PRIVATE: dict[str, Any] = {
    "wandb.entity": None,
    "launcher.job.partition": None,
    "launcher.job.account": None,
    "launcher.job.qos": None,
    "launcher.job.setup": [],
    "launcher.job.parameters": {},
}
"""Settings that reveal who computed a run and on which cluster, with their replacements."""
HIDDEN = "."
"""Replaces a folder."""

MACHINE = ("platform", "processor", "cores", "threads", "device")
"""Keys of a manifest's machine that are kept."""
_NAMES_OF_PLACES = re.compile(r"host(name)?|node(name)?|user(name)?|login|home|cwd|argv|command")
"""Keys that are removed at any depth."""
_PATH = re.compile(r"(?:~|/|[A-Za-z]:[\\/]|\\\\)[^\s'\",;:]*[\\/][^\s'\",;:]*|/[^\s/'\",;:]+")
"""An absolute path at the beginning of a word."""


def shareable_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings, in plain containers, that are safe to share: paths are shortened, accounts removed.

    Neither numbers nor ids depend on the changes.
    """
    node = copy.deepcopy(settings)
    for key in FOLDERS:
        _change(node, key, lambda value: HIDDEN)
    for key in FILES:
        _change(node, key, lambda value: _last_part(value) if isinstance(value, str) else value)
    for key, value in PRIVATE.items():
        _change(node, key, lambda _, value=value: copy.deepcopy(value))
    return _without_paths(node)  # type: ignore[no-any-return]


def shareable_manifest(manifest: dict[str, Any]) -> dict[str, Any]:
    """A run's manifest that is safe to share; of the machine it keeps what numbers may depend on."""
    node = copy.deepcopy(manifest)
    if isinstance(node.get("machine"), dict):
        node["machine"] = {key: value for key, value in node["machine"].items() if key in MACHINE}
    split, title = node.pop("split"), node.pop("title")
    cleaned: dict[str, Any] = _without_paths(node)
    return cleaned | {"split": split, "title": title}


def _change(node: Any, key: str, change: Any) -> None:  # noqa: ANN401
    """Changes the value of a dotted key, if the key exists."""
    *groups, name = key.split(".")
    for group in groups:
        node = node.get(group) if isinstance(node, dict) else None
    if isinstance(node, dict) and name in node:
        node[name] = change(node[name])


def _without_paths(node: Any) -> Any:  # noqa: ANN401
    """Plain values without names of places, with absolute paths reduced to their last part."""
    if isinstance(node, dict):
        kept = {key: value for key, value in node.items() if not _NAMES_OF_PLACES.fullmatch(key)}
        return {key: _without_paths(value) for key, value in kept.items()}
    if isinstance(node, list | tuple):
        return [_without_paths(value) for value in node]
    if not isinstance(node, str):
        return node
    home = os.path.expanduser("~")
    if node.startswith(("/", "~/", "\\\\")) or PureWindowsPath(node).drive or (len(home) > 1 and node.startswith(home)):
        return _last_part(node)  # a path as a whole, which may contain spaces
    pieces = re.split(r"(\s|['\",;:=(\[])", node)
    return "".join(_last_part(piece) if _PATH.fullmatch(piece) else piece for piece in pieces)


def _last_part(path: str) -> str:
    """The name of a file; `HIDDEN` for what looks like a folder, whose name may be that of a person."""
    name = PureWindowsPath(path).name if "\\" in path else PurePath(path).name
    return name if PurePath(name).suffix else HIDDEN
