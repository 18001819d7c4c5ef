"""What an adapter may hand over: taken as it is, converted, or refused by name before anything is stored."""

import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dmseg.data.case import About, Adapter, Case, CaseFiles, Slice, Task
from dmseg.data.prepared import PreparedTask, prepare, store_folder
from dmseg.errors import UserError

SIZE = 16
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (4, 2, 1, SIZE, SIZE))
MASKS = (RNG.random((4, 2, 3, SIZE, SIZE)) < 0.5).astype(np.uint8)
TASK = Task("thing", "Thing", "things", ("ann", "ben", "cy"))


class Own(Adapter):
    """A stranger's adapter: four cases of two slices with three raters; `change` alters what reading gives."""

    about = About(None, "none", "nowhere")

    def __init__(self, change=lambda case: case, listed=lambda cases: cases):
        self.change, self.listed = change, listed

    @property
    def tasks(self):
        return {"thing": TASK}

    def list_cases(self, task):
        return self.listed([CaseFiles(f"case{number}", 2, (Path(__file__),)) for number in range(4)])

    def read_case(self, task, files):
        number = int(files.case[4:])
        slices = [
            Slice(image.astype(np.float32), masks) for image, masks in zip(IMAGES[number], MASKS[number], strict=True)
        ]
        return self.change(Case(files.case, (0, 1, 2), np.array([[0.0, 255.0]]), slices))


def each_slice(alter):
    """A change of each slice's image and masks."""
    return lambda case: replace(case, slices=[alter(item.image, item.annotations) for item in case.slices])


def images(alter):
    return each_slice(lambda image, masks: Slice(alter(image), masks))


def masks(alter):
    return each_slice(lambda image, masks: Slice(image, alter(masks)))


def stored(folder, change=lambda case: case, listed=lambda cases: cases, task=TASK, size=SIZE):
    prepare(Own(change, listed), task, folder / "store", size, {})
    return PreparedTask(folder / "store")


def refusal(folder, *arguments, **keywords):
    with pytest.raises(UserError) as caught:
        stored(folder, *arguments, **keywords)
    assert not (folder / "store").exists()
    assert len(str(caught.value).splitlines()) <= 3
    return str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda case: case,
        images(lambda image: image.astype(np.float64)),
        images(lambda image: image.astype(np.int64)),
        images(lambda image: image.astype(">f4")),
        images(lambda image: image.astype(np.uint8)),
        images(lambda image: image.astype(">i2")),
        images(lambda image: image.tolist()),
        images(np.asfortranarray),
        images(lambda image: np.repeat(image, 2, axis=2)[:, :, ::2]),
        masks(lambda array: array.astype(bool)),
        masks(lambda array: array.astype(np.int64)),
        masks(lambda array: array.tolist()),
        masks(np.asfortranarray),
        masks(lambda array: array[:, ::-1].copy()[:, ::-1]),
        each_slice(lambda image, array: (image, array)),
        lambda case: replace(case, window=[[0, 255]]),
        lambda case: replace(case, raters=[0, 1, 2]),
        lambda case: replace(case, raters=np.arange(3)),
        lambda case: replace(case, dtype=np.uint8),
        lambda case: replace(case, slices=iter(case.slices)),
        lambda case: replace(
            case,
            raters=(2, 0, 1),
            slices=[Slice(item.image, item.annotations[[2, 0, 1]]) for item in case.slices],
        ),
    ],
)
def test_what_is_unambiguous_is_stored_as_the_same_numbers(tmp_path, change):
    store = stored(tmp_path, change)
    for number, case in enumerate(store.cases):
        assert np.array_equal(store.images[case.span], IMAGES[number])
        for place, rater in enumerate(case.raters):
            assert np.array_equal(store.annotations(case)[place], MASKS[number][:, rater])


