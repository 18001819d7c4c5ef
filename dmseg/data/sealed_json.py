"""JSON of prepared stores that contains its own checksum, so that a changed byte is noticed."""

import hashlib
import json
from typing import Any

from dmseg.files.schema import parse_json

MAX_BYTES = 256 << 20
"""Largest JSON file that is read from a store: about 700,000 source files."""


def sealed_text(body: dict[str, Any]) -> str:
    """JSON that contains its own checksum; `parse_sealed` reads it."""
    text = json.dumps(body, indent=1)
    return json.dumps({**body, "seal": hashlib.sha256(text.encode()).hexdigest()}, indent=1)


def parse_sealed(content: bytes) -> dict[str, Any]:
    """Reads what `sealed_text` wrote.

    Raises:
        ValueError: if a byte of it has changed, or it exceeds a limit of `parse_json`.
    """
    node = parse_json(content)
    body = {key: node[key] for key in node if key != "seal"} if isinstance(node, dict) else {}
    if sealed_text(body).encode() != content:
        raise ValueError("its checksum does not match")
    return body
