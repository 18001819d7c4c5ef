"""Distilled runs: what they are named by, that the teacher comes first, and that validation labels reach nothing."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import save_png
from torch.nn import functional

from dmseg.cli.main import main
from dmseg.config.compose import compose_settings
from dmseg.data.folds import Split, inner_split
from dmseg.data.prepared import PreparedTask
from dmseg.errors import UserError
from dmseg.launch import try_run
from dmseg.runs.distillation import trained_network
from dmseg.runs.execute import execute
from dmseg.runs.plan import distinct, plan_folds, plan_run
from dmseg.runs.sources import prepare_task
from dmseg.runs.store import RunStore
from dmseg.training.checkpoint import Interrupted

KD = ["distill=kd", "distill.teacher.model=unet_tiny", "model=unet_slim", "model.weights=null"]
FILES = ("weights.safetensors", "history.csv")


def planned(overrides):
    settings = compose_settings(overrides)
    return plan_run(settings, prepare_task(settings))


def folder(run):
    return RunStore(run.results).folder(run.run_id)


def run_all(run):
    for item in distinct([run]):
        execute(item)
    return run


def manifest(run):
    return json.loads((folder(run) / "manifest.json").read_text())


def content(run):
    return {name: (folder(run) / name).read_bytes() for name in FILES}


@pytest.fixture
def small_kd(small_run):
    return [*(item for item in small_run if not item.startswith("model=")), *KD]


def run_id(small_kd, *overrides):
    return planned([*small_kd, *overrides]).run_id


def test_the_teacher_is_the_hard_run_of_its_network_in_the_same_fold(small_kd, small_run):
    student = planned([*small_kd, "fold=2", "seed=3", "loss=ce_sdl", "optim.lr=0.02"])
    hard = planned([*small_run, "fold=2", "seed=3", "optim.lr=0.02", "model.weights=null"])
    assert student.teacher.run_id == hard.run_id
    assert student.identity["distill"]["teacher"] == hard.run_id
    assert student.teacher.split == student.split
    smoothed = planned([*small_kd, "distill.teacher.labels=smoothing"])
    expected = planned([*small_run, "labels=smoothing", "model.weights=null"])
    assert smoothed.teacher.run_id == expected.run_id
    assert planned([*small_run, "distill=kd", "distill=null"]).run_id == planned(small_run).run_id


@pytest.mark.parametrize("protocol", ["paper", "release"])
def test_the_papers_teacher(protocol):
    settings = compose_settings([f"protocol={protocol}", "distill=kd", "model=unet_resnet18", "labels=weighted"])
    teacher = settings.distill.teacher
    hard = compose_settings([f"protocol={protocol}", "model=unet_resnet50", "labels=majority"])
    assert (teacher.model, teacher.labels, teacher.loss) == (hard.model, hard.labels, hard.loss)
    assert settings.distill.kde.keys == {"paper": "batch", "release": "image"}[protocol]
    assert compose_settings(["distill=kd", "profile=demo"]).distill.teacher.model.name == "unet_tiny"


def test_options_without_effect_are_dropped(small_kd):
    off = run_id(small_kd, "distill.kde=null")
    assert off != run_id(small_kd)
    assert run_id(small_kd, "distill.kde.bandwidth=0") == off
    assert run_id(small_kd, "distill.kde.bandwidth=0", "distill.kde.n_key=5", "distill.kde.keys=image") == off
    alone = ["distill.teacher_ce=false", "distill.teacher_region=false"]
    first, second = (
        planned([*small_kd, *alone, *more]) for more in ([], ["distill.kde.n_key=7", "distill.temperature=2"])
    )
    assert first.run_id == second.run_id
    assert first.teacher is None
    assert run_id(small_kd, "distill.teacher_region=false", "distill.classes=present") == run_id(
        small_kd, "distill.teacher_region=false"
    )


OF_EFFECT = (
    "distill.kde.bandwidth=0.01",
    "distill.kde.n_key=50",
    "distill.kde.keys=image",
    "distill.kde.balanced=false",
    "distill.kde.leave_one_out=true",
    "distill.kde.boundary=5",
    "distill.temperature=2",
    "distill.calibrate=train",
    "distill.calibrate=inner",
    "distill.label_weight=1",
    "distill.teacher_region=false",
    "distill.label_ce=false",
    "distill.classes=present",
    "distill.teacher.labels=smoothing",
    "distill.teacher.loss=ce",
    "loss.region.variant=2",
)


def test_what_changes_the_id(small_kd):
    store = prepare_task(compose_settings(small_kd))
    ids = {
        plan_run(compose_settings([*small_kd, *more]), store).run_id for more in ([], *([item] for item in OF_EFFECT))
    }
    assert len(ids) == 1 + len(OF_EFFECT)


def test_the_folds_of_a_student_are_one_experiment(small_kd):
    for more in ([], ["distill.calibrate=inner"]):
        settings = compose_settings([*small_kd, *more])
        runs = plan_folds(settings, prepare_task(settings))
        assert len({run.experiment_id for run in runs}) == 1
        assert len({run.run_id for run in runs}) == 5
        teachers = {item.experiment_id for run in runs for item in distinct([run])[:-1]}
        assert len(teachers) == 1 + len(more), "what calibrates a teacher is an experiment of its own"


def test_an_inner_split_leaves_validation_cases_out():
    split = Split(tuple("abcdefghij"), ("v", "w"))
    inner = inner_split(split, 0, 1)
    assert sorted(inner.train + inner.validation) == sorted(split.train)
    assert len(inner.validation) == 2
    assert inner == inner_split(split, 0, 1) != inner_split(split, 1, 1)
    assert len(inner_split(Split(("a", "b"), ()), 0, 0).validation) == 1


def test_images_of_one_patient_do_not_calibrate_a_teacher_that_has_seen_another(small_kd, tmp_path):
    """As `dmseg train` writes it to the manifest of the run that calibrates."""
    patients = {f"LIDC-IDRI-{number:04d}": f"patient {(number + 1) // 2}" for number in range(1, 13)}
    table = tmp_path / "groups.csv"
    table.write_text("\n".join(["case,group", *(",".join(row) for row in patients.items())]))
    words = [*small_kd, "train.epochs=1", "distill.calibrate=inner", f"folds.groups='{table}'", "folds.count=3"]
    assert main(["train", *words]) == 0
    results = tmp_path / "results" / "runs"
    configs = {path.parent.name: json.loads(path.read_text()) for path in results.glob("*/config.json")}
    (calibrator,) = (run for run, config in configs.items() if config["identity"].get("held_out"))
    split = json.loads((results / calibrator / "manifest.json").read_text())["split"]
    trained, held = ([patients[case] for case in split[part]] for part in ("train", "validation"))
    assert not set(trained) & set(held)
    assert (len(trained), len(held)) == (6, 2)
    assert planned(words).teacher.run_id == calibrator


TERMS = ("label_ce", "label_region", "teacher_ce", "teacher_region")


def test_each_term_trains_alone(small_kd):
    weights = {}
    for term in TERMS:
        off = [f"distill.{name}=false" for name in TERMS if name != term]
        run = run_all(planned([*small_kd, *off, "train.epochs=1"]))
        history = pd.read_csv(folder(run) / "history.csv")
        assert [name for name in history if name in TERMS] == [term]
        weight = 0.5 * (0.25 if term.endswith("ce") else 0.75)
        assert history["loss"].item() == pytest.approx(weight * history[term].item(), rel=1e-5)
        weights[term] = (folder(run) / "weights.safetensors").read_bytes()
    assert len(set(weights.values())) == 4
    nothing = planned([*small_kd, *(f"distill.{name}=false" for name in TERMS)])
    with pytest.raises(UserError, match="no term of the loss is left"):
        execute(nothing)


def test_a_student_without_its_teacher_says_so(small_kd):
    outcome = try_run(planned(small_kd), lambda run: [])
    assert outcome.kind == "misused"
    assert "teacher" in outcome.error
    assert "not done; train it first" in outcome.error


@pytest.mark.parametrize("calibrate", ["null", "inner", "train"])
def test_validation_labels_reach_neither_teacher_nor_temperature_nor_kde_nor_student(
    small_kd, lidc_tree, tmp_path, calibrate
):
    overrides = [*small_kd, f"distill.calibrate={calibrate}", "optim.decoder_lr_factor=10"]
    run = run_all(planned(overrides))
    rng = np.random.default_rng(0)
    for case in run.split.validation:
        for mask in (lidc_tree / "LIDC-IDRI-slices" / case).rglob("mask-*/*.png"):
            save_png(mask, 255 * (rng.random((32, 32)) < 0.5))
    noisy = run_all(planned([*overrides, f"paths.results='{tmp_path / 'noisy'}'"]))
    assert noisy.run_id != run.run_id, "other data"
    for one, other in zip(distinct([run]), distinct([noisy]), strict=True):
        assert content(one) == content(other)
    assert (folder(noisy) / "cases.csv").read_bytes() != (folder(run) / "cases.csv").read_bytes()


@pytest.mark.parametrize("calibrate", ["train", "inner"])
def test_calibration_changes_the_student(small_kd, calibrate):
    """So the test above is not empty."""
    plain, calibrated = (
        run_all(planned([*small_kd, f"distill.calibrate={kind}", "train.epochs=1"])) for kind in ("null", calibrate)
    )
    assert content(plain) != content(calibrated)
    assert "teacher_temperature" in manifest(calibrated).keys() - manifest(plain).keys()
    kernel = run_all(planned([*small_kd, "distill.kde=null", "train.epochs=1"]))
    assert content(plain) != content(kernel)


def test_the_manifest_keeps_the_temperature_that_was_fitted(small_kd):
    """The likelihood of the training labels is greatest there; `distill.temperature` is no part of it."""
    more = ["distill.temperature=2", "distill.calibrate=train", "train.epochs=20", "optim.decoder_lr_factor=10"]
    run = run_all(planned([*small_kd, *more]))
    prepared = PreparedTask(run.prepared_folder)
    cases = [case for case in prepared.cases if case.case in run.split.train]
    images = np.concatenate([prepared.images[case.span] for case in cases])
    votes = np.concatenate([prepared.annotations(case).mean(axis=0) for case in cases])
    with torch.no_grad():
        teacher = trained_network(run.teacher, prepared, torch.device("cpu")).eval()
        logits = teacher(torch.from_numpy(images / np.float32(127.5) - 1)).double()
    target = torch.from_numpy(votes > 0.5).long()
    fitted = manifest(run)["teacher_temperature"]
    likelihoods = [-functional.cross_entropy(logits / (fitted * by), target).item() for by in (0.99, 1, 1.01)]
    assert max(likelihoods) == likelihoods[1]


@pytest.mark.parametrize(("fitted", "why"), [(100.0, "no better than chance"), (0.01, "makes no mistake"), (2.0, "")])
def test_a_temperature_at_an_end_of_its_range_says_what_it_means(small_kd, monkeypatch, caplog, fitted, why):
    monkeypatch.setattr("dmseg.runs.distillation.teacher_temperature", lambda *arguments: fitted)
    run_all(planned([*small_kd, "distill.calibrate=train", "train.epochs=1"]))
    assert (why in caplog.text) if why else ("end of the range" not in caplog.text)


@pytest.mark.parametrize("keys", ["batch", "image"])
def test_a_stopped_student_ends_as_an_undisturbed_one(small_kd, tmp_path, monkeypatch, keys):
    overrides = [*small_kd, f"distill.kde.keys={keys}", "distill.kde.n_key=64"]
    whole = run_all(planned(overrides))
    other = planned([*overrides, f"paths.results='{tmp_path / 'other'}'"])
    execute(other.teacher)
    asked = iter([False, False, True] + [False] * 100)
    monkeypatch.setattr("dmseg.runs.execute.should_stop", lambda: next(asked))
    with pytest.raises(Interrupted):
        execute(other)
    execute(other)
    assert content(whole) == content(other)


def test_mistakes_of_the_teacher(small_kd):
    with pytest.raises(UserError, match=r"distill\.teacher\.model is 'nope', which does not exist; choose from"):
        compose_settings([*small_kd, "distill.teacher.model=nope"])
    with pytest.raises(UserError, match=r"distill\.kde\.boundary is 4, but must be odd"):
        compose_settings([*small_kd, "distill.kde.boundary=4"])
    with pytest.raises(UserError, match=r"distill\.calibrate is 'outer', but must be inner or train"):
        compose_settings([*small_kd, "distill.calibrate=outer"])


def test_the_teacher_is_known_to_its_students(small_kd):
    run = planned([*small_kd, "distill.calibrate=inner"])
    calibrator, teacher = run.teacher, run.teacher.teacher
    assert distinct([run]) == [teacher, calibrator, run]
    assert set(calibrator.split.train) < set(run.split.train)
    assert not set(calibrator.split.train + calibrator.split.validation) & set(run.split.validation)
    assert teacher.split == run.split
    assert dataclasses.replace(teacher, teacher=None) == planned([*small_kd]).teacher
    assert Path(run.results) == Path(teacher.results)
