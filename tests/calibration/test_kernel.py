"""The kernel estimate: recorded values, scipy's densities, and a distribution whatever comes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.special import expit, logit
from scipy.stats import beta, dirichlet

from dmseg.calibration import BANDWIDTHS, BetaTable, KernelCalibrator, Keys, choose_bandwidth, kernel_estimate
from dmseg.calibration.table import reference_estimate
from dmseg.phantom.cases import PhantomCase


def predictions(n, n_classes, seed=0, spread=2.0):
    """Distributions and labels drawn from them: calibrated."""
    generator = torch.Generator().manual_seed(seed)
    prob = (spread * torch.randn(n, n_classes, generator=generator, dtype=torch.float64)).softmax(1)
    return prob, torch.multinomial(prob, 1, generator=generator).squeeze(1)


def plain(query, prob, label, bandwidth, left_out=False):
    """Eq. 30 with scipy's densities, one by one."""
    out = np.zeros((len(query), prob.shape[1]))
    for row, q in enumerate(query):
        for col, (f, y) in enumerate(zip(prob, label, strict=True)):
            if not (left_out and row == col):
                alpha = f / bandwidth + 1
                density = beta.pdf(q[1], alpha[1], alpha[0]) if len(f) == 2 else dirichlet.pdf(q, alpha)
                out[row, y] += density
    return out / out.sum(1, keepdims=True)


def test_recorded_values(golden):
    every, arrays = golden
    cases = [case for case in every if case["kind"] == "kde"]
    assert len(cases) == 3
    for case in cases:
        prob, index, label, out = (
            torch.from_numpy(arrays[f"{case['key']}_{part}"]) for part in ("prob", "key_index", "key_label", "out")
        )
        calibrator = KernelCalibrator(case["bandwidth"]).fit(prob[index], label)
        torch.testing.assert_close(calibrator.transform(prob), out, rtol=0, atol=5e-8)
        if case["classes"] == 2:
            keys = Keys(prob[index], torch.nn.functional.one_hot(label, 2))
            torch.testing.assert_close(BetaTable(keys, case["bandwidth"]).estimate(prob), out, rtol=0, atol=1e-5)


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("left_out", [False, True])
def test_the_formula_with_scipys_densities(n_classes, left_out):
    prob, label = predictions(15, n_classes)
    ours = KernelCalibrator(0.05).fit(prob, label).transform(prob, leave_one_out=left_out)
    np.testing.assert_allclose(ours, plain(prob.numpy(), prob.numpy(), label, 0.05, left_out), atol=1e-8)


LOGIT = st.one_of(st.floats(-100, 100), st.sampled_from([-1e4, 1e4, 0.0]))


@st.composite
def distributions(draw, n_classes, most=12):
    rows = draw(st.lists(st.lists(LOGIT, min_size=n_classes, max_size=n_classes), min_size=1, max_size=most))
    return torch.tensor(rows, dtype=torch.float32).softmax(1)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data(), st.integers(2, 4), st.sampled_from([1e-6, 5e-5, 1e-3, 0.1, 10.0]))
def test_a_distribution_whatever_comes(data, n_classes, bandwidth):
    keys, query = data.draw(distributions(n_classes)), data.draw(distributions(n_classes))
    label = torch.tensor(data.draw(st.lists(st.integers(0, n_classes - 1), min_size=len(keys), max_size=len(keys))))
    calibrator = KernelCalibrator(bandwidth).fit(keys, label)
    found = [calibrator.transform(query), calibrator.transform(keys, leave_one_out=True)]
    if n_classes == 2:
        table = BetaTable(Keys(keys, torch.nn.functional.one_hot(label, 2)), bandwidth)
        found.append(table.estimate(query))
    for out in found:
        assert bool(out.isfinite().all())
        assert 0 <= float(out.min()) <= float(out.max()) <= 1
        torch.testing.assert_close(out.sum(1), torch.ones(len(out)), rtol=0, atol=1e-6)
    for k in range(n_classes):
        if k not in label:
            assert float(found[0][:, k].max()) == 0


