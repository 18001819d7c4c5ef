# ruff: noqa: E501 - tables of inputs
"""Run stores: files changed with and without a new seal, odd manifests, scores, leases and checkpoints.

Whatever one run is like, the other one of the store is still listed, shown and verified, and the damaged one is named.
"""

import json
import os
import time
from functools import partial

from fuzz.harness import SPECIAL, Right, run, special
from fuzz.nifti import cut, flip
from fuzz.templates import RUNS

from dmseg.files.regular import checksums

SEALED = (
    "config.json",
    "manifest.json",
    "history.csv",
    "cases.csv",
    "counts.npz",
    "pack.npz",
    "evaluation.json",
    "weights.safetensors",
    "DONE",
)


def chosen(box, rng):
    runs = sorted(path for path in (box / "results/runs").iterdir())
    return runs[rng.integers(len(runs))]


def seal(folder):
    """Writes the checksums of what a run now holds, as somebody does who wants it to look sound."""
    known = json.loads((folder / "DONE").read_text())
    sums = checksums(folder)
    (folder / "DONE").write_text(json.dumps({name: sums[name] for name in known if name in sums}))


def commands(box, folder, listed):
    """Looks at the store with all commands; returns what is wrong with that."""
    faults, other = [], next(path.name for path in folder.parent.iterdir() if path.name != folder.name)
    place = f"paths.results={box / 'results'}"
    for words in (["list"], ["show", other], ["show", folder.name], ["prune"], ["list", "fold=1", "labels=majority"]):
        ran = run(box, ["runs", *words, place])
        if ran.status not in (0, 2) or "Traceback" in ran.err:
            faults.append(f"runs {words[0]}: status {ran.status}, {ran.err[-120:]!r}")
        if ran.status is None:
            return [f"runs {words[0]} hangs"]
        if words in (["list"], ["show", other]) and (ran.status != 0 or other not in ran.out):
            faults.append(f"runs {words[0]} does not show the sound run: {ran.err[-120:]!r}")
        if "\x1b" in ran.out + ran.err:
            faults.append(f"runs {words[0]} steers the terminal")
    if listed and "damaged" not in run(box, ["runs", place]).out:
        faults.append("runs does not call it damaged")
    return faults


def looked_at(change, damaged=True, listed=False):
    def apply(box, rng):
        folder = chosen(box, rng)
        change(folder, rng)
        judge = lambda box, ran: commands(box, folder, listed)  # noqa: E731
        return Right((folder.name,), status=1 if damaged else 2, judge=judge)

    return apply


def one_of(folder, rng, names):
    """One of these files of a run, of those that it has."""
    there = [name for name in names if (folder / name).exists()]
    return folder / there[rng.integers(len(there))]


def on_file(name, change, sealed=False):
    """Lets `change(content, rng)` change a file of a run."""

    def apply(folder, rng):
        path = one_of(folder, rng, (name,) if isinstance(name, str) else name)
        path.write_bytes(change(path.read_bytes(), rng))
        if sealed:
            seal(folder)

    return apply


def on_json(name, change):
    def apply(content, rng):
        node = change(json.loads(content))
        return node if isinstance(node, bytes) else json.dumps(node).encode()

    return on_file(name, apply, sealed=name != "DONE")


def put(dotted, value=...):
    """A change of a node that sets or removes a key; numbers are positions in lists, `*` the first key of a mapping."""

    def change(node):
        *groups, last = dotted.split(".")
        inner = node
        for group in groups:
            inner = inner[next(iter(inner))] if group == "*" else inner[int(group)] if group.isdigit() else inner[group]
        if value is ...:
            inner.pop(last)
        else:
            inner[last] = value
        return node

    return change


def key(name, dotted, value=...):
    """Sets or removes a key of a JSON file."""
    return on_json(name, put(dotted, value))


def on_scores(change):
    """Lets `change(lines)` change the lines of cases.csv, header first."""
    text = lambda content, rng: "\n".join(change(content.decode().splitlines())).encode("utf-8", "replace")  # noqa: E731
    return on_file("cases.csv", text, sealed=True)


def value(text):
    return on_scores(
        lambda lines: [lines[0], ",".join([lines[1].split(",")[0], text, *lines[1].split(",")[2:]]), *lines[2:]]
    )


def in_place(folder, rng, kind):
    special(one_of(folder, rng, SEALED), kind)


def gone(folder, rng):
    one_of(folder, rng, SEALED).unlink()


def beside(name, content):
    """Writes a file beside the runs: a lease, a log, a checkpoint."""

    def apply(folder, rng):
        path = folder.parents[1] / name.format(id="f" * 16)
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            os.mkfifo(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())

    return apply


