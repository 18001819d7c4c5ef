"""Commands on prepared stores that are damaged, or were written before stores were sealed."""

import json
import re
import shutil

import numpy as np
import pytest
from conftest import flips

from dmseg.cli.main import main
from dmseg.config.compose import compose_settings
from dmseg.runs.sources import find_tasks

FILES = ("manifest.json", "images.npy", "annotations.npy")


@pytest.fixture
def store(small_run):
    assert main(["prepare", *small_run]) == 0
    (folder,) = folder_of(small_run).parent.iterdir()
    return folder


def folder_of(words):
    return find_tasks(compose_settings(words))[0].folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def damage(path, seed=0):
    path.write_bytes(list(flips(path.read_bytes(), seed))[-1])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["changed", "cut", "missing"])
def test_prepare_makes_a_damaged_store_again_and_says_so(small_run, store, name, how, caplog):
    whole = contents(store)
    if how == "changed":
        damage(store / name)
    elif how == "cut":
        (store / name).write_bytes(whole[name][:-100])
    else:
        (store / name).unlink()
    assert find_tasks(compose_settings(small_run))[0].store is None
    caplog.clear()
    assert main(["prepare", *small_run]) == 0
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith(f"{store / name} is ")
    assert told.endswith("; the store is prepared again")
    after = contents(store)
    assert {key: after[key] for key in FILES} == {key: whole[key] for key in FILES}


@pytest.mark.parametrize("command", ["prepare", "train", "cv", "reproduce", "plan"])
def test_without_raw_data_a_damaged_store_is_named(small_run, store, lidc_tree, command, capsys):
    shutil.rmtree(lidc_tree)
    words = ["table=2", *[word for word in small_run if not word.startswith(("model", "labels"))]]
    words = words if command in ("reproduce", "plan") else small_run
    assert main(["prepare", *small_run]) == 0, "a whole one is used"
    damage(store / "images.npy")
    before = contents(store)
    capsys.readouterr()
    status = main([command, *words])
    told = capsys.readouterr().err
    assert f"{store / 'images.npy'} is damaged" in told.replace("\n", "")
    assert "Traceback" not in told
    assert contents(store) == before
    if command == "plan":
        assert status == 0
        assert "it counts as not prepared" in told
    else:
        assert status == 2
        assert len(told.strip().splitlines()) <= 3
        assert "put them there, or restore the file" in told


def test_planning_names_a_damaged_store_and_writes_nothing(small_run, store):
    damage(store / "annotations.npy")
    before = contents(store)
    told = []
    (found,) = find_tasks(compose_settings(small_run), told.append)
    assert found.store is None
    assert len(told) == 1
    assert re.fullmatch(rf"{store / 'annotations.npy'} is damaged \(.*\); it counts as not prepared", told[0])
    assert contents(store) == before


def test_a_store_of_before_is_sealed_without_raw_data(small_run, store, lidc_tree):
    sealed = (store / "seal.json").read_bytes()
    (store / "seal.json").unlink()
    shutil.rmtree(lidc_tree)
    assert find_tasks(compose_settings(small_run))[0].store is not None
    assert not (store / "seal.json").exists(), "planning writes nothing"
    assert main(["prepare", *small_run]) == 0
    assert (store / "seal.json").read_bytes() == sealed
    (store / "seal.json").unlink()
    damage(store / "images.npy")
    assert main(["prepare", *small_run]) == 2
    assert not (store / "seal.json").exists()


def test_verify(small_run, store, tmp_path, capsys):
    prepared = next(word for word in small_run if word.startswith("paths.prepared="))
    assert main(["train", *small_run]) == 0
    capsys.readouterr()
    for words in ([prepared], ["data=lidc", prepared], ["data=lidc", "task=nodule", prepared]):
        assert main(["data", "verify", *words]) == 0
        assert capsys.readouterr().out == f"{store} is intact\n1 of 1 stores are intact\n"
    other = shutil.copytree(store, store.parent.parent / "other/a-task-32-0123abcd")
    (other / "seal.json").unlink()
    damage(store / "images.npy")
    folds = next(store.glob("folds-*.json"))
    folds.write_text(json.dumps(json.loads(folds.read_text())[::-1]))
    assert main(["data", "verify", prepared]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"{store / 'images.npy'} is damaged (its checksum does not match)"
    assert told[1].startswith(f"{folds} has been edited or damaged: ")
    assert told[2].startswith(f"{other} is intact, no checksums yet")
    assert told[3:] == ["1 of 2 stores are intact"]
    assert main(["data", "verify", "data=lits", prepared]) == 2
    assert "has no such prepared store" in capsys.readouterr().err
    assert main(["data", "verify", "data=lidc", "task=other", prepared]) == 2


def test_an_edited_split_is_named_and_kept_when_the_store_is_made_again(small_run, store, capsys, caplog):
    assert main(["train", *small_run]) == 0
    folds = next(store.glob("folds-*.json"))
    folds.write_text(json.dumps(json.loads(folds.read_text())[::-1]))
    damage(store / "images.npy")
    capsys.readouterr()
    assert main(["train", *small_run]) == 2
    told = capsys.readouterr().err.replace("\n", " ")
    assert caplog.records[-1].getMessage().endswith("the store is prepared again")
    assert f"{folds} has been edited or damaged" in told
    seal = folds.with_name(f"{folds.name}.sha256")
    assert f"delete {seal.name} to use the split as it is now" in told
    seal.unlink()
    assert main(["train", *small_run]) == 0
    assert seal.exists()


def test_arrays_of_another_type_do_not_train(small_run, store, lidc_tree):
    shutil.rmtree(lidc_tree)
    images = np.load(store / "images.npy")
    np.save(store / "images.npy", images.astype(np.float32))
    assert main(["train", *small_run]) == 2