@pytest.mark.parametrize("n", [1, 4000])
def test_at_the_ends_the_nearest_keys_decide(n):
    """The plain formula gives 0 / 0 there. With 4000 rows the table is used."""
    keys = torch.tensor([[0.99, 0.01], [0.98, 0.02], [0.3, 0.7], [0.25, 0.75]])
    calibrator = KernelCalibrator(1e-3).fit(keys, torch.tensor([0, 0, 1, 1]))
    for end, expected in (([1.0, 0.0], 0), ([0.0, 1.0], 1)):
        out = calibrator.transform(torch.tensor([end]).repeat(n, 1))
        assert float(out[:, expected].min()) > 1 - 1e-6
    swapped = KernelCalibrator(1e-3).fit(keys, torch.tensor([1, 1, 0, 0])).transform(torch.tensor([[1.0, 0.0]] * n))
    assert float(swapped[:, 1].min()) > 1 - 1e-6


def test_far_keys_still_give_a_distribution():
    """At h = 1e-3 the plain formula in float32 is 0 / 0 further than 0.23 from any key."""
    keys = torch.tensor([[0.9, 0.1], [0.05, 0.95]])
    out = KernelCalibrator(1e-3).fit(keys, torch.tensor([0, 1])).transform(torch.tensor([[0.6, 0.4], [0.4, 0.6]]))
    torch.testing.assert_close(out[0], torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(out[1], torch.tensor([0.0, 1.0]))


def key_sets():
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(1000, generator=generator, dtype=torch.float64)
    confident = torch.sigmoid(6 * torch.randn(1000, generator=generator, dtype=torch.float64))
    coin = torch.randint(0, 2, (1000,), generator=generator)
    few = torch.tensor([0.2, 0.8]), torch.tensor([0, 1])
    side = torch.tensor([0.01, 0.012]), torch.tensor([0, 1])
    return {
        "uniform": (uniform, (torch.rand(1000, generator=generator) < uniform).long()),
        "confident": (confident, (torch.rand(1000, generator=generator) < confident).long()),
        "noise": (uniform, coin),
        "confident noise": (confident, coin),
        "two far apart": few,
        "two at one side": side,
    }


@pytest.mark.parametrize("bandwidth", [1e-2, 1e-3, 5e-5])
@pytest.mark.parametrize("name", list(key_sets()))
def test_the_table_is_close_to_the_estimate(name, bandwidth):
    foreground, label = key_sets()[name]
    keys = Keys(torch.stack([1 - foreground, foreground], 1), torch.nn.functional.one_hot(label, 2))
    logits = torch.cat([torch.linspace(-80, 80, 600), torch.logit(torch.linspace(1e-4, 1 - 1e-4, 900))])
    query = torch.stack([-logits, logits], 1).div(2).double().softmax(1)
    table = BetaTable(keys, bandwidth).estimate(query)
    assert float((table - kernel_estimate(query, keys, bandwidth)).abs().max()) < 3e-4


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_reference_form_is_the_formula_with_scipys_densities(n_classes):
    prob, label = predictions(15, n_classes)
    keys = Keys(prob, torch.nn.functional.one_hot(label, n_classes))
    np.testing.assert_allclose(
        reference_estimate(prob, keys, 0.05), plain(prob.numpy(), prob.numpy(), label, 0.05), atol=1e-8
    )


@pytest.mark.parametrize("bandwidth", [1e-2, 1e-3, 5e-5])
@pytest.mark.parametrize("name", list(key_sets()))
def test_the_table_is_close_to_the_reference_form(name, bandwidth):
    foreground, label = key_sets()[name]
    one_hot = torch.nn.functional.one_hot(label, 2)
    keys = Keys(torch.stack([1 - foreground, foreground], 1), one_hot, torch.arange(len(label)) % 3 < 2)
    query = torch.sigmoid(torch.cat([torch.linspace(-80, 80, 100), torch.linspace(-6, 6, 200)]).double())
    query = torch.cat([query, torch.tensor([0.0, 1.0])])
    query = torch.stack([1 - query, query], 1)
    expected = reference_estimate(query, keys, bandwidth)
    for found in (BetaTable(keys, bandwidth).estimate(query), kernel_estimate(query, keys, bandwidth)):
        assert float((found - expected).abs().max()) < 3e-4


def test_the_nodes_are_ascending_and_hold_the_estimate():
    foreground, label = key_sets()["confident"]
    keys = Keys(torch.stack([1 - foreground, foreground], 1), torch.nn.functional.one_hot(label, 2))
    table = BetaTable(keys, 1e-3)
    assert len(table.nodes) == 3 * 768 + 1
    assert (table.nodes.diff() > 0).all()
    nodes = torch.sigmoid(torch.stack([-table.nodes, table.nodes], 1))[::20]
    assert float((table.estimate(nodes) - reference_estimate(nodes, keys, 1e-3)).abs().max()) < 1e-6


def clusters(seed):
    """Keys in a few clusters, nearly or wholly of one prediction, whose classes have nothing to do with it."""
    generator = torch.Generator().manual_seed(seed)
    centres = [torch.rand(seed + 2, generator=generator), torch.linspace(0, 1, seed + 2), torch.tensor([0.0, 1.0])]
    cluster = torch.randint(0, len(centres[seed % 3]), (40 * 2 ** (seed % 5),), generator=generator)
    foreground = torch.sin(centres[seed % 3].double() * math.pi / 2)[cluster] ** 2
    rate = torch.rand(seed + 2, generator=generator)[cluster]
    label = (torch.rand(len(cluster), generator=generator) < rate).long()
    return Keys(torch.stack([1 - foreground, foreground], 1), torch.nn.functional.one_hot(label, 2))


@pytest.mark.parametrize("bandwidth", [0.1, 1e-2, 1e-3, 1e-4, 3e-6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_table_is_close_between_clusters_of_keys_too(bandwidth, dtype):
    """Between two clusters the estimate goes from one's share to the other's in much less than the kernel's width."""
    foreground = torch.sin(torch.linspace(0, math.pi / 2, 20001, dtype=torch.float64)) ** 2
    query = torch.stack([1 - foreground, foreground], 1).to(dtype)
    for seed in range(15):
        keys = clusters(seed)
        exact = kernel_estimate(query.double(), keys, bandwidth)
        assert float((BetaTable(keys, bandwidth).estimate(query) - exact).abs().max()) < 3e-4, seed


@pytest.mark.parametrize("bandwidth", [1e-2, 1e-4, 3e-6])
def test_the_table_is_close_where_one_class_takes_over_from_the_other(bandwidth):
    """From 0 to 1 where two keys weigh the same, found by bisection; certain on both sides, but not everywhere."""
    for first in torch.linspace(0.0, 0.5, 30).tolist():
        foreground = torch.tensor([first, 0.8, 0.95, 0.95], dtype=torch.float64)
        keys = Keys(torch.stack([1 - foreground, foreground], 1), torch.eye(2)[[0, 1, 0, 1]])

        def estimate(position, keys=keys):
            return kernel_estimate(torch.stack([1 - position, position], 1), keys, bandwidth)

        low, high = foreground[:1], foreground[1:2]
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (low, middle) if float(estimate(middle)[0, 1]) > 0.5 else (middle, high)
        near = low + torch.linspace(-20, 20, 1001, dtype=torch.float64) * bandwidth
        found = BetaTable(keys, bandwidth).estimate(torch.stack([1 - near, near], 1))
        assert 0.4 < float(found[:, 1].mean()) < 0.6
        assert float((found - estimate(near)).abs().max()) < 3e-4, first


def test_keys_that_do_not_count_change_nothing():
    prob, label = predictions(50, 2)
    one_hot, counted = torch.nn.functional.one_hot(label, 2), torch.arange(50) < 30
    few, padded = Keys(prob[:30], one_hot[:30]), Keys(prob, one_hot, counted)
    torch.testing.assert_close(kernel_estimate(prob, few, 1e-2), kernel_estimate(prob, padded, 1e-2))
    torch.testing.assert_close(BetaTable(few, 1e-2).estimate(prob), BetaTable(padded, 1e-2).estimate(prob))
    none = Keys(prob, one_hot, torch.zeros(50, dtype=torch.bool))
    torch.testing.assert_close(kernel_estimate(prob, none, 1e-2), prob)
    torch.testing.assert_close(BetaTable(none, 1e-2).estimate(prob), prob, atol=1e-4, rtol=0)


def test_a_single_key_left_out_leaves_the_prediction():
    prob = torch.tensor([[0.3, 0.7]])
    out = KernelCalibrator().fit(prob, torch.tensor([0])).transform(prob, leave_one_out=True)
    torch.testing.assert_close(out, prob)


@pytest.mark.parametrize("of", ["label", "prediction"])
def test_the_bandwidth_of_the_greatest_left_out_likelihood(of):
    prob, label = predictions(40, 2)

    def likelihood(bandwidth):
        if of == "label":
            own = plain(prob.numpy(), prob.numpy(), label, bandwidth, left_out=True)[np.arange(40), label]
            return np.log(np.maximum(own, np.finfo(np.float32).tiny)).sum()
        alpha = prob[:, 1].numpy() / bandwidth + 1, prob[:, 0].numpy() / bandwidth + 1
        density = beta.pdf(prob[:, 1].numpy()[:, None], alpha[0], alpha[1])
        np.fill_diagonal(density, 0)
        return np.log(density.sum(1)).sum()

    candidates = (0.01, 0.03, 0.1, 0.5)
    assert choose_bandwidth(prob, label, candidates, of=of) == max(candidates, key=likelihood)
    calibrator = KernelCalibrator(None).fit(prob, label)
    assert calibrator.fitted_bandwidth == choose_bandwidth(prob, label, BANDWIDTHS)


def test_an_overconfident_prediction_is_put_right():
    """Of pixels predicted with 0.99, 0.8 are foreground; the estimate says 0.8."""
    generator = torch.Generator().manual_seed(0)
    foreground = torch.where(torch.rand(20000, generator=generator) < 0.5, 0.99, 0.02)
    truth = torch.where(foreground > 0.5, 0.8, 0.1)
    label = (torch.rand(20000, generator=generator) < truth).long()
    prob = torch.stack([1 - foreground, foreground], 1)
    out = KernelCalibrator(1e-3).fit(prob[:2000], label[:2000]).transform(prob)
    torch.testing.assert_close(out[:, 1], truth, rtol=0, atol=0.03)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0])
def test_theorem_4(sharpness):
    """|E[p* - f]| <= E|E[y|f] - f| on predictions whose true probability is known; the estimate attains less."""
    generator = torch.Generator().manual_seed(1)
    logit = 2 * torch.randn(20000, generator=generator, dtype=torch.float64) - 0.5
    truth, predicted = torch.sigmoid(logit), torch.sigmoid(sharpness * logit + 0.3)
    label = (torch.rand(20000, generator=generator) < truth).long()
    prob = torch.stack([1 - predicted, predicted], 1)
    # predictions are a monotone function of the truth here, so E[y | f] is the truth
    bias, error = float((truth - predicted).mean().abs()), float((truth - predicted).abs().mean())
    assert bias <= error
    calibrated = KernelCalibrator(1e-2).fit(prob[::10], label[::10]).transform(prob)[:, 1]
    left_bias = float((truth - calibrated).mean().abs())
    left_error = float((truth - calibrated).abs().mean())
    assert left_bias <= left_error < error / 2
    assert left_bias < bias


@pytest.mark.parametrize("sharpness", [0.4, 3.0])
def test_theorem_4_on_phantoms(sharpness):
    """The same where a phantom's own probability is the truth, its raters draw the labels, and predictions blur it."""
    cases = [PhantomCase(0, "prostate", number, 0.2) for number in range(1, 7)]
    truth = np.concatenate([case.probability(1).ravel() for case in cases]).astype(float)
    label = np.concatenate([next(case.annotations(1)).ravel() for case in cases])
    blurred = np.concatenate([gaussian_filter(case.probability(1), 1.5).ravel() for case in cases])
    predicted = expit(sharpness * logit(blurred.clip(0.02, 0.98)) + 0.5).round(2).clip(0.01, 0.99)
    values, group = np.unique(predicted, return_inverse=True)
    expected = (np.bincount(group, truth) / np.bincount(group))[group]  # E[y | f]
    bias, error = abs((truth - predicted).mean()), np.abs(expected - predicted).mean()
    assert 0.005 < bias <= error
    prob = torch.from_numpy(np.stack([1 - predicted, predicted], 1))
    calibrator = KernelCalibrator(1e-3).fit(prob[::7], torch.from_numpy(label[::7]).long())
    calibrated = calibrator.transform(torch.from_numpy(np.stack([1 - values, values], 1)))[:, 1].numpy()[group]
    left_bias, left_error = abs((truth - calibrated).mean()), np.abs(expected - calibrated).mean()
    assert left_bias <= left_error < error / 2


@pytest.mark.parametrize(
    ("prob", "label", "error", "words"),
    [
        ([[0.5, 0.5]], [0.0], TypeError, "integer classes"),
        ([[0, 1]], [1], TypeError, "floating-point"),
        ([[0.5, 0.4]], [0], ValueError, "sum to 0.9"),
        ([[1.5, -0.5]], [0], ValueError, "negative"),
        ([[math.nan, 0.5]], [0], ValueError, "not a number"),
        ([[0.5, 0.5]], [2], ValueError, "give 0 to 1"),
        ([[0.5, 0.5]], [0, 1], ValueError, "shape"),
        ([[1.0]], [0], ValueError, "two classes"),
    ],
)
def test_mistakes(prob, label, error, words):
    with pytest.raises(error, match=words):
        KernelCalibrator().fit(torch.tensor(prob), torch.tensor(label))


def test_more_mistakes():
    with pytest.raises(ValueError, match="above 0"):
        KernelCalibrator(0.0)
    with pytest.raises(RuntimeError, match="call fit"):
        KernelCalibrator().transform(torch.tensor([[0.5, 0.5]]))
    fitted = KernelCalibrator().fit(torch.tensor([[0.5, 0.5]]), torch.tensor([1]))
    with pytest.raises(ValueError, match="3 classes, those of fit 2"):
        fitted.transform(torch.tensor([[0.2, 0.3, 0.5]]))
    with pytest.raises(ValueError, match="takes the 1 predictions"):
        fitted.transform(torch.tensor([[0.5, 0.5]] * 2), leave_one_out=True)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda *rows: choose_bandwidth(*rows, of="predictions"), ValueError, "'predictions', .* label or prediction"),
        (lambda *rows: choose_bandwidth(*rows, limit=1), ValueError, "limit is 1, .* at least 2"),
        (lambda *rows: choose_bandwidth(*rows, limit=2.5), ValueError, r"limit is 2\.5"),
        (lambda *rows: choose_bandwidth(*rows, []), ValueError, "candidates is empty; give at least one"),
        (lambda *rows: choose_bandwidth(*rows, 0.1), TypeError, r"candidates is 0\.1, but must be a list"),
        (lambda *rows: choose_bandwidth(*rows, ["a"]), TypeError, "candidates is .* list of numbers above 0"),
        (lambda *rows: choose_bandwidth(*rows, [0.1, -1.0]), ValueError, "bandwidth is -1"),
        (lambda *rows: KernelCalibrator("auto"), TypeError, "bandwidth is 'auto'; .* None to choose it in fit"),
        (lambda *rows: KernelCalibrator(True), TypeError, "bandwidth is True"),
        (lambda *rows: KernelCalibrator(exact="no"), TypeError, "exact is 'no', but must be True or False"),
    ],
)
def test_settings_that_do_not_fit(call, error, words):
    with pytest.raises(error, match=words):
        call(*predictions(50, 2))