def renamed(folder, rng):
    """A run under another id."""
    folder.rename(folder.with_name("0123456789abcdef"))


MARKUP = "[red]\x1b[31m\u202e=cmd|' /C calc'!A0\n\\input{/etc/passwd}"
UNSEALED = {
    "one bit": on_file(SEALED[:-1], flip), "cut": on_file(SEALED[:-1], cut), "longer": on_file(SEALED[:-1], lambda content, rng: content + b"\n"),
    "empty": on_file(SEALED, lambda content, rng: b""), "a file is gone": gone, "a cut seal": on_file("DONE", cut),
    **{f"a {kind} in its place": partial(in_place, kind=kind) for kind in SPECIAL},
    **{f"the seal is {text[:9]!r}": on_json("DONE", lambda node, text=text: text) for text in
       (b"null", b"[]", b"5", b"{}", b"\xff\xfe", b"[" * 99999, b'{"a":' * 99999, b'{"cases.csv": 5}')},
    **{f"the seal names {name!r}": key("DONE", name, "0" * 64) for name in
       ("nothing", "/etc/passwd", "/dev/zero", "a\0b", "x" * 5000, "\ud800")},
    "the seal leads out": on_json("DONE", lambda node: node | {"../../../secret.txt": "0" * 64}),
}  # fmt: skip
SCHEMA = {
    **{f"{name}: no {dotted}": key(f"{name}.json", dotted) for name, keys in
       {"manifest": ("title", "seconds", "experiment_id", "phantom"), "config": ("settings", "identity", "settings.data", "settings.task", "settings.fold", "settings.model.name"),
        "evaluation": ("id", "settings")}.items() for dotted in keys},
    **{f"{name}: {dotted} is {value!r}"[:60]: key(f"{name}.json", dotted, value) for name, dotted, value in (
        ("manifest", "seconds", "x"), ("manifest", "seconds", None), ("manifest", "seconds", {}), ("manifest", "title", 5),
        ("manifest", "title", None), ("manifest", "phantom", []), ("manifest", "experiment_id", {}),
        ("config", "settings", []), ("config", "settings", "x"), ("config", "settings.data", 5), ("config", "identity", []),
        ("config", "identity", None), ("config", "identity.seed", 12345), ("config", "identity.train.epochs", 999),
        ("evaluation", "id", 5), ("evaluation", "id", "../../x"), ("evaluation", "id", None))},
    **{f"{name} is {text[:9]!r}": on_json(name, lambda node, text=text: text) for name in SEALED[:2] for text in
       (b"null", b"[]", b"{}", b"", b"\xff", b"[" * 99999, b'{"a":' * 99999)},
    **{f"a score is {text!r}": value(text) for text in ("x", "inf", "-inf", "1e400", "-1", "1.5", "=1+1", "\0", "nine")},
    "a case twice": on_scores(lambda lines: [*lines, lines[1]]),
    "a foreign case": on_scores(lambda lines: [*lines, lines[1].replace("LIDC", "OTHER")]),
    "a case less": on_scores(lambda lines: lines[:-1]), "no cases": on_scores(lambda lines: lines[:1]),
    "no header": on_scores(lambda lines: lines[1:]), "no columns": on_scores(lambda lines: ["case", "a"]),
    "an open quote": on_scores(lambda lines: [*lines, '"x']), "NULs": on_file("cases.csv", lambda content, rng: bytes(99), True),
    "not UTF-8": on_file("cases.csv", lambda content, rng: b"\xff" + content, True), "another id": renamed,
}  # fmt: skip
SOUND = {
    "junk": lambda folder, rng: (folder / "Thumbs.db").write_bytes(b"junk"),
    "markup in a title": key("manifest.json", "title", MARKUP),
    "a key more": key("manifest.json", "comment", MARKUP),
    **{f"a lease is {str(node)[:30]}": beside("leases/{id}.json", node) for node in
       (None, b"", b"{", b"[" * 99999, [], {}, {"pid": "x"}, {"pid": -1, "host": None}, {"pid": 2**70, "time": 1e400},
        {"time": time.time() + 4e7, "host": "x", "pid": 1})},
    "a log is a FIFO": beside("failed/{id}.log", None),
    "a checkpoint is a FIFO": beside("checkpoints/{id}/000000001-finished/rest.pt", None),
    "a checkpoint is junk": beside("checkpoints/{id}/x", b"junk"),
}  # fmt: skip
CHANGES = [
    *(((RUNS,), "refused", name, looked_at(change)) for name, change in UNSEALED.items()),
    *(((RUNS,), "refused", f"sealed, {name}", looked_at(change, listed=True)) for name, change in SCHEMA.items()),
    *(((RUNS,), "accepted", name, looked_at(change, damaged=False)) for name, change in SOUND.items()),
]
