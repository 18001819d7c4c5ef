"""What all benchmarks share: the form of rows, timing in turns, and peak memory.

Most rows are ratios to a peer that was measured in turns with it. ``bench/table.py`` collects the rows that benchmarks
print.
"""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch
from torch.profiler import ProfilerActivity, profile

MARK = "#row "
"""Begins a line with a row, for `bench/table.py`."""


@dataclass(frozen=True)
class Row:
    """A measured row.

    Attributes:
        name: what was measured, ``bench: row``.
        measured: ratio to the peer, or a number in the unit that the name states.
        goal: the largest acceptable number, or None.
        peer: what the ratio is relative to.
    """

    name: str
    measured: float
    goal: float | None = None
    peer: str = ""


def report(row: Row) -> None:
    """Prints a row for people, and again for `bench/table.py`."""
    verdict = "" if row.goal is None else f", goal {row.goal:g}: {'met' if row.measured <= row.goal else 'MISSED'}"
    print(f"{row.name}: {row.measured:.3g} of {row.peer or 'nothing'}{verdict}")
    print(MARK + json.dumps(asdict(row)), flush=True)


def turns(
    functions: Mapping[str, Callable[[], object]], repeats: int, after: Callable[[], object] | None = None
) -> dict[str, list[float]]:
    """Seconds of each call of each function; the functions take turns, so that other load affects all of them.

    Args:
        functions: by name.
        repeats: number of calls of each, after one that does not count.
        after: called after each function within its time, such as a synchronisation with a GPU.
    """
    found: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(-1, repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if after is not None:
                after()
            if repeat >= 0:
                found[name].append(time.perf_counter() - start)
    return found


def least(times: Mapping[str, list[float]]) -> dict[str, float]:
    """The minimum time of each, as other load on the machine only adds to times."""
    return {name: min(values) for name, values in times.items()}


def medians(times: Mapping[str, list[float]]) -> dict[str, float]:
    """The median time of each."""
    return {name: statistics.median(values) for name, values in times.items()}


def peak_bytes(function: Callable[[], object], device: str = "cpu") -> int:
    """Peak memory of the tensors of a call in bytes, beyond what was allocated before."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak
