"""Labels in augmented views, against scipy's resampling and fusion by hand; and what a fusion may return."""

from functools import partial

import numpy as np
import pytest
import torch
from conftest import disc
from scipy import ndimage

from dmseg.config.settings import LabelSettings, TrainSettings
from dmseg.data.augment import Views, resample, sampling_grid
from dmseg.data.batches import BatchSource
from dmseg.data.case import Task
from dmseg.data.prepared import PreparedCase
from dmseg.data.training_slices import load_training
from dmseg.errors import UserError
from dmseg.labels.fusion import Votes, declared_votes, each_rater, majority, uniform, weighted, with_votes
from dmseg.training.random_streams import stream

CPU = torch.device("cpu")
FUSIONS = {"majority": majority, "uniform": uniform, "weighted": partial(weighted, disjoint_weight=0.0)}
SIZE = 24


class Store:
    """Three cases of two, one and three slices; four raters, of whom the second did not annotate the middle case."""

    def __init__(self):
        rng = np.random.default_rng(3)
        self.cases = [
            PreparedCase("a", 0, 2, (0, 1, 2, 3)),
            PreparedCase("b", 2, 1, (0, 2, 3)),
            PreparedCase("c", 3, 3, (0, 1, 2, 3)),
        ]
        self.images = rng.integers(0, 256, (6, 1, SIZE, SIZE), dtype=np.uint8)
        self.annotation_arrays = np.zeros((6, 4, SIZE, SIZE), dtype=np.uint8)
        for case in self.cases:
            for index in range(case.first, case.first + case.n_slices):
                for rater in case.raters:
                    centre = rng.integers(7, 17, 2)
                    self.annotation_arrays[index, rater] = disc(SIZE, centre, rng.integers(3, 8))
        self.task = Task("t", "t", "t", ("1", "2", "3", "4"))

    def annotations(self, case):
        return np.moveaxis(self.annotation_arrays[case.span][:, list(case.raters)], 1, 0)


def source(fusion, interpolation, scale=(0.6, 1.7), flip=0.5, store=None):
    votes = declared_votes(fusion) if interpolation == "rater" else None
    data = load_training(store or Store(), ["a", "b", "c"], fusion, votes=votes)
    streams = [stream(0, 0, name) for name in ("order", "rater", "augmentation")]
    return BatchSource(
        data, LabelSettings("x", "y", {}, interpolation), TrainSettings(1, 0, 6, [*scale], flip), *streams
    )


def batch(monkeypatch, fusion, interpolation, views=None, store=None):
    """The batch of all six slices in their order, in given views."""
    made = source(fusion, interpolation, store=store)
    given = views or Views(*map(torch.as_tensor, VIEWS))
    monkeypatch.setattr("dmseg.data.batches.draw_views", lambda *arguments: given)
    monkeypatch.setattr(torch, "randperm", lambda n, generator=None: torch.arange(n))
    return made.next()


VIEWS = (
    np.float32([0.613, 0.87, 1.0, 1.137, 1.4142, 1.693]),
    np.float32([[0.31, 0.7], [0.1, 0.9], [0.5, 0.5], [0.77, 0.23], [0.61, 0.01], [0.37, 0.83]]),
    np.array([True, False, True, False, True, False]),
)


def positions(index):
    """Rows and columns in the source slice that view `index` looks at, in pixels, from the views' definition."""
    scale, offset, flip = (np.float64(part[index]) for part in VIEWS)
    rows, columns = ((np.arange(SIZE) + 0.5 + offset[axis] * (scale - 1) * SIZE) / scale - 0.5 for axis in (0, 1))
    columns = SIZE - 1 - columns if flip else columns
    return np.meshgrid(rows, columns, indexing="ij")


def looked_up(values, index, order):
    """Values (H, W) in view `index`, by scipy; 0 outside of the slice."""
    rows, columns = positions(index)
    inside = (np.abs(rows - (SIZE - 1) / 2) <= SIZE / 2) & (np.abs(columns - (SIZE - 1) / 2) <= SIZE / 2)
    found = ndimage.map_coordinates(np.float64(values), [rows, columns], order=order, mode="nearest")
    return np.where(inside, found, 0.0)


