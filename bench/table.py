"""Runs benchmarks and writes their rows to a table: ``python bench/table.py [NAME ...]``, by default all of `ALL`."""

import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from rows import MARK

# "growth" is not among them: it takes more than three minutes
ALL = (
    "metrics", "ged", "count", "volumes", "losses", "kde", "loop", "workers", "methods", "contract", "seal", "launch",
    "cluster",
)  # fmt: skip
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
HEAD = """# Performance

Written by `make bench`, never by hand. Most rows are ratios to a peer that was measured in turns with it, so they
hold for one machine at one moment; the others are in the unit that the row names. The goal is the largest
acceptable value. `make bench-NAME` runs one benchmark and prints its rows. Rows that were not run on this machine
are missing.

"""


def run(name: str) -> list[dict[str, object]]:
    """Rows of one benchmark, which runs in a process of its own."""
    start, script = time.perf_counter(), Path(__file__).with_name(f"{name}.py")
    done = subprocess.run([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout, f"({name}: {time.perf_counter() - start:.0f} s)", flush=True)
    return [json.loads(line.removeprefix(MARK)) for line in done.stdout.splitlines() if line.startswith(MARK)]


def machine() -> str:
    """Processor, cores and versions."""
    names = [line.partition(":")[2].strip() for line in _cpu().splitlines() if line.startswith("model name")]
    packages = ", ".join(f"{package} {version(package)}" for package in ("torch", "numpy"))
    cpu = names[0] if names else platform.machine()
    return f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}"


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def main() -> None:
    rows = [row for name in sys.argv[1:] or ALL for row in run(name)]
    if sys.argv[1:]:
        return
    load = os.getloadavg()[0]
    lines = ["| row | goal | measured | peer | machine |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        goal = "" if row["goal"] is None else f"{row['goal']:g}"
        lines.append(f"| {row['name']} | {goal} | {row['measured']:.3g} | {row['peer']} | 1 |")
    PAGE.write_text(HEAD + "\n".join(lines) + f"\n\nMachine 1: {machine()}; load {load:.1f} when this was written.\n")


if __name__ == "__main__":
    main()