@pytest.mark.parametrize("kind", ["u1", "i2", "<u2", ">u2", "i4"])
@pytest.mark.parametrize("size", [SIZE, SIZE - 3, SIZE + 5])
def test_integer_images_are_stored_as_floats_are(tmp_path, kind, size):
    whole = images(lambda image: image.astype(kind))
    floats = images(lambda image: image.astype(np.float32))
    written = [stored(tmp_path / name, change, size=size).images for name, change in (("a", whole), ("b", floats))]
    assert np.array_equal(*written)
    assert len(np.unique(written[0])) > 100


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (masks(lambda array: array * 255), r"values 0, 255; expected 0 and 1"),
        (masks(lambda array: array * 2), r"values 0, 2; expected 0 and 1"),
        (masks(lambda array: array + 1), r"values 1, 2; expected 0 and 1"),
        (masks(lambda array: -array.astype(np.int8)), r"values -1, 0; expected 0 and 1"),
        (masks(lambda array: array.astype(np.float32)), r"float32 values \(0, 1\); convert them"),
        (masks(lambda array: array * 0.25), r"soft masks are not supported yet"),
        (masks(lambda array: array * np.nan), r"float64 values \(nan\); expected uint8"),
        (masks(lambda array: array.astype(object)), r"object values; expected uint8"),
        (masks(lambda array: array[0]), r"shape \(16, 16\) for 3 raters.*expected \(3, 16, 16\)"),
        (masks(lambda array: array[:2]), r"shape \(2, 16, 16\) for 3 raters"),
        (masks(lambda array: array[:, :8]), r"shape \(3, 8, 16\) for 3 raters"),
        (lambda case: replace(case, raters=(0, 1)), r"shape \(3, 16, 16\) for 2 raters"),
        (images(lambda image: np.moveaxis(image, 0, -1)), r"shape \(16, 16, 1\)"),
        (images(lambda image: image[0]), r"image has shape \(16, 16\); expected \(C, H, W\)"),
        (images(lambda image: np.repeat(image, 3, axis=0)), r"image has 3 channels, but window is for 1"),
        (images(lambda image: np.where(image > 250, np.nan, image)), r"values that are NaN"),
        (images(lambda image: np.where(image > 250, np.inf, image)), r"values that are NaN, infinite"),
        (images(lambda image: image.astype(np.float64) * 1e300), r"beyond float32"),
        (images(lambda image: image.astype(complex)), r"complex128 values"),
        (images(lambda image: image.astype(object)), r"object values"),
        (images(lambda image: image > 9), r"bool values"),
        (images(lambda image: [[[1, 2], [3]]]), r"image cannot be converted to an array"),
        (images(lambda image: np.ma.masked_less(image, 9)), r"masked array"),
        (each_slice(lambda image, array: (image, array, 1)), r"it is tuple; expected Slice"),
        (lambda case: replace(case, window=np.array([[255.0, 0.0]])), r"window is \[\[255\.0, 0\.0\]\]"),
        (lambda case: replace(case, window=np.array([[0.0, np.nan]])), r"window is .*finite numbers"),
        (lambda case: replace(case, window=np.array([0.0, 255.0])), r"array of shape \(C, 2\)"),
        (lambda case: replace(case, window=None), r"window is None"),
        (
            lambda case: replace(case, raters=(0, 1, 3)),
            r"raters is \(0, 1, 3\); expected distinct positions from 0 to 2",
        ),
        (lambda case: replace(case, raters=(0, 1, 1)), r"raters is \(0, 1, 1\)"),
        (lambda case: replace(case, raters=(-1, 0, 1)), r"raters is \(-1, 0, 1\)"),
        (lambda case: replace(case, raters=("ann", "ben", "cy")), r"raters is \('ann'"),
        (lambda case: replace(case, raters=()), r"raters is \(\)"),
        (lambda case: replace(case, raters=3), r"raters is 3"),
        (lambda case: replace(case, dtype="float32"), r"dtype is 'float32'; expected uint8 or int16"),
        (lambda case: replace(case, slices=[]), r"read_case returned 0 slices, but list_cases announced 2"),
        (lambda case: replace(case, slices=next(iter(case.slices))), r"slices is Slice"),
        (lambda case: replace(case, case="other"), r"read_case returns case 'other'"),
        (lambda case: None, r"read_case returns None"),
    ],
)
def test_what_is_wrong_is_refused_by_case_file_and_value(tmp_path, change, said):
    def first_only(case):
        return change(case) if case.case == "case2" else case

    message = refusal(tmp_path, first_only)
    assert message.startswith("case case2")
    assert Path(__file__).name in message
    assert re.search(said, message), message


