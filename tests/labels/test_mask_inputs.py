"""What fusions accept as masks, names and numbers, and what they say about everything else."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

import dmseg.labels
from dmseg.errors import UserError
from dmseg.labels import each_rater, majority, one_rater, rater_weights, staple, staple_posterior, uniform, weighted
from dmseg.labels.fusion import Votes

MASKS = np.random.default_rng(0).random((3, 4, 5)) < 0.5
NAMES = ["anna", "ben", "cleo"]
FUSIONS = {
    "majority": majority,
    "uniform": uniform,
    "weighted": weighted,
    "staple": staple,
    "each_rater": each_rater,
    "one_rater": partial(one_rater, raters=NAMES, rater="ben"),
    "rater_weights": partial(rater_weights, raters=NAMES, weights={"anna": 1, "cleo": 2}),
    "votes": Votes(np.array([1.0, 1, 2])).fuse,
}
every_fusion = pytest.mark.parametrize("fusion", FUSIONS.values(), ids=list(FUSIONS))


def expected(masks):
    """The labels, written with plain NumPy; for STAPLE the label of the bool masks."""
    votes = masks.sum(axis=0)
    dice = [2 * (rater & (votes > 1)).sum() / (rater.sum() + (votes > 1).sum()) for rater in masks]
    return {
        "majority": votes > 1,
        "uniform": masks.mean(axis=0),
        "weighted": np.average(masks, axis=0, weights=dice),
        "staple": staple_posterior(masks).posterior[1],
        "each_rater": masks,
        "one_rater": masks[1],
        "rater_weights": (masks[0] + 2.0 * masks[2]) / 3,
        "votes": (masks[0] + 1.0 * masks[1] + 2.0 * masks[2]) / 4,
    }


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize(
    "convert",
    [
        np.uint8,
        np.int8,
        np.int64,
        np.float64,
        np.float16,
        lambda masks: masks.astype(">i4"),
        np.asfortranarray,
        list,
        lambda masks: tuple(masks.astype(np.float32)),
        np.ndarray.tolist,
        torch.from_numpy,
        lambda masks: list(torch.from_numpy(masks).float()),
        lambda masks: np.ma.masked_array(masks),  # nothing is masked
    ],
)
def test_the_same_masks_in_any_form_have_the_same_label(name, convert):
    label, plain = FUSIONS[name](convert(MASKS)), FUSIONS[name](MASKS)
    assert type(label) is np.ndarray
    assert label.dtype == plain.dtype
    assert np.array_equal(label, plain)
    assert np.allclose(label, expected(MASKS)[name], rtol=0, atol=1e-6)


@every_fusion
@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (MASKS * np.uint8(255), r"annotations hold 255, but must be 0 or 1; divide by 255, or compare"),
        (MASKS * 255.0, r"hold 255, but must be 0 or 1; divide by 255"),
        ([MASKS[0], MASKS[1] * 255, MASKS[2]], "hold 255, .* divide by 255"),
        (MASKS * 2, r"hold 2, but must be 0 or 1; compare with the value of the foreground \(annotations == 2\)"),
        (MASKS.astype(np.int8) * -1, r"hold -1, but must be 0 or 1; compare with"),
        (MASKS + 1, "hold 2, but"),
        (np.arange(60).reshape(3, 4, 5), "hold 2 to 59, .* or with a threshold"),
        (
            MASKS * 0.9,
            r"hold 0\.9, but must be 0 or 1; threshold soft masks first \(annotations >= 0\.5\), or average them",
        ),
        (np.where(MASKS, 1e-9, 0), "hold 1e-09, .* threshold soft masks"),
        (np.where(MASKS, np.nan, 0.0), "hold NaN, but must be 0 or 1 everywhere; set these pixels to 0, or leave out"),
        (np.where(MASKS, np.inf, 0.0), "hold inf, but must be 0 or 1"),
        (MASKS[:0], r"have the shape \(0, 4, 5\), but must be masks of at least one rater, \(raters, \*spatial\)"),
        ([], "of at least one rater"),
        (MASKS[0, 0], r"have the shape \(5,\), .* give a single mask as mask\[np\.newaxis\]"),
        ([MASKS[0], MASKS[1, :2], MASKS[2]], r"annotations\[0\] is \(4, 5\) and annotations\[1\] \(2, 5\)"),
        (np.ma.masked_array(MASKS, MASKS), r"there are masked pixels in annotations; .* \.filled\(0\)"),
    ],
)
def test_values_and_shapes_of_no_masks_are_refused(fusion, masks, message):
    with pytest.raises(ValueError, match=message) as caught:
        fusion(masks)
    assert len(str(caught.value).splitlines()) == 1


class Image:
    """An image that NumPy would read pixel by pixel, without its shape, such as SimpleITK's."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return (0, 1, 1, 0)[index]


@every_fusion
@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (None, "annotations is None; give an array"),
        ([MASKS[0], None, MASKS[2]], r"annotations\[1\] is None; leave out raters who did not annotate the case"),
        (
            dict(zip(NAMES, MASKS, strict=True)),
            r"annotations is a dict; give its arrays: list\(annotations\.values\(\)",
        ),
        ("masks.npy", "annotations is a str; give an array of numbers, a list of such arrays, or a tensor on the CPU"),
        (["a.png", "b.png", "c.png"], r"annotations\[0\] is a str"),
        ((mask for mask in MASKS), "annotations is a generator; give an array"),
        (MASKS.astype(object), "annotations is a numpy.ndarray of object"),
        (MASKS.astype(complex), "annotations is a numpy.ndarray of complex128"),
        ([[[0, 1], [1]], [[0, 1], [1, 0]], [[0, 0], [0, 0]]], r"annotations\[0\] is a list that cannot be converted"),
        (torch.ones(3, 4, 5, requires_grad=True), r"annotations is a torch\.Tensor that cannot be converted .*detach"),
        (torch.ones(3, 4, 5, device="meta"), r"cannot be converted .* give an array .* or a tensor on the CPU"),
        ([Image(), Image(), Image()], r"annotations\[0\] is a .*Image; give an array of numbers"),
    ],
)
def test_what_is_no_array_is_refused(fusion, masks, message):
    with pytest.raises(TypeError, match=message) as caught:
        fusion(masks)
    assert len(str(caught.value).splitlines()) == 1


