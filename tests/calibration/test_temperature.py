"""Temperature scaling: the known temperature is found, and it is the optimum."""

import pytest
import torch
from torch.nn import functional

from dmseg.calibration import TemperatureScaling, fit_temperature


def sampled(temperature, n=20000, n_classes=3):
    """Logits, and labels drawn from their softmax at a temperature."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(n, n_classes, generator=generator)
    label = torch.multinomial((logits / temperature).softmax(1), 1, generator=generator).squeeze(1)
    return logits, label


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_with(temperature):
    logits, label = sampled(temperature)
    found = fit_temperature(logits, label)
    assert found == pytest.approx(temperature, rel=0.05)

    def loss(value):
        return float(functional.cross_entropy(logits.double() / value, label))

    assert loss(found) <= min(loss(1.01 * found), loss(found / 1.01))


def test_soft_targets_are_the_mean_of_their_labels():
    logits, label = sampled(2.0, n=500)
    assert fit_temperature(logits, functional.one_hot(label, 3).float()) == pytest.approx(
        fit_temperature(logits, label)
    )
    soft = (logits.double() / 1.7).softmax(1)
    assert fit_temperature(logits, soft) == pytest.approx(1.7, rel=1e-6)


def test_ends_of_the_range():
    logits = torch.tensor([[4.0, -4.0], [-4.0, 4.0]])
    assert fit_temperature(logits, torch.tensor([0, 1])) == pytest.approx(0.01)
    assert fit_temperature(logits, torch.tensor([1, 0])) == pytest.approx(100)
    assert fit_temperature(torch.tensor([[0.0, 0.0], [3.0, 3.0]]), torch.tensor([1, 0])) == 1


def test_fit_and_transform():
    logits, label = sampled(2.0, n=2000)
    scaling = TemperatureScaling().fit(logits, label)
    torch.testing.assert_close(scaling.transform(logits), (logits / scaling.temperature).softmax(1))
    with pytest.raises(RuntimeError, match="call fit"):
        TemperatureScaling().transform(logits)
    with pytest.raises(ValueError, match="shape"):
        fit_temperature(logits, label[:5])
    with pytest.raises(ValueError, match="not finite"):
        fit_temperature(logits / 0, label)
    with pytest.raises(ValueError, match="not finite"):
        fit_temperature(logits, logits / 0)
    with pytest.raises(ValueError, match=r"classes 1 to 3; give 0 to 2"):
        fit_temperature(logits, label % 2 * 2 + 1)
    with pytest.raises(TypeError, match="integer classes"):
        fit_temperature(logits, label.float())


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda z, y: fit_temperature(z, 10 * z.softmax(1)), ValueError, "target has rows that sum to 10"),
        (lambda z, y: fit_temperature(z, -z.softmax(1)), ValueError, "target has values that are negative"),
        (lambda z, y: fit_temperature(z, z > 0), ValueError, "target has rows that sum to"),
        (lambda z, y: fit_temperature(z[:, :1], 0 * y), ValueError, "at least two classes; for sigmoid logits"),
        (lambda z, y: fit_temperature(z[:0], y[:0]), ValueError, "N at least 1"),
        (
            lambda z, y: fit_temperature(z.reshape(1, -1, 3, 5), y),
            ValueError,
            r"rows \(N, C\); for maps \(B, C, H, W\)",
        ),
        (lambda z, y: TemperatureScaling().fit(z, y).transform(z[0]), ValueError, r"logits have shape \(3,\)"),
        (lambda z, y: TemperatureScaling().fit(z, y).transform(z[:, :2]), ValueError, "2 classes, those of fit 3"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call(*sampled(2.0, n=100))


def test_targets_in_half_precision_and_whole_numbers_are_distributions():
    logits, label = sampled(2.0, n=500)
    soft = (logits / 2).softmax(1)
    assert fit_temperature(logits, soft.bfloat16()) == pytest.approx(fit_temperature(logits, soft), rel=0.02)
    assert fit_temperature(logits, functional.one_hot(label, 3)) == pytest.approx(fit_temperature(logits, label))


def test_float64_stays_and_lower_precision_becomes_float32():
    logits, label = sampled(2.0, n=100)
    scaling = TemperatureScaling().fit(logits, label)
    assert [scaling.transform(logits.to(dtype)).dtype for dtype in (torch.float64, torch.float32, torch.bfloat16)] == [
        torch.float64, torch.float32, torch.float32]  # fmt: skip
    exact = logits.double() / scaling.temperature
    torch.testing.assert_close(scaling.transform(logits.double()), exact.softmax(1), rtol=1e-14, atol=0)


def test_repr_shows_what_was_fitted():
    logits, label = sampled(2.0, n=100)
    assert repr(TemperatureScaling()) == "TemperatureScaling()"
    scaling = TemperatureScaling().fit(logits, label)
    assert repr(scaling) == f"TemperatureScaling(temperature={scaling.temperature:g}, n_classes=3)"
