"""The numbers printed in the paper, for comparison with ours."""

import pandas as pd

from dmseg.config.resources import resource
from dmseg.errors import UserError

TABLES = range(1, 9)
"""Numbers of the paper's tables."""


def paper_table(n: int) -> pd.DataFrame:
    """Reads a table of the paper (Wang et al., Dice Semimetric Losses, MICCAI 2023, arXiv:2303.16296).

    Args:
        n: number of the table, 1 to 8.

    Returns:
        One row for each printed number, all columns as text: ``table, task, backbone, method, metric, value, bold``.
        ``value`` is as printed, in per cent except for the metric ``raters``; columns that do not apply are empty.

    Raises:
        UserError: if there is no such table, or its file is missing.
    """
    if n not in TABLES:
        raise UserError(f"the paper has no table {n}: choose from {TABLES.start} to {TABLES.stop - 1}")
    path = resource("paper") / f"table{n}.csv"
    if not path.is_file():
        raise UserError(f"{path}: the file is missing; install dmseg again")
    return pd.read_csv(path, dtype=str, keep_default_na=False)
