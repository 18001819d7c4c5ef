"""Which pretrained weights a network was built with: the SHA-256 of their file, and the revision on timm's hub."""

import hashlib
import logging
from pathlib import Path
from typing import Any

from dmseg.errors import UserError
from dmseg.settings import ModelSettings

HUB = "imagenet"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""Files of a repository of timm's hub, in the order in which timm looks for them."""

log = logging.getLogger(__name__)


def describe_weights(settings: ModelSettings) -> dict[str, Any] | None:
    """Describes the weights that a network has just been built with.

    Args:
        settings: of the network, built in this process or before, so that the hub's file is in the local cache.

    Returns:
        None for a network trained from scratch, else ``source`` (``file``, or the hub's repository), ``encoder``,
        ``revision`` (a commit of the hub; None for a file) and ``sha256`` of the file. What is unknown is None.

    Raises:
        UserError: if the file cannot be read, or is not the one that ``model.weights_sha256`` names.
    """
    if settings.weights is None:
        return None
    if settings.weights == HUB:
        repository, path = _hub_file(settings.encoder)
        revision = None if path is None else path.parent.name
    else:
        repository, path, revision = "file", Path(settings.weights), None
    sha256 = None if path is None else _sha256(path)
    if sha256 is None:
        log.warning("the file of the ImageNet weights of %s was not found; its checksum is unknown", settings.encoder)
    check_pinned(settings, sha256)
    return {"source": repository, "encoder": settings.encoder, "revision": revision, "sha256": sha256}


def check_pinned(settings: ModelSettings, sha256: str | None) -> None:
    """Compares a checksum with ``model.weights_sha256``, where that is set.

    Raises:
        UserError: if they differ.
    """
    if settings.weights_sha256 not in (None, sha256):
        raise UserError(
            f"the weights of {settings.encoder} (model.weights={settings.weights}) have the SHA-256 "
            f"{sha256 or 'unknown'}, but model.weights_sha256 is {settings.weights_sha256}\n"
            "use the file that was pinned, or set model.weights_sha256 to the checksum of this one"
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


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"the weights {path} cannot be read: {error.strerror}") from None
