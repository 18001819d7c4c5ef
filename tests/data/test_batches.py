"""Augmentation and batches: geometry, soft and hard labels, padding, streams."""

import numpy as np
import pytest
import torch

from dmseg.config.settings import LabelSettings, SmoothingSettings, TrainSettings
from dmseg.data.adapters.lidc import LidcAdapter
from dmseg.data.adapters.qubiq import QubiqAdapter
from dmseg.data.augment import Views, centre_crop, draw_views, resample, sampling_grid
from dmseg.data.batches import BatchSource, batches_per_epoch, network_input
from dmseg.data.prepared import PreparedTask, prepare
from dmseg.data.training_slices import TrainingData, load_training
from dmseg.errors import UserError
from dmseg.labels.fusion import declared_votes, each_rater, majority, uniform
from dmseg.limits import crop_edge
from dmseg.training.random_streams import stream, stream_seed

CPU = torch.device("cpu")


def views(scale, offset=(0.0, 0.0), flip=False):
    return Views(torch.tensor([scale]), torch.tensor([offset]), torch.tensor([flip]))


def test_the_neutral_view_changes_nothing():
    image = torch.rand(1, 2, 24, 32)
    grid, mask = sampling_grid(views(1.0, (0.3, 0.9)), (24, 32), CPU)
    assert torch.allclose(resample(image, grid, linear=True), image, atol=1e-5)
    assert torch.equal(resample(image, grid, linear=False), image)
    assert mask.all()


def test_a_flip_mirrors_left_and_right():
    image = torch.rand(1, 1, 8, 10)
    grid, _ = sampling_grid(views(1.0, flip=True), (8, 10), CPU)
    assert torch.allclose(resample(image, grid, linear=True), image.flip(-1), atol=1e-5)


