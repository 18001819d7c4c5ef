"""Labels that depend on who annotated a case, and smoothing by neighbours, in training data and batches."""

import logging
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import disc
from scipy import ndimage

from dmseg.config.settings import LabelSettings, SmoothingSettings, TrainSettings
from dmseg.data.augment import Views
from dmseg.data.batches import BatchSource
from dmseg.data.case import Task
from dmseg.data.labels import fuse_cases
from dmseg.data.prepared import PreparedCase
from dmseg.data.training_slices import load_training
from dmseg.errors import UserError
from dmseg.labels.fusion import declared_votes, majority, one_rater, rater_weights, staple
from dmseg.runs.preflight import check_scoring
from dmseg.training.random_streams import stream

CPU = torch.device("cpu")
SIZE = 20


class Store:
    """Cases of two, one and three slices; rater B did not annotate the middle one."""

    def __init__(self):
        rng = np.random.default_rng(3)
        self.cases = [
            PreparedCase("a", 0, 2, (0, 1, 2)),
            PreparedCase("b", 2, 1, (0, 2)),
            PreparedCase("c", 3, 3, (1,)),
        ]
        self.images = rng.integers(0, 256, (6, 1, SIZE, SIZE), dtype=np.uint8)
        self.annotation_arrays = np.zeros((6, 3, SIZE, SIZE), dtype=np.uint8)
        for case in self.cases:
            for index in range(case.first, case.first + case.n_slices):
                for rater in case.raters:
                    self.annotation_arrays[index, rater] = disc(SIZE, rng.integers(7, 13, 2), rng.integers(3, 6))
        self.task = Task("t", "t", "t", ("A", "B", "C"))

    def annotations(self, case):
        return np.moveaxis(self.annotation_arrays[case.span][:, list(case.raters)], 1, 0)


def test_cases_without_the_rater_are_left_out_and_named(caplog):
    store = Store()
    with caplog.at_level(logging.WARNING):
        data = load_training(store, ["a", "b", "c"], partial(one_rater, rater="B"))
    assert caplog.messages == ["1 of 3 training cases are left out: rater B did not annotate it (b)"]
    kept = [0, 1, 3, 4, 5]
    assert np.array_equal(data.labels[:, 0], store.annotation_arrays[kept, 1])
    assert np.array_equal(data.images, store.images[kept])
    assert data.case_index.tolist() == [0, 0, 1, 1, 1]


def test_weights_count_the_raters_of_each_case():
    store = Store()
    masks = store.annotation_arrays.astype(float)
    data = load_training(store, ["a", "b"], partial(rater_weights, weights={"A": 3, "B": 1}))
    expected = np.concatenate([(3 * masks[:2, 0] + masks[:2, 1]) / 4, masks[2:3, 0]])
    assert np.allclose(data.labels[:, 0], expected)


def test_a_rater_who_annotated_no_training_case_is_an_error():
    with pytest.raises(UserError, match="none of 1 training cases has a label; case b: rater B did not annotate it"):
        load_training(Store(), ["b"], partial(one_rater, rater="B"))


def test_a_reference_for_scoring_must_exist_for_every_case():
    store = Store()
    assert len(fuse_cases(store, store.cases[::2], partial(one_rater, rater="B"))) == 2
    with pytest.raises(UserError, match="case b has no label: rater B did not annotate it"):
        fuse_cases(store, store.cases, partial(one_rater, rater="B"))


def test_a_missing_reference_is_found_before_the_first_step():
    store = Store()
    lacking, whole = (
        SimpleNamespace(
            settings=None, reference=partial(one_rater, rater="B"), split=SimpleNamespace(validation=validation)
        )
        for validation in (("a", "b"), ("a", "c"))
    )
    with pytest.raises(UserError, match="case b has no label: rater B did not annotate it"):
        check_scoring(lacking, torch.nn.Identity(), store, CPU)
    with pytest.raises(UserError, match="no attribute 'method'"):  # these have a reference, so scoring is tried next
        check_scoring(whole, torch.nn.Identity(), store, CPU)


def batches(fusion, interpolation, smoothing=None, crop=1.0, ids=("a", "b", "c"), monkeypatch=None, views=None):
    votes = declared_votes(fusion) if interpolation == "rater" else None
    data = load_training(Store(), ids, fusion, votes=votes)
    streams = [stream(0, 0, name) for name in ("order", "rater", "augmentation")]
    labels = LabelSettings("x", "y", {}, interpolation, smoothing)
    source = BatchSource(data, labels, TrainSettings(1, 0, len(data), [0.6, 1.7], 0.5, crop), *streams)
    if views is not None:
        monkeypatch.setattr("dmseg.data.batches.draw_views", lambda *arguments: views(len(data)))
        monkeypatch.setattr(torch, "randperm", lambda n, generator=None: torch.arange(n))
    return source.next()


def test_one_rater_can_be_resampled_rater_by_rater():
    fusion = partial(one_rater, rater="B")
    by_rater, linear = (batches(fusion, interpolation).target[:, 1] for interpolation in ("rater", "linear"))
    assert set(by_rater.unique().tolist()) == {0.0, 1.0}
    clear = (linear - 0.5).abs() > 1e-5
    assert torch.equal(by_rater[clear], (linear >= 0.5).float()[clear])


def as_they_are(n):
    return Views(torch.ones(n), torch.full((n, 2), 0.5), torch.zeros(n, dtype=torch.bool))


def half_size(n):
    return Views(torch.full((n,), 0.5), torch.full((n, 2), 0.5), torch.zeros(n, dtype=torch.bool))


SVLS = SmoothingSettings("svls", kernel=3, sigma=1.0)
EDGE, CORNER = np.exp(-0.5), np.exp(-1.0)
AROUND = np.array([[CORNER, EDGE, CORNER], [EDGE, 0, EDGE], [CORNER, EDGE, CORNER]])
FILTER = AROUND / AROUND.sum() / 2 + np.diag([0, 0.5, 0])


def test_batches_are_smoothed_after_augmentation(monkeypatch):
    batch = batches(majority, "nearest", SVLS, monkeypatch=monkeypatch, views=as_they_are)
    store = Store()
    hard = np.concatenate([majority(store.annotations(case)) for case in store.cases]).astype(float)
    expected = np.stack([ndimage.convolve(label, FILTER, mode="nearest") for label in hard])
    assert np.allclose(batch.target[:, 1], expected, rtol=0, atol=1e-6)
    assert torch.allclose(batch.target.sum(dim=1), torch.ones(()))


def test_padding_repeats_the_border_and_stays_background(monkeypatch):
    store = Store()
    monkeypatch.setattr(
        Store, "annotations", lambda self, case: np.ones((2, case.n_slices, SIZE, SIZE), dtype=np.uint8)
    )
    batch = batches(majority, "nearest", SVLS, monkeypatch=monkeypatch, views=half_size)
    assert 0 < batch.mask.float().mean() < 0.5
    assert torch.equal(batch.target[:, 1], batch.mask.float()), "foreground up to the border is not made softer there"
    assert len(store.cases) == 3


def test_staple_is_soft_training_data_and_names_cases_that_did_not_converge(caplog):
    assert load_training(Store(), ["a"], staple).labels.dtype == torch.float32
    assert load_training(Store(), ["a"], partial(staple, threshold=0.5)).labels.dtype == torch.uint8
    with caplog.at_level(logging.INFO):
        load_training(Store(), ["a", "c"], partial(staple, tolerance=1e-16, max_iterations=2))
    assert "1 of 2 cases: STAPLE has not converged in 2 iterations" in caplog.text
    assert caplog.messages[0].endswith("(a)")