def dice(mask, other):
    return 2 * np.sum(mask * other) / (np.sum(mask) + np.sum(other))


def by_hand(name, case, masks):
    """Fuses masks (R, ...) of a case's raters with what the fusion takes from the whole case."""
    whole = Store().annotations(case).astype(float)
    if name == "majority":
        return (2 * masks.sum(axis=0) > len(masks)).astype(float)
    weights = np.ones(len(masks))
    if name == "weighted":
        vote = 2 * whole.sum(axis=0) > len(whole)
        weights = np.array([dice(mask, vote) for mask in whole])
    return np.tensordot(weights / weights.sum(), masks, axes=1)


def slices():
    store = Store()
    for case in store.cases:
        for index in range(case.first, case.first + case.n_slices):
            yield index, case, store.annotation_arrays[index, list(case.raters)]


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("interpolation", ["nearest", "linear", "rater"])
def test_labels_are_those_of_scipy(monkeypatch, name, interpolation):
    target = batch(monkeypatch, FUSIONS[name], interpolation).target[:, 1].double().numpy()
    for index, case, masks in slices():
        if interpolation == "linear":
            expected = looked_up(by_hand(name, case, masks.astype(float)), index, 1)
        elif interpolation == "nearest":
            expected = by_hand(name, case, np.stack([looked_up(mask, index, 0) for mask in masks]))
        else:
            expected = by_hand(name, case, np.stack([looked_up(mask, index, 1) >= 0.5 for mask in masks]).astype(float))
        differ = np.abs(target[index] - expected) > 1e-4
        assert differ.sum() <= (0 if interpolation == "linear" else 2), "but for a pixel that lies just between two"
        assert np.unique(expected).size > 1


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("interpolation", ["nearest", "linear", "rater"])
def test_the_neutral_view_gives_the_fused_label(monkeypatch, name, interpolation):
    still = Views(torch.ones(6), torch.rand(6, 2), torch.zeros(6, dtype=torch.bool))
    target = batch(monkeypatch, FUSIONS[name], interpolation, still).target[:, 1]
    store = Store()
    fused = torch.from_numpy(np.concatenate([np.float32(FUSIONS[name](store.annotations(c))) for c in store.cases]))
    if interpolation == "linear":
        torch.testing.assert_close(target, fused, rtol=0, atol=1e-5)
    else:
        assert torch.equal(target, fused)


@pytest.mark.parametrize("name", ["majority", "uniform"])
def test_the_nearest_pixel_of_each_rater_fused_is_that_of_the_fused_label(name):
    grid, _ = sampling_grid(Views(*map(torch.as_tensor, VIEWS)), (SIZE, SIZE), CPU)
    for index, case, masks in slices():
        one = grid[index : index + 1]
        fused = torch.from_numpy(np.float32(FUSIONS[name](masks)))[None, None]
        each = resample(torch.from_numpy(masks)[None].float(), one, linear=False)[0].numpy().astype(np.uint8)
        assert np.array_equal(FUSIONS[name](each), resample(fused, one, linear=False)[0, 0].numpy()), case


def test_hard_labels_stay_hard_rater_by_rater_and_soft_ones_have_the_raters_levels():
    targets = {name: source(fusion, "rater").next().target[:, 1] for name, fusion in FUSIONS.items()}
    assert set(targets["majority"].unique().tolist()) == {0, 1}
    levels = {round(k / n, 4) for n in (3, 4) for k in range(n + 1)}
    assert {round(value, 4) for value in targets["uniform"].unique().tolist()} <= levels
    between = source(uniform, "linear").next().target[:, 1].unique()
    assert len(between) > len(levels), "bilinear labels take other values too"


def test_interpolation_changes_neither_images_nor_their_order():
    one, *others = (source(uniform, name).next() for name in ("linear", "nearest", "rater"))
    assert all(torch.equal(one.image, other.image) and torch.equal(one.mask, other.mask) for other in others)
    assert all(other.raters is None for other in (one, *others)), "no method asked for the raters' masks"


