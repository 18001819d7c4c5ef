"""Malformed inputs of every kind; `make fuzz` tries more of them (FUZZ_INPUTS, a number for each kind)."""

import importlib
import json
import os
import shutil
from pathlib import Path

import pytest
from fuzz.harness import Bench, generator

KINDS = ("nifti", "png", "layouts", "masks", "stores", "runs", "exports", "settings", "splits", "weights")
CHUNKS = 2
INPUTS = int(os.environ.get("FUZZ_INPUTS", "0"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("kind", KINDS)
def test_malformed_inputs(kind, chunk, bench, record_property):
    """Each change once, then changes at random. FUZZ_ONLY=nifti:12 tries one input, FUZZ_KEEP=FOLDER keeps it."""
    module = importlib.import_module(f"fuzz.{kind}")
    changes, counts, wrong = module.CHANGES, {"accepted": 0, "refused": 0, "wrong": 0}, []
    only = os.environ.get("FUZZ_ONLY", f"{kind}:").partition(":")
    for number in range(chunk, max(INPUTS, len(changes)), CHUNKS):
        if only[0] != kind or only[2] not in ("", str(number)):
            continue
        rng = generator(kind, number)
        templates, outcome, name, change = changes[number if number < len(changes) else rng.integers(len(changes))]
        template = templates[rng.integers(len(templates))]
        accepted, faults = bench.attempt(template, outcome, change, rng)
        counts["wrong" if faults else "accepted" if accepted else "refused"] += 1
        if faults:
            wrong.append(f"{kind}:{number} {template.name}, {name[:90]} ({outcome}): " + "; ".join(faults))
            if "FUZZ_KEEP" in os.environ:
                bench.fill(template)
                change(bench.box, generator(kind, number))
                shutil.copytree(bench.box, Path(os.environ["FUZZ_KEEP"]) / f"{kind}-{number}", symlinks=True)
    if "FUZZ_TABLE" in os.environ:
        with open(os.environ["FUZZ_TABLE"], "a") as file:
            file.write(json.dumps({"kind": kind, **counts}) + "\n")
    record_property("inputs", json.dumps(counts))
    hint = "look at one: FUZZ_ONLY=KIND:NUMBER FUZZ_KEEP=FOLDER pytest -n 0 tests/fuzz"
    if wrong:
        pytest.fail("\n".join([f"{len(wrong)} of {sum(counts.values())} wrong; {hint}", *wrong]), pytrace=False)
