"""The paper's own numbers, transcribed by hand; never results of this software."""

import pandas as pd

from dmseg.errors import UserError
from dmseg.resources import resource


def paper_table(number: int) -> pd.DataFrame:
    """Reads a table of the paper as printed.

    Args:
        number: 1 to 8.

    Returns:
        Tidy frame of text: ``table, task, backbone, method, metric, value``; values in per cent as printed.

    Raises:
        UserError: if there is no such table.
    """
    path = resource("paper") / f"table{number}.csv"
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except OSError:
        raise UserError(f"there is no table {number} of the paper's numbers ({path})") from None