def test_candidates_of_numpy_and_a_limit_of_two():
    prob, label = predictions(50, 2)
    chosen = choose_bandwidth(prob, label, np.array([1e-3, 1e-1]))
    assert type(chosen) is float
    assert chosen == choose_bandwidth(prob, label, [1e-3, 1e-1])
    assert choose_bandwidth(prob, label, [0.1], limit=np.int64(2)) == 0.1


def test_a_bandwidth_is_not_chosen_from_one_pixel():
    prob, label = predictions(1, 2)
    with pytest.raises(ValueError, match="at least 2 pixels, but there is 1; give more, or set the bandwidth"):
        KernelCalibrator(None).fit(prob, label)


def test_autocast_changes_nothing():
    calibrator = KernelCalibrator(1e-3).fit(*predictions(300, 2))
    prob, _ = predictions(5000, 2, seed=1)
    expected = calibrator.transform(prob)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(calibrator.transform(prob), expected, rtol=0, atol=0)


def test_repr_shows_settings_and_what_was_fitted():
    assert repr(KernelCalibrator()) == "KernelCalibrator(bandwidth=0.001, exact=False)"
    calibrator = KernelCalibrator(None, exact=True).fit(*predictions(50, 3))
    fitted = f"fitted_bandwidth={calibrator.fitted_bandwidth:g}, n_keys=50, n_classes=3"
    assert repr(calibrator) == f"KernelCalibrator(bandwidth=None, exact=True, {fitted})"
