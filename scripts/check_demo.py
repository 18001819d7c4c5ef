"""Checks the demo's tables: every cell has a number, and Tables 2 and 3 reach their floors. Summarises Table 2.

Table 2: majority labels reach a Dice above 60 % where they should. Table 3: every method's mean BDice over all tasks is
above 40 %; a method that predicts nothing has 0.

Usage: python scripts/check_demo.py results/demo/tables/table2.csv [further tables]
"""

import sys

import pandas as pd

FLOOR = 60.0
METHODS_FLOOR = 40.0
HARD_TASKS = ("brain-tumor-2", "brain-tumor-3")
"""Tasks on which the paper's own majority Dice lies below 60 % (Table 2)."""
PASSED = {
    "table 2": f"; Table 2: majority Dice above {FLOOR:.0f} % on all tasks but {' and '.join(HARD_TASKS)}",
    "table 3": f"; Table 3: every method's mean BDice above {METHODS_FLOOR:.0f} %",
}
"""What is printed about a table that passes."""


def title(cells: pd.DataFrame) -> str:
    """Names a table."""
    return f"table {cells['table'].iloc[0]}"


def faults(cells: pd.DataFrame) -> list[str]:
    """The faults of a table of the demo; empty if it passes."""
    missing = int(cells["value"].isna().sum())
    found = [f"{title(cells)}: {missing} cells have no number"] if missing else []
    if title(cells) == "table 2":
        dice = cells[(cells["method"] == "majority") & (cells["metric"] == "dice") & (cells["task"] != "all")]
        return found + _below(dice[~dice["task"].isin(HARD_TASKS)], "task", "majority Dice", FLOOR)
    if title(cells) == "table 3":
        return found + _below(cells[cells["task"] == "all"], "method", "mean BDice", METHODS_FLOOR)
    return found


def lesson(cells: pd.DataFrame) -> str:
    """Where, in Table 2, uniform and majority labels differ by more than the noise of training."""
    uniform = cells[(cells["method"] == "uniform") & (cells["task"] != "all")]
    counts = []
    for metric, title in (("bdice", "BDice"), ("ece", "ECE")):
        marks = uniform[uniform["metric"] == metric].set_index("task")["diff_mark"]
        found = {mark: list(marks.index[marks == mark]) for mark in ("better", "worse")}
        parts = [f"{mark} on {len(on)}" + (f" ({', '.join(on)})" if on else "") for mark, on in found.items()]
        counts.append(f"{title} of {len(marks)} tasks {', '.join(parts)}")
    return (
        f"Uniform against majority labels, beyond the noise of training: {'; '.join(counts)}.\n"
        "Soft labels pay off where raters differ by about a pixel or more and the network finds the structure "
        "(docs/explanation/demo.md)."
    )


def _below(cells: pd.DataFrame, name: str, what: str, floor: float) -> list[str]:
    """The cells that are not above a floor; a table without such cells is a fault, too."""
    low = cells[~(cells["value"] > floor)]
    found = [f"{row[name]}: {what} {row['value']:.2f} %, not above {floor:.0f} %" for _, row in low.iterrows()]
    return found if len(cells) else [f"there is no {what}"]


def main(paths: list[str]) -> int:
    tables = [pd.read_csv(path) for path in paths]
    found = [fault for cells in tables for fault in faults(cells)]
    for fault in found:
        print(f"demo failed: {fault}", file=sys.stderr)
    if not found:
        print("demo passed: every cell has a number" + "".join(PASSED.get(title(cells), "") for cells in tables))
        for cells in tables:
            if title(cells) == "table 2":
                print(lesson(cells))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
