"""Calibrators and metrics take numpy arrays as they take tensors, and name what they cannot take."""

import numpy as np
import pytest
import torch
from one_case import count_one

from dmseg.calibration import KernelCalibrator, TemperatureScaling, choose_bandwidth, fit_temperature
from dmseg.metrics.agreement import rater_dice
from dmseg.metrics.histogram import count_batch
from dmseg.metrics.scores import case_scores

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(200, 3, generator=GENERATOR)
LABEL = torch.randint(0, 3, (200,), generator=GENERATOR)
PROB = LOGITS.softmax(1)
MAPS = torch.rand(4, 6, 6, generator=GENERATOR)
ZERO = torch.zeros(1, dtype=torch.int64)


def test_arrays_are_taken():
    assert fit_temperature(LOGITS.numpy(), LABEL.numpy()) == fit_temperature(LOGITS, LABEL)
    fitted = TemperatureScaling().fit(LOGITS.numpy(), LABEL.numpy())
    torch.testing.assert_close(fitted.transform(LOGITS.numpy()), fitted.transform(LOGITS))
    kernel = KernelCalibrator(1e-2).fit(PROB.numpy(), LABEL.numpy())
    expected = KernelCalibrator(1e-2).fit(PROB, LABEL).transform(PROB)
    torch.testing.assert_close(kernel.transform(PROB.numpy()), expected)
    torch.testing.assert_close(kernel.transform(PROB.numpy()[::-1]), expected.flip(0))
    assert choose_bandwidth(PROB.numpy(), LABEL.numpy()) == choose_bandwidth(PROB, LABEL)
    found = case_scores(count_one(MAPS.numpy(), (MAPS > 0.5).numpy(), MAPS.numpy(), valid=(MAPS > 0.1).numpy()))
    assert found == case_scores(count_one(MAPS, MAPS > 0.5, MAPS, valid=MAPS > 0.1))
    index = np.array([0, 0, 1, 1])
    batch = count_batch(MAPS.numpy(), (MAPS > 0.5).numpy(), MAPS.numpy(), index, 2)
    assert case_scores(batch[0] + batch[1]) == case_scores(count_one(MAPS, MAPS > 0.5, MAPS))
    swapped = MAPS.numpy().astype(">f4")
    for one, other in zip(batch, count_batch(swapped, swapped > 0.5, swapped, index.astype(">i8"), 2), strict=True):
        assert case_scores(one) == case_scores(other)
    assert np.array_equal(
        rater_dice(MAPS > 0.5, MAPS[0] > 0.5), rater_dice((MAPS > 0.5).numpy(), (MAPS[0] > 0.5).numpy())
    )


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "u4", "u8", ">i2", ">u2"])
def test_labels_of_any_integer_type_and_byte_order(dtype):
    label = LABEL.numpy().astype(dtype)
    assert fit_temperature(LOGITS.numpy().astype(">f4"), label) == fit_temperature(LOGITS, LABEL)
    kernel = KernelCalibrator(1e-2).fit(PROB.numpy().astype(">f4"), label)
    expected = KernelCalibrator(1e-2).fit(PROB, LABEL).transform(PROB)
    torch.testing.assert_close(kernel.transform(PROB.numpy()), expected, rtol=0, atol=0)
    for fit in (fit_temperature, KernelCalibrator().fit):
        with pytest.raises(ValueError, match=r"(label|target) has classes 0 to 3; give 0 to 2, and leave out pixels"):
            fit(PROB.numpy(), np.where(label == 2, np.array(3, dtype), label))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TemperatureScaling().fit([[1.0, 2.0]], LABEL[:1]), "logits is a list; give a tensor or a numpy array"),
        (lambda: TemperatureScaling().fit(LOGITS, LABEL.tolist()), "target is a list"),
        (lambda: TemperatureScaling().fit(LOGITS, LABEL.float()), "target is torch.float32; give integer classes"),
        (lambda: KernelCalibrator().fit(None, LABEL), "prob is None; give a tensor"),
        (lambda: KernelCalibrator().fit(PROB, LABEL.tolist()), "label is a list"),
        (lambda: count_batch([0.5], MAPS > 0, MAPS, ZERO, 1), "metrics take tensors or numpy arrays, not a list"),
        (lambda: count_batch(MAPS, None, MAPS, ZERO, 1), "metrics take tensors or numpy arrays, not None"),
    ],
)
def test_other_types_are_named(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_bandwidths_that_float64_cannot_hold():
    with pytest.raises(ValueError, match="bandwidth is 1e-20; the smallest"):
        KernelCalibrator(1e-20)
