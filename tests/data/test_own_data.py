"""Own data sets: slices of different sizes, cases without slices, and what the example adapter refuses."""

import runpy
import sys
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from dmseg.config.settings import FoldSettings
from dmseg.data.case import About, Adapter, Case, CaseFiles, Slice, Task
from dmseg.data.geometry import find_geometry
from dmseg.data.prepared import PreparedTask, prepare
from dmseg.errors import UserError
from dmseg.runs.sources import fold_split

EXAMPLE = Path(__file__).parents[2] / "examples/my_dataset/my_dataset.py"
SPACING = (0.5, 0.75, 3.0)


class Sized(Adapter):
    """Cases with slices of the given sizes (H, W), in pixels."""

    about = About(None, "none", "nowhere")
    tasks = MappingProxyType({"thing": Task("thing", "Thing", "things", ("ann",))})

    def __init__(self, sizes, spacing=SPACING):
        self.sizes, self.spacing = sizes, spacing

    def list_cases(self, task):
        return [CaseFiles(f"c{number}", len(sizes), ()) for number, sizes in enumerate(self.sizes)]

    def read_case(self, task, files):
        slices = [
            Slice(np.arange(h * w, dtype=np.float32).reshape(1, h, w), np.eye(h, w, dtype=np.uint8)[None])
            for h, w in self.sizes[int(files.case[1:])]
        ]
        return Case(files.case, (0,), np.array([[0.0, 1000.0]]), slices, spacing=self.spacing)


def stored(tmp_path, sizes, **options):
    adapter = Sized(sizes, **options)
    prepare(adapter, adapter.tasks["thing"], tmp_path / "own" / "store", 32, {})
    return PreparedTask(tmp_path / "own" / "store")


def test_the_spacing_is_kept_where_one_is_right(tmp_path):
    store = stored(tmp_path, [[(30, 40), (30, 40)], [(64, 16)], [(30, 40), (33, 40)]])
    expected = [(0.5 * 30 / 32, 0.75 * 40 / 32, 3.0), (0.5 * 2, 0.75 / 2, 3.0), None]
    assert [case.spacing and pytest.approx(case.spacing) for case in store.cases] == expected
    assert [case.sizes_differ for case in store.cases] == [False, False, True]
    assert [len(row) for row in store.manifest["geometry"].values()] == [2, 2, 3], "other stores stay as they were"


@pytest.mark.parametrize("metric", ["nsd", "hd95"])
def test_slices_that_differ_in_size_are_not_called_unknown(tmp_path, metric):
    store = stored(tmp_path, [[(30, 40), (30, 40)], [(30, 40), (33, 40)], [(30, 44), (30, 40)]])
    with pytest.raises(
        UserError, match=rf"{metric}.*in 2 of 3 cases slices differ in size.*\(c1, c2\); pad "
    ) as caught:
        find_geometry(store, [metric], None)
    assert "unknown" not in str(caught.value)
    assert "evaluate.spacing" not in str(caught.value), "no single spacing is right"
    assert find_geometry(store, [metric], [1, 2]).spacing == dict.fromkeys(("c0", "c1", "c2"), (1, 2))
    assert find_geometry(store, ["lesion_f1"], None).spacing is None


def test_without_spacing_sizes_may_differ(tmp_path):
    store = stored(tmp_path, [[(30, 40), (33, 40)]], spacing=None)
    assert not store.cases[0].sizes_differ
    with pytest.raises(UserError, match="the spacing of 1 of 1 cases is unknown"):
        find_geometry(store, ["nsd"], None)


def test_an_unfinished_store_remembers_sizes_that_differ(tmp_path, monkeypatch):
    sizes = [[(30, 40), (33, 40)]]
    monkeypatch.setattr("dmseg.data.prepared._assemble", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        stored(tmp_path, sizes)
    monkeypatch.undo()
    monkeypatch.setattr(Sized, "read_case", lambda *_: 1 / 0)
    assert stored(tmp_path, sizes).cases[0].sizes_differ


def test_a_fold_of_cases_without_slices_says_so(tmp_path):
    store = stored(tmp_path, [[(32, 32)], [], [(32, 32)], []])
    assert store.without_slices == ["c1", "c3"]
    folds = FoldSettings("contiguous", 4)
    assert fold_split(store, folds, 0).train == ("c2",)
    said = r"has 2 cases to train on, 0 to score: 2 of 4 cases have no slices to keep \(c1, c3\); choose other folds"
    with pytest.raises(UserError, match=said):
        fold_split(store, folds, 1)


def test_one_case_cannot_be_split(tmp_path):
    with pytest.raises(UserError, match=r"there is only one case, c0, but training and validation need"):
        fold_split(stored(tmp_path, [[(32, 32)]]), FoldSettings("contiguous", 5), 0)


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The example adapter on the data that it writes; and the folder of one case."""
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(tmp_path / "raw")])
    adapter = runpy.run_path(str(EXAMPLE), run_name="__main__")["NpyAdapter"](tmp_path / "raw")

    def store():
        prepare(adapter, adapter.tasks["blob"], tmp_path / "own" / "store", 48, {})
        return PreparedTask(tmp_path / "own" / "store")

    return store, tmp_path / "raw/case-07"


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64])
def test_the_example_takes_what_is_safe(example, kind):
    store, case = example
    mask, image = np.load(case / "rater-2.npy"), np.load(case / "image.npy").round()
    np.save(case / "rater-2.npy", mask.astype(kind))
    np.save(case / "image.npy", image.astype(np.uint8))
    whole = store()
    found = next(item for item in whole.cases if item.case == "case-07")
    assert np.array_equal(whole.annotations(found)[1, 0], mask)
    assert np.array_equal(whole.images[found.span][0, 0], image)


@pytest.mark.parametrize("factor", [0.9, 0.5, 1.5, 2])
def test_the_example_does_not_cut_masks_down(example, factor):
    store, case = example
    np.save(case / "rater-2.npy", np.load(case / "rater-2.npy") * factor)
    with pytest.raises(
        UserError, match=r"^case case-07, slice 0 \(.*case-07/image\.npy, .*rater-2\.npy.*\): annotations"
    ):
        store()


def test_the_example_names_faulty_files(example):
    store, case = example
    np.save(case / "rater-2.npy", np.load(case / "rater-2.npy")[:40])
    with pytest.raises(UserError, match=rf"^case case-07: {case}/rater-2\.npy has shape \(40, 48\), but its image has"):
        store()
    (case / "rater-2.npy").write_bytes(b"")
    with pytest.raises(UserError, match=rf"{case}/rater-2\.npy cannot be read"):
        store()
