# ruff: noqa: E501 - tables of inputs
"""Exports and plans of tables: names that lead out, links, foreign runs, numbers changed and sealed again."""

import csv
import hashlib
import json
import os
import shutil
from functools import partial

from fuzz.harness import SPECIAL, Right, special
from fuzz.nifti import cut, flip
from fuzz.runs import SCHEMA, UNSEALED, put, seal
from fuzz.templates import IMPORT, TABLE

from dmseg.files.regular import checksum

NOTHING = (None, 5, [], {}, "x", [None], [[]], True, 1e400)


def export(box):
    return box / "raw/export"


def chosen(box, rng):
    runs = sorted((export(box) / "runs").iterdir())
    return runs[rng.integers(len(runs))]


def on_run(change, judge=None):
    """A change of one run of an export, as of a run store."""

    def apply(box, rng):
        folder = chosen(box, rng)
        change(folder, rng)
        return Right((folder.name, "0123456789abcdef"), judge=judge and partial(judge, folder.name))

    return apply


def left_out(run_id, box, ran):
    """The table has no other numbers than before, all those of the other runs, and names the run that it leaves out."""
    if ran.status != 0:
        return []
    rows = {(row["metric"], row["method"]): row for row in cells(export(box) / "tables/table2.csv")}
    clean = {(row["metric"], row["method"]): row for row in cells(box / "clean.csv")}
    changed = {place: row for place, row in rows.items() if row["value"] != clean[place]["value"]}
    faults = [
        f"{place} is {row['value']!r}" for place, row in changed.items() if row["value"] or run_id not in row["runs"]
    ]
    is_there = os.path.lexists(export(box) / "runs" / run_id)
    return [*faults, f"run {run_id} is not named"] if changed and is_there and run_id not in ran.err else faults


def cells(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def on_plan(change, judge=None):
    """Lets `change(node)` change the plan of a table, and seals it again."""

    def apply(box, rng):
        path = export(box) / "plans/table2.json"
        node = json.loads(path.read_text())
        node.pop("sha256")
        node = change(node)
        if not isinstance(node, bytes):
            text = json.dumps(node, sort_keys=True)
            node = json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), **node}).encode()
        path.write_bytes(node)
        return Right(("table2", "plan", "run"), judge=judge)

    return apply


def key(dotted, value=..., judge=None):
    """Sets or removes a key of the plan (`put`)."""
    return on_plan(put(dotted, value), judge)


def on_plan_bytes(change):
    def apply(box, rng):
        path = export(box) / "plans/table2.json"
        path.write_bytes(change(path.read_bytes(), rng))
        return Right(("table2",))

    return apply


def no_file(box, rng, kind):
    return special(export(box) / "plans/table2.json", kind)


def other_table(box, rng):
    """The plan of another table under this one's name."""
    return on_plan(lambda node: node | {"spec": node["spec"] | {"name": "3", "stem": "table3"}})(box, rng)


def linked(box, rng):
    """A link to a secret among the files of a run, sealed with it."""
    folder = chosen(box, rng)
    (folder / "predictions").mkdir()
    (folder / "predictions/x.npy").symlink_to(box / "secret.txt")
    known = json.loads((folder / "DONE").read_text())
    (folder / "DONE").write_text(json.dumps(known | {"predictions/x.npy": checksum(box / "secret.txt")}))
    return Right((folder.name,))


def linked_file(box, rng):
    folder = chosen(box, rng)
    (folder / "history.csv").unlink()
    (folder / "history.csv").symlink_to(box / "secret.txt")
    seal(folder)
    return Right((folder.name,))


def linked_run(box, rng):
    folder = chosen(box, rng)
    shutil.move(folder, box / "cwd/run")
    folder.symlink_to(box / "cwd/run")
    return Right((folder.name,), judge=lambda box, ran: [])


def unsealed(kind):
    """Something that no seal names: it must not be copied, whatever it is."""

    def apply(box, rng):
        path = chosen(box, rng) / "extra"
        os.mkfifo(path) if kind == "fifo" else path.symlink_to(box / "secret.txt" if kind == "link" else "/dev/zero")

    return apply


def odd_run(box, rng):
    """A folder among the runs that is called like nothing."""
    for name in ("..x", "ffff", "F" * 16, "a" * 200):
        (export(box) / "runs" / name).mkdir()
        (export(box) / "runs" / name / "DONE").write_text("{}")


