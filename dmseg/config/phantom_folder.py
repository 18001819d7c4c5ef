"""The default folder of a phantom, so that phantoms of different settings do not replace each other."""

import hashlib
import json
from typing import Any

PLACE = "{other}"
"""Part of ``data.root`` that stands for the settings which the folder's name does not spell out."""
SPELT_OUT = ("_target_", "seed", "scale")
DEFAULTS = {"view": (None,), "spread": (1,), "raters": (None,), "cases": (None, 25)}
"""Settings that are left out of the name, each with the values at which they are."""


def name_phantom(data: Any) -> None:  # noqa: ANN401
    """Replaces ``{other}`` in the root of a composed data set, in place.

    Args:
        data: the group ``data``; anything that is not a phantom with this default folder is not changed.
    """
    if not isinstance(data, dict) or not isinstance(data.get("phantom"), dict):
        return
    if isinstance(data.get("root"), str) and PLACE in data["root"]:
        others = {
            name: value
            for name, value in data["phantom"].items()
            if name not in SPELT_OUT and value not in DEFAULTS.get(name, ())
        }
        text = json.dumps(others, sort_keys=True, default=str)
        ending = f"-{hashlib.sha256(text.encode()).hexdigest()[:8]}" if others else ""
        data["root"] = data["root"].replace(PLACE, ending)
