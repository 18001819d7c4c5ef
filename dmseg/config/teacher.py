"""The network, labels and loss of a teacher, composed under the student's protocol."""

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf

from dmseg.config.config_dir import config_file, config_options, file_content
from dmseg.config.interpolations import check_interpolations, resolved
from dmseg.config.overrides import dotted, parse_override
from dmseg.config.typed import guess
from dmseg.errors import UserError, cut, shown
from dmseg.files.names import fault_of_name

TEACHER_KEY = re.compile(r"distill\.teacher\.(model|labels|loss)\.")
"""Prefix of keys in a teacher's groups. Hydra cannot set them, as it sees the name of a file in place of the group."""
_OWN_KEY = re.compile(r"(?:^|(?<=')|(?<=\nset ))(?=(?:labels|loss|model)[.:'])")


@contextmanager
def of_teacher() -> Iterator[None]:
    """Makes errors name the teacher's keys in full, although its groups are checked like those of a student."""
    try:
        yield
    except UserError as error:
        error.args = (_OWN_KEY.sub("distill.teacher.", str(error)),)
        raise


def sets_teacher(override: Override) -> bool:
    """Whether an override sets a key within a group of the teacher."""
    return TEACHER_KEY.match(dotted(override.key_or_group)) is not None


def resolve_teacher(config: dict[str, Any], plain: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """The groups of a teacher as plain containers, composed as if they were the student's own.

    Args:
        config: the student's configuration, with names of files as ``distill.teacher.{model,labels,loss}`` and
            unresolved interpolations; it is not changed.
        plain: the same, resolved.
        overrides: the student's overrides, of which those of the teacher's keys are applied.

    Raises:
        UserError: if ``distill`` has no teacher, a file does not exist, or a key of the teacher is unknown.
    """
    distill = plain["distill"]
    if not isinstance(distill, dict) or "teacher" not in distill:
        raise UserError(f"distill is {shown(distill)}, but must be null or one of the files in configs/distill")
    named = distill["teacher"]
    keys = {"model", "labels", "loss", "weights", "weights_sha256"}
    if not isinstance(named, dict) or set(named) != keys:
        raise UserError(f"distill.teacher is {named}, but must have the keys {', '.join(sorted(keys))}")
    files: dict[str, dict[str, Any]] = {}
    for group in ("model", "labels", "loss"):
        name = str(named[group])
        path = config_file(group, name)
        if fault_of_name(name) or not path.is_file():
            choices = ", ".join(config_options(group))
            raise UserError(f"distill.teacher.{group} is '{name}', which does not exist; choose from {choices}")
        files[group] = copy.deepcopy(file_content(path))
    own = config | files | {"distill": None}
    if named["weights"] is not None or plain["model"]["weights"] is None:
        own["model"]["weights"] = named["weights"]
    own["model"]["weights_sha256"] = named["weights_sha256"]
    if own_keys := [item for item in map(parse_override, overrides) if sets_teacher(item)]:
        changed = OmegaConf.create(own)
        for override in own_keys:
            _apply(changed, override)
        own = OmegaConf.to_container(changed)  # type: ignore[assignment]
    check_interpolations(own)
    found = resolved(own)
    return {group: found[group] for group in files}


def _apply(config: DictConfig, override: Override) -> None:
    """Sets a key of the teacher's configuration by Hydra's rules: a new key needs ``+``."""
    name = dotted(override.key_or_group)
    key = name.removeprefix("distill.teacher.")
    if override.type not in (OverrideType.CHANGE, OverrideType.ADD, OverrideType.FORCE_ADD):
        raise UserError(f"'{cut(str(override.input_line))}': keys of a teacher can be set or added, but not removed")
    if override.is_sweep_override():
        raise UserError(f"'{cut(name)}' has several values; use -m for a sweep, or brackets for a list: key=[a,b]")
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(config, parent)
    known = [str(item) for item in node] if isinstance(node, DictConfig) else []
    if override.type is OverrideType.CHANGE and last not in known:
        raise UserError(f"unknown key '{cut(name)}'{guess(last, known, f'distill.teacher.{parent}.')}")
    OmegaConf.update(config, key, override.value(), force_add=True)