def test_a_hard_label_may_be_interpolated_linearly():
    soft = source(majority, "linear").next().target[:, 1]
    hard = source(majority, "nearest").next().target[:, 1]
    assert ((soft > 0.01) & (soft < 0.99)).any()
    assert (((soft >= 0.5) != (hard >= 0.5)).float().mean()) < 0.03
    drawn = source(each_rater, "linear").next().target[:, 1]
    assert ((drawn > 0.01) & (drawn < 0.99)).any()


def nobody_agrees(store):
    store.annotation_arrays[:] = 0
    for rater in range(4):
        store.annotation_arrays[:, rater, 4 * rater : 4 * rater + 3] = 1
    store.annotation_arrays[2, 1] = 0
    return store


def test_weights_fall_back_to_equal_ones_where_nobody_agrees(monkeypatch):
    still = Views(torch.ones(6), torch.rand(6, 2), torch.zeros(6, dtype=torch.bool))
    target = batch(monkeypatch, weighted, "rater", still, nobody_agrees(Store())).target[:, 1]
    assert set(target[[0, 1, 3]].unique().tolist()) == {0, 0.25}
    assert target[2].max() == pytest.approx(1 / 3), "three raters"


def soft_from_case_b(annotations):
    return uniform(annotations) if len(annotations) == 3 else majority(annotations)


RETURNS = {
    "values above 1": (
        lambda a: uniform(a) * 2,
        r"case a: the fusion returns values from 0\.0 to 2\.0; soft labels",
    ),
    "negative values": (lambda a: uniform(a) - 1, r"case a: .* from -1\.0 to"),
    "not a number": (lambda a: uniform(a) * np.nan, r"case a: the fusion returns values from nan"),
    "counts": (lambda a: a.sum(axis=0), r"case a: .* from 0 to [234]; hard labels must be 0 or 1"),
    "complex values": (lambda a: uniform(a) * 1j, "case a: .* type complex"),
    "one slice": (
        lambda a: uniform(a)[0],
        r"case a: .* shape \(24, 24\), but must return \(2, 24, 24\)",
    ),
    "both kinds": (soft_from_case_b, "case b: the fusion returns a soft label, but a hard one for a"),
}


@pytest.mark.parametrize("fault", RETURNS)
def test_what_is_not_a_label_is_refused_with_its_case(fault):
    fusion, message = RETURNS[fault]
    with pytest.raises(UserError, match=message) as caught:
        load_training(Store(), ["a", "b", "c"], fusion)
    assert len(str(caught.value).splitlines()) == 1


def test_a_kind_that_differs_from_the_planned_one_is_refused():
    with pytest.raises(UserError, match="case a: the fusion returns a soft label"):
        load_training(Store(), ["a"], lambda a: uniform(a) if a.shape[-1] > 8 else majority(a))


@pytest.mark.parametrize(
    "votes",
    [
        lambda a: Votes(np.arange(len(a)) + 1.0),
        lambda a: Votes(np.ones(len(a)), 1),
        lambda a: Votes(np.ones(len(a) + 1)),
        lambda a: Votes(np.zeros(len(a))),
        lambda a: Votes(np.full(len(a), np.nan)),
    ],
)
def test_votes_that_are_not_the_fusions_are_refused(votes):
    @with_votes(votes)
    def mine(annotations):
        return uniform(annotations)

    with pytest.raises(UserError, match="case a: the votes that the fusion declares do not reproduce its label"):
        load_training(Store(), ["a"], mine, votes=declared_votes(mine))


def test_a_fusion_of_ones_own_may_declare_its_votes(monkeypatch):
    def expert_votes(annotations, share):
        rest = (1 - share) / (len(annotations) - 1)
        return Votes(np.array([share, *[rest] * (len(annotations) - 1)]), 0.5)

    @with_votes(expert_votes)
    def expert(annotations, share):
        return expert_votes(annotations, share).fuse(annotations)

    target = batch(monkeypatch, partial(expert, share=0.6), "rater").target[:, 1].numpy()
    for index, _, masks in slices():
        assert (target[index] != (looked_up(masks[0], index, 1) >= 0.5)).sum() <= 1
