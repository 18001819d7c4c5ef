"""Stores and exports as a hostile sender would make them: tampered with and sealed anew. No training is needed."""

import dataclasses
import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import store_run, write_lidc

from dmseg.cli.main import main
from dmseg.files.regular import checksums
from dmseg.metrics.counting import count_stored
from dmseg.runs.counts_file import write_counts
from dmseg.runs.digests import identifier
from dmseg.runs.store import RunStore
from dmseg.tables import exported as exchange
from dmseg.tables.planning import TablePlanner
from dmseg.tables.spec import read_spec

SECRET = "a secret that no store may hold"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A store with the runs of table 2 and their table, and an export of it."""
    place = tmp_path_factory.mktemp("tampered")
    tree = write_lidc(place / "lidc", 12, np.random.default_rng(1))
    words = [
        "data=lidc", f"data.root='{tree}'", "data.size=32", "model=unet_tiny", "folds.count=2", "wandb.entity=alice",
        f"paths.prepared='{place / 'prepared'}'", f"paths.results='{place / 'results'}'",
    ]  # fmt: skip
    rng = np.random.default_rng(2)
    for run in TablePlanner(words, [read_spec("2")]).plan()[0].runs:
        store_run(run, [{"case": case, **scores(rng)} for case in run.split.validation])
    assert main(["export-results", "tables=2", f"to={place / 'export'}", *words]) == 0
    return place, words


def scores(rng):
    dice, bdice, ece = rng.uniform(0.2, 0.8, 3)
    return {"dice": dice, "bdice": bdice, "ece": ece, "n_slices": 1, "n_raters": 4}


@pytest.fixture
def copy(study, tmp_path):
    """Copies of the store and of the export."""
    shutil.copytree(study[0] / "results", tmp_path / "results")
    shutil.copytree(study[0] / "export", tmp_path / "export")
    return tmp_path


def reseal(folder):
    (folder / "DONE").unlink(missing_ok=True)
    (folder / "DONE").write_text(json.dumps(checksums(folder)))


def changed_json(name, change):
    def harm(folder):
        node = json.loads((folder / name).read_text())
        node = change(node) or node
        (folder / name).write_text(json.dumps(node))
        reseal(folder)

    return harm


def put(node, key, value):
    *groups, name = key.split(".")
    for group in groups:
        node = node[group]
    node[name] = value


def written(name, content):
    def harm(folder):
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        reseal(folder)

    return harm


def changed_rows(change):
    def harm(folder):
        header, *rows = (folder / "cases.csv").read_text().splitlines()
        (folder / "cases.csv").write_text("\n".join([header, *change([row.split(",") for row in rows])]) + "\n")
        reseal(folder)

    return harm


def cell(column, value):
    def change(rows):
        rows[0][column] = value
        return [",".join(row) for row in rows]

    return changed_rows(change)


def replaced(name, make, sealed=False):
    def harm(folder):
        (folder / name).unlink()
        make(folder / name)
        if sealed:
            seal = json.loads((folder / "DONE").read_text())
            seal[name] = "0" * 64
            (folder / "DONE").write_text(json.dumps(seal))

    return harm


def counts_of_others(folder):
    masks = np.ones((1, 1, 4, 4), dtype=bool)
    write_counts(
        folder / "counts.npz", {"other": count_stored(np.zeros((1, 4, 4), np.float32), masks, masks[0] * np.float32(1))}
    )
    reseal(folder)


def link(target):
    return lambda path: path.symlink_to(target)


def seal_with(change):
    def harm(folder):
        seal = json.loads((folder / "DONE").read_text())
        change(seal)
        (folder / "DONE").write_text(json.dumps(seal))

    return harm


DEEP = '{"a":' * 100_000
HARMS = {
    **{
        f"{file}: {key} is {value!r:.20}": changed_json(file, lambda node, key=key, value=value: put(node, key, value))
        for file, key, value in [
            ("config.json", "settings", []),
            ("config.json", "settings.data", "lidc"),
            ("config.json", "settings.data.name", "../../x"),
            ("config.json", "settings.task", None),
            ("config.json", "settings.labels", []),
            ("config.json", "settings.model.name", {"a": 1}),
            ("config.json", "settings.seed", 7),
            ("config.json", "identity", 5),
            ("config.json", "identity", {}),
            ("config.json", "identity.seed", 1),
            ("config.json", "identity.distill", []),
            ("config.json", "identity.seed", float("nan")),
            ("manifest.json", "title", ["x"]),
            ("manifest.json", "title", "\ud800"),
            ("manifest.json", "phantom", "no"),
            ("manifest.json", "seconds", "an hour"),
            ("manifest.json", "seconds", float("inf")),
            ("manifest.json", "seconds", -1),
            ("manifest.json", "experiment_id", "../x"),
            ("manifest.json", "experiment_id", "0" * 16),
            ("manifest.json", "run_id", "0" * 16),
            ("manifest.json", "split", {"train": [], "validation": ["a", "a"]}),
            ("manifest.json", "split.validation", ["../a"]),
            ("manifest.json", "imported", "never"),
            ("evaluation.json", "id", "0" * 16),
            ("evaluation.json", "id", "../../x"),
            ("evaluation.json", "id", 5),
            ("evaluation.json", "settings.bins", 3),
        ]
    },
    **{
        f"{file}: no {key}": changed_json(file, lambda node, key=key: node.pop(key) and None)
        for file, key in [
            ("config.json", "settings"),
            ("config.json", "identity"),
            ("manifest.json", "title"),
            ("manifest.json", "seconds"),
            ("manifest.json", "split"),
            ("manifest.json", "experiment_id"),
            ("evaluation.json", "id"),
        ]
    },
    **{
        f"{file}: {content[:9]!r}": written(file, content)
        for file in ("config.json", "manifest.json", "evaluation.json")
        for content in (DEEP, "[]", "", "\0", "1" * 5000, b"\xff\xfe", "null")
    },
    **{f"a score of {value!r}": cell(1, value) for value in ("nan", "inf", "-inf", "1e999", "x", "1.5", "-0.5", "0_1")},
    **{f"a count of {value!r}": cell(4, value) for value in ("-1", "x", "0", "inf")},
    **{f"a case {value!r}": cell(0, value) for value in ("", "../x", "a\0", "another", "=1+1", '"')},
    "a case twice": changed_rows(lambda rows: [",".join(row) for row in [*rows, rows[0]]]),
    "a case too few": changed_rows(lambda rows: [",".join(row) for row in rows[1:]]),
    "a case too many": changed_rows(lambda rows: [",".join(row) for row in [*rows, ["x", *rows[0][1:]]]]),
    "a value too few": changed_rows(lambda rows: [",".join(row[:-1]) for row in rows]),
    "no cases": changed_rows(lambda rows: []),
    "no columns": written("cases.csv", ""),
    "odd columns": written("cases.csv", "case,dice,bdice,ece,=cmd()\n"),
    "columns twice": written("cases.csv", "case,dice,dice,bdice,ece\n"),
    "NUL in the scores": written("cases.csv", "case,dice,bdice,ece\n\0,\0,0,0\n"),
    **{f"counts {content[:9]!r}": written("counts.npz", content) for content in (b"", b"PK\3\4" * 99, DEEP)},
    "counts of other cases": counts_of_others,
    "counts without a checksum": lambda folder: (folder / "counts.npz").write_bytes(b""),
    "counts that are a link": lambda folder: (folder / "counts.npz").symlink_to("/dev/zero"),
    "a link to a secret": replaced("cases.csv", link("/nowhere"), sealed=True),
    "a link without end": replaced("cases.csv", link("/dev/zero")),
    "a pipe": replaced("manifest.json", os.mkfifo),
    "a pipe for DONE": replaced("DONE", os.mkfifo),
    "a link for DONE": replaced("DONE", link("/dev/zero")),
    "a folder for DONE": replaced("DONE", os.mkdir),
    "DONE names a path": seal_with(lambda seal: seal.update({"../../../x": "0" * 64})),
    "DONE names an absolute path": seal_with(lambda seal: seal.update({"/etc/passwd": "0" * 64})),
    "DONE holds numbers": seal_with(lambda seal: seal.update({"cases.csv": 5})),
    "DONE is empty": seal_with(lambda seal: seal.clear()),
    "DONE is deep": replaced("DONE", lambda path: path.write_text(DEEP)),
    "an evaluation that is a link": lambda folder: (folder / "evaluations").symlink_to("/dev"),
    "an evaluation without anything": lambda folder: (folder / "evaluations" / ("a" * 16)).mkdir(parents=True),
}


def commands(store):
    return [
        ["runs", "list", f"paths.results={store}"],
        ["runs", "verify", f"paths.results={store}"],
        ["runs", "prune", f"paths.results={store}"],
    ]


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_one_odd_run_stops_no_command_and_reaches_no_table(study, copy, harm, capfd):
    """In the store it is damaged and named, an import refuses it alone, a table leaves its cells empty."""
    for folder in (copy / "results", copy / "export"):
        odd, *others = RunStore(folder).run_ids()
        harm(RunStore(folder).folder(odd))
    for words in commands(copy / "results"):
        assert main(words) == (1 if "verify" in words else 0)
        said = capfd.readouterr().out
        assert "prune" in words or odd in said
    assert main(["runs", "show", odd, f"paths.results={copy / 'results'}"]) == 0
    assert f"{odd} is damaged" in capfd.readouterr().out
    assert main(["runs", "show", others[0], f"paths.results={copy / 'results'}"]) == 0
    assert json.loads(capfd.readouterr().out)["run_id"] == others[0]
    assert main(["import-results", f"from={copy / 'export'}", f"paths.results={copy / 'new'}"]) == 2
    error = capfd.readouterr().err
    assert odd in error
    assert len(error.splitlines()) <= 3
    assert RunStore(copy / "new").run_ids() == others
    assert main(["table", "table=2", f"from={copy / 'export'}"]) == 0
    columns, expected = table(copy / "export"), table(study[0] / "export", study)
    differing = [key for key in expected if columns[key] != expected[key]]
    assert 0 < len(differing) <= 3
    assert all(columns[key] == "" for key in differing)


def table(export, study=None):
    """Values of the cells of an export's table."""
    import pandas as pd

    if study is not None and not (export / "tables").is_dir():
        assert main(["table", "table=2", f"from={export}"]) == 0
    cells = pd.read_csv(export / "tables" / "table2.csv", dtype=str, keep_default_na=False)
    return {(row.metric, row.method): row.value for row in cells.itertuples()}


