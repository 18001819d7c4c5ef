"""Digests that identify runs, experiments and evaluations; standard library only, so that stores open fast."""

import hashlib
import json
from typing import Any

FOLD_OF_TEACHER = ("teacher", "calibrator")
"""Keys of ``distill`` that hold the ids of other runs of the same fold."""
OF_FOLD = "trained"
"""Key of ``raters`` that depends on the training cases of the fold."""


def identifier(identity: dict[str, Any]) -> str:
    """The id of an identity: sixteen hexadecimal digits.

    Raises:
        ValueError: if a number in it is infinite or NaN.
    """
    return digest(identity)[:16]


def experiment_identity(identity: dict[str, Any]) -> dict[str, Any]:
    """The part of a run's identity that the folds of one configuration share."""
    shared = {key: value for key, value in identity.items() if key not in ("fold", "split")}
    if "raters" in shared:
        raters = {key: value for key, value in shared.pop("raters").items() if key != OF_FOLD}
        shared |= {"raters": raters} if raters else {}
    if "distill" in shared:
        shared["distill"] = {key: value for key, value in shared["distill"].items() if key not in FOLD_OF_TEACHER}
    return shared


def digest(node: dict[str, Any]) -> str:
    """SHA-256 of plain containers, in hexadecimal; equal numbers count as the same (1 and 1.0).

    Raises:
        ValueError: if a number is infinite or NaN.
    """
    canonical = json.dumps(_canonical(node), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _canonical(node: Any) -> Any:  # noqa: ANN401
    """Writes equal numbers the same way: 1.0 as 1."""
    if isinstance(node, dict):
        return {key: _canonical(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_canonical(value) for value in node]
    return int(node) if isinstance(node, float) and node.is_integer() else node
