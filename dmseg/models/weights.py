"""Describes pretrained weights by the SHA-256 of their file and their revision on timm's hub."""

import logging
from pathlib import Path
from typing import Any

from dmseg.errors import UserError
from dmseg.files.regular import checksum

HUB = "imagenet"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""Weights files in a repository of timm's hub, in the order in which timm looks for them."""

log = logging.getLogger(__name__)


def describe_weights(encoder: str, weights: str | None, pinned: str | None = None) -> dict[str, Any] | None:
    """Describes the weights that a network was just built with.

    Args:
        encoder: name of a timm network that has been built before, so that the hub's file is in the local cache.
        weights: ``imagenet``, path of a file, or None.
        pinned: SHA-256 that the file must have; None for any.

    Returns:
        None for a network trained from scratch, else ``source`` (``file``, or the hub's repository), ``encoder``,
        ``revision`` (a commit on the hub; None for a file) and ``sha256`` of the file. Unknown values are None.

    Raises:
        UserError: if the file cannot be read, or its SHA-256 is not ``model.weights_sha256``.
    """
    if weights is None:
        return None
    if weights == HUB:
        repository, path = _hub_file(encoder)
        revision = None if path is None else path.parent.name
    else:
        repository, path, revision = "file", Path(weights), None
    try:
        sha256 = None if path is None else checksum(path)
    except OSError as error:
        raise UserError(f"the weights {path} cannot be read: {error.strerror}") from None
    if sha256 is None:
        log.warning("the file of the ImageNet weights of %s was not found; its checksum is unknown", encoder)
    check_pinned(encoder, weights, sha256, pinned)
    return {"source": repository, "encoder": encoder, "revision": revision, "sha256": sha256}


def check_pinned(encoder: str, weights: str, sha256: str | None, pinned: str | None) -> None:
    """Compares a checksum with ``model.weights_sha256``, if that is set.

    Raises:
        UserError: if they differ.
    """
    if pinned not in (None, sha256):
        raise UserError(
            f"the weights of {encoder} (model.weights={weights}) have the SHA-256 "
            f"{sha256 or 'unknown'}, but model.weights_sha256 is {pinned}\n"
            "use the pinned file, or set model.weights_sha256 to the checksum of this one"
        )


def _hub_file(encoder: str) -> tuple[str, Path | None]:
    """Repository and cached file of an encoder's weights on timm's hub."""
    from huggingface_hub import try_to_load_from_cache
    from timm.models import get_pretrained_cfg

    chosen = get_pretrained_cfg(encoder, allow_unregistered=True)
    name = getattr(chosen, "hf_hub_id", None)
    if not name:
        return "unknown", None
    repository, _, revision = str(name).partition("@")
    for file in HUB_FILES:
        found = try_to_load_from_cache(repository, file, revision=revision or None)
        if isinstance(found, str):
            return repository, Path(found)
    return repository, None
