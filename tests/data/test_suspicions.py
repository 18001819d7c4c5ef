"""Warnings about what is legal but odd: each kind once, with names, and none where nothing is odd."""

import logging

import numpy as np
import pytest
from conftest import write_lidc

from dmseg.data.adapters.lidc import LidcAdapter
from dmseg.data.adapters.qubiq import QubiqAdapter
from dmseg.data.case import Task
from dmseg.data.parts import Part
from dmseg.data.prepared import prepare
from dmseg.data.suspicions import Suspicions
from dmseg.phantom import ensure_qubiq

SIZE = 32
RATERS = ("ann", "ben", "cy", "dee")


def cases(count=8, raters=4, seed=0):
    """Images with noise, and discs off the middle that the raters see a little differently."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for _ in range(count):
        centre, radius = (8 + rng.integers(-1, 2), 20 + rng.integers(-2, 3)), 5
        images = rng.integers(0, 256, (1, 1, SIZE, SIZE)).astype(np.uint8)
        discs = [
            (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= (radius + rng.integers(-1, 2)) ** 2
            for _ in range(raters)
        ]
        yield images, np.stack(discs)[None].astype(np.uint8)


def warnings(caplog, content, raters=RATERS):
    """What is said about cases with these images and masks."""
    content = list(content)
    suspicions = Suspicions(Task("thing", "Thing", "things", raters), len(content))
    for number, (images, masks) in enumerate(content):
        part = Part(f"case{number}", tuple(range(masks.shape[1])), 1, 1, SIZE, "", {})
        (chunk,) = suspicions.inspect(part, iter([(images, masks)]))
        assert chunk[0] is images
        assert chunk[1] is masks
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        suspicions.warn()
    return caplog.messages


def altered(content, alter, which=range(100)):
    for number, (images, masks) in enumerate(content):
        yield alter(images.copy(), masks.copy()) if number in which else (images, masks)


def blank(*raters):
    def alter(images, masks):
        masks[:, list(raters)] = 0
        return images, masks

    return alter


def turned(rater, how):
    def alter(images, masks):
        masks[:, rater] = how(masks[:, rater])
        return images, masks

    return alter


def test_nothing_is_said_where_nothing_is_odd(caplog):
    for seed in range(5):
        assert warnings(caplog, cases(seed=seed)) == []


def test_a_rater_who_annotated_nothing(caplog):
    (said,) = warnings(caplog, cases(raters=3))
    assert said == "thing: none of 8 cases is annotated by dee (check the names of files and folders)"
    (said,) = warnings(caplog, cases(raters=2))
    assert said == "thing: none of 8 cases is annotated by cy, dee (check the names of files and folders)"


def test_empty_and_blank_masks(caplog):
    content = altered(cases(), blank(0, 1, 2, 3), {2})
    (said,) = warnings(caplog, altered(content, blank(1, 3), {0, 5}))[:1]
    assert said == "thing: in 1 of 8 cases no rater marked anything: case2"
    content = list(altered(cases(20), blank(1, 3), set(range(7))))
    (said,) = warnings(caplog, content)[:1]
    assert said.startswith("thing: in 7 of 20 cases a rater marked nothing, but others did: case0 (ben, dee), case1")
    assert said.endswith("case4 (ben, dee) and 2 more")


def test_saturated_and_flat_images(caplog):
    content = altered(cases(), lambda images, masks: (np.where(images > 127, 255, 0).astype(np.uint8), masks), {3})
    (said,) = warnings(caplog, content)
    assert said == "thing: in 1 of 8 cases more than 99% of the pixels lie at the ends of the window (check it): case3"
    (said,) = warnings(caplog, altered(cases(), lambda images, masks: (images // 128, masks), {4}))
    assert said.startswith("thing: in 1 of 8 cases all pixels lie within 1/64 of the window")


def test_the_same_image_twice(caplog):
    content = list(cases())
    content[6] = (content[1][0], content[6][1])
    assert warnings(caplog, content) == [
        "thing: in 1 of 8 cases the image is the same as another case's (in the rows compared): case6 (= case1)"
    ]


@pytest.mark.parametrize("raters", [2, 3, 4])
@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda mask: mask[:, ::-1], "flipped upside down"),
        (lambda mask: mask[:, :, ::-1], "flipped left to right"),
        (lambda mask: mask[:, ::-1, ::-1], "rotated by 180 degrees"),
        (lambda mask: mask.swapaxes(1, 2), "transposed"),
    ],
)
def test_a_rater_whose_masks_are_turned(caplog, raters, how, said):
    content = altered(cases(raters=raters), turned(1, how))
    found = warnings(caplog, content, RATERS[:raters])
    assert all(said in line for line in found)
    assert ["rater ben" in line for line in found] == ([False, True] if raters == 2 else [True])


def test_a_rater_whose_masks_are_out_of_place(caplog):
    (said,) = warnings(caplog, altered(cases(), turned(2, lambda mask: np.roll(mask, 8, 1))))
    assert "the masks of rater cy have a Dice of 0.1" in said
    assert "check whether they are misplaced" in said


def test_two_cases_are_too_few_to_judge_a_rater(caplog):
    assert warnings(caplog, altered(cases(2), turned(1, lambda mask: mask[:, ::-1]))) == []


def test_preparing_says_it_once(tmp_path, caplog):
    write_lidc(tmp_path / "lidc", 6, np.random.default_rng(0))
    for path in (tmp_path / "lidc").rglob("LIDC-IDRI-0002/nodule-0/images/*.png"):
        path.write_bytes(next((tmp_path / "lidc").rglob("LIDC-IDRI-0005/nodule-0/images/*.png")).read_bytes())
    adapter = LidcAdapter(tmp_path / "lidc")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            prepare(adapter, adapter.tasks["nodule"], tmp_path / "store", SIZE, {}, workers=2)
    assert caplog.messages == [
        "nodule: in 1 of 6 cases the image is the same as another case's"
        " (in the rows compared): LIDC-IDRI-0005 (= LIDC-IDRI-0002)"
    ]


def test_real_nodules_and_phantoms_give_no_nonsense(tmp_path, real_data, caplog):
    adapter = LidcAdapter(real_data / "lidc")
    with caplog.at_level(logging.WARNING):
        prepare(adapter, adapter.tasks["nodule"], tmp_path / "lidc", 128, {})
    assert caplog.messages == []
    ensure_qubiq(tmp_path / "qubiq", cases={"brain-growth": 12, "kidney": 12}, scale=0.2)
    phantom = QubiqAdapter(tmp_path / "qubiq")
    with caplog.at_level(logging.WARNING):
        for name in ("brain-growth-1", "kidney-1"):
            prepare(phantom, phantom.tasks[name], tmp_path / name, 48, {})
    assert caplog.messages == []