def test_a_single_mask_without_the_raters_axis_is_pointed_out():
    mask = np.tri(40, dtype=bool)
    for fusion in (majority, uniform, weighted, each_rater, staple):
        with pytest.warns(
            UserWarning, match=r"\(40, 40\) are read as 40 raters with 40 pixels each; if it is a"
        ) as caught:
            fusion(mask)
        own = [warning for warning in caught if "are read as" in str(warning.message)]
        assert [warning.filename for warning in own] == [__file__]


@pytest.mark.filterwarnings("error")
def test_pixels_in_one_row_and_many_raters_of_images_are_fine():
    flat = MASKS.reshape(3, -1)
    assert np.array_equal(uniform(flat), uniform(MASKS).ravel())
    many = np.random.default_rng(1).random((40, 4, 5)) < 0.5
    assert uniform(many) == pytest.approx(many.mean(axis=0))
    assert uniform(np.zeros((3, 0, 5), dtype=np.uint8)).shape == (0, 5)


def test_masks_are_not_changed_and_bool_is_not_copied():
    masks = MASKS.copy()
    for fusion in FUSIONS.values():
        fusion(masks)
    assert np.array_equal(masks, MASKS)
    assert np.shares_memory(each_rater(masks), masks)


def test_names_must_be_those_of_the_masks():
    weights = {"anna": 1}
    for call in (lambda names: one_rater(MASKS, names, "anna"), lambda names: rater_weights(MASKS, names, weights)):
        for names in (["anna", "ben"], ["anna", "ben", "cleo", "dora"], []):
            with pytest.raises(
                ValueError, match=f"raters has {len(names)} names .*, but there are annotations of 3; give one"
            ):
                call(names)
        for wrong in ("ann", 3, {"anna": 1, "ben": 2, "cleo": 3}):
            with pytest.raises(TypeError, match="but must be a list of the raters' names"):
                call(wrong)
        assert np.array_equal(call(np.array(NAMES)), MASKS[0])
    assert np.array_equal(rater_weights(MASKS, [1, 2, 3], {2: 5}), MASKS[1]), "names may be numbers"


def test_numbers_of_numpy_are_numbers():
    for kind in (np.float32, np.float64, np.float16):
        weights = {"anna": kind(0.5), "ben": kind(2)}
        assert rater_weights(MASKS, NAMES, weights) == pytest.approx(np.average(MASKS[:2], axis=0, weights=[1, 4]))
        assert np.array_equal(staple(MASKS, prior=kind(0.3)), staple(MASKS, prior=float(kind(0.3))))
        assert np.array_equal(staple(MASKS, threshold=kind(0.5)), staple(MASKS, threshold=0.5))
        assert weighted(MASKS, disjoint_weight=kind(1)) == pytest.approx(weighted(MASKS, 1.0))
    assert np.array_equal(staple(MASKS, max_iterations=np.int16(5000)), staple(MASKS, max_iterations=5000))


@pytest.mark.parametrize("weight", [-5, float("nan"), float("inf"), "much", None, True])
def test_the_weight_of_disjoint_raters_is_a_number_of_at_least_0(weight):
    with pytest.raises(UserError, match=r"disjoint_weight is .*, but must be a number of at least 0"):
        weighted(MASKS, disjoint_weight=weight)


@pytest.mark.parametrize(
    ("votes", "options", "message"),
    [
        (MASKS * 3, {}, "votes must be whole numbers from 0 to 1, but hold 3"),
        (MASKS * -2, {}, "but hold -2"),
        (MASKS * 1.0, {}, r"but are of type float64; convert classes with \.astype\(int\)"),
        (MASKS, {"n_classes": 2.0}, r"n_classes is 2\.0, but must be a whole number of at least 1"),
        (MASKS, {"prior": 0.5}, r"prior must be 2 probabilities that sum to 1, but is 0\.5"),
        (MASKS, {"prior": "ab"}, "but is 'ab'"),
        (MASKS, {"tolerance": "x"}, "tolerance is 'x', but must be above 0"),
        (MASKS, {"max_iterations": 2.5}, r"max_iterations is 2\.5, but must be a whole number of at least 1"),
    ],
)
def test_wrong_arguments_of_staple_posterior_are_named(votes, options, message):
    with pytest.raises(ValueError, match=message):
        staple_posterior(votes, **options)


def test_the_package_exports_functions_and_imports_no_torch_for_fusion():
    for name in dmseg.labels.__all__:
        assert callable(getattr(dmseg.labels, name)), name
    assert set(dmseg.labels.__all__) <= set(dir(dmseg.labels))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        dmseg.labels.nothing  # noqa: B018
    code = (
        "import sys\nimport dmseg.labels\nfrom dmseg.labels import majority, staple, staple_posterior\n"
        "assert staple([[[0, 1]], [[1, 1]]]).shape == (1, 2)\nassert 'torch' not in sys.modules\n"
        "from dmseg.labels import smooth, svls, boundary\nassert 'torch' in sys.modules and callable(svls)\n"
        "from dmseg.labels import staple\nassert callable(staple)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not done.returncode, done.stderr