def numbers(box, rng):
    """The scores of a run changed, and sealed again, where the store already has that run."""
    folder = chosen(box, rng)
    shutil.copytree(folder, box / "results/runs" / folder.name)
    path = folder / "cases.csv"
    lines = path.read_text().splitlines()
    path.write_text(
        "\n".join([lines[0], *(",".join([line.split(",")[0], "0.5", *line.split(",")[2:]]) for line in lines[1:])])
    )
    seal(folder)
    return Right((folder.name,))


def empty_cells(box, ran):
    """Numbers may be missing from the table, but none is another one."""
    clean = {row["value"] for row in cells(box / "clean.csv")}
    return [row for row in cells(export(box) / "tables/table2.csv") if row["value"] not in {"", *clean}]


def no_runs(box, rng):
    shutil.rmtree(export(box) / "runs")
    return Right(judge=empty_cells)


BOTH = (TABLE, IMPORT)
PLAN = {
    **{f"a run's id is {value!r}"[:60]: key("rows.0.cells.*.0.run_id", value) for value in
       ("../../../cwd", "..", "/etc", "a/b", "0" * 16, "a\0b", "\ud800", "x" * 5000, "", *NOTHING)},
    **{f"an evaluation's id is {value!r}"[:60]: key("rows.0.cells.*.0.evaluation_id", value) for value in
       ("../../../../cwd", "a\0b", "", None, 5)},
    **{f"the name is {value!r}"[:60]: key("spec.name", value) for value in
       ("../../cwd/pwned", "/tmp/x", "3", "a\nb", "a\0b", "", "x" * 5000, *NOTHING)},
    **{f"{name} is {value!r}": key(name, value) for name in ("rows", "spec", "spec.columns", "rows.0.cells", "rows.0.settings")
       for value in NOTHING[:5]},
    **{f"no {name}": key(name) for name in
       ("rows", "spec", "spec.columns", "spec.blocks", "rows.0.task", "rows.0.settings", "rows.0.cells", "rows.0.settings.data",
        "rows.0.cells.*.0.split", "rows.0.cells.*.0.identity", "rows.0.cells.*.0.run_id")},
    "a foreign run": key("rows.0.cells.*.0.experiment_id", "f" * 16), "a key more": key("spec.more", 1),
    "another fold's cases": key("rows.0.cells.*.0.split.validation", ["x"]), "no rows": key("rows", []),
    "deep": on_plan(lambda node: b'{"a":' * 99999), "a list": on_plan(lambda node: b"[]"), "null": on_plan(lambda node: b"null"),
    "not UTF-8": on_plan(lambda node: b"\xff\xfe"), "no checksum": on_plan(lambda node: b'{"spec": {}, "rows": []}'),
    "one bit": on_plan_bytes(flip), "cut": on_plan_bytes(cut),
}  # fmt: skip
CHANGES = [
    *(((TABLE,), "refused", f"plan: {name}", change) for name, change in PLAN.items()),
    (
        (TABLE,),
        "either",
        "plan: an evaluation that nobody made",
        key("rows.0.cells.*.0.evaluation_id", "0" * 16, empty_cells),
    ),
    ((TABLE,), "refused", "the plan of another table", other_table),
    *(
        (
            (TABLE,),
            "refused",
            f"the plan is a {kind}",
            partial(no_file, kind=kind),
        )
        for kind in SPECIAL
    ),
    *(((IMPORT,), "refused", f"unsealed, {name}", on_run(change)) for name, change in UNSEALED.items()),
    *(((TABLE,), "either", f"unsealed, {name}", on_run(change, left_out)) for name, change in UNSEALED.items()),
    *(((IMPORT,), "refused", f"sealed, {name}", on_run(change)) for name, change in SCHEMA.items()),
    *(((TABLE,), "either", f"sealed, {name}", on_run(change, left_out)) for name, change in SCHEMA.items()),
    ((IMPORT,), "refused", "a link to a secret, sealed", linked),
    ((IMPORT,), "refused", "a file that is a link", linked_file),
    ((IMPORT,), "either", "a run that is a link", linked_run),
    *(((IMPORT,), "accepted", f"a {kind} that no seal names", unsealed(kind)) for kind in ("fifo", "link", "zero")),
    (BOTH, "accepted", "odd folders", odd_run),
    ((IMPORT,), "refused", "other numbers of a run that is there", numbers),
    ((IMPORT,), "refused", "no runs", lambda box, rng: shutil.rmtree(export(box) / "runs")),
    ((TABLE,), "refused", "no plans", lambda box, rng: shutil.rmtree(export(box) / "plans")),
    ((TABLE,), "either", "no runs", no_runs),
]
