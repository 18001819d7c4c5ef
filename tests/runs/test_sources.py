"""From settings to stores: splits outlive the store they were made in, and raw data are not needed for ever."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ensure_qubiq_case, save_nifti, write_lidc

from dmseg.cli.main import main
from dmseg.config.compose import compose_settings
from dmseg.data.adapters.lidc import LidcAdapter
from dmseg.data.split_files import seal_of
from dmseg.errors import UserError
from dmseg.runs.plan import plan_folds, plan_run
from dmseg.runs.sources import find_tasks, prepare_task, prepare_tasks
from dmseg.runs.status import run_status


def prepared(settings):
    (store,) = prepare_tasks(settings)
    return store


def found(overrides, notify=lambda text: None):
    return find_tasks(compose_settings(overrides), notify)


def tree(folder):
    return {path.relative_to(folder): path.is_file() and path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_split_survives_preparing_again(small_run, lidc_tree):
    settings = compose_settings([*small_run, "folds.kind=shuffled"])
    runs = plan_folds(settings, prepared(settings))
    path = runs[0].prepared_folder / "folds-shuffled-5-seed0.json"
    folds = json.loads(path.read_text())
    path.write_text(json.dumps([*folds[1:], folds[0]]))  # a split that would not be made again
    seal_of(path).unlink()
    before = [run.split for run in plan_folds(settings, prepared(settings))]
    mask = next(lidc_tree.rglob("mask-0/slice-0.png"))
    mask.write_bytes(next(lidc_tree.rglob("LIDC-IDRI-0005/*/mask-0/slice-0.png")).read_bytes())
    store = prepared(settings)
    again = plan_folds(settings, store)
    assert again[0].identity["data"] != runs[0].identity["data"], "the store is another"
    assert [run.split for run in again] == before
    assert [item.name for item in store.folder.parent.iterdir()] == [store.folder.name]


def test_a_killed_swap_leaves_the_split_for_the_next(small_run):
    settings = compose_settings([*small_run, "folds.kind=shuffled"])
    store = prepared(settings)
    plan_run(settings, store)
    content = (store.folder / "folds-shuffled-5-seed0.json").read_text()
    retired = store.folder.parent / f".{store.folder.name}.old.abc"
    retired.mkdir()
    store.folder.rename(retired / "store")
    changed = content.replace("0001", "9999").replace("0002", "0001").replace("9999", "0002")
    (retired / "store/folds-shuffled-5-seed0.json").write_text(changed)
    assert (prepared(settings).folder / "folds-shuffled-5-seed0.json").read_text() == changed
    assert not retired.exists()


def test_other_cases_are_refused_until_the_split_is_deleted(small_run, lidc_tree):
    settings = compose_settings(small_run)
    plan_run(settings, prepared(settings))
    folder = lidc_tree / "LIDC-IDRI-slices"
    shutil.copytree(folder / "LIDC-IDRI-0003", folder / "LIDC-IDRI-0077")
    shutil.rmtree(folder / "LIDC-IDRI-0004")
    store = prepared(settings)
    words = "LIDC-IDRI-0004 removed; LIDC-IDRI-0077 added; "
    with pytest.raises(UserError, match=words) as caught:
        plan_run(settings, store)
    with pytest.raises(UserError, match=words):
        plan_run(settings, *found(small_run))
    assert "\n" not in str(caught.value)
    path = Path(str(caught.value).split(" does not split")[0])
    path.unlink()
    assert "LIDC-IDRI-0077" in plan_run(settings, store).split.train


def test_a_split_from_a_file_names_the_runs(small_run, tmp_path):
    settings = compose_settings(small_run)
    runs = plan_folds(settings, prepared(settings))
    file = tmp_path / "splits_final.json"
    node = [{"train": list(run.split.train), "val": list(run.split.validation)} for run in runs]
    file.write_text(json.dumps(node))
    own = compose_settings([*small_run, f"folds.file='{file}'"])
    assert [run.run_id for run in plan_folds(own, prepared(own))] == [run.run_id for run in runs]
    file.write_text(json.dumps([node[0], node[1], {"train": node[0]["val"], "val": [*node[2]["train"][-2:], "x"]}]))
    with pytest.raises(UserError, match="lists x, which the data set does not have"):
        plan_folds(own, prepared(own))
    rest = [case for fold in node[2:] for case in fold["val"]]
    file.write_text(json.dumps([node[0], node[1], {"train": node[0]["val"], "val": rest}]))
    changed = plan_folds(own, prepared(own))
    assert [run.run_id in {run.run_id for run in runs} for run in changed] == [True, True, False]
    assert changed[2].split.train == runs[0].split.validation
    assert len(plan_folds(own, *found([*small_run, f"folds.file='{file}'"]))) == 3


def test_looking_finds_what_preparing_makes(small_run):
    """Same ids as after preparing; placeholders before, which no id can be."""
    settings = compose_settings([*small_run, "folds.kind=shuffled"])
    (before,) = find_tasks(settings)
    counted = plan_folds(settings, before)
    assert not before.folder.parent.exists()
    assert {run_status(run) for run in counted} == {"unknown"}
    assert len({run.run_id for run in counted}) == 5
    store = prepared(settings)
    assert store.folder == before.folder
    (after,) = find_tasks(settings)
    seen = [run.run_id for run in plan_folds(settings, after)]
    assert not list(store.folder.glob("folds-*"))
    runs = plan_folds(settings, store)
    assert seen == [run.run_id for run in runs]
    assert not set(seen) & {run.run_id for run in counted}
    assert {run_status(run) for run in runs} == {"missing"}


def test_an_outdated_store_is_not_taken_for_the_data(small_run, lidc_tree):
    prepared(compose_settings(small_run))
    write_lidc(lidc_tree, 13, np.random.default_rng(1))
    assert found(small_run)[0].store is None


def test_a_changed_phantom_is_not_taken_for_its_store(tmp_path):
    words = ["data=phantom_decathlon", "data.phantom.cases=5", f"paths.data='{tmp_path}'"]
    words += [f"paths.prepared='{tmp_path / 'prepared'}'", "data.size=16"]
    assert found(words)[0].task.name == "decathlon"
    assert not list(tmp_path.iterdir())
    store = prepared(compose_settings(words))
    assert found(words)[0].store.digest == store.digest
    assert found([*words, "data.phantom.cases=6"])[0].store is None
    with pytest.raises(UserError, match="number of cases"):
        found([*words, "data.phantom.cases=0"])
    shutil.rmtree(tmp_path / "phantom")
    before = tree(tmp_path)
    assert found(words)[0].store.digest == store.digest
    assert tree(tmp_path) == before


def write_sets(tmp_path):
    """Small data sets of every adapter: their overrides."""
    rng = np.random.default_rng(0)
    for number in range(1, 7):
        ensure_qubiq_case(tmp_path / f"qubiq/kidney/case{number:02d}", "kidney", 3, 1, rng)
    write_lidc(tmp_path / "lidc", 6, rng)
    label = np.zeros((8, 8, 8), np.uint8)
    label[2:6, 2:6, 2:6] = 2
    names = [f"t_{number}.nii.gz" for number in range(6)]
    for number, name in enumerate(names):
        image = rng.normal(size=label.shape).astype(np.float32)
        for path in (f"lits/volume-{number}.nii", f"kits/case_{number:05d}/imaging.nii.gz", f"decathlon/images/{name}"):
            save_nifti(tmp_path / path, image)
        for path in (
            f"lits/segmentation-{number}.nii",
            f"kits/case_{number:05d}/segmentation.nii.gz",
            f"decathlon/labels/{name}",
        ):
            save_nifti(tmp_path / path, label)
    dataset = {"name": "Tiny", "labels": {"0": "b", "2": "t"},
               "training": [{"image": f"images/{name}", "label": f"labels/{name}"} for name in names]}  # fmt: skip
    (tmp_path / "decathlon/dataset.json").write_text(json.dumps(dataset))


@pytest.mark.parametrize(
    ("data", "task"),
    [("qubiq", "kidney-1"), ("lidc", "nodule"), ("lits", "tumour"), ("kits", "tumour"), ("decathlon", "tiny")],
)
@pytest.mark.parametrize("how", ["removed", "emptied"])
def test_a_store_serves_without_the_raw_data(tmp_path, data, task, how):
    write_sets(tmp_path)
    words = [f"data={data}", f"data.root='{tmp_path / data}'", f"paths.prepared='{tmp_path / 'p'}'", "data.size=16"]
    if data == "qubiq":
        words.append("task=kidney-1")
    settings = compose_settings(words)
    runs = plan_folds(settings, prepared(settings))
    shutil.rmtree(tmp_path / data)
    if how == "emptied":
        (tmp_path / data).mkdir()
    said: list[str] = []
    (store,) = prepare_tasks(settings, said.append)
    assert [run.run_id for run in plan_folds(settings, store)] == [run.run_id for run in runs]
    assert said == [f"{data}/{task}: raw data not found; using the prepared store {store.folder}"]
    (seen,) = find_tasks(settings, said.append)
    assert [run.run_id for run in plan_folds(settings, seen)] == [run.run_id for run in runs]
    assert said == said[:1] * 2
    one = prepare_task(dataclasses.replace(settings, task=task))
    assert one.digest == store.digest
    other = compose_settings([*words, "data.size=17"])
    with pytest.raises(UserError, match=r"does not exist|no QUBIQ|no slices|no LiTS|no KiTS|it does not contain one"):
        prepared(other)
    with pytest.raises(UserError):
        prepare_task(dataclasses.replace(settings, task="another"))


def test_of_several_stores_without_raw_data_one_must_be_named(tmp_path, qubiq_tree):
    words = ["data=qubiq", f"data.root='{qubiq_tree}'", f"paths.prepared='{tmp_path / 'p'}'", "data.size=16"]
    settings = compose_settings(words)
    chosen = [dataclasses.replace(settings, task=f"prostate-{number}") for number in (1, 2)]
    kept = [prepare_task(one).folder for one in chosen]
    shutil.rmtree(qubiq_tree)
    with pytest.raises(UserError, match=r"task is not set.*prostate-1, prostate-2"):
        prepare_task(settings)
    assert [prepare_task(one).folder for one in chosen] == kept
    with pytest.raises(UserError, match=r"does not exist|no QUBIQ"):
        prepare_task(dataclasses.replace(settings, task="kidney-1"))


def test_a_fresh_prepare_lists_the_raw_files_once(small_run, monkeypatch):
    """Warnings about files that are not read would be printed twice."""
    calls, original = [], LidcAdapter.list_cases
    monkeypatch.setattr(LidcAdapter, "list_cases", lambda self, task: calls.append(task) or original(self, task))
    prepare_task(compose_settings(small_run))
    assert len(calls) == 1


def test_partly_missing_raw_data_are_an_error_still(small_run, lidc_tree):
    prepared(compose_settings(small_run))
    next(lidc_tree.rglob("mask-2/slice-0.png")).unlink()
    with pytest.raises(UserError, match="is missing"):
        prepared(compose_settings(small_run))


def test_training_without_the_raw_data(small_run, lidc_tree, capfd):
    assert main(["prepare", *small_run]) == 0
    shutil.rmtree(lidc_tree)
    assert main(["train", *small_run]) == 0
    said = capfd.readouterr()
    assert "lidc/nodule: raw data not found; using the prepared store" in said.err
    assert "mean over 2 cases" in said.out


def test_words_for_the_cases_of_a_task_that_is_not_prepared(small_run):
    settings = compose_settings(small_run)
    (data,) = find_tasks(settings)
    with pytest.raises(UserError, match="fold 5 does not exist"):
        plan_run(dataclasses.replace(settings, fold=5), data)
    with pytest.raises(UserError, match="labels_only"):
        find_tasks(dataclasses.replace(settings, data=dataclasses.replace(settings.data, labels_only=True)))
    with pytest.raises(UserError, match="there is no task 'other'"):
        find_tasks(dataclasses.replace(settings, task="other"))