def test_an_import_copies_what_the_seals_name_and_follows_no_link(copy):
    secret = copy / "secret"
    secret.write_text(SECRET)
    export = RunStore(copy / "export")
    first, second, third = export.run_ids()[:3]
    (export.folder(first) / "further.txt").symlink_to(secret)
    (export.folder(second) / "history.csv").symlink_to(secret)
    seal = json.loads((export.folder(second) / "DONE").read_text())
    import hashlib

    seal["history.csv"] = hashlib.sha256(SECRET.encode()).hexdigest()
    (export.folder(second) / "DONE").write_text(json.dumps(seal))
    moved = copy / "moved"
    export.folder(third).rename(moved)
    export.folder(third).symlink_to(moved)
    assert main(["import-results", f"from={copy / 'export'}", f"paths.results={copy / 'new'}"]) == 2
    files = [path for path in (copy / "new").rglob("*") if path.is_file() or path.is_symlink()]
    assert all(SECRET not in path.read_text(errors="replace") for path in files)
    new = RunStore(copy / "new").run_ids()
    assert first in new
    assert second not in new
    assert third not in new


@pytest.mark.parametrize("name", ["runs", "plans", "tables"])
def test_an_export_whose_folders_are_links_is_not_read(copy, name, capfd):
    elsewhere = copy / "elsewhere"
    folder = copy / "export" / name
    if folder.is_dir():
        folder.rename(elsewhere)
    else:
        elsewhere.mkdir()
    folder.symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    assert main(["table", "table=2", f"from={copy / 'export'}"]) == 2
    assert "is a link" in capfd.readouterr().err
    assert main(["import-results", f"from={copy / 'export'}", f"paths.results={copy / 'new'}"]) == 2
    assert sorted(elsewhere.rglob("*")) == before


