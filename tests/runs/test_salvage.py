"""A run whose weights are intact is never trained again: what else was lost is scored, or left out."""

import json
import shutil
from types import SimpleNamespace

import pandas as pd
import pytest

from dmseg.cli.main import main
from dmseg.config.compose import compose_settings
from dmseg.errors import UserError
from dmseg.runs.plan import plan_run
from dmseg.runs.salvage import find_intact, refuse_lost_weights
from dmseg.runs.sources import prepare_task
from dmseg.runs.store import RunStore

FILES = ("cases.csv", "evaluation.json", "counts.npz", "pack.npz", "history.csv")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    import numpy as np
    from conftest import write_lidc

    place = tmp_path_factory.mktemp("salvage")
    tree = write_lidc(place / "lidc", 12, np.random.default_rng(1))
    words = [
        "data=lidc", f"data.root='{tree}'", "data.size=32", "model=unet_tiny", "train.epochs=1", "train.batch_size=4",
        "threads=1", f"paths.prepared='{place / 'prepared'}'", "evaluate.save_predictions=true",
    ]  # fmt: skip
    for more in ([], ["evaluate.empty=one"]):
        assert main(["train", *words, f"paths.results='{place / 'results'}'", *more]) == 0
    return place / "results", words


@pytest.fixture
def study(trained, tmp_path, monkeypatch):
    """A copy of the store, the words of its run, and its folder; training is an error."""
    shutil.copytree(trained[0], tmp_path / "results")
    store = RunStore(tmp_path / "results")
    (run_id,) = store.run_ids()

    def refuse(*args, **options):
        raise AssertionError("it is trained again")

    monkeypatch.setattr("dmseg.runs.execute.fit", refuse)
    return store, [*trained[1], f"paths.results='{store.results}'"], store.folder(run_id)


def contents(folder, names=FILES):
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


@pytest.mark.parametrize(("name", "how"), [*((name, "removed") for name in FILES), ("cases.csv", "changed")])
def test_a_lost_file_is_computed_from_the_weights(study, name, how):
    store, words, folder = study
    before, manifest = contents(folder), (folder / "manifest.json").read_bytes()
    weights = (folder / "weights.safetensors").read_bytes()
    later = contents(next(folder.glob("evaluations/*")))
    if how == "removed":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(before[name] + b"x")
    assert main(["train", *words]) == 0
    assert store.damage(folder.name, every_file=True) == []
    after = contents(folder)
    lost = {"history.csv"} if name == "history.csv" else set()
    assert set(after) == set(before) - lost
    for same in set(FILES) - lost - {"counts.npz", "pack.npz", "cases.csv"}:
        assert after[same] == before[same]
    frames = [pd.read_csv(folder / "cases.csv").set_index("case")[["dice", "bdice", "ece"]]]
    (folder / "cases.csv").write_bytes(before["cases.csv"])
    frames.append(pd.read_csv(folder / "cases.csv").set_index("case")[["dice", "bdice", "ece"]])
    pd.testing.assert_frame_equal(*frames, atol=1e-6)
    assert (folder / "manifest.json").read_bytes() == manifest
    assert (folder / "weights.safetensors").read_bytes() == weights
    assert contents(next(folder.glob("evaluations/*"))) == later
    assert (store.results / "damaged" / f"{folder.name}-1").is_dir(), "what was damaged is kept for people to look at"


def test_verify_aside_and_the_same_command_only_score(study, caplog):
    store, words, folder = study
    (folder / "cases.csv").unlink()
    assert main(["runs", "verify", "aside=true", f"paths.results={store.results}"]) == 1
    assert main(["train", *words]) == 0
    assert any("is restored from its weights in" in record.getMessage() for record in caplog.records)
    assert store.damage(folder.name, every_file=True) == []


def test_another_evaluation_than_the_first_is_asked_for(study):
    store, words, folder = study
    (folder / "evaluation.json").unlink()
    assert main(["train", *words, "evaluate.bins=7"]) == 0
    settings = compose_settings([*words, "evaluate.bins=7"])
    run = plan_run(settings, prepare_task(settings))
    assert store.has_evaluation(folder.name, run.evaluation_id)
    assert store.damage(folder.name, every_file=True) == []


def test_what_was_lost_of_another_evaluation_is_not_computed_with_these_settings(study):
    store, words, folder = study
    (folder / "counts.npz").unlink()
    assert main(["train", *words, "evaluate.bins=7"]) == 0
    assert not (folder / "counts.npz").exists()
    assert store.damage(folder.name, every_file=True) == []


def test_only_the_last_folder_that_a_run_was_set_aside_in_counts(study):
    store, _, folder = study
    for number in (2, 10):
        shutil.copytree(folder, store.results / "damaged" / f"{folder.name}-{number}")
    assert find_intact(store, folder.name) == store.results / "damaged" / f"{folder.name}-10"
    (store.results / "damaged" / f"{folder.name}-10" / "weights.safetensors").write_bytes(b"x")
    assert find_intact(store, folder.name) is None


def test_lost_weights_of_a_teacher_are_needed(study, monkeypatch):
    store, _, folder = study
    (folder / "weights.safetensors").unlink()
    teacher = SimpleNamespace(run_id=folder.name, results=store.results, title="the teacher", teacher=None)
    student = SimpleNamespace(run_id="0" * 16, results=store.results, title="the student", teacher=teacher)
    assert refuse_lost_weights([teacher, student], []) == [teacher]
    with pytest.raises(UserError, match="is missing, but needed to score the teacher or to use it as a teacher"):
        refuse_lost_weights([teacher, student], [student])


def test_changed_weights_are_not_used(study, capfd):
    _, words, folder = study
    content = bytearray((folder / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(content)
    (folder / "cases.csv").unlink()
    assert main(["train", *words]) == 1
    assert "AssertionError: it is trained again" in capfd.readouterr().err


def test_content_that_does_not_fit_its_run_is_not_restored(study, capfd):
    """Valid checksums of a manifest of another run."""
    from dmseg.files.regular import checksum

    _, words, folder = study
    node = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(node | {"run_id": "0" * 16}))
    known = json.loads((folder / "DONE").read_text())
    (folder / "DONE").write_text(json.dumps(known | {"manifest.json": checksum(folder / "manifest.json")}))
    assert main(["train", *words]) == 1
    assert "AssertionError: it is trained again" in capfd.readouterr().err


def test_lost_weights_are_said_and_scores_kept(study, capfd):
    store, words, folder = study
    before = contents(folder)
    (folder / "weights.safetensors").unlink()
    assert main(["train", *words]) == 0
    assert f"the weights of 1 run are missing; their scores are kept: {folder.name}" in capfd.readouterr().err
    assert contents(folder) == before
    assert main(["runs", "list", f"paths.results={store.results}"]) == 0
    assert "(weights are missing)" in capfd.readouterr().out


def test_lost_weights_that_are_needed_stop_the_command_at_once(study, capfd):
    store, words, folder = study
    (folder / "weights.safetensors").unlink()
    assert main(["train", *words, "evaluate.bins=7"]) == 2
    said = capfd.readouterr().err
    assert f"{folder / 'weights.safetensors'} is missing" in said
    assert f"runs verify aside=true {folder.name} paths.results={store.results}'" in said
    assert main(["runs", "verify", "aside=true", folder.name, f"paths.results={store.results}"]) == 1
    assert not folder.exists()
