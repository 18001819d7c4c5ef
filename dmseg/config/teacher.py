"""A teacher's network, labels and loss: files of the configuration, in the student's protocol."""

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dmseg.config.config_dir import config_file, config_options
from dmseg.config.interpolations import check_interpolations
from dmseg.config.resolved import resolved
from dmseg.errors import UserError
from dmseg.files.names import fault_of_name


def resolve_teacher(config: DictConfig) -> dict[str, Any]:
    """The groups of a teacher as plain containers, composed as if the student's configuration named them itself.

    Args:
        config: the student's, with ``distill.teacher.{model,labels,loss}`` names of files.

    Raises:
        UserError: if there is no such file, or a key of the teacher is unknown.
    """
    named = OmegaConf.to_container(config.distill.teacher, resolve=True)
    keys = {"model", "labels", "loss", "weights", "weights_sha256"}
    if not isinstance(named, dict) or set(named) != keys:
        raise UserError(f"distill.teacher is {named}, but must have the keys {', '.join(sorted(keys))}")
    own: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
    own |= {group: _group_file(group, str(named[group])) for group in ("model", "labels", "loss")} | {"distill": None}
    if named["weights"] is not None or config.model.weights is None:
        own["model"]["weights"] = named["weights"]
    own["model"]["weights_sha256"] = named["weights_sha256"]
    check_interpolations(own)
    found = resolved(own)
    return {group: found[group] for group in ("model", "labels", "loss")}


def _group_file(group: str, name: str) -> dict[str, Any]:
    path = config_file(group, name)
    if fault_of_name(name) or not path.is_file():
        choices = ", ".join(config_options(group))
        raise UserError(f"distill.teacher.{group} is '{name}', which does not exist; choose from {choices}")
    return copy.deepcopy(_content(path))


@lru_cache(maxsize=64)
def _content(path: Path) -> dict[str, Any]:
    return OmegaConf.to_container(OmegaConf.load(path))  # type: ignore[return-value]
