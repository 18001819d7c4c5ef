"""A prepared store is found by what it was made of, wherever the raw data and the store are now."""

import os
import re
import shutil

import numpy as np
import pytest
from conftest import write_lidc

from dmseg.config.compose import compose_settings
from dmseg.errors import UserError
from dmseg.runs.plan import plan_folds
from dmseg.runs.sources import find_tasks, prepare_tasks


def words(folder, root="lidc"):
    return [
        "data=lidc",
        f"data.root='{folder / root}'",
        f"paths.prepared='{folder / 'prepared'}'",
        "data.size=16",
        "folds.kind=shuffled",
    ]


def ids(overrides, notify=lambda text: None):
    settings = compose_settings(overrides)
    (store,) = prepare_tasks(settings, notify)
    (found,) = find_tasks(settings)
    assert found.store is not None
    assert found.store.folder == store.folder
    runs = [run.run_id for run in plan_folds(settings, store)]
    assert runs == [run.run_id for run in plan_folds(settings, found)]
    return store.folder, runs


@pytest.fixture
def project(tmp_path):
    write_lidc(tmp_path / "old/lidc", 6, np.random.default_rng(0))
    return tmp_path / "old"


def test_a_moved_project_keeps_its_stores(project, tmp_path):
    folder, runs = ids(words(project))
    (folder / "manifest.json").touch()
    project.rename(tmp_path / "new")
    moved, again = ids(words(tmp_path / "new"))
    assert moved == tmp_path / "new/prepared/lidc" / folder.name
    assert again == runs
    assert [path.name for path in moved.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("how", ["link", "inner folder", "copy with other times"])
def test_the_same_files_at_another_path_are_the_same_data(project, how):
    known = ids(words(project))
    root = "other"
    if how == "link":
        (project / "other").symlink_to(project / "lidc")
    elif how == "inner folder":
        root = "lidc/LIDC-IDRI-slices"
    else:
        shutil.copytree(project / "lidc", project / "other", copy_function=shutil.copyfile)
    assert ids(words(project, root)) == known


def test_a_moved_project_may_be_read_only(project, tmp_path, monkeypatch):
    known = ids(words(project))
    project.rename(tmp_path / "new")

    def refuse(*args, **options):
        raise PermissionError(13, "read-only")

    monkeypatch.setattr("dmseg.data.fingerprints.write_whole", refuse)
    monkeypatch.setattr("dmseg.data.prepared.scratch_folder", refuse)
    assert ids(words(tmp_path / "new"))[1] == known[1]


def test_other_content_of_the_same_size_and_time_is_other_data(project):
    folder, _ = ids(words(project))
    shutil.copytree(project / "lidc", project / "other")
    (image, *_) = sorted((project / "other").rglob("images/slice-0.png"))
    content, times = bytearray(image.read_bytes()), image.stat()
    (donor, *_) = sorted((project / "lidc").rglob("LIDC-IDRI-0002/*/images/slice-0.png"))
    image.write_bytes(donor.read_bytes().ljust(len(content), b"\0")[: len(content)])
    changed = image.read_bytes() != bytes(content)
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert changed
    (found,) = find_tasks(compose_settings(words(project, "other")))
    assert found.store is None
    assert found.folder != folder


def test_further_cases_are_other_data(project):
    folder, _ = ids(words(project))
    shutil.copytree(project / "lidc", project / "other")
    write_lidc(project / "other", 7, np.random.default_rng(0))
    other, _ = ids(words(project, "other"))
    assert other != folder


def test_a_project_that_was_moved_without_its_raw_data(project, tmp_path):
    folder, runs = ids(words(project))
    shutil.rmtree(project / "lidc")
    project.rename(tmp_path / "new")
    said = []
    moved, again = ids(words(tmp_path / "new"), said.append)
    assert again == runs
    assert moved.name == folder.name
    assert said == [
        f"lidc/nodule: raw data not found; using the prepared store {moved}, which was prepared from "
        f"{project / 'lidc/LIDC-IDRI-slices'}"
    ]


def test_a_misspelt_root_does_not_choose_another_store(project):
    folder, _ = ids(words(project))
    shutil.rmtree(project / "lidc")
    with pytest.raises(UserError, match=r"set data\.root to where its data were: .* was prepared from") as caught:
        list(prepare_tasks(compose_settings(words(project, "lidc-b"))))
    assert str(folder) in str(caught.value)


def test_two_stores_that_fit_are_not_chosen_between(project, tmp_path):
    ids(words(project))
    (tmp_path / "b/lidc").parent.mkdir()
    write_lidc(tmp_path / "b/lidc", 6, np.random.default_rng(1))
    ids([*words(project), f"data.root='{tmp_path / 'b/lidc'}'"])
    for place in (project / "lidc", tmp_path / "b/lidc"):
        shutil.rmtree(place)
    with pytest.raises(UserError, match="two stores of lidc/nodule were prepared from other folders"):
        list(prepare_tasks(compose_settings([*words(project), f"data.root='{tmp_path / 'c/lidc'}'"])))


def test_phantoms_of_other_settings_are_side_by_side(tmp_path):
    """A try with fewer cases leaves the store and the split of the first phantom as they were."""
    own = ["data=phantom_decathlon", f"paths.data='{tmp_path}'", f"paths.prepared='{tmp_path / 'p'}'", "data.size=16"]
    first = ids([*own, "data.phantom.cases=6"])
    second = ids([*own, "data.phantom.cases=5"])
    assert first[0] != second[0]
    assert ids([*own, "data.phantom.cases=6"]) == first
    assert len(list((tmp_path / "phantom").iterdir())) == 2


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ([], r"qubiq-seed0-scale1\.0"),
        (["data.phantom.seed=1", "data.phantom.scale=0.5"], r"qubiq-seed1-scale0\.5"),
        (["data.phantom.cases={kidney:8}"], r"qubiq-seed0-scale1\.0-[0-9a-f]{8}"),
        (["data.phantom.view=2"], r"qubiq-seed0-scale1\.0-[0-9a-f]{8}"),
        (["data.phantom.cases={kidney:8}", "data.root=own"], "own"),
    ],
)
def test_the_default_folder_of_a_phantom(more, name):
    root = compose_settings(["data=phantom", *more]).data.root
    assert re.fullmatch(name, root.rpartition("/")[2])
