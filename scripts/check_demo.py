"""Checks the demo's tables: every cell there, and majority labels reach a Dice above 60 % in Table 2 where they should.

Usage: python scripts/check_demo.py results/demo/tables/table2.csv [further tables]
"""

import sys

import pandas as pd

FLOOR = 60.0
HARD_TASKS = ("brain-tumor-2", "brain-tumor-3")
"""Tasks on which the paper's own majority Dice lies below 60 % (Table 2)."""


def faults(cells: pd.DataFrame) -> list[str]:
    """What is wrong with a demo's table; nothing if it is as it should be."""
    name = f"table {cells['table'].iloc[0]}"
    missing = int(cells["value"].isna().sum())
    found = [f"{name}: {missing} cells have no number"] if missing else []
    if name != "table 2":
        return found
    majority = cells[(cells["method"] == "majority") & (cells["metric"] == "dice") & (cells["task"] != "all")]
    low = majority[~majority["task"].isin(HARD_TASKS) & ~(majority["value"] > FLOOR)]
    return found + [f"{row.task}: majority Dice {row.value:.2f} %, not above {FLOOR:.0f} %" for row in low.itertuples()]


def main(paths: list[str]) -> int:
    found = [fault for path in paths for fault in faults(pd.read_csv(path))]
    for fault in found:
        print(f"demo failed: {fault}", file=sys.stderr)
    if not found:
        beside = " and ".join(HARD_TASKS)
        print(f"demo passed: every cell is there, majority Dice above {FLOOR:.0f} % on all tasks but {beside}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
