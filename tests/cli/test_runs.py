"""The run store from the command line: what is there, whether it is sound, what may go."""

import io
import json
import shutil
import time
from contextlib import contextmanager, suppress

import pandas as pd
import pytest
from rich.console import Console

from dmseg.activity import showing
from dmseg.cli.commands import _set_damaged_aside
from dmseg.cli.main import main
from dmseg.cli.runs import print_groups, verify_runs
from dmseg.config.compose import compose_settings
from dmseg.files.atomic import write_whole
from dmseg.runs.digests import experiment_identity, identifier
from dmseg.runs.inventory import entries, lineage
from dmseg.runs.lease import lease
from dmseg.runs.plan import plan_run
from dmseg.runs.seal import DamagedError
from dmseg.runs.sources import prepare_task
from dmseg.runs.store import RunStore
from dmseg.training.checkpoint import Checkpoints, State

KINDS = (
    "DONE", "config.json", "manifest.json", "history.csv", "cases.csv", "evaluation.json", "weights.safetensors",
    "predictions/*.npy", "evaluations/*/cases.csv", "evaluations/*/evaluation.json", "evaluations/*/DONE",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store with two folds of one configuration, predictions kept, one of them scored in two ways."""
    import numpy as np
    from conftest import write_lidc

    place = tmp_path_factory.mktemp("runs")
    tree = write_lidc(place / "lidc", 12, np.random.default_rng(1))
    words = [
        "data=lidc", f"data.root='{tree}'", "data.size=32", "model=unet_tiny", "train.epochs=1", "train.batch_size=4",
        "threads=1", f"paths.prepared='{place / 'prepared'}'", f"paths.results='{place / 'results'}'",
        "evaluate.save_predictions=true",
    ]  # fmt: skip
    for more in (["fold=0"], ["fold=1"], ["fold=0", "evaluate.empty=one"]):
        assert main(["train", *words, *more]) == 0
    return place / "results", words


@pytest.fixture
def store(trained, tmp_path):
    """A copy elsewhere, as on another machine."""
    shutil.copytree(trained[0], tmp_path / "copy")
    return RunStore(tmp_path / "copy")


def runs(store, *words):
    return main(["runs", *words, f"paths.results={store.results}"])


def test_list_and_filters(store, capfd):
    write_whole(store.log("f" * 16), "Traceback\nValueError: oh\n")
    with lease(store.lease_file("e" * 16)):
        assert runs(store) == 0
    listed = capfd.readouterr().out
    first, second = store.run_ids()
    assert all(word in listed for word in (first, second, "f" * 16, "e" * 16, "running", "failed", "4 runs"))
    assert runs(store, "list", "fold=1", "labels=majority,uniform") == 0
    assert "1 run\n" in capfd.readouterr().out
    assert runs(store, "status=done", "task=nope") == 0
    assert "0 runs" in capfd.readouterr().out


def test_ids_are_whole_on_narrow_terminals(store):
    console = Console(file=io.StringIO(), width=50)
    print_groups(entries([store]), console)
    assert all(run_id in console.file.getvalue() for run_id in store.run_ids())


def test_long_work_is_shown(store):
    shown = {}

    @contextmanager
    def display(title, total, unit):
        shown[title, unit] = [total, 0]
        yield lambda amount: shown[title, unit].__setitem__(1, shown[title, unit][1] + amount)

    argv = [f"paths.results={store.results}"]
    with showing(display):
        assert verify_runs(argv) == 0
    assert shown == {("reading runs", "runs"): [2, 2], ("comparing checksums", "runs"): [2, 2]}


def test_a_title_cannot_steer_the_terminal(store, capfd):
    run_id = store.run_ids()[0]
    manifest = store.folder(run_id) / "manifest.json"
    node = json.loads(manifest.read_text())
    node["title"] = "[bold]loud[/bold] \x1b[31m[/nothing] \u202e"
    rewrite(store, run_id, manifest, json.dumps(node).encode())
    assert runs(store) == 0
    assert "[bold]loud[/bold] \\x1b[31m[/nothing] \\u202e" in capfd.readouterr().out


def test_show_one_run(store, capfd):
    run_id = store.run_ids()[0]
    assert runs(store, "show", run_id[:6]) == 0
    shown = json.loads(capfd.readouterr().out)
    manifest = store.read_json(run_id, "manifest.json")
    assert shown["run_id"] == run_id
    assert shown["versions"] == manifest["versions"]
    assert shown["settings"]["data"]["size"] == 32
    assert {"seconds", "peak_memory_mib", "machine", "sessions", "ended"} <= set(shown)
    assert {"python", "torch", "timm", "git", "dmseg"} <= set(shown["versions"])
    assert {"threads", "device", "processor", "cores"} <= set(shown["machine"])


def test_lineage_follows_identities(store):
    teacher, other = store.run_ids()
    node = json.loads((store.folder(other) / "config.json").read_text())
    node["identity"]["distill"] = {"teacher": teacher}
    student, manifest = identifier(node["identity"]), store.read_json(other, "manifest.json")
    manifest |= {"run_id": student, "experiment_id": identifier(experiment_identity(node["identity"]))}
    store.folder(other).rename(store.folder(student))
    rewrite(store, student, store.folder(student) / "config.json", json.dumps(node).encode())
    rewrite(store, student, store.folder(student) / "manifest.json", json.dumps(manifest).encode())
    found = {entry.run_id: entry for entry in entries([store])}
    assert lineage(found[student], list(found.values())).teachers == (teacher,)
    assert lineage(found[teacher], list(found.values())).students == (student,)


def rewrite(store, run_id, path, content):
    """Changes a stored file and its checksum with it."""
    from dmseg.files.regular import checksums

    path.write_bytes(content)
    seal = store.folder(run_id) / "DONE"
    known = json.loads(seal.read_text())
    sums = checksums(store.folder(run_id))
    seal.write_text(json.dumps({name: sums[name] for name in known}))


HARMS = {
    "byte": lambda content: (
        bytes([*content[: len(content) // 2], content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]
    ),
    "cut": lambda content: content[:-3],
    "empty": lambda content: b"",
    "gone": None,
}


def scored_twice(store):
    """Id of the run that has a second evaluation."""
    return next(name for name in store.run_ids() if list(store.folder(name).glob("evaluations/*")))


def do_harm(store, run_id, kind, harm):
    path = sorted(store.folder(run_id).glob(kind))[0]
    if HARMS[harm] is None:
        path.unlink()
    else:
        path.write_bytes(HARMS[harm](path.read_bytes()))
    return path


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "DONE" in kind or "json" in kind or "csv" in kind])
@pytest.mark.parametrize("harm", HARMS)
def test_scores_of_a_damaged_run_are_never_read_silently(store, kind, harm):
    run_id = scored_twice(store)
    second = next(store.folder(run_id).glob("evaluations/*")).name
    first = store.read_json(run_id, "evaluation.json")["id"]
    sound = {name: store.read_cases(run_id, name) for name in (first, second)}
    do_harm(store, run_id, kind, harm)
    assert store.damage(run_id), "reproduce sets it aside"
    for name in (first, second):
        with suppress(DamagedError):
            pd.testing.assert_frame_equal(store.read_cases(run_id, name), sound[name])


@pytest.mark.parametrize("harm", ["empty", "gone"])
@pytest.mark.parametrize("kind", ["DONE", "evaluations/*/DONE"])
def test_scores_without_their_checksums_are_not_used(store, kind, harm):
    run_id = scored_twice(store)
    folder = do_harm(store, run_id, kind, harm).parent
    name = json.loads((folder / "evaluation.json").read_text())["id"]
    with pytest.raises(DamagedError, match="DONE"):
        store.read_cases(run_id, name)


def test_a_damaged_run_that_somebody_works_on_is_left_to_them(trained, store, capfd):
    words = [*trained[1][:-2], f"paths.results='{store.results}'", "evaluate.bins=15", "fold=0", "workers=1"]
    run_id = scored_twice(store)
    do_harm(store, run_id, "cases.csv", "byte")
    with lease(store.lease_file(run_id)):
        set_damaged_aside(words)
        assert store.folder(run_id).is_dir()
    set_damaged_aside(words)
    assert not store.folder(run_id).is_dir()
    assert f"{run_id}) is set aside in" in capfd.readouterr().err


def set_damaged_aside(words):
    """What cv and reproduce do first."""
    settings = compose_settings(words)
    _set_damaged_aside([plan_run(settings, prepare_task(settings))])


def test_damaged_weights_are_mended_as_the_message_says(trained, store, capfd):
    words = [*trained[1][:-2], f"paths.results='{store.results}'", "evaluate.bins=15", "fold=0"]
    run_id = scored_twice(store)
    sound = (store.folder(run_id) / "weights.safetensors").read_bytes()
    do_harm(store, run_id, "weights.safetensors", "byte")
    assert main(["train", *words]) == 2
    assert "runs verify aside=true" in capfd.readouterr().err
    assert runs(store, "verify", "aside=true") == 1
    assert main(["train", *words]) == 0
    assert (store.folder(run_id) / "weights.safetensors").read_bytes() == sound


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("harm", HARMS)
def test_damage_of_any_file_is_found(store, kind, harm, capfd):
    run_id = scored_twice(store)
    path = do_harm(store, run_id, kind, harm)
    assert runs(store, "verify") == 1
    said = capfd.readouterr().out
    assert run_id in said
    assert path.name in said or path.name == "DONE", "a damaged checksum may look like a damaged file"
    assert runs(store, "verify", "aside=true") == 1
    assert runs(store, "verify") == 0
    assert not store.is_done(run_id)
    assert (store.results / "damaged" / f"{run_id}-1").is_dir()


def test_a_sound_store_verifies(store, capfd):
    assert runs(store, "verify") == 0
    assert "2 runs verified: all files match their checksums" in capfd.readouterr().out


JUNK = ("Thumbs.db", "@eaDir", ".DS_Store", "desktop.ini", "lost+found", "notes.txt", "._0123456789abcdef.json")


@pytest.mark.parametrize("name", JUNK)
def test_foreign_files_are_ignored_and_said_once(store, name, capfd):
    run_id = scored_twice(store)
    folder = store.folder(run_id)
    (addition,) = folder.glob("evaluations/*")
    places = [folder, folder / "evaluations", addition, folder / "predictions", store.runs]
    places += [store.results / other for other in ("checkpoints", "leases", "failed", "damaged")]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for place in places:
        place.mkdir(exist_ok=True)
        if "." in name:
            (place / name).write_text("foreign")
        else:
            (place / name).mkdir()
            (place / name / "DONE").write_text("foreign")
            (place / name / "cases.csv").write_text("foreign")
    assert store.damage(run_id) == store.damage(run_id, every_file=True) == []
    assert runs(store) == 0
    assert "2 runs" in capfd.readouterr().out
    assert runs(store, "verify", "aside=true") == 0
    said = capfd.readouterr().out
    assert "2 runs verified: all files match their checksums" in said
    (line,) = [line for line in said.splitlines() if line.startswith("ignored")]
    shown = line.removeprefix("ignored, not written by dmseg: ").split(", ")
    assert sorted(shown) == sorted(str(place / name) for place in places[:-1])
    assert runs(store, "prune", "confirm=true") == 0
    assert all((place / name).exists() for place in places), "they are not ours to remove"
    assert {path: path.read_bytes() for path in before} == before


def test_what_dmseg_itself_leaves_is_not_called_foreign(store, capfd):
    run_id = store.run_ids()[0]
    write_whole(store.log("f" * 16), "trouble")
    write_whole(store.log("e" * 16).with_name(f".{'e' * 16}.log"), "unfinished")
    write_whole(store.checkpoints("d" * 16) / "000000001" / "rest.pt", "x")
    write_whole(store.folder(run_id) / "evaluations" / f".{'a' * 16}.01234567" / "cases.csv", "half")
    write_whole(store.runs / f".{'b' * 16}.01234567" / "cases.csv", "half")
    with lease(store.lease_file("c" * 16)):
        assert runs(store, "verify") == 0
    assert "ignored" not in capfd.readouterr().out


def test_a_foreign_file_does_not_make_a_run_train_again(trained, store, capfd):
    words = [*trained[1][:-2], f"paths.results='{store.results}'", "evaluate.save_predictions=true"]
    (store.folder(scored_twice(store)) / "evaluations" / "Thumbs.db").touch()
    assert main(["train", *words, "fold=0"]) == 0
    said = capfd.readouterr()
    assert "set aside" not in said.err
    assert "epoch" not in said.err


def test_prune_shows_first_and_removes_on_request(store, capfd):
    first, second = store.run_ids()
    write_whole(store.log(first), "old trouble")
    write_whole(store.checkpoints(first) / "000000001" / "rest.pt", "x")
    write_whole(store.runs / f".{'a' * 16}.12345678" / "cases.csv", "half")
    working = store.runs / f".{'b' * 16}.12345678"
    write_whole(working / "cases.csv", "half")
    with lease(store.lease_file("b" * 16)):
        assert runs(store, "prune", "seed=99", "confirm=true") == 0
        assert "0 items, 0.0 MiB, removed (no run has seed=99;" in capfd.readouterr().out
        assert runs(store, "prune") == 0
        assert "3 items" in capfd.readouterr().out
        assert store.log(first).is_file()
        assert runs(store, "prune", "confirm=true") == 0
        assert working.is_dir()
    assert not store.log(first).is_file()
    assert not store.checkpoints(first).exists()
    assert store.run_ids() == [first, second]
    capfd.readouterr()
    assert runs(store, "prune", "fold=1", "confirm=true") == 0
    assert len(store.run_ids()) == 1


def test_what_is_kept_of_unfinished_runs_goes_on_request_only(store, capfd):
    for number, run_id in enumerate(("a" * 16, "b" * 16, "c" * 16)):
        Checkpoints(store.checkpoints(run_id), None, None, title=f"lidc/{number}").save(40, State({}, {}))
    Checkpoints(store.checkpoints("a" * 16), None, None, title="lidc/0").finish(80, {}, {})
    write_whole(store.log("b" * 16), "Traceback\nValueError: oh\n")
    with lease(store.lease_file("c" * 16)):
        assert runs(store, "list", "status=interrupted,failed") == 0
        listed = capfd.readouterr().out
        assert "lidc/0 (trained, not scored)" in listed
        assert "2 runs" in listed, "the last one is running"
        assert runs(store, "prune", "confirm=true") == 0
        assert len(list(store.results.glob("checkpoints/*/0*"))) == 3
        assert runs(store, "prune", "status=interrupted", "confirm=true") == 0
        assert sorted(path.name for path in store.results.glob("checkpoints/*")) == ["b" * 16, "c" * 16]
        assert runs(store, "prune", "status=failed", "confirm=true") == 0
    assert [path.name for path in store.results.glob("checkpoints/*")] == ["c" * 16]
    assert not store.log("b" * 16).exists()
    assert runs(store, "list", "c" * 16) == 0
    assert "lidc/2 (kept after 40 steps)" in capfd.readouterr().out
    assert len(store.run_ids()) == 2


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["nope"], "nope"),
        (["list", "colour=red"], "colour"),
        (["show"], "2 match"),
        (["prune", "confirm=yes"], "confirm is 'yes'"),
        (["show", "0000nothing"], "0000nothing"),
        (["list", "paths.results=/nowhere"], "/nowhere"),
    ],
)
def test_errors_of_use(store, words, named, capfd):
    assert runs(store, *words) == 2
    assert named in capfd.readouterr().err


def test_listing_many_runs_is_fast_and_needs_no_torch(store):
    import subprocess
    import sys

    run_id = store.run_ids()[0]
    for number in range(200):
        shutil.copytree(store.folder(run_id), store.runs / f"{number:016x}")
    code = (
        "import sys; from dmseg.cli.main import main; main(['runs', f'paths.results={sys.argv[1]}'])\n"
        "assert not {'torch', 'hydra', 'pandas'} & set(sys.modules)"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code, store.results], capture_output=True, text=True, check=False)
    print(f"{time.monotonic() - start:.2f} s for 202 runs")
    assert done.returncode == 0, done.stderr
    assert "202 runs" in done.stdout
