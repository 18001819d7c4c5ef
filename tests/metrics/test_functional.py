"""Metrics of arrays in one line: against torchmetrics, the definitions and a stored run, for all kinds of input."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_f1_score, multiclass_calibration_error

import dmseg.metrics
from dmseg.config.compose import compose_settings
from dmseg.errors import UserError
from dmseg.metrics import COUNT_METRICS, bdice, case_metrics, dice, ece, ged
from dmseg.metrics.energy_distance import generalised_energy_distance
from dmseg.runs.execute import execute
from dmseg.runs.plan import plan_run
from dmseg.runs.sources import prepare_task
from dmseg.runs.store import RunStore

RNG = np.random.default_rng(0)
P = RNG.uniform(0.001, 0.999, (3, 12, 10)).astype(np.float32)
MASKS = RNG.random((4, 3, 12, 10)) < 0.4
VOTES = MASKS.sum(axis=0)
MAJORITY = {"background": VOTES > 2, "foreground": VOTES >= 2}
NAN = float("nan")


def plain_bdice(p, label):
    found = []
    for level in np.arange(1, 10) / 10:
        first, second = p >= np.float32(level), np.float32(label) >= np.float32(level)
        if first.any() or second.any():
            found.append(2 * (first & second).sum() / (first.sum() + second.sum()))
    return np.mean(found)


@pytest.mark.parametrize("ties", ["background", "foreground"])
@pytest.mark.parametrize("shown", [(), (1,), (slice(None), 4, slice(2))])
def test_against_torchmetrics(ties, shown):
    """Slices, an image, and selected pixels."""
    p, masks, y = P[shown], MASKS[:, *shown], MAJORITY[ties][shown]
    flat, truth = torch.tensor(p.ravel()), torch.tensor(y.ravel()).int()
    assert dice(p, masks, ties=ties) == pytest.approx(float(binary_f1_score(flat, truth)), abs=1e-7)
    expected = multiclass_calibration_error(torch.stack([1 - flat, flat], 1), truth, 2, 15)
    assert ece(p, masks, n_bins=15, ties=ties) == pytest.approx(float(expected), abs=1e-6)
    assert bdice(p, masks) == pytest.approx(plain_bdice(p, masks.mean(axis=0)))


def test_a_single_mask_and_a_soft_label():
    assert dice(P, MASKS[0]) == dice(P, MASKS[:1]) == pytest.approx(2 * (P >= 0.5)[MASKS[0]].sum() / (
        (P >= 0.5).sum() + MASKS[0].sum()))  # fmt: skip
    assert ece(P, MASKS[0]) == ece(P, MASKS[:1])
    assert bdice(P, MASKS[0]) == bdice(P, MASKS[:1]) == pytest.approx(plain_bdice(P, MASKS[0]))
    soft = RNG.random(P.shape)
    assert bdice(P, soft) == pytest.approx(plain_bdice(P, soft))
    assert case_metrics(P, MASKS, ["bdice"], label=soft) == {"bdice": bdice(P, soft)}
    assert bdice(P, soft, levels=[0.5]) == dice(P, soft >= 0.5)
    assert dice(MASKS[0], MASKS[1]) == dice(MASKS[1], MASKS[0])


KINDS = {
    "float64": lambda p, m: (p.astype(np.float64), m.astype(np.uint8)),
    "big-endian": lambda p, m: (p.astype(">f4"), m.astype(">i2")),
    "read-only": lambda p, m: (np.broadcast_to(p, (1, *p.shape))[0], np.broadcast_to(m, (1, *m.shape))[0]),
    "mirrored": lambda p, m: (p[::-1, :, ::-1], m[:, ::-1, :, ::-1]),
    "Fortran": lambda p, m: (np.asfortranarray(p), np.asfortranarray(m, dtype=np.float32)),
    "tensor": lambda p, m: (torch.tensor(p, requires_grad=True), torch.tensor(m)),
    "list of arrays": lambda p, m: (list(p), list(m)),
    "list of tensors": lambda p, m: (list(torch.tensor(p)), list(torch.tensor(m).long())),
    "numbers": lambda p, m: (p.tolist(), m.tolist()),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
def test_arrays_of_any_kind(kind):
    p, masks = KINDS[kind](P, MASKS)
    assert (dice(p, masks), bdice(p, masks), ece(p, masks)) == (dice(P, MASKS), bdice(P, MASKS), ece(P, MASKS))
    names = [name for name in COUNT_METRICS if name != "dice_slices"]
    assert case_metrics(p, masks, names) == pytest.approx(case_metrics(P, MASKS, names), rel=1e-12)
    assert ged(masks[:3], masks) == ged(MASKS[:3], MASKS)


def test_half_precision():
    for dtype in (torch.float16, torch.bfloat16):
        rounded = torch.tensor(P).to(dtype)
        assert dice(rounded, MASKS) == dice(rounded.double().numpy(), MASKS)


def test_several_metrics_at_once():
    found = case_metrics(P, MASKS, ["nll", "ece", "volume_bias", "dice", "bdice"], ties="foreground", n_bins=7)
    y = MAJORITY["foreground"]
    assert list(found) == ["nll", "ece", "volume_bias", "dice", "bdice"]
    assert found["nll"] == pytest.approx(-np.log(np.where(y, P, 1 - P)).mean(), rel=1e-5)
    assert found["volume_bias"] == pytest.approx(P.sum() / MASKS.sum(axis=(1, 2, 3)).mean() - 1, rel=1e-5)
    assert found["dice"] == dice(P, MASKS, ties="foreground")
    assert found["ece"] == ece(P, MASKS, n_bins=7, ties="foreground")
    assert found["bdice"] == bdice(P, MASKS)
    image = case_metrics(P[0], MASKS[:, 0], [*dmseg.metrics.functional.PLAIN, *COUNT_METRICS])
    assert image == case_metrics(P[:1], MASKS[:, :1], list(image))
    assert case_metrics(P, MASKS, "brier").keys() == {"brier"}


def test_empty_masks_and_no_pixels():
    nothing = np.zeros_like(P)
    for empty, value in (("skip", NAN), ("one", 1.0), ("zero", 0.0)):
        found = (dice(nothing, MASKS & False, empty=empty), bdice(nothing, MASKS & False, empty=empty))
        assert found == pytest.approx((value, value), nan_ok=True)
    assert ece(nothing, MASKS & False) == 0
    assert np.isnan([dice(P[:0], MASKS[:, :0]), bdice(P[:0], MASKS[:, :0]), ece(P[:0], MASKS[:, :0])]).all()


def test_energy_distance():
    assert ged(MASKS[:3], MASKS) == generalised_energy_distance(MASKS[:3], MASKS)
    assert ged(MASKS[0], MASKS) == ged(MASKS[:1], MASKS) == ged(MASKS, MASKS[0])
    assert ged(MASKS[:, 0], MASKS[:, 0]) == pytest.approx(0)
    first, second = MASKS[0, 0], MASKS[1, 0]
    assert ged(first, second[None]) == pytest.approx(2 * (1 - (first & second).sum() / (first | second).sum()))


def test_values_are_those_of_a_stored_run(small_run):
    words = [*small_run, "evaluate.save_predictions=true", "evaluate.ged=true", "evaluate.bins=7"]
    settings = compose_settings([*words, "train.epochs=30", "optim.decoder_lr_factor=10"])
    prepared = prepare_task(settings)
    run = plan_run(settings, prepared)
    execute(run, lambda run: [])
    store = RunStore(Path(settings.paths.results))
    cases = store.read_cases(run.run_id, run.evaluation_id).set_index("case")
    counts = store.read_counts(run.run_id, run.evaluation_id)
    assert cases["dice"].max() > 0.1, "the check would be empty on empty predictions"
    for case in (item for item in prepared.cases if item.case in cases.index):
        p = np.load(store.folder(run.run_id) / "predictions" / f"{case.case}.npy")
        masks = prepared.annotations(case)[:, 0]
        row = cases.loc[case.case]
        assert dice(p, masks) == pytest.approx(row["dice"], abs=0, nan_ok=True)
        assert bdice(p, masks) == pytest.approx(row["bdice"], abs=0, nan_ok=True)
        assert ece(p, masks, n_bins=7) == row["ece"]
        samples = np.stack([p >= np.float32(level) for level in dmseg.metrics.BDICE_LEVELS])
        assert ged(samples, masks) == row["ged"]
        stored = {name: function(counts[case.case]) for name, function in COUNT_METRICS.items()}
        assert case_metrics(p, masks, list(COUNT_METRICS), n_bins=7) == pytest.approx(stored, abs=0, nan_ok=True)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: dice(8 * P - 4, MASKS), UserError, r"probability ranges from -3\.\d+ to .* sigmoid or softmax"),
        (
            lambda: dice(np.nextafter(np.float32(1), 2), MASKS),
            UserError,
            r"to 1\.00000012, .* probability\.clip\(0, 1\)",
        ),
        (lambda: ece(np.where(P > 0.9, np.nan, P), MASKS), UserError, r"probability has values .* \(NaN\)"),
        (lambda: bdice(P, 255 * MASKS[0]), UserError, "label ranges from 0 to 255"),
        (lambda: dice(P, 255 * MASKS), UserError, "masks has the value 255, .* give masks != 0"),
        (lambda: dice(P, P), UserError, "but a mask must have only 0 and 1; threshold the probability first"),
        (lambda: dice(P, np.where(MASKS, np.nan, 0)), UserError, "masks has NaN, .* leave out raters who did not"),
        (lambda: ece(MASKS[0], P), UserError, "arguments swapped?"),
        (lambda: ece(MASKS[0], 255 * MASKS), UserError, "give masks != 0$"),
        (lambda: dice(P[:, None], MASKS[0][:, None]), ValueError, "one case, .* without axes for batch"),
        (lambda: dice(P, np.moveaxis(MASKS, 0, -1)), ValueError, r"masks of R raters as \(R, 3, 12, 10\)"),
        (lambda: dice(P[0], MASKS), ValueError, r"probability has shape \(12, 10\) and masks \(4, 3, 12, 10\)"),
        (lambda: dice(P, MASKS[:0]), ValueError, "at least one mask"),
        (lambda: dice(P, [MASKS[0], MASKS[1, :1]]), ValueError, r"differ in shape: \[\(1, 12, 10\), \(3, 12, 10\)\]"),
        (lambda: dice(P, [MASKS[0], None]), TypeError, "masks is a list with None in it"),
        (lambda: dice(P, "mask.png"), TypeError, "masks is a str"),
        (lambda: dice(P, np.array(["a"])), TypeError, "masks has values of type <U1"),
        (lambda: dice(P, None), TypeError, "masks is None; give a numpy array, a tensor"),
        (lambda: dice(P + 1j, MASKS), TypeError, "type complex64"),
        (lambda: dice(np.ma.masked_array(P, P > 0.5), MASKS), TypeError, "masked array"),
        (lambda: dice(P, [np.ma.masked_array(MASKS[0])]), TypeError, "masked array"),
        (lambda: dice(P, MASKS, ties="up"), UserError, "ties is 'up', but must be background or foreground"),
        (lambda: dice(P, MASKS, empty="1"), UserError, "'1', but must be skip, one or zero"),
        (lambda: ece(P, MASKS, n_bins=10.0), UserError, "bins is 10.0, but must be a whole number from 1 to 100"),
        (lambda: ece(P, MASKS, n_bins=True), UserError, "bins is True"),
        (lambda: bdice(P, MASKS, levels=0.5), UserError, "levels are 0.5, but must be a list"),
        (lambda: case_metrics(P, MASKS, ["dise"]), UserError, "'dise', which is not a metric; choose from dice"),
        (lambda: case_metrics(P, MASKS, ["nsd"]), UserError, "call dmseg.metrics.nsd"),
        (lambda: case_metrics(P, MASKS, label=P[0]), ValueError, r"label has shape \(12, 10\)"),
        (lambda: case_metrics(P.ravel(), MASKS.reshape(4, -1)), ValueError, r"give an image \(H, W\)"),
        (lambda: case_metrics(P, MASKS, boundary=0), UserError, "boundary is 0"),
        (lambda: ged(MASKS[0, 0], MASKS[1, 0]), ValueError, r"give \(S, H, W\) and \(R, H, W\)"),
        (lambda: ged(MASKS, MASKS[:, :1]), ValueError, "samples have shape"),
        (lambda: ged(P, MASKS), UserError, "samples >= 0.5"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_the_package_exports_its_names_without_torch():
    code = (
        "import sys; from dmseg.metrics import COUNT_METRICS, count_stored, lesion_f1, nsd, reliability\n"
        "assert not {'torch', 'scipy', 'monai'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    names: dict[str, object] = {}
    exec("from dmseg.metrics import *", names)
    assert set(names) - {"__builtins__"} == set(dmseg.metrics.__all__) <= set(dir(dmseg.metrics))
    with pytest.raises(AttributeError, match="no attribute 'dicee'"):
        _ = dmseg.metrics.dicee
