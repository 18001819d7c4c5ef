"""Whole runs: reproducible, stored once, scored again without training, and blind to validation labels."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import save_png

from dmseg.config.compose import compose_settings
from dmseg.config.settings import LauncherSettings
from dmseg.errors import UserError
from dmseg.launch import launch, try_run
from dmseg.runs.execute import execute
from dmseg.runs.plan import plan_folds, plan_run
from dmseg.runs.sources import prepare_task
from dmseg.runs.store import RunStore
from dmseg.training import precision


def planned(overrides):
    settings = compose_settings(overrides)
    return plan_run(settings, prepare_task(settings))


def nothing(run):
    return []


def results(run):
    return Path(run.settings.paths.results)


def folder(run):
    return RunStore(results(run)).folder(run.run_id)


def test_a_run_leaves_what_the_readme_says(small_run):
    run = planned([*small_run, "evaluate.save_predictions=true"])
    assert execute(run, nothing)
    place = folder(run)
    files = "DONE cases.csv config.json counts.npz evaluation.json history.csv manifest.json pack.npz predictions"
    assert {path.name for path in place.iterdir()} == {*files.split(), "weights.safetensors"}
    cases = pd.read_csv(place / "cases.csv")
    assert list(cases.columns[:4]) == ["case", "dice", "bdice", "ece"]
    assert tuple(cases["case"]) == run.split.validation
    for case in cases["case"]:
        values = np.load(place / "predictions" / f"{case}.npy")
        assert values.dtype == np.float32
        assert values.shape == (32, 32)
        assert 0 <= values.min() <= values.max() <= 1
    history = pd.read_csv(place / "history.csv")
    assert list(history["step"]) == [2, 4]
    assert np.allclose(history["loss"], 0.25 * history["ce"] + 0.75 * history["region"], atol=1e-6)
    manifest = json.loads((place / "manifest.json").read_text())
    assert manifest["split"]["validation"] == list(run.split.validation)
    assert manifest["versions"]["torch"]


def test_scores_are_those_of_the_saved_predictions(small_run):
    run = planned([*small_run, "evaluate.save_predictions=true", "train.epochs=30", "optim.decoder_lr_factor=10"])
    execute(run, nothing)
    store = prepare_task(run.settings)
    cases = pd.read_csv(folder(run) / "cases.csv").set_index("case")
    assert cases["dice"].max() > 0.1, "the check would be empty on empty predictions"
    for item in store.cases:
        if item.case not in cases.index:
            continue
        probability = np.load(folder(run) / "predictions" / f"{item.case}.npy")
        raters = store.annotations(item)[:, 0].astype(float)
        truth, soft = raters.sum(axis=0) >= 3, raters.mean(axis=0).astype(np.float32)
        assert cases.loc[item.case, "dice"] == pytest.approx(plain_dice(probability >= 0.5, truth), abs=1e-9)
        levels = [np.float32(level / 10) for level in range(1, 10)]
        by_level = [plain_dice(probability >= level, soft >= level) for level in levels]
        assert cases.loc[item.case, "bdice"] == pytest.approx(np.nanmean(by_level), abs=1e-9)
        assert cases.loc[item.case, "ece"] == pytest.approx(plain_ece(probability, truth), abs=1e-6)


def plain_dice(one, other):
    total = one.sum() + other.sum()
    return 2 * (one & other).sum() / total if total else np.nan


def plain_ece(probability, truth):
    confidence = np.maximum(probability, 1 - probability).astype(np.float64).ravel()
    correct = ((probability >= 0.5) == truth).ravel()
    bins = np.minimum((confidence * 10).astype(int), 9)
    return sum(
        abs(confidence[bins == b].mean() - correct[bins == b].mean()) * (bins == b).mean()
        for b in range(10)
        if (bins == b).any()
    )


def test_the_same_run_twice_is_identical_and_never_repeated(small_run, tmp_path):
    one = planned(small_run)
    other = planned([*small_run, f"paths.results='{tmp_path / 'again'}'"])
    assert one.run_id == other.run_id
    assert execute(one, nothing)
    assert execute(other, nothing)
    for name in ("weights.safetensors", "cases.csv", "history.csv"):
        assert (folder(one) / name).read_bytes() == (folder(other) / name).read_bytes()
    written = (folder(one) / "weights.safetensors").stat().st_mtime_ns
    assert not execute(one, nothing)
    assert (folder(one) / "weights.safetensors").stat().st_mtime_ns == written


def test_validation_labels_never_reach_the_weights(small_run, lidc_tree, tmp_path):
    run = planned(small_run)
    execute(run, nothing)
    rng = np.random.default_rng(0)
    for case in run.split.validation:
        for mask in (lidc_tree / "LIDC-IDRI-slices" / case).rglob("mask-*/*.png"):
            save_png(mask, 255 * (rng.random((32, 32)) < 0.5))
    noisy = planned([*small_run, f"paths.results='{tmp_path / 'noisy'}'"])
    assert noisy.run_id != run.run_id, "other data"
    execute(noisy, nothing)
    assert (folder(noisy) / "weights.safetensors").read_bytes() == (folder(run) / "weights.safetensors").read_bytes()
    assert (folder(noisy) / "cases.csv").read_bytes() != (folder(run) / "cases.csv").read_bytes()


def test_another_evaluation_scores_saved_weights_without_training(small_run, monkeypatch):
    run = planned(small_run)
    execute(run, nothing)
    monkeypatch.setattr("dmseg.runs.execute.fit", None)  # training again would fail
    other = planned(
        [*small_run, "evaluate.reference._target_=dmseg.labels.fusion.majority", "evaluate.save_predictions=true"]
    )
    assert other.run_id == run.run_id
    assert other.evaluation_id != run.evaluation_id
    assert execute(other, nothing)
    assert not execute(other, nothing)
    store = RunStore(results(run))
    first, second = (store.read_cases(run.run_id, item.evaluation_id) for item in (run, other))
    assert np.array_equal(first["dice"], second["dice"])
    assert not np.array_equal(first["bdice"], second["bdice"])
    assert len(list((folder(run) / "predictions").glob("*.npy"))) == len(run.split.validation)


def test_the_energy_distance_is_scored_from_saved_weights_without_training(small_run, monkeypatch):
    run = planned(small_run)
    execute(run, nothing)
    monkeypatch.setattr("dmseg.runs.execute.fit", None)  # training again would fail
    other = planned([*small_run, "evaluate.ged=true"])
    assert other.run_id == run.run_id
    assert execute(other, nothing)
    assert not execute(other, nothing)
    store = RunStore(results(run))
    first, second = (store.read_cases(run.run_id, item.evaluation_id) for item in (run, other))
    assert second["ged"].between(0, 2).all()
    pd.testing.assert_frame_equal(second.drop(columns="ged"), first)


def test_smoothed_and_soft_labels_train(small_run):
    losses = {}
    for labels in ("majority", "random", "uniform", "weighted", "smoothing"):
        run = planned([*small_run, f"labels={labels}", "train.epochs=1"])
        execute(run, nothing)
        losses[labels] = pd.read_csv(folder(run) / "history.csv")["loss"].item()
    assert len(set(losses.values())) == 5


def test_a_failed_run_leaves_nothing_that_looks_finished(small_run, monkeypatch):
    run = planned(small_run)

    def broken(*arguments):
        raise RuntimeError("the machine is on fire")

    monkeypatch.setattr("dmseg.runs.execute.fit", broken)
    outcome = try_run(run, nothing)
    assert outcome.status == 1
    assert "on fire" in outcome.error
    assert "Traceback" in outcome.log.read_text()
    assert not RunStore(results(run)).is_done(run.run_id)
    assert list(folder(run).parent.iterdir()) == []
    monkeypatch.undo()
    assert try_run(run, nothing).error is None


def test_one_failing_run_does_not_stop_the_others(small_run):
    settings = compose_settings(small_run)
    store = prepare_task(settings)
    runs = plan_folds(settings, store)
    settings = dataclasses.replace(settings, model=dataclasses.replace(settings.model, architecture="Nope"))
    bad = plan_run(settings, store)
    outcomes = list(launch([bad, *runs[1:3]], LauncherSettings("local", 2), nothing))
    assert {outcome.run.run_id: outcome.status for outcome in outcomes} == {
        bad.run_id: 2,
        runs[1].run_id: 0,
        runs[2].run_id: 0,
    }


def test_workers_give_the_same_numbers_as_one_process(small_run, tmp_path):
    runs = {}
    for name, workers in (("inline", 1), ("pool", 2)):
        settings = compose_settings([*small_run, f"paths.results='{tmp_path / name}'"])
        planned_runs = plan_folds(settings, prepare_task(settings), folds=(0, 1))
        assert all(
            outcome.error is None for outcome in launch(planned_runs, LauncherSettings("auto", workers), nothing)
        )
        runs[name] = planned_runs
    for one, other in zip(runs["inline"], runs["pool"], strict=True):
        assert (folder(one) / "weights.safetensors").read_bytes() == (
            folder(other) / "weights.safetensors"
        ).read_bytes()


def test_a_loss_that_is_not_finite_stops_the_run(small_run):
    run = planned([*small_run, "optim.lr=100", "optim.decoder_lr_factor=10000", "train.epochs=8"])
    with pytest.raises(UserError, match=r"the loss is not finite after epoch \d+ .* lower optim\.lr"):
        execute(run, nothing)


def test_auto_precision_is_resolved_before_the_id(small_run, monkeypatch):
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset({"amx_bf16"}))
    run = planned([*small_run, "precision=auto", "device=cpu"])
    assert run.precision == "bf16"
    assert run.run_id == planned([*small_run, "precision=bf16"]).run_id
    monkeypatch.setattr(precision, "cpu_flags", frozenset)
    assert planned([*small_run, "precision=auto", "device=cpu"]).run_id == planned(small_run).run_id


def test_evaluation_is_float32_after_bf16_training(small_run):
    run = planned([*small_run, "precision=bf16", "evaluate.save_predictions=true"])
    execute(run, nothing)
    values = np.concatenate([np.load(path).ravel() for path in (folder(run) / "predictions").glob("*.npy")])
    as_bf16 = torch.from_numpy(values).bfloat16().float().numpy()
    assert (values != as_bf16).mean() > 0.9


def test_saved_predictions_of_another_crop_are_not_taken_for_those_asked_for(small_run):
    words = [*small_run, "evaluate.save_predictions=true"]
    first, other = planned([*words, "evaluate.crop=0.5"]), planned(words)
    assert execute(first, nothing)
    assert first.run_id == other.run_id
    with pytest.raises(UserError, match=r"its own have 16 x 16 pixels, while those of evaluate\.crop=1 have 32 x 32"):
        execute(other, nothing)
    assert execute(planned(small_run), nothing), "scores alone"
    assert not execute(planned([*words, "evaluate.crop=0.5", "evaluate.bins=10"]), nothing)