def test_a_run_with_other_numbers_under_the_same_id_is_refused_by_name(copy, capfd):
    export, store = RunStore(copy / "export"), RunStore(copy / "results")
    run_id = export.run_ids()[0]
    before = (store.folder(run_id) / "cases.csv").read_bytes()
    cell(1, "0.125")(export.folder(run_id))
    assert main(["import-results", f"from={copy / 'export'}", f"paths.results={copy / 'results'}"]) == 2
    assert f"run {run_id}" in capfd.readouterr().err
    assert (store.folder(run_id) / "cases.csv").read_bytes() == before


def test_imports_stay_marked_when_they_are_handed_on(copy, capfd):
    one, two, again = copy / "one", copy / "two", copy / "again"
    assert main(["import-results", f"from={copy / 'export'}", f"paths.results={one}"]) == 0
    assert main(["export-results", f"to={again}", f"paths.results={one}"]) == 0
    assert all(RunStore(again).is_imported(run_id) for run_id in RunStore(again).run_ids())
    assert main(["import-results", f"from={again}", f"paths.results={two}"]) == 0
    capfd.readouterr()
    assert main(["runs", f"paths.results={two}"]) == 0
    assert capfd.readouterr().out.count("(imported)") == 10
    run_id = RunStore(two).run_ids()[0]
    assert main(["runs", "show", run_id, f"paths.results={two}"]) == 0
    assert json.loads(capfd.readouterr().out)["imported"] is True
    assert not RunStore(copy / "export").is_imported(run_id)


