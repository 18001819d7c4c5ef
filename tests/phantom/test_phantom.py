"""The phantom: geometry against closed forms, raters against the probit model, files as in QUBIQ."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt
from scipy.special import ndtr, ndtri

from dmseg.data.adapters.qubiq import QubiqAdapter
from dmseg.errors import UserError
from dmseg.phantom import ensure_qubiq
from dmseg.phantom import planar as write
from dmseg.phantom.cases import COHORTS, PhantomCase, stream
from dmseg.phantom.fields import Blob, GaussianField, Grid, resample
from dmseg.phantom.raters import RaterModel, Structure, annotate, draw_habit, draw_reading, probability

SMALL = {"prostate": 3, "brain-growth": 2, "brain-tumor": 3, "kidney": 2}
SCALE = 0.25
PAPER_TABLE_1 = {
    "prostate-1": 96.49,
    "prostate-2": 92.17,
    "brain-growth-1": 91.20,
    "brain-tumor-1": 95.44,
    "brain-tumor-2": 68.73,
    "brain-tumor-3": 92.71,
    "kidney-1": 97.41,
}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom") / "full"
    ensure_qubiq(root, scale=SCALE)
    return root


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def load(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    total = int(one.sum()) + int(other.sum())
    return 1.0 if total == 0 else 2 * int((one & other).sum()) / total


# geometry


def test_field_has_unit_variance_and_the_stated_correlation():
    rng = np.random.default_rng(0)
    grid = Grid(np.array([-0.97, 0.113]), np.array([0.0, 0.2, 0.4]))
    fields = [GaussianField.draw(rng, (1.0, 1.0), 0.2).on(grid) for _ in range(6000)]
    samples = np.array(fields).reshape(6000, 6)
    covariance = samples.T @ samples / len(samples)
    np.testing.assert_allclose(samples.mean(axis=0), 0, atol=0.06)
    np.testing.assert_allclose(np.diag(covariance), 1, atol=0.09)
    assert covariance[3, 4] == pytest.approx(np.exp(-0.5), abs=0.06)
    assert covariance[3, 5] == pytest.approx(np.exp(-2.0), abs=0.06)
    assert covariance[0, 3] == pytest.approx(0, abs=0.06)


@given(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3), st.floats(0.1, 0.6), st.floats(0, 3))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_distance_to_a_circle_is_exact(row: float, column: float, radius: float, turn: float):
    grid = Grid.over((31, 47), (1.0, 1.5))
    expected = np.hypot(grid.rows[:, None] - row, grid.columns - column) - radius
    np.testing.assert_allclose(Blob((row, column), (radius, radius), turn).distance(grid), expected, atol=1e-8)


@pytest.mark.parametrize("waves", [(), (0.12 + 0.06j, -0.08j, 0.04)])
def test_distance_near_a_wavy_outline_agrees_with_the_euclidean_one(waves: tuple[complex, ...]):
    pixels, pixel = 900, 2 / 900
    grid = Grid.over((pixels, pixels), (1.0, 1.0))
    distance = Blob((0.1, -0.05), (0.6, 0.25), 0.7, waves).distance(grid)
    mask = distance < 0
    to_pixel_centres = (distance_transform_edt(~mask) - distance_transform_edt(mask)) * pixel
    euclidean = to_pixel_centres - np.sign(to_pixel_centres) * pixel / 2
    near = np.abs(euclidean) < 0.02
    assert np.abs(distance - euclidean)[near].max() < 0.004


def test_outline_of_a_blob_is_the_stated_polar_curve():
    blob = Blob((0.1, 0.2), (0.5, 0.3), 0.4, (0.1 + 0.05j, 0.03))
    angle = np.linspace(0, 2 * np.pi, 50)
    rho = 1 + ((0.1 + 0.05j) * np.exp(2j * angle) + 0.03 * np.exp(3j * angle)).real
    along, beside = 0.5 * rho * np.cos(angle), 0.3 * rho * np.sin(angle)
    rows = 0.1 + np.cos(0.4) * along - np.sin(0.4) * beside
    columns = 0.2 + np.sin(0.4) * along + np.cos(0.4) * beside
    on_it = [
        blob.distance(Grid(np.array([row]), np.array([column])))[0, 0]
        for row, column in zip(rows, columns, strict=True)
    ]
    np.testing.assert_allclose(on_it, 0, atol=1e-12)


def test_inside_is_a_normal_edge_and_its_box_cuts_nothing_off():
    grid, blob = Grid.over((120, 120), (1.0, 1.0)), Blob((0.2, -0.1), (0.3, 0.2), 0.5, (0.1, 0.05j))
    np.testing.assert_allclose(blob.inside(grid, 0.03), ndtr(-blob.distance(grid) / 0.03), atol=1e-6)


@pytest.mark.parametrize("shape", [(7, 9), (40, 21), (12, 18), (64, 64)])
def test_resample_agrees_with_torch(shape: tuple[int, int]):
    values = np.random.default_rng(1).normal(size=(12, 18))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None], size=shape, mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(resample(values, shape), expected[0, 0].numpy(), atol=1e-12)


# raters


def two_parts() -> tuple[Structure, Grid]:
    grid = Grid.over((24, 24), (1.0, 1.0))
    parts = [Blob((0.0, side * 0.45), (0.3, 0.3)).distance(grid) for side in (-1, 1)]
    return Structure(np.stack(parts), 0.3), grid


@pytest.mark.parametrize("model", [RaterModel(3, 0.4, bias=0.7, miss=0.3), RaterModel(3, 0.1, bias=0.2, habit=0.9)])
def test_raters_mark_each_pixel_with_the_stated_probability(model: RaterModel):
    structure, grid = two_parts()
    depth = -(np.minimum(*structure.distances) / structure.size) / model.spread
    stated = (1 - model.miss) * ndtr(depth)
    np.testing.assert_allclose(probability(structure, model), stated, atol=1e-8)
    rng, n = np.random.default_rng(2), 4000
    marked = np.zeros(stated.shape)
    for _ in range(n):
        reading = draw_reading(rng, structure, model, draw_habit(rng), (1.0, 1.0))
        marked += annotate(structure, model, reading, grid)
    error = np.sqrt(np.maximum(stated * (1 - stated), 1e-3) / n)
    assert np.abs(marked / n - stated).max() < (4.5 * error).max()
    assert (np.abs(marked / n - stated) < 4.5 * error).all()


def test_a_part_is_overlooked_as_a_whole():
    structure, grid = two_parts()
    model = RaterModel(3, 0.05, miss=0.5)
    rng, left, right = np.random.default_rng(3), [], []
    for _ in range(400):
        mask = annotate(structure, model, draw_reading(rng, structure, model, 0.0, (1.0, 1.0)), grid)
        left.append(mask[12, 6])
        right.append(mask[12, 17])
    assert np.mean(left) == pytest.approx(0.5, abs=0.1)
    assert abs(np.corrcoef(left, right)[0, 1]) < 0.2


def test_only_the_part_that_drew_little_attention_is_overlooked():
    structure, grid = two_parts()
    model = RaterModel(3, 0.05, miss=0.5)
    reading = draw_reading(np.random.default_rng(0), structure, model, 0.0, (1.0, 1.0))
    mask = annotate(structure, model, replace(reading, attention=np.array([0.4, 0.6])), grid)
    assert not mask[:, :12].any()
    assert mask[12, 17]


def test_a_habit_makes_a_rater_draw_large_in_every_case():
    structure, grid = two_parts()
    model = RaterModel(3, 0.2, bias=0.9, habit=0.8)

    def extent(habit: float, seed: int) -> float:
        rng = np.random.default_rng(seed)
        return annotate(structure, model, draw_reading(rng, structure, model, habit, (1.0, 1.0)), grid).sum()

    assert np.mean([extent(-2.0, seed) for seed in range(20)]) > 1.5 * np.mean(
        [extent(2.0, seed) for seed in range(20)]
    )


def test_raters_of_a_case_differ_and_keep_their_habits_over_cases():
    first, second = (list(PhantomCase(7, "kidney", number, SCALE).readings(1)) for number in (1, 2))
    shifts = np.array([[reading.shift for reading in case] for case in (first, second)])
    assert len(np.unique(shifts)) == shifts.size
    model = COHORTS["brain-growth"].models[0]
    table = np.array([[r.shift for r in PhantomCase(7, "brain-growth", n, 0.1).readings(1)] for n in range(1, 61)])
    table /= model.bias
    between = table.mean(axis=0).var(ddof=1)
    within = table.var(axis=0, ddof=1).mean()
    assert within == pytest.approx(1 - model.habit, rel=0.2)
    assert between > within / 60 * 3


# the generated cases


@pytest.mark.parametrize("cohort", list(COHORTS))
def test_a_case_is_the_same_anatomy_at_any_scale(cohort: str):
    coarse, fine = PhantomCase(4, cohort, 2, 0.25), PhantomCase(4, cohort, 2, 0.75)
    for task in range(1, len(coarse.cohort.models) + 1):
        again = resample(fine.probability(task).astype(np.float64), coarse.shape)
        assert np.abs(again - coarse.probability(task)).mean() < 0.01
        pairs = zip(coarse.annotations(task), fine.annotations(task), strict=True)
        for one, other in pairs:
            other = resample(other.astype(np.float64), coarse.shape) > 0.5
            assert dice(one, other) > 0.9


@pytest.mark.parametrize(
    ("cohort", "task", "channel"),
    [
        ("prostate", 1, 0),
        ("prostate", 2, 0),
        ("brain-growth", 1, 0),
        ("brain-tumor", 1, 0),
        ("brain-tumor", 2, 1),
        ("kidney", 1, 0),
    ],
)
def test_the_image_is_ambiguous_where_the_raters_are(cohort: str, task: int, channel: int):
    levels = [(-0.01, 0.05), (0.1, 0.4), (0.6, 0.9), (0.95, 1.01)]
    means = []
    for number in (2, 4, 5, 8):
        case = PhantomCase(0, cohort, number, 0.5)
        image, share = case.image()[channel], case.probability(task) / (1 - case.cohort.models[task - 1].miss)
        # Only tissue beside the outline: further in and out there are other structures.
        near = (distance_transform_edt(share < 0.05) < 4) & (distance_transform_edt(share > 0.95) < 4)
        means.append([image[near & (share > low) & (share < high)].mean() for low, high in levels])
    outside, below, above, inside = np.mean(means, axis=0)
    assert abs(inside - outside) > 2.5 * COHORTS[cohort].anatomy.noise
    shares = np.array([below - outside, above - outside]) / (inside - outside)
    np.testing.assert_allclose(shares, [0.25, 0.75], atol=0.18)


def test_the_raters_agree_as_in_the_papers_table_1(full: Path):
    for task, expected in PAPER_TABLE_1.items():
        cohort, number = task[:-2], int(task[-1])
        scores = []
        for case in sorted((full / cohort / "Training").iterdir()):
            masks = [load(path).squeeze() > 0 for path in sorted(case.glob(f"task{number:02d}_seg*"))]
            majority = np.sum(masks, axis=0) >= len(masks) // 2 + 1
            scores.append(np.mean([dice(mask, majority) for mask in masks]))
        assert 100 * np.mean(scores) == pytest.approx(expected, abs=6 if task == "brain-tumor-2" else 3), task


# the files


def test_the_qubiq_reader_reads_all_of_it(full: Path):
    adapter = QubiqAdapter(full)
    counts = {"prostate": 55, "brain-growth": 39, "brain-tumor": 32, "kidney": 24}
    channels = {"prostate": 1, "brain-growth": 1, "brain-tumor": 4, "kidney": 1}
    for name, task in adapter.tasks.items():
        listed = adapter.list_cases(name)
        assert [files.case for files in listed] == [f"case{n:02d}" for n in range(1, counts[task.cohort] + 1)]
        incomplete = [files.case for files in listed if len(files.layout) < len(task.raters)]
        assert incomplete == (["case09"] if task.cohort == "prostate" else [])
        case = adapter.read_case(name, listed[1])
        (item,) = case.slices
        assert item.image.shape[0] == channels[task.cohort]
        assert item.annotations.shape == (len(task.raters), *item.image.shape[1:])
        assert item.annotations.any()


def test_native_shapes_types_and_units(tmp_path: Path):
    ensure_qubiq(tmp_path / "q", seed=3, cases={"prostate": 3, "brain-growth": 1, "brain-tumor": 1, "kidney": 1})
    folders = {cohort: tmp_path / "q" / cohort / "Training" for cohort in COHORTS}
    images = {
        (cohort, case.name): nibabel.load(case / "image.nii.gz")
        for cohort, folder in folders.items()
        for case in folder.iterdir()
    }
    shapes = {key: image.shape for key, image in images.items()}
    assert {shapes["prostate", f"case{n:02d}"] for n in (1, 2, 3)} == {(640, 640, 1), (960, 640, 1)}
    assert shapes["brain-growth", "case01"] == (256, 256)
    assert shapes["brain-tumor", "case01"] == (240, 240, 4)
    assert shapes["kidney", "case01"] == (497, 497)
    assert {image.get_data_dtype().kind for image in images.values()} == {"i", "f"}
    assert images["prostate", "case01"].header.get_zooms()[:2] == pytest.approx((0.3125, 0.3125))
    for image in images.values():
        assert abs(np.linalg.det(image.affine)) > 0
    ct = np.asarray(images["kidney", "case01"].dataobj)
    assert ct.min() == -1025
    assert -700 < ct.mean() < -150
    assert ct.max() > 300
    tumour = np.asarray(images["brain-tumor", "case01"].dataobj)
    assert (tumour[0, 0] == 0).all()
    for path in (tmp_path / "q").rglob("task*"):
        assert load(path).shape[:2] == shapes[path.parts[-4], path.parent.name][:2]


def test_stored_probability_is_the_models(full: Path):
    case = PhantomCase(0, "prostate", 4, SCALE)
    stored = load(full / "prostate/Training/case04/task02_probability.nii.gz")
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored[..., 0], case.probability(2))


@pytest.mark.parametrize(("cohort", "task"), [("prostate", 1), ("prostate", 2), ("brain-growth", 1)])
def test_frequency_of_marks_follows_the_stored_probability_and_the_raters_habits(full: Path, cohort: str, task: int):
    model = COHORTS[cohort].models[task - 1]
    known = model.bias * np.sqrt(model.habit)
    habits = [draw_habit(stream(0, cohort, "habit", task, rater)) for rater in range(1, model.raters + 1)]
    stated, marked = [], []
    for case in sorted((full / cohort / "Training").iterdir()):
        masks = [load(path) > 0 for path in case.glob(f"task{task:02d}_seg*")]
        chance = load(case / f"task{task:02d}_probability.nii.gz").astype(np.float64)
        doubtful = (chance > 0.02) & (chance < 0.98)
        # Given its habit, a rater's deviation is normal with mean a sqrt(rho) H and variance 1 - a^2 rho.
        given_habits = [ndtr((ndtri(chance[doubtful]) - known * habit) / np.sqrt(1 - known**2)) for habit in habits]
        stated.append(np.mean(given_habits, axis=0))
        marked.append(np.mean(masks, axis=0)[doubtful])
    expected, found = np.concatenate(stated), np.concatenate(marked)
    level = np.digitize(expected, [0.2, 0.4, 0.6, 0.8])
    for index in range(5):
        assert found[level == index].mean() == pytest.approx(expected[level == index].mean(), abs=0.03)


def test_some_tumours_have_no_core(full: Path):
    folder = full / "brain-tumor/Training"
    empty = [
        case.name for case in sorted(folder.iterdir()) if not any(load(path).any() for path in case.glob("task03_seg*"))
    ]
    assert empty == ["case01", "case03", "case06", "case07", "case11"]
    assert not load(folder / "case01/task03_probability.nii.gz").any()


def test_same_settings_give_the_same_bytes_and_other_seeds_others(tmp_path: Path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        ensure_qubiq(tmp_path / name, seed=seed, cases=SMALL, scale=0.15)
    one, same, other = (digests(tmp_path / name) for name in "abc")
    assert one == same
    assert one.keys() == other.keys()
    images = [name for name in one if name.endswith("image.nii.gz")]
    assert len(images) == sum(SMALL.values())
    assert all(one[name] != other[name] for name in images)


def test_a_case_does_not_depend_on_the_others(tmp_path: Path):
    ensure_qubiq(tmp_path / "many", seed=5, cases=SMALL, scale=0.15)
    ensure_qubiq(tmp_path / "few", seed=5, cases={"brain-tumor": 2, "kidney": 0}, scale=0.15)
    many, few = digests(tmp_path / "many"), digests(tmp_path / "few")
    few.pop("phantom.json")
    assert {name.split("/")[0] for name in few} == {"brain-tumor"}
    assert few.items() <= many.items()


# ensure, and what is refused

TINY = {"kidney": 1}


def test_ensure_writes_once_and_again_for_other_settings(tmp_path: Path):
    root = tmp_path / "deep" / "q"
    assert ensure_qubiq(root, cases=TINY, scale=0.1)
    image = root / "kidney/Training/case01/image.nii.gz"
    before = image.stat().st_mtime_ns, image.stat().st_ino
    assert not ensure_qubiq(root, cases={**TINY, "prostate": 0}, scale=0.1)
    assert (image.stat().st_mtime_ns, image.stat().st_ino) == before
    assert ensure_qubiq(root, cases=TINY, scale=0.1, seed=1)
    assert ensure_qubiq(root, cases=TINY, scale=0.2, seed=1)
    assert ensure_qubiq(root, cases={"brain-growth": 1}, scale=0.2, seed=1)
    assert [path.name for path in root.iterdir() if path.is_dir()] == ["brain-growth"]
    assert [path.name for path in root.parent.iterdir()] == ["q"]


def test_ensure_makes_it_anew_after_a_new_revision_or_a_damaged_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = tmp_path / "q"
    ensure_qubiq(root, cases=TINY, scale=0.1)
    (root / "phantom.json").write_text("{")
    assert ensure_qubiq(root, cases=TINY, scale=0.1)
    monkeypatch.setattr(write, "REVISION", 99)
    assert ensure_qubiq(root, cases=TINY, scale=0.1)
    assert json.loads((root / "phantom.json").read_text())["revision"] == 99


@pytest.mark.parametrize("there_before", [False, True])
def test_an_interrupted_run_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there_before: bool):
    root = tmp_path / "q"
    if there_before:
        ensure_qubiq(root, cases=TINY, scale=0.1)
    before = digests(root)
    original = write._write_case

    def interrupted(folder: Path, cohort: str, number: int, case: PhantomCase, raters: int | None) -> None:
        original(folder, cohort, number, case, raters)
        if number == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(write, "_write_case", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ensure_qubiq(root, cases={"kidney": 3}, scale=0.1)
    assert digests(root) == before
    assert [path.name for path in tmp_path.iterdir()] == (["q"] if there_before else [])


def test_a_folder_with_other_files_is_never_replaced(tmp_path: Path):
    (tmp_path / "kidney").mkdir()
    (tmp_path / "kidney" / "mine.txt").write_text("real data")
    with pytest.raises(UserError, match=r"phantom\.json"):
        ensure_qubiq(tmp_path, cases=TINY, scale=0.1)
    assert (tmp_path / "kidney" / "mine.txt").read_text() == "real data"
    with pytest.raises(UserError, match="not a plain folder"):
        ensure_qubiq(tmp_path / "kidney" / "mine.txt", cases=TINY, scale=0.1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"scale": 0}, "scale is 0"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"scale": "0.5"}, "scale is '0.5'"),
        ({"scale": 0.02}, "kidney images would be less than 16 pixels"),
        ({"cases": {"liver": 2}}, "'liver'"),
        ({"cases": {"kidney": -2}}, "kidney cases is -2"),
        ({"cases": {"kidney": 1.5}}, r"kidney cases is 1\.5"),
        ({"cases": {"kidney": 0}}, "would have no cases"),
        ({"cases": 10}, "data.phantom.cases is 10; name each data set"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(tmp_path: Path, wrong: dict, message: str):
    with pytest.raises(UserError, match=message):
        ensure_qubiq(tmp_path / "q", **{"cases": TINY, "scale": 0.1, **wrong})
    assert not list(tmp_path.iterdir())
