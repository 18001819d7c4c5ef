"""``pack.npz``: which cases it shows, its bytes, runs stored without it, copies, and files made by others."""

import json
import math
import shutil

import numpy as np
import pytest
from PIL import Image

from dmseg.config.compose import compose_settings
from dmseg.errors import UserError
from dmseg.files.regular import checksums
from dmseg.files.schema import SchemaError
from dmseg.runs.execute import execute
from dmseg.runs.pack_file import LARGEST_PACK, check_pack, read_pack, write_pack
from dmseg.runs.plan import plan_run
from dmseg.runs.sources import prepare_task
from dmseg.runs.store import RunStore
from dmseg.runs.transfer import export_runs, import_runs
from dmseg.training.pictures import Gallery, Picture, shrink, take_picture

LAYERS = ("image", "raters", "reference", "probability")


def arrays_of(seed, n_raters=3, n_slices=2, size=24, dtype=np.uint8):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, np.iinfo(dtype).max, (n_slices, 2, size, size), dtype=dtype)
    raters = rng.random((n_raters, n_slices, size, size)) < 0.3
    return images, raters, raters.mean(axis=0, dtype=np.float32), rng.random((n_slices, size, size), dtype=np.float32)


def gallery(dice, empty=()):
    chosen = Gallery()
    for index, case in enumerate(dice):
        images, raters, reference, probability = arrays_of(index)
        chosen.add(case, images, raters & (case not in empty), reference, probability)
    return {picture.case: picture.roles for picture in chosen.chosen(dice)}


def test_the_gallery_shows_fixed_best_median_and_worst_cases():
    dice = {"a": 0.5, "b": math.nan, "c": 0.1, "d": 0.9, "e": 0.7, "f": 0.3}
    assert gallery(dice) == {
        "a": ("fixed", "median"), "b": ("fixed",), "d": ("best",), "c": ("worst",),
    }  # fmt: skip
    assert gallery(dice, empty=("a", "c"))["d"] == ("fixed", "best")
    assert gallery({"a": 0.5}) == {"a": ("fixed", "best", "median", "worst")}
    assert gallery({"a": math.nan, "b": math.nan, "c": math.nan}) == {"a": ("fixed",), "b": ("fixed",)}
    assert gallery({"a": 0.4, "b": 0.5}, empty=("a", "b")) == {
        "a": ("fixed", "median", "worst"),
        "b": ("fixed", "best"),
    }


def test_a_picture_shows_the_slice_with_most_marks():
    images, raters, reference, probability = arrays_of(1, n_slices=4, dtype=np.int16)
    raters[:, 2] = True
    shown = take_picture("x", images, raters, reference, probability)
    assert (shown.slice, shown.n_slices) == (2, 4)
    np.testing.assert_array_equal(shown.image, np.round(images[2, 0] / 32767 * 255))
    np.testing.assert_array_equal(shown.probability, np.round(probability[2] * 255))
    np.testing.assert_array_equal(shown.raters, raters[:, 2])
    assert take_picture("x", images, raters & False, reference, probability).slice == 2  # the middle of four


def test_reducing_a_picture_takes_means_of_pixels():
    picture = take_picture("x", *arrays_of(2, size=48))
    small = shrink(picture, 16)
    for name in ("image", "reference", "probability"):
        mean = np.asarray(
            Image.fromarray(getattr(picture, name).astype(np.float32)).resize((16, 16), Image.Resampling.BOX)
        )
        assert np.abs(getattr(small, name) - mean).max() <= 0.51
    blocks = picture.raters.reshape(3, 16, 3, 16, 3).mean(axis=(2, 4))
    np.testing.assert_array_equal(small.raters, blocks >= 0.5)
    assert shrink(picture, 20).image.shape == (20, 20)
    assert shrink(picture, 100).image is not None


@pytest.fixture
def written(tmp_path):
    pictures = [
        take_picture(name, *arrays_of(seed, n)) for seed, (name, n) in enumerate({"b": 3, "NA": 1, "c": 4}.items())
    ]
    roles = (("fixed", "best"), ("median",), ("worst",))
    pictures = [Picture(**{**vars(item), "roles": own, "dice": 0.5}) for item, own in zip(pictures, roles, strict=True)]
    write_pack(tmp_path / "pack.npz", pictures)
    return tmp_path, pictures


def test_pictures_come_back_as_they_were(written):
    folder, pictures = written
    for found, own in zip(read_pack(folder), pictures, strict=True):
        for name in LAYERS:
            np.testing.assert_array_equal(getattr(found, name), getattr(own, name))
        assert [getattr(found, name) for name in ("case", "roles", "dice", "slice", "n_slices")] == [
            getattr(own, name) for name in ("case", "roles", "dice", "slice", "n_slices")
        ]
    before = (folder / "pack.npz").read_bytes()
    write_pack(folder / "pack.npz", read_pack(folder))
    assert (folder / "pack.npz").read_bytes() == before
    check_pack(before, {"b", "NA", "c", "d"})
    with pytest.raises(SchemaError, match="'c' is not in cases"):
        check_pack(before, {"b", "NA"})


