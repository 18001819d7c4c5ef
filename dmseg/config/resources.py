"""Files that come with the package: configurations, and the paper's numbers."""

from pathlib import Path
from typing import Literal

from dmseg.errors import UserError

_PACKAGE = Path(__file__).parents[1]
_IN_REPOSITORY = {"configs": "configs", "paper": "results/paper"}


def resource(name: Literal["configs", "paper"]) -> Path:
    """Returns the folder of a resource: within the installed package, else in the repository that holds the package.

    Args:
        name: "configs" or "paper".

    Raises:
        UserError: if the folder is in neither place.
    """
    places = (_PACKAGE / name, _PACKAGE.parent / _IN_REPOSITORY[name])
    for place in places:
        if place.is_dir():
            return place
    raise UserError(f"'{name}' is missing: neither {places[0]} nor {places[1]} is a folder; install dmseg again")
