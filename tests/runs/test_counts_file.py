"""``counts.npz``: its bytes, what it holds, runs that were stored without it, copies, and files made by others."""

import io
import json
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest
from conftest import write_lidc

from dmseg.config.compose import compose_settings
from dmseg.files.regular import checksums
from dmseg.files.schema import SchemaError
from dmseg.metrics.counting import count_stored
from dmseg.metrics.named import COUNT_METRICS
from dmseg.metrics.stored_counts import ARRAYS, majority_dice
from dmseg.runs.counts_file import check_counts, read_counts, write_counts
from dmseg.runs.execute import execute
from dmseg.runs.plan import plan_run
from dmseg.runs.sources import prepare_task
from dmseg.runs.store import RunStore
from dmseg.runs.transfer import export_runs, import_runs


def case_counts(seed, n_raters=3, n_slices=2):
    rng = np.random.default_rng(seed)
    raters = rng.random((n_raters, n_slices, 6, 7)) < 0.3
    return count_stored(rng.random((n_slices, 6, 7), dtype=np.float32), raters, raters.mean(axis=0).astype(np.float32))


@pytest.fixture
def written(tmp_path):
    counts = {"b": case_counts(1), "a": case_counts(2, 4, 1), "NA": case_counts(3, 1, 3)}
    write_counts(tmp_path / "counts.npz", counts)
    return tmp_path, counts


def test_counts_come_back_as_they_were(written):
    folder, counts = written
    found = read_counts(folder, {"ties": "foreground", "empty": "one"})
    assert list(found) == ["b", "a", "NA"]
    for case, own in counts.items():
        assert (found[case].bins, found[case].ties, found[case].empty) == (10, "foreground", "one")
        for name in (*ARRAYS, "cuts"):
            np.testing.assert_array_equal(getattr(found[case], name), getattr(own, name))
            assert getattr(found[case], name).dtype == getattr(own, name).dtype
    content = (folder / "counts.npz").read_bytes()
    check_counts(content, ["b", "a", "NA"])
    with pytest.raises(SchemaError, match="cases are not those"):
        check_counts(content, ["a", "b", "NA"])
    with np.load(folder / "counts.npz", allow_pickle=False) as plain:
        assert plain["case"].tolist() == list(counts)


def test_equal_counts_give_equal_bytes(written, monkeypatch):
    folder, counts = written
    before = (folder / "counts.npz").read_bytes()
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_counts(folder / "counts.npz", counts)
    assert (folder / "counts.npz").read_bytes() == before


def rewritten(folder, change):
    with np.load(folder / "counts.npz") as plain:
        arrays = dict(plain)
    change(arrays)
    np.savez_compressed(folder / "counts.npz", **arrays)


def put(name, index, value):
    def change(arrays):
        arrays[name][index] = value

    return change


def new(name, value):
    return lambda arrays: arrays.__setitem__(name, value)


FALSE = {
    "negative": put("cells", (0, 0, 0), -1),
    "not a number": put("sums", (0, 0, 0), np.nan),
    "infinite": put("log_loss", (0, 0), np.inf),
    "more than the pixels": put("raters", (0, 0, 0), 10**6),
    "another sum": put("joint", (0, 0, 0, 0), 10**6),
    "sum of probabilities": put("sums", (0, 0, 0), 1e9),
    "votes": put("votes", 0, 10**6),
    "slices": put("slices", (0, 0, 0), 10**6),
    "band": put("band", (0, 0, 0, 0), 10**6),
    "shared": put("shared", 0, 10**6),
    "no rater": put("n_raters", 0, 0),
    "many raters": put("n_raters", 0, 2**62),
    "case twice": put("case", 0, "a"),
    "case that leaves the folder": put("case", 0, "../x"),
    "cuts that fall": put("cuts", 0, 0.95),
    "bins": new("bins", np.array(0)),
    "another type": new("cells", np.zeros((3, 3, 19))),
    "objects": new("votes", np.array([{}, 1], dtype=object)),
    "fortran order": new("band_sums", np.asfortranarray(np.ones((3, 2, 4)))),
    "another array": new("more", np.zeros(3)),
    "no array": lambda arrays: arrays.pop("votes"),
    "big endian": lambda arrays: arrays.__setitem__("votes", arrays["votes"].astype(">i8")),
    "one case less": lambda arrays: arrays.__setitem__("case", arrays["case"][:2]),
}


@pytest.mark.parametrize("name", FALSE)
def test_false_counts_are_refused(written, name):
    rewritten(written[0], FALSE[name])
    with pytest.raises(SchemaError, match=r"counts\.npz"):
        read_counts(written[0], {})


