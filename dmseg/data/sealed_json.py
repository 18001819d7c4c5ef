"""JSON files of stores: read within bounds, and carrying a checksum of their own where a changed byte would matter."""

import hashlib
import json
from typing import Any

MAX_BYTES = 256 << 20
"""Largest JSON file that is read from a store: some 700,000 source files."""
MAX_VALUES = 10_000_000
"""Most values in it: small ones take 20 times as much memory as text."""


def parse_json(content: bytes) -> object:
    """Parses JSON that anybody may have written.

    Raises:
        ValueError: if it is not JSON in UTF-8, nested too deeply, or holds too much.
    """
    if len(content) > MAX_BYTES or sum(content.count(sign) for sign in (b",", b"[", b"{")) > MAX_VALUES:
        raise ValueError("it holds too much")
    try:
        return json.loads(content.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def sealed_text(body: dict[str, Any]) -> str:
    """JSON that carries its own checksum; `parse_sealed` reads it."""
    text = json.dumps(body, indent=1)
    return json.dumps({**body, "seal": hashlib.sha256(text.encode()).hexdigest()}, indent=1)


def parse_sealed(content: bytes) -> dict[str, Any]:
    """Reads what `sealed_text` made.

    Raises:
        ValueError: if a byte of it has changed.
    """
    node = parse_json(content)
    body = {key: node[key] for key in node if key != "seal"} if isinstance(node, dict) else {}
    try:
        same = sealed_text(body).encode() == content
    except RecursionError:
        same = False
    if not same:
        raise ValueError("its checksum does not match")
    return body
