"""Runs as JSON lines, ``<results>/tracking/<id>.jsonl``. It needs no library and is written alongside other trackers.

The first line is the run (``{"run": {...}}``). Then there is one line for each step with numbers (``{"step": 8,
"train/loss": 0.7, ...}``), and at the end the scores, tables and curves, and ``{"finished": true}``.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dmseg.files.atomic import write_whole
from dmseg.files.names import check_id
from dmseg.files.regular import read_regular
from dmseg.files.schema import finite
from dmseg.report.tracking.tracker import Report, RunMetadata, finite_numbers

LARGEST = 64 * 2**20
"""Maximum size of a journal that is read, in bytes."""


def journal_path(results: Path, run_id: str) -> Path:
    """Path of the journal of a run or table."""
    return results / "tracking" / f"{check_id(run_id, 'the id of a run')}.jsonl"


class Journal:
    """Writes the journal of a run.

    Lines are held back until `live` is set or the journal is closed, so that the journal of an interrupted run is
    replaced only when its lines have been taken over.

    Args:
        results: the results folder.
    """

    delivered = True

    def __init__(self, results: Path) -> None:
        self._results = results
        self._path: Path | None = None
        self._held: list[str] | None = None
        self.live = False
        """Whether lines are written at once."""

    def begin(self, metadata: RunMetadata) -> None:
        """Starts a journal."""
        self._path = journal_path(self._results, metadata.id)
        self._held, self.live = [], False
        self._write({"run": asdict(metadata)})

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a line with the numbers of a step."""
        self._write({"step": step, **values})
        if self.live:
            self._flush()

    def show(self, report: Report) -> None:
        """Adds scores, tables and curves; of overlays the captions."""
        self._write({"scores": dict(report.scores)})
        for name, rows in report.tables.items():
            self._write({"table": name, "columns": list(rows.columns), "rows": [list(row) for row in rows.rows]})
        for name, curves in report.curves.items():
            lines = {title: {"x": list(x), "y": list(y)} for title, (x, y) in curves.lines.items()}
            self._write({"curves": name, "title": curves.title, "x": curves.x_title, "lines": lines})
        if report.overlays:
            self._write({"cases": [overlay.caption for overlay in report.overlays]})

    def end(self, finished: bool) -> None:
        """Closes the journal."""
        if self._path is not None:
            self._write({"finished": finished})
            self._flush()
        self._path = None

    def _flush(self) -> None:
        """Replaces an earlier journal by the lines that were held back."""
        if self._held is not None and self._path is not None:
            held, self._held = self._held, None
            write_whole(self._path, "".join(held))

    def _write(self, node: Mapping[str, Any]) -> None:
        line = f"{json.dumps(finite(node), ensure_ascii=False)}\n"
        if self._held is not None:
            self._held.append(line)
        elif self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)


def read_steps(path: Path) -> dict[int, dict[str, float]]:
    """Numbers by step of a journal, which may be missing, truncated or not ours; invalid lines are skipped."""
    try:
        lines = read_regular(path, LARGEST).decode(errors="replace").splitlines()
    except OSError:
        return {}
    found: dict[int, dict[str, float]] = {}
    for line in lines:
        try:
            node = json.loads(line)
        except (ValueError, RecursionError):
            continue
        step = node.pop("step", None) if isinstance(node, dict) else None
        if type(step) is int and step >= 0:
            numbers = {key: value for key, value in node.items() if type(value) in (int, float)}
            with suppress(OverflowError):  # an integer that no float can hold
                found.setdefault(step, {}).update(finite_numbers(numbers))
    return found