def test_an_export_holds_no_paths_and_no_accounts(study, copy):
    place, _ = study
    for path in (copy / "export").rglob("*"):
        if path.is_file():
            content = path.read_text()
            assert str(place) not in content, path
            assert "/tmp" not in content
            assert "alice" not in content
            assert str(Path.home()) + "/" not in content
    store, export = RunStore(copy / "results"), RunStore(copy / "export")
    for run_id in store.run_ids():
        assert export.read_json(run_id, "config.json")["identity"] == store.read_json(run_id, "config.json")["identity"]
        assert identifier(export.read_json(run_id, "config.json")["identity"]) == run_id


def plan_of(copy):
    path = copy / "export" / "plans" / "table2.json"
    node = json.loads(path.read_text())
    node.pop("sha256")
    return path, node


def first_run(node):
    return next(iter(node["rows"][0]["cells"].values()))[0]


PLANS = {
    "another name": lambda node: put(node, "spec.name", "../../../evil"),
    "another table": lambda node: put(node, "spec.name", "3"),
    "another kind": lambda node: put(node, "spec.kind", "agreement"),
    "no reference": lambda node: put(node, "spec.reference", "none"),
    "unknown score": lambda node: node["rows"][0]["block"].update(metrics=["x"]),
    "unknown data": lambda node: node["rows"][0]["block"].update(data="x"),
    "no rows": lambda node: put(node, "rows", []),
    "rows twice": lambda node: node["rows"].append(node["rows"][0]),
    "a further key": lambda node: node.update(further=1),
    "no cells": lambda node: node["rows"][0].update(cells={}),
    "a cell without runs": lambda node: node["rows"][0]["cells"].update(majority=[]),
    "a run twice": lambda node: node["rows"][0]["cells"].update(majority=2 * node["rows"][0]["cells"]["majority"]),
    "a run id": lambda node: first_run(node).update(run_id="../../../../etc"),
    "another run id": lambda node: first_run(node).update(run_id="0" * 16),
    "an evaluation id": lambda node: first_run(node).update(evaluation_id="../x"),
    "another split": lambda node: first_run(node)["split"]["validation"].append("x"),
    "another seed": lambda node: first_run(node)["settings"].update(seed=99),
    "settings are a list": lambda node: first_run(node).update(settings=[]),
    "an unknown setting": lambda node: first_run(node)["settings"].update(evil=1),
    "another task": lambda node: first_run(node)["task"].update(name="x"),
    "labels are text": lambda node: first_run(node)["settings"].update(labels="x"),
    "a title that is a list": lambda node: node["spec"]["columns"][0].update(title=[1]),
}


