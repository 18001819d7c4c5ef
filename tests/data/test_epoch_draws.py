"""An epoch drawn at once has the numbers of one drawn step by step, also on resuming and when read ahead."""

import pytest
import torch

from dmseg.config.compose import compose_settings
from dmseg.data import batches
from dmseg.data.augment import draw_views
from dmseg.data.batches import BatchSource, ReadAhead
from dmseg.data.training_slices import TrainingData, place
from dmseg.training.random_streams import DrawnAhead, stream

SETTINGS = compose_settings(["train.batch_size=4", "labels=random"])
CPU = torch.device("cpu")
N, V, SIZE = 14, 3, 16


def make_source(read_ahead=False, fusion="random"):
    generator = torch.Generator().manual_seed(0)
    images = (torch.rand(N, 1, SIZE, SIZE, generator=generator) * 255).to(torch.uint8)
    labels = (torch.rand(N, V, SIZE, SIZE, generator=generator) > 0.5).to(torch.uint8)
    data = TrainingData(images, labels, torch.arange(7).repeat_interleave(2), torch.full((7,), V))
    streams = [stream(0, 0, name) for name in ("order", "rater", "augmentation")]
    settings = compose_settings(["train.batch_size=4", f"labels={fusion}"])
    source = BatchSource(data, settings.labels, settings.train, *streams)
    if read_ahead:  # as for a device that the data do not fit on
        source._reader = ReadAhead(source._read)
    return source


def test_rows_are_those_drawn_step_by_step():
    source = make_source()
    order, rater, augmentation = (stream(0, 0, name) for name in ("order", "rater", "augmentation"))
    scale = SETTINGS.train.scale
    for _ in range(2):
        chosen = torch.randperm(N, generator=order)
        candidate = (torch.rand(7, generator=rater) * V).long().repeat_interleave(2)
        for step in range(N // 4):
            views = draw_views(4, (scale[0], scale[1]), SETTINGS.train.flip, augmentation)
            used, row = chosen[4 * step : 4 * step + 4], source.next_row()
            assert torch.equal(row[:, 0], used.double())
            assert torch.equal(row[:, 1], candidate[used].double())
            assert torch.equal(row[:, 2].float(), views.scale)
            assert torch.equal(row[:, 3:5].float(), views.offset)
            assert torch.equal(row[:, 5] > 0, views.flip)
            assert torch.equal(source.state()["augmentation"], augmentation.get_state())


def test_batches_that_are_read_ahead_are_the_same_also_after_resuming(monkeypatch):
    monkeypatch.setattr("dmseg.data.batches.READ_AHEAD", 2)  # fewer than an epoch has
    plain, ahead = make_source(), make_source(read_ahead=True)
    for step in range(8):
        one, other = plain.next(), ahead.next()
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.target, other.target)
        if step == 3:
            state = ahead.state()
    for resumed in (make_source(read_ahead=True), ahead):
        expected = make_source()
        resumed.load_state(state)
        expected.load_state(state)
        for _ in range(6):
            assert torch.equal(resumed.next().image, expected.next().image)


@pytest.mark.parametrize("fusion", ["random", "smoothing", "svls"])
@pytest.mark.parametrize("together", [1, 2 * 4 * SIZE**2, 10**9])
def test_batches_made_together_are_those_made_one_by_one(monkeypatch, together, fusion):
    monkeypatch.setattr(batches, "TOGETHER", together)
    source, single = make_source(fusion=fusion), make_source(fusion=fusion)
    for step in range(10):
        expected, found = single.batch(single.next_row()), source.next()
        for name in ("image", "target", "mask"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), (step, name)
        if step == 7:  # in the middle of an epoch
            source.load_state(source.state())
        if step == 8:  # a row taken from among those made already
            assert torch.equal(source.next_row(), single.next_row())
        for mine, yours in zip(flat(source.state()), flat(single.state()), strict=True):
            assert torch.equal(mine, yours)
        if step == 1:
            earlier = source.state()
    source.next()
    source.next()  # the first of another epoch
    for resumed in (source, single):  # `source` has made the next ones already
        resumed.load_state(earlier)
    assert torch.equal(source.next().image, single.batch(single.next_row()).image)


def test_batches_of_small_slices_are_made_in_one_call(monkeypatch):
    source, calls = make_source(), []
    make = source.batch
    monkeypatch.setattr(source, "batch", lambda row: calls.append(len(row)) or make(row))
    for _ in range(6):
        source.next()
    assert calls == [12, 12], "an epoch of three batches at a time"


def flat(state):
    return [torch.as_tensor(state[name]) for name in sorted(state)]


def test_data_that_do_not_fit_stay_in_host_memory(caplog):
    data = make_source()._data
    meta = torch.device("meta")
    assert place(data, meta, free=2 * data.n_bytes).images.device == meta
    with caplog.at_level("INFO"):
        assert place(data, meta, free=2 * data.n_bytes - 1).images.device == CPU
    assert "stay in host memory" in caplog.text


def test_numbers_drawn_ahead_are_those_drawn_step_by_step():
    def draw(shape, generator):
        return torch.rand(shape, generator=generator)

    ahead, plain = DrawnAhead(draw, torch.Generator().manual_seed(3), steps=4), torch.Generator().manual_seed(3)
    for _ in range(10):
        assert torch.equal(ahead.next((2, 3), CPU), draw((2, 3), plain))
        assert torch.equal(ahead.state(), plain.get_state())
    resumed = DrawnAhead(draw, torch.Generator(), steps=4)
    resumed.load_state(ahead.state())
    assert torch.equal(resumed.next((5,), CPU), draw((5,), plain))
    assert torch.equal(resumed.next((2, 3), CPU), draw((2, 3), plain))
