"""Settings of the phantom: the part of an image around its structure, and how far the raters lie apart."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from scipy.special import ndtr, ndtri

from dmseg.config.compose import compose_settings
from dmseg.errors import UserError
from dmseg.phantom import ensure_qubiq
from dmseg.phantom.cases import COHORTS, PhantomCase

TINY = {"prostate": 3, "brain-growth": 1, "brain-tumor": 1, "kidney": 1}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A whole phantom, and its view of 1.5 diameters."""
    root = tmp_path_factory.mktemp("view")
    ensure_qubiq(root / "whole", cases=TINY, scale=0.6)
    ensure_qubiq(root / "part", cases=TINY, scale=0.6, view=1.5)
    return root / "whole", root / "part"


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The first channel, (H, W), and the affine."""
    image = nibabel.load(path)
    values = np.asarray(image.dataobj, dtype=float).squeeze()
    return values[..., 0] if values.ndim == 3 else values, image.affine


@pytest.mark.parametrize("name", ["image", "task01_probability", "task01_seg01"])
@pytest.mark.parametrize("cohort", list(TINY))
def test_a_view_shows_what_the_whole_image_shows_at_the_same_place_in_mm(folders, cohort: str, name: str):
    """By the affines alone."""
    for case in sorted((folders[1] / cohort / "Training").iterdir()):
        part, affine = load(case / f"{name}.nii.gz")
        whole, whole_affine = load(folders[0] / case.relative_to(folders[1]) / f"{name}.nii.gz")
        rows, columns = np.indices(part.shape)
        flat = np.stack([rows.ravel(), columns.ravel(), 0 * rows.ravel(), np.ones(rows.size)])
        place = (np.linalg.inv(whole_affine) @ affine @ flat)[:2]
        expected = map_coordinates(whole, place, order=1, mode="nearest").reshape(part.shape)
        away = np.abs(part - expected)
        if name == "image":  # both have noise of their own; beside edges of other structures they differ more
            assert np.median(away) < 3 * COHORTS[cohort].anatomy.noise
            assert np.corrcoef(part.ravel(), expected.ravel())[0, 1] > 0.9
        else:
            assert away.mean() < 0.02
            assert abs(part.mean() - expected.mean()) < 0.003


@pytest.mark.parametrize("cohort", list(TINY))
def test_the_structure_is_in_the_view_and_fills_as_much_of_it_as_asked_for(folders, cohort: str):
    for case in (folders[1] / cohort / "Training").iterdir():
        share = load(case / "task01_probability.nii.gz")[0]
        assert max(share[0].max(), share[-1].max(), share[:, 0].max(), share[:, -1].max()) < 0.5
        if cohort in ("prostate", "kidney"):  # nearly ellipses: area pi/4 of the square of the diameter
            height, width = share.shape
            assert share.mean() == pytest.approx(np.pi / 4 / 1.5**2 * width / height, rel=0.08)


def test_a_view_that_is_wider_than_the_image_is_the_whole_image():
    whole, part = PhantomCase(3, "kidney", 1, 0.2), PhantomCase(3, "kidney", 1, 0.2, view=50)
    np.testing.assert_array_equal(part.image(), whole.image())
    np.testing.assert_array_equal(part.probability(1), whole.probability(1))
    assert part.spacing == whole.spacing
    assert part.centre == (0.0, 0.0)


def test_a_view_never_reaches_beyond_the_image():
    for cohort in COHORTS:
        for number in range(1, 8):
            case = PhantomCase(0, cohort, number, 0.1, view=1.9)
            height, width = case.shape
            full = PhantomCase(0, cohort, number, 0.1)
            for centre, pixels, whole in zip(case.centre, (height, width), full.shape, strict=True):
                assert abs(centre) + pixels * case.spacing / 2 <= whole * full.spacing / 2 * 1.001


def test_another_view_is_another_phantom_and_the_demo_has_one(tmp_path: Path):
    assert ensure_qubiq(tmp_path / "p", cases={"kidney": 1}, scale=0.1)
    assert ensure_qubiq(tmp_path / "p", cases={"kidney": 1}, scale=0.1, view=2)
    assert not ensure_qubiq(tmp_path / "p", cases={"kidney": 1}, scale=0.1, view=2.0)
    paper, demo = (compose_settings(["data=phantom", f"profile={name}"]).data for name in ("paper", "demo"))
    assert paper.phantom["view"] is None
    assert demo.phantom["view"] > 1


@pytest.mark.parametrize("cohort", list(COHORTS))
def test_spread_scales_the_distance_at_which_raters_lie_from_the_outline(cohort: str):
    """P = (1 - m) Phi(-d/w): twice the w halves the argument."""
    once, twice = (PhantomCase(0, cohort, 2, 0.3, 1.6, spread) for spread in (1.0, 2.0))
    for task, model in enumerate(COHORTS[cohort].models, start=1):
        share = once.probability(task) / (1 - model.miss)
        near = (share > 1e-3) & (share < 1 - 1e-3)
        expected = (1 - model.miss) * ndtr(ndtri(share[near].astype(float)) / 2)
        np.testing.assert_allclose(twice.probability(task)[near], expected, atol=1e-4)
        apart = [
            np.mean([mask ^ (case.probability(task) > 0.5) for mask in case.annotations(task)])
            for case in (once, twice)
        ]
        assert apart[1] > 1.3 * apart[0] or model.miss


def test_a_phantom_with_another_spread_is_another_phantom(tmp_path: Path):
    assert ensure_qubiq(tmp_path / "p", cases={"kidney": 1}, scale=0.1)
    assert not ensure_qubiq(tmp_path / "p", cases={"kidney": 1}, scale=0.1, spread=1)
    assert ensure_qubiq(tmp_path / "p", cases={"kidney": 1}, scale=0.1, spread=1.5)


def test_fewer_raters_are_the_first_of_all_and_nothing_else_changes(tmp_path: Path):
    all_raters, two = tmp_path / "all", tmp_path / "two"
    ensure_qubiq(all_raters, cases=TINY, scale=0.1)
    ensure_qubiq(two, cases=TINY, scale=0.1, raters=2)
    kept = {path.relative_to(two) for path in two.rglob("*.nii.gz")}
    left_out = {path.relative_to(all_raters) for path in all_raters.rglob("*.nii.gz")} - kept
    assert left_out == {
        path for path in left_out if int(path.name.removesuffix(".nii.gz").partition("_seg")[2] or 0) > 2
    }
    assert len(left_out) == 3 * 2 * 4 + 5 + 3 * 1 + 1  # raters of 6, 7, 3 and 3 in 2, 1, 3 and 1 tasks
    for path in kept:
        assert (two / path).read_bytes() == (all_raters / path).read_bytes()
    assert not ensure_qubiq(two, cases=TINY, scale=0.1, raters=2)
    assert ensure_qubiq(two, cases=TINY, scale=0.1, raters=3)


@pytest.mark.parametrize("raters", [0, -1, 1.5, "2", True])
def test_an_invalid_number_of_raters_is_refused(tmp_path: Path, raters: object):
    with pytest.raises(UserError, match=r"number of raters is .* but must be a whole number of 1 or more"):
        ensure_qubiq(tmp_path / "q", cases=TINY, scale=0.1, raters=raters)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("spread", [0, -1, float("nan"), float("inf"), 11, "2", True])
def test_an_invalid_spread_is_refused(tmp_path: Path, spread: object):
    with pytest.raises(UserError, match=r"the phantom's spread is .* but must be above 0"):
        ensure_qubiq(tmp_path / "q", cases=TINY, scale=0.1, spread=spread)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("view", [0, 0.5, -2, float("nan"), float("inf"), "2", True])
def test_an_invalid_view_is_refused(tmp_path: Path, view: object):
    with pytest.raises(UserError, match=r"the phantom's view is .* but must be at least 1"):
        ensure_qubiq(tmp_path / "q", cases=TINY, scale=0.1, view=view)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