@pytest.mark.parametrize("change", PLANS.values(), ids=PLANS)
def test_a_plan_that_does_not_fit_is_one_message_and_writes_nothing(copy, change, capfd):
    path, node = plan_of(copy)
    change(node)
    path.write_text(json.dumps({"sha256": exchange._checksum(node), **node}))
    before = sorted(copy.rglob("*"))
    assert main(["table", "table=2", f"from={copy / 'export'}"]) == 2
    error = capfd.readouterr().err
    assert "table2.json is damaged" in error
    assert len(error.splitlines()) <= 3
    assert sorted(copy.rglob("*")) == before


def test_plans_that_are_no_plans(copy, capfd):
    path, _ = plan_of(copy)
    for content in (b"", b"[]", b"null", DEEP.encode(), b"\xff", b"\0", b'{"sha256": 5}', b"1" * 5000):
        path.write_bytes(content)
        assert main(["table", "table=2", f"from={copy / 'export'}"]) == 2
        assert "table2.json is damaged" in capfd.readouterr().err
    for make in (os.mkfifo, link("/dev/zero"), os.mkdir):
        path.unlink()
        make(path)
        assert main(["table", "table=2", f"from={copy / 'export'}"]) == 2
        assert "table2.json is damaged" in capfd.readouterr().err


@pytest.mark.parametrize("seed", range(6))
def test_random_values_anywhere_never_end_in_a_traceback(copy, seed, capfd):
    """Each leaf of a run's JSON files may become anything; what still counts is unchanged."""
    rng = random.Random(seed)
    export = RunStore(copy / "export")
    run_id = export.run_ids()[0]
    folder = export.folder(run_id)
    file = rng.choice(["config.json", "manifest.json", "evaluation.json"])
    node = json.loads((folder / file).read_text())
    for _ in range(rng.randint(1, 3)):
        inner, key = rng.choice(list(places(node)))
        inner[key] = rng.choice([None, -1, 1e308, "", "x" * 5000, [], {}, [[]], True, "\u202e", "/etc", 10**400])
    (folder / file).write_text(json.dumps(node))
    reseal(folder)
    for words in commands(copy / "export"):
        assert main(words) in (0, 1)
    assert main(["import-results", f"from={copy / 'export'}", f"paths.results={copy / 'new'}"]) in (0, 2)
    assert len(RunStore(copy / "new").run_ids()) >= 9
    assert main(["table", "table=2", f"from={copy / 'export'}"]) == 0
    assert "Traceback" not in capfd.readouterr().err


def places(node):
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(items):
        yield node, key
        if isinstance(value, dict | list):
            yield from places(value)


def test_all_evaluations_that_tables_need_are_exported(study, tmp_path):
    """Also into an export that has the run already."""
    from dmseg.runs.identity import evaluation_identity
    from dmseg.runs.run_files import write_scores
    from dmseg.runs.transfer import export_runs

    shutil.copytree(study[0] / "results", tmp_path / "results")
    store, export = RunStore(tmp_path / "results"), tmp_path / "export"
    run = TablePlanner(study[1], [read_spec("2")]).plan()[0].runs[0]
    assert export_runs([(store, run.run_id)], export, weights=False).new == 1
    other = dataclasses.replace(run.settings.evaluate, ged=True)
    name = identifier(evaluation_identity(other))
    cases = store.read_cases(run.run_id, run.evaluation_id).assign(ged=0.5)
    fill = lambda folder: write_scores(folder, cases, name, evaluation_identity(other))  # noqa: E731
    store.add(run.run_id, f"evaluations/{name}", fill)
    assert export_runs([(store, run.run_id)], export, weights=False).new == 0
    assert RunStore(export).has_evaluation(run.run_id, name)
    assert RunStore(export).damage(run.run_id, every_file=True) == []