@pytest.mark.parametrize("size", [512, 192])
def test_a_pack_is_small_whatever_it_shows(tmp_path, size):
    pictures = [take_picture(f"case-{seed}", *arrays_of(seed, 12, size=size)) for seed in range(5)]
    pictures = [Picture(**{**vars(item), "roles": ("fixed",)}) for item in pictures]
    write_pack(tmp_path / "pack.npz", pictures)
    assert 20_000 < (tmp_path / "pack.npz").stat().st_size <= LARGEST_PACK
    assert read_pack(tmp_path)[0].image.shape[0] >= 64


def put(name, index, value):
    return lambda arrays: arrays[name].__setitem__(index, value)


def new(name, value):
    return lambda arrays: arrays.__setitem__(name, value)


FALSE = {
    "a mask of 2": put("raters", (0, 0, 0), 2),
    "a role of 2": put("roles", (0, 0), 2),
    "no role": put("roles", 0, 0),
    "no rater": put("n_raters", 0, 0),
    "many raters": put("n_raters", 0, 2**40),
    "a slice that is not there": put("slice", 0, 2),
    "no slice": put("n_slices", 0, 0),
    "dice": put("dice", 0, 1.5),
    "case twice": put("case", 0, "c"),
    "case that leaves the folder": put("case", 0, "../x"),
    "another shape": lambda arrays: arrays.__setitem__("image", arrays["image"][:, :5]),
    "another type": lambda arrays: arrays.__setitem__("image", arrays["image"].astype(np.float32)),
    "objects": new("case", np.array([{}, 1, 2], dtype=object)),
    "no array": lambda arrays: arrays.pop("raters"),
    "no picture": lambda arrays: arrays.update({name: values[:0] for name, values in arrays.items()}),
}


@pytest.mark.parametrize("name", FALSE)
def test_false_pictures_are_refused(written, name):
    with np.load(written[0] / "pack.npz") as plain:
        arrays = dict(plain)
    FALSE[name](arrays)
    np.savez_compressed(written[0] / "pack.npz", **arrays)
    with pytest.raises(SchemaError, match=r"pack\.npz"):
        read_pack(written[0])


def planned(words):
    settings = compose_settings(words)
    return plan_run(settings, prepare_task(settings))


def reseal(folder):
    (folder / "DONE").write_text(json.dumps(checksums(folder)))


def test_a_run_keeps_pictures_of_its_own_data(small_run):
    run = planned(small_run)
    execute(run)
    store = RunStore(run.results)
    pictures = store.read_pack(run.run_id, run.evaluation_id)
    scores = store.read_cases(run.run_id, run.evaluation_id).set_index("case")["dice"]
    assert [picture.case for picture in pictures if "fixed" in picture.roles] == list(run.split.validation[:2])
    best = next(picture for picture in pictures if "best" in picture.roles)
    assert best.dice == scores.max() == scores[best.case]
    assert (best.image.shape, best.raters.shape) == ((32, 32), (4, 32, 32))
    np.testing.assert_allclose(best.reference, best.raters.mean(axis=0) * 255, atol=0.5)
    assert not store.damage(run.run_id)


def test_packs_are_left_out_on_request_and_added_later(small_run):
    run = planned([*small_run, "evaluate.pack=false"])
    execute(run)
    store = RunStore(run.results)
    assert store.read_pack(run.run_id, run.evaluation_id) is None
    assert not execute(planned(small_run))  # stored runs are not scored again for it
    before = {path: path.read_bytes() for path in store.folder(run.run_id).glob("*") if path.is_file()}
    adding = planned([*small_run, "evaluate.add_packs=true"])
    assert (adding.run_id, adding.evaluation_id) == (run.run_id, run.evaluation_id)
    assert execute(adding)
    assert not execute(adding)
    assert store.read_pack(run.run_id, run.evaluation_id)
    assert {path: path.read_bytes() for path in before} == before
    assert not store.damage(run.run_id)


def test_an_export_has_no_pictures_unless_asked(small_run, tmp_path):
    run = planned(small_run)
    execute(run)
    source, target = RunStore(run.results), RunStore(tmp_path / "own")
    ids = run.run_id, run.evaluation_id
    export_runs([(source, run.run_id)], tmp_path / "export", weights=True)
    assert not list((tmp_path / "export").rglob("pack.npz"))
    assert import_runs(tmp_path / "export", target).new == 1
    assert target.read_pack(*ids) is None
    export_runs([(source, run.run_id)], tmp_path / "export", weights=False, images=True)  # adds what the export lacks
    assert import_runs(tmp_path / "export", target).new == 0
    assert target.read_pack(*ids)[0].case == source.read_pack(*ids)[0].case
    assert not target.damage(run.run_id)


def test_damaged_pictures_are_not_used(small_run):
    run = planned(small_run)
    execute(run)
    store = RunStore(run.results)
    place = store.folder(run.run_id) / "pack.npz"
    intact = place.read_bytes()
    place.write_bytes(intact[:-1] + b"x")
    assert "pack.npz" in store.damage(run.run_id)[0]
    with pytest.raises(UserError, match=r"pack\.npz"):
        store.read_pack(run.run_id, run.evaluation_id)
    shutil.copy(store.folder(run.run_id) / "counts.npz", place)
    reseal(store.folder(run.run_id))  # of the right checksum, but no pictures
    assert "pack.npz" in store.damage(run.run_id)[0]
