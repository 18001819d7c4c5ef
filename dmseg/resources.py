"""Files that are shipped beside the code: configurations and the paper's numbers."""

from pathlib import Path
from typing import Literal

from dmseg.errors import UserError

_IN_CHECKOUT = {"configs": "configs", "paper": "results/paper"}


def resource(name: Literal["configs", "paper"]) -> Path:
    """Folder of a shipped resource: in an installed package beside the code, in a checkout at its top level.

    Raises:
        UserError: if the installation lacks it.
    """
    package = Path(__file__).parent
    for folder in (package / name, package.parent / _IN_CHECKOUT[name]):
        if folder.is_dir():
            return folder
    raise UserError(f"this installation of dmseg lacks its '{name}' folder; install it anew")