def header_of(shape):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<i8", "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("content", [b"", b"PK", b"no zip" * 50, None, "cut", "flipped", "header", "twice", "bomb"])
def test_files_that_are_no_counts(written, content):
    path = written[0] / "counts.npz"
    sound = path.read_bytes()
    if content == "cut":
        path.write_bytes(sound[: len(sound) // 2])
    elif content == "flipped":
        path.write_bytes(bytes(value ^ (index % 97 == 5) for index, value in enumerate(sound)))
    elif content in ("header", "twice", "bomb"):
        with zipfile.ZipFile(io.BytesIO(sound)) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
            for name in source.namelist():
                data = source.read(name)
                if name == "votes.npy" and content == "header":  # 8 EiB
                    data = header_of((2**60,)) + bytes(8)
                if name == "votes.npy" and content == "bomb":
                    data = header_of((2**26,)) + bytes(2**29)
                target.writestr(name, data)
                if name == "votes.npy" and content == "twice":
                    target.writestr(name, data)
    elif content is None:
        np.savez(path, case=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    else:
        path.write_bytes(content)
    with pytest.raises(SchemaError, match=r"counts\.npz"):
        read_counts(written[0], {})


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A trained run of cases with four raters, as earlier versions stored it: without counts."""
    place = tmp_path_factory.mktemp("counted")
    tree = write_lidc(place / "lidc", 6, np.random.default_rng(1), size=32)
    words = [
        "data=lidc", f"data.root='{tree}'", "data.size=32", "model=unet_tiny", "folds.count=2", "train.epochs=1",
        f"paths.prepared='{place / 'prepared'}'", "train.batch_size=2", "device=cpu",
    ]  # fmt: skip
    run = planned(words, place / "results")
    execute(run)
    return place, words


def planned(words, results, *more):
    settings = compose_settings([*words, f"paths.results='{results}'", *more])
    return plan_run(settings, prepare_task(settings))


def without_counts(study, tmp_path):
    shutil.copytree(study[0] / "results", tmp_path / "old")
    run = planned(study[1], tmp_path / "old")
    folder = RunStore(run.results).folder(run.run_id)
    (folder / "counts.npz").unlink()
    (folder / "DONE").unlink()
    (folder / "DONE").write_text(json.dumps(checksums(folder)))
    return run


def test_counts_give_the_scores_of_the_run(study):
    run = planned(study[1], study[0] / "results")
    store = RunStore(run.results)
    assert store.damage(run.run_id) == []
    cases, counts = store.read_cases(run.run_id, run.evaluation_id), store.read_counts(run.run_id, run.evaluation_id)
    assert list(counts) == list(cases["case"])
    for row in cases.itertuples():
        assert majority_dice(counts[row.case]) == pytest.approx(row.dice, nan_ok=True)
        assert counts[row.case].n_pixels == row.n_pixels


@pytest.mark.parametrize("key", ["evaluate.metrics=[brier,nll]", "evaluate.metrics=[]"])
def test_metrics_from_counts_do_not_change_the_evaluation(study, key):
    assert planned(study[1], "results", key).evaluation_id == planned(study[1], "results").evaluation_id


def test_the_rule_for_ties_names_another_evaluation(study, tmp_path):
    shutil.copytree(study[0] / "results", tmp_path / "results")
    plain = planned(study[1], tmp_path / "results")
    run = planned(study[1], tmp_path / "results", "evaluate.ties=foreground")
    assert run.run_id == plain.run_id
    assert run.evaluation_id != plain.evaluation_id
    execute(run)
    store = RunStore(run.results)
    first, other = (store.read_counts(item.run_id, item.evaluation_id) for item in (plain, run))
    scores = [store.read_cases(item.run_id, item.evaluation_id).set_index("case") for item in (plain, run)]
    for case in first:
        assert COUNT_METRICS["dice_other_ties"](first[case]) == pytest.approx(scores[1].loc[case, "dice"], nan_ok=True)
        assert COUNT_METRICS["dice_other_ties"](other[case]) == pytest.approx(scores[0].loc[case, "dice"], nan_ok=True)
    assert (scores[1]["n_foreground"] > scores[0]["n_foreground"]).any()


def test_counts_are_added_to_a_run_that_has_none(study, tmp_path):
    run = without_counts(study, tmp_path)
    store = RunStore(run.results)
    before = (store.folder(run.run_id) / "cases.csv").read_bytes()
    assert store.damage(run.run_id) == []
    assert store.read_counts(run.run_id, run.evaluation_id) is None
    assert not execute(run)  # nobody asked for metrics
    asked = planned(study[1], run.results, "evaluate.metrics=[brier]")
    assert execute(asked)
    assert not execute(asked)
    assert store.damage(run.run_id) == []
    assert store.read_counts(run.run_id, run.evaluation_id)
    assert (store.evaluation_folder(run.run_id, run.evaluation_id) / "cases.csv").read_bytes() == before


def test_exports_carry_counts_also_if_they_were_added(study, tmp_path):
    run = without_counts(study, tmp_path)
    old = RunStore(run.results)
    export_runs([(old, run.run_id)], tmp_path / "early", weights=False)
    target = RunStore(tmp_path / "target")
    import_runs(tmp_path / "early", target)
    assert target.read_counts(run.run_id, run.evaluation_id) is None
    asked = planned(study[1], target.results, "evaluate.metrics=[brier]")
    assert not execute(asked)  # imported without weights: nothing can be added
    execute(planned(study[1], old.results, "evaluate.metrics=[brier]"))
    export_runs([(old, run.run_id)], tmp_path / "late", weights=False)
    import_runs(tmp_path / "late", target)
    found, own = (store.read_counts(run.run_id, run.evaluation_id) for store in (target, old))
    assert target.damage(run.run_id) == []
    assert pd.Series(found).index.equals(pd.Series(own).index)
    np.testing.assert_array_equal(found[min(found)].cells, own[min(own)].cells)


def test_a_damaged_file_is_named(study, tmp_path):
    shutil.copytree(study[0] / "results", tmp_path / "results")
    run = planned(study[1], tmp_path / "results")
    path = RunStore(run.results).folder(run.run_id) / "counts.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert "counts.npz is damaged" in RunStore(run.results).damage(run.run_id)[0]
