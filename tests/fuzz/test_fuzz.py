"""Malformed inputs of every kind; `make fuzz` tries more of them (FUZZ_INPUTS, a number for each kind)."""

import importlib
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
from fuzz.harness import Bench, generator

KINDS = ("nifti", "png", "layouts", "masks", "stores", "runs", "exports", "settings", "splits", "weights")
CHUNKS = 2
INPUTS = int(os.environ.get("FUZZ_INPUTS", "31"))
HINT = "FUZZ_ONLY=KIND:NUMBER tries one of them, FUZZ_KEEP=FOLDER writes them to a folder"


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("fuzz"))


def chosen(kind, count):
    """Numbers of the inputs to try: below `count` each is a change, beyond it one at random."""
    if (only := os.environ.get("FUZZ_ONLY", "")).startswith(f"{kind}:"):
        return [int(only.partition(":")[2])]
    if only:
        return []
    few = sorted(generator(kind, 0).permutation(count)[:INPUTS].tolist())
    return few if count > INPUTS else list(range(INPUTS))


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("kind", KINDS)
def test_malformed_inputs(kind, chunk, bench, record_property):
    """Each change of a kind once, then changes at random; an input is its kind and number, which seed it."""
    changes = importlib.import_module(f"fuzz.{kind}").CHANGES
    counts, wrong = {"accepted rightly": 0, "refused rightly": 0, "wrong": 0}, []
    for number in chosen(kind, len(changes))[chunk::CHUNKS]:
        rng, since = generator(kind, number), time.monotonic()
        templates, outcome, name, change = changes[number if number < len(changes) else rng.integers(len(changes))]
        template = templates[rng.integers(len(templates))]
        keep = Path(os.environ["FUZZ_KEEP"]) / f"{kind}-{number}" if "FUZZ_KEEP" in os.environ else None
        accepted, faults = bench.attempt(template, outcome, change, rng, keep)
        counts["wrong" if faults else "accepted rightly" if accepted else "refused rightly"] += 1
        how = "; wrong" if faults else ""
        print(f"{kind}:{number} {name[:60]!r} {time.monotonic() - since:.1f} s{how}", file=sys.stderr, flush=True)
        if faults:
            wrong.append(f"{kind}:{number} {template.name}, {name[:90]!r} ({outcome}): " + "; ".join(faults))
        elif keep is not None:
            shutil.rmtree(keep, ignore_errors=True)
    record_property(f"fuzz {kind}", counts)
    if wrong:
        pytest.fail("\n".join([f"{len(wrong)} of {sum(counts.values())} wrong; {HINT}", *wrong]), pytrace=False)