def test_channels_last_are_told_what_to_do(tmp_path):
    message = refusal(tmp_path, images(lambda image: np.repeat(np.moveaxis(image, 0, -1), 3, axis=2)))
    assert "channels come first: np.moveaxis(image, -1, 0)" in message


def test_cases_that_do_not_fit_together(tmp_path):
    def one_differs(case):
        return replace(case, dtype="int16") if case.case == "case1" else case

    assert "case1 has 1 channels stored as int16, but case case0 has 1 channels stored as uint8" in refusal(
        tmp_path, one_differs
    )


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../up",
        "a/b",
        "a\\b",
        ".hidden",
        "nul\0",
        "line\nbreak",
        "\u2028",
        "bad\udcfc",
        "x" * 201,
        7,
        None,
    ],
)
def test_names_that_cannot_name_a_file(tmp_path, name):
    assert "cannot name a file" in refusal(tmp_path, listed=lambda cases: [replace(cases[0], case=name), *cases[1:]])
    assert "cannot name a file" in refusal(tmp_path, task=replace(TASK, name=name))
    for data, task in ((name, TASK), ("own", replace(TASK, name=name))):
        with pytest.raises(UserError, match="cannot name a file"):
            store_folder(tmp_path, data, task, "root", SIZE, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["名前", "ä ö", "a,b", "x=y", "-r", "a.b.c", "p²", "100%", "~", "x" * 200])
def test_names_that_can(tmp_path, name):
    class Named(Own):
        def read_case(self, task, files):
            return replace(super().read_case(task, replace(files, case="case0")), case=files.case)

    adapter = Named(listed=lambda cases: [replace(cases[0], case=name)])
    prepare(adapter, replace(TASK, name=name), tmp_path / "store", SIZE, {})
    assert [case.case for case in PreparedTask(tmp_path / "store").cases] == [name]
    assert store_folder(tmp_path, name, replace(TASK, name=name[:100]), "root", SIZE, {}).parent == tmp_path / name


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        (lambda cases: [], "returns no cases"),
        (lambda cases: None, "list_cases returns None"),
        (lambda cases: [case.case for case in cases], "expected CaseFiles"),
        (lambda cases: [*cases, cases[0]], "two cases with the id 'case0'"),
        (lambda cases: [replace(cases[0], files="a.png")], "files is 'a.png'; expected a tuple of paths"),
        (lambda cases: [replace(cases[0], n_slices=-1)], "n_slices is -1"),
    ],
)
def test_lists_of_cases(tmp_path, listed, said):
    assert said in refusal(tmp_path, listed=listed)


@pytest.mark.parametrize("raters", [(), ("ann", "ann"), "ann", (1, 2), ("ann", ""), None])
def test_raters_of_a_task(tmp_path, raters):
    assert "expected a tuple of one or more distinct names" in refusal(tmp_path, task=replace(TASK, raters=raters))


def test_a_constant_image_stays_legal(tmp_path, caplog):
    """Its percentiles coincide, as those of nearly empty images do."""
    with caplog.at_level(logging.WARNING):
        store = stored(tmp_path, lambda case: replace(case, window=np.array([[7.0, 7.0]])))
    assert not store.images.any()
    assert "in 4 of 4 cases all pixels lie within 1/64 of the window" in caplog.text