@pytest.mark.parametrize("offset", [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
def test_twice_as_large_is_a_corner_of_the_resized_image(offset):
    image = torch.rand(1, 1, 16, 16)
    large = torch.nn.functional.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
    row, column = (int(16 * value) for value in offset)
    grid, mask = sampling_grid(views(2.0, offset), (16, 16), CPU)
    assert torch.allclose(
        resample(image, grid, linear=True), large[..., row : row + 16, column : column + 16], atol=1e-5
    )
    assert mask.all()


def test_half_as_large_leaves_padding_around():
    grid, mask = sampling_grid(views(0.5, (0.0, 1.0)), (16, 16), CPU)
    assert mask[0, :8, 8:].all()
    assert mask.sum() == 64
    image = torch.rand(1, 1, 16, 16)
    small = torch.nn.functional.interpolate(image, scale_factor=0.5, mode="bilinear", align_corners=False)
    assert torch.allclose(resample(image, grid, linear=True)[0, 0, :8, 8:], small[0, 0], atol=1e-5)


def test_views_are_in_range_and_seeded():
    first = draw_views(1000, (0.5, 2.0), 0.5, stream(0, 0, "augmentation"))
    again = draw_views(1000, (0.5, 2.0), 0.5, stream(0, 0, "augmentation"))
    assert torch.equal(first.scale, again.scale)
    assert first.scale.min() >= 0.5
    assert first.scale.max() <= 2.0
    assert 0.4 < first.flip.float().mean() < 0.6
    assert abs(first.scale.mean() - 1.25) < 0.05


def test_streams_differ_by_seed_fold_and_name():
    seeds = {stream_seed(seed, fold, name) for seed in (0, 1) for fold in (0, 1) for name in ("order", "rater")}
    assert len(seeds) == 8


@pytest.fixture
def lidc_store(tmp_path, lidc_tree):
    adapter = LidcAdapter(lidc_tree)
    prepare(adapter, adapter.tasks["nodule"], tmp_path / "store", 32, {})
    return PreparedTask(tmp_path / "store")


def source(store, fusion, interpolation="nearest", smoothing=None, scale=(0.5, 2.0), seed=0):
    votes = declared_votes(fusion) if interpolation == "rater" else None
    data = load_training(store, [case.case for case in store.cases], fusion, votes=votes)
    labels = LabelSettings("x", "y", {}, interpolation, smoothing)
    streams = [stream(seed, 0, name) for name in ("order", "rater", "augmentation")]
    return BatchSource(data, labels, TrainSettings(1, 0, 4, list(scale), 0.5), *streams)


def epoch(batches):
    return [batches.next() for _ in range(batches.steps_per_epoch)]


def test_soft_labels_stay_soft_and_hard_ones_hard(lidc_store):
    (first, *_) = epoch(source(lidc_store, uniform, "linear"))
    assert ((first.target > 0.01) & (first.target < 0.99)).any()
    assert set(torch.unique(torch.cat([b.target for b in epoch(source(lidc_store, majority))])).tolist()) == {0, 1}
    assert set(torch.unique(torch.cat([b.target for b in epoch(source(lidc_store, each_rater))])).tolist()) == {0, 1}


def test_targets_sum_to_one_and_padding_is_masked_background(lidc_store):
    for batch in epoch(source(lidc_store, uniform, "linear", scale=(0.5, 0.6))):
        assert torch.allclose(batch.target.sum(dim=1), torch.ones(4, 32, 32))
        assert 0.2 < batch.mask.float().mean() < 0.4
        padding = ~batch.mask
        assert (batch.image[:, 0][padding] == -1).all()
        assert (batch.target[:, 1][padding] == 0).all()
        assert batch.image.min() >= -1
        assert batch.image.max() <= 1


def test_smoothing_happens_on_the_augmented_crop(lidc_store):
    smoothed = epoch(source(lidc_store, majority, smoothing=SmoothingSettings("boundary", 0.5, 3)))
    hard = epoch(source(lidc_store, majority))
    for one, other in zip(smoothed, hard, strict=True):
        assert set(torch.unique(one.target).tolist()) == {0, 0.25, 0.75, 1}
        assert torch.equal(one.target[:, 1] >= 0.5, other.target[:, 1] >= 0.5)


def test_order_and_augmentation_are_the_same_for_all_strategies(lidc_store):
    for one, other in zip(epoch(source(lidc_store, majority)), epoch(source(lidc_store, each_rater)), strict=True):
        assert torch.equal(one.image, other.image)
    assert not torch.equal(source(lidc_store, majority, seed=1).next().image, one.image)


def test_a_rater_is_drawn_anew_for_each_case_and_epoch(tmp_path, qubiq_tree):
    adapter = QubiqAdapter(qubiq_tree)
    prepare(adapter, adapter.tasks["prostate-1"], tmp_path / "store", 40, {})
    store = PreparedTask(tmp_path / "store")
    drawn = source(store, each_rater, scale=(1.0, 1.0))
    seen: dict[int, set[int]] = {}
    for _ in range(60):
        for batch in epoch(drawn):
            for image, target in zip(batch.image, batch.target, strict=True):
                flat = image[0], target[1]
                for index, case in enumerate(store.cases):
                    own = network_input(torch.from_numpy(np.array(store.images[case.span])), torch.uint8)[0, 0]
                    for mirrored in (own, own.flip(-1)):
                        if torch.allclose(mirrored, flat[0], atol=1e-4):
                            masks = store.annotations(case)[:, 0]
                            masks = masks if mirrored is own else masks[..., ::-1]
                            same = [
                                rater
                                for rater, mask in zip(case.raters, masks, strict=True)
                                if np.array_equal(mask, flat[1])
                            ]
                            assert same, "the label is one of the raters' own masks"
                            seen.setdefault(index, set()).update(same[:1])
    assert len(seen) == 12
    assert min(len(raters) for raters in seen.values()) >= 3


def test_too_few_slices_for_a_batch():
    assert batches_per_epoch(20, 8) == 2
    with pytest.raises(
        UserError, match=r"this fold has 7 training slices, fewer than one batch; reduce train\.batch_size=8"
    ):
        batches_per_epoch(7, 8)
    with pytest.raises(UserError, match=r"this fold has 1 training slice, fewer than one batch; .* so add cases"):
        batches_per_epoch(1, 2)


@pytest.mark.parametrize(
    ("extent", "share", "edge"), [(512, 0.75, 384), (512, 1.0, 512), (50, 1.0, 50), (48, 0.75, 32)]
)
def test_edges_of_crops(extent, share, edge):
    assert crop_edge(extent, share) == edge
    values = np.arange(extent * extent).reshape(1, extent, extent)
    start = (extent - edge) // 2
    assert np.array_equal(centre_crop(values, share), values[:, start : start + edge, start : start + edge])


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_smaller_crop_is_the_same_part_of_the_scaled_slice(scale):
    """A crop is cut out of the slice as it is at that scale, anywhere in it."""
    image = torch.rand(1, 1, 64, 64)
    for offset, place in (((0.0, 0.0), (0, 0)), ((1.0, 0.5), (1.0, 0.5))):
        grid, mask = sampling_grid(views(scale, offset), (64, 64), CPU, 0.75)
        found = resample(image, grid, linear=True)
        assert found.shape == (1, 1, 48, 48)
        assert mask.all()
        whole = torch.nn.functional.interpolate(image, scale_factor=scale, mode="bilinear", align_corners=False)
        top, left = (round(share * (64 * scale - 48)) for share in place)
        assert torch.allclose(found, whole[..., top : top + 48, left : left + 48], atol=1e-5)


def test_intensities_of_int16_are_augmented_like_those_of_uint8():
    levels = torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8)
    blank = torch.zeros(4, 1, 16, 16, dtype=torch.uint8)
    fine = (levels.double() / 255 * 32767).round().to(torch.int16)
    train = TrainSettings(1, 0, 4, [0.5, 2.0], 0.5)
    coarse_batch, fine_batch = (
        BatchSource(
            TrainingData(images, blank, torch.zeros(4, dtype=torch.long), torch.ones(1)),
            LabelSettings("majority", "", {}, "nearest"),
            train,
            *(stream(0, 0, name) for name in ("order", "rater", "augmentation")),
        ).next()
        for images in (levels, fine)
    )
    assert torch.equal(coarse_batch.mask, fine_batch.mask)
    assert not fine_batch.mask.all()
    assert torch.all(fine_batch.image[~fine_batch.mask.unsqueeze(1)] == -1)
    assert torch.allclose(coarse_batch.image, fine_batch.image, rtol=0, atol=1e-4)
