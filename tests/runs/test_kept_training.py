"""A training that is over is never lost: whatever fails while it is scored, the next call only scores."""

import dataclasses
import json
import os
import shutil
import signal

import pandas as pd
import pytest
import torch

from dmseg.config.compose import compose_settings
from dmseg.errors import UserError
from dmseg.launch import try_run
from dmseg.launch.local import context
from dmseg.runs import distillation as distill
from dmseg.runs.execute import execute
from dmseg.runs.plan import distinct, plan_run
from dmseg.runs.preflight import check_schedule
from dmseg.runs.sources import prepare_task
from dmseg.runs.store import RunStore
from dmseg.training import evaluate as evaluation
from dmseg.training.fit import _random_state, _set_random_state

KD = ["distill=kd", "distill.teacher.model=unet_tiny", "distill.calibrate=train", "model=unet_slim"]
FILES = ("weights.safetensors", "cases.csv", "history.csv", "evaluation.json")
SCORE = "dmseg.training.evaluate._score"


def planned(overrides):
    settings = compose_settings([*overrides, "device=cpu", "model.weights=null"])
    return plan_run(settings, prepare_task(settings))


def nothing(run):
    return []


def folder(run):
    return RunStore(run.results).folder(run.run_id)


def content(run):
    return {name: (folder(run) / name).read_bytes() for name in FILES}


def manifest(run):
    return json.loads((folder(run) / "manifest.json").read_text())


def fail_in_scoring(monkeypatch, error):
    """Lets the first call pass, which only tries the settings."""
    calls, original = [], evaluation._score

    def failing(*arguments):
        calls.append(1)
        if len(calls) > 1:
            raise error
        return original(*arguments)

    monkeypatch.setattr(SCORE, failing)


def undisturbed(overrides, tmp_path):
    run = planned([*overrides, f"paths.results='{tmp_path / 'undisturbed'}'"])
    for item in distinct([run]):
        execute(item)
    return run


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UserError("no such level"), "misused"),
        (RuntimeError("a case is odd"), "failed"),
        (MemoryError(), "failed"),
        (torch.OutOfMemoryError("CUDA out of memory"), "failed"),
        (OSError(28, "No space left on device"), "unwritable"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_failure_while_scoring_costs_no_training(small_run, tmp_path, monkeypatch, error, kind):
    run = planned(small_run)
    with monkeypatch.context() as patch:
        fail_in_scoring(patch, error)
        outcome = try_run(run, nothing)
    assert outcome.kind == kind
    assert outcome.error.splitlines()[-1] == "the trained weights are kept; run the same command to score it"
    assert not RunStore(run.results).is_done(run.run_id)
    with monkeypatch.context() as patch:
        for name in ("fit", "load_training", "initial_model"):
            patch.setattr(f"dmseg.runs.execute.{name}", None)
        assert try_run(run, nothing).error is None
    whole = undisturbed(small_run, tmp_path)
    assert content(run) == content(whole)
    assert {path.name for path in folder(run).iterdir()} == {path.name for path in folder(whole).iterdir()}
    assert manifest(run).keys() == manifest(whole).keys()
    assert [session["steps"] for session in manifest(run)["sessions"]] == [0]
    assert manifest(run)["steps"] == 4
    assert 0 < manifest(run)["train_seconds"] <= manifest(run)["seconds"]
    assert not RunStore(run.results).checkpoints(run.run_id).exists()


def test_a_run_that_only_fails_before_it_is_scored_does_not_promise_anything(small_run, monkeypatch):
    monkeypatch.setattr("dmseg.runs.execute.fit", None)
    assert "kept" not in try_run(planned(small_run), nothing).error


def die_while_scoring(run):
    calls, original = [], evaluation._score

    def dying(*arguments):
        calls.append(1)
        if len(calls) > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    evaluation._score = dying
    execute(run)


def test_a_process_that_is_killed_while_scoring_costs_no_training(small_run, tmp_path, monkeypatch):
    run = planned(small_run)
    process = context().Process(target=die_while_scoring, args=(run,))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    monkeypatch.setattr("dmseg.runs.execute.load_training", None)
    execute(run)
    monkeypatch.undo()
    assert content(run) == content(undisturbed(small_run, tmp_path))


def test_a_student_that_is_only_scored_needs_neither_teacher_nor_training_data(small_run, tmp_path, monkeypatch):
    overrides = [*(word for word in small_run if not word.startswith("model=")), *KD]
    run = planned(overrides)
    execute(run.teacher)
    with monkeypatch.context() as patch:
        fail_in_scoring(patch, ValueError("odd"))
        assert try_run(run, nothing).kind == "failed"
    shutil.rmtree(folder(run.teacher))
    monkeypatch.setattr("dmseg.runs.execute.load_training", None)
    execute(run)
    monkeypatch.undo()
    whole = undisturbed(overrides, tmp_path)
    assert content(run) == content(whole)
    assert manifest(run)["teacher_temperature"] == manifest(whole)["teacher_temperature"]


def test_observers_see_a_training_that_is_only_scored_as_a_whole(small_run, monkeypatch):
    run = planned(small_run)
    with monkeypatch.context() as patch:
        fail_in_scoring(patch, ValueError("odd"))
        try_run(run, nothing)
    seen = []

    class Sees:
        def __getattr__(self, name):
            return lambda *arguments: seen.append(name)

    execute(run, lambda run: [Sees()])
    assert seen == ["started", "epoch_ended", "epoch_ended", "evaluated", "ended"]


def test_a_kept_training_that_is_damaged_is_trained_again(small_run, tmp_path, monkeypatch):
    run = planned(small_run)
    with monkeypatch.context() as patch:
        fail_in_scoring(patch, ValueError("odd"))
        try_run(run, nothing)
    (kept,) = RunStore(run.results).checkpoints(run.run_id).glob("[0-9]*")
    weights = kept / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    execute(run)
    assert content(run) == content(undisturbed(small_run, tmp_path))


def no_step(monkeypatch):
    def stepped(*arguments):
        raise AssertionError("a step was taken")

    monkeypatch.setattr("dmseg.training.fit._take", stepped)


def test_what_scoring_would_refuse_is_refused_before_the_first_step(small_run, monkeypatch):
    """Bins beyond what the histogram takes, handed in where no range is checked before."""
    run = planned(small_run)
    run = dataclasses.replace(
        run, settings=dataclasses.replace(run.settings, evaluate=dataclasses.replace(run.settings.evaluate, bins=200))
    )
    no_step(monkeypatch)
    outcome = try_run(run, nothing)
    assert outcome.kind == "misused"
    assert "200" in outcome.error
    assert "kept" not in outcome.error
    assert not RunStore(run.results).checkpoints(run.run_id).exists()


@pytest.mark.parametrize(
    ("override", "named"),
    [
        (
            "+evaluate.reference.disjoint_weight=x",
            "evaluate.reference: disjoint_weight is 'x', but must be a number of at least 0",
        ),
        ("evaluate.reference._target_=dmseg.metrics.agreement.rater_dice", "evaluate.reference"),
        ("labels.disjoint_weight=x", "labels: disjoint_weight is 'x', but must be a number of at least 0"),
    ],
)
def test_fusions_that_cannot_be_used_are_refused_while_planning(small_run, override, named):
    more = ["labels=weighted", "evaluate.reference._target_=dmseg.labels.fusion.weighted"]
    with pytest.raises(UserError, match=named):
        planned([*small_run, *more, override])


@pytest.mark.parametrize(
    "override",
    [
        "optim.poly_power=.nan",
        "optim.poly_power=.inf",
        "method.passes=1.5",
        "evaluate.empty=nope",
    ],
)
def test_options_that_only_matter_late_are_refused_before_the_first_step(small_run, monkeypatch, override):
    no_step(monkeypatch)
    method = ["method=mc_dropout"] if override.startswith("method.") else []
    try:
        run = planned([*small_run, *method, override])
    except UserError:
        return  # earlier still
    outcome = try_run(run, nothing)
    assert outcome.kind == "misused", outcome.error
    assert len(outcome.error.splitlines()) <= 3


@pytest.mark.parametrize("power", [0.9, 0.0, -1.0])
def test_learning_rates_that_can_be_used_pass(power):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    check_schedule(torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 - step / 10) ** power), 10)


@pytest.mark.parametrize("factor", [-1.0, float("nan"), float("inf"), "x"])
def test_a_learning_rate_that_is_none_is_named(factor):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if step < 9 else factor)
    with pytest.raises(UserError, match=r"learning rate of step 10"):
        check_schedule(schedule, 10)


@pytest.mark.parametrize(
    "make",
    [
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10),
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=10),
        lambda optimizer: None,
    ],
)
def test_a_schedule_that_cannot_be_resumed_is_refused(make):
    schedule = make(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1))
    with pytest.raises(UserError, match=rf"returns a {type(schedule).__name__}, but must return a \S*\.LambdaLR"):
        check_schedule(schedule, 10)


@pytest.mark.parametrize("method", ["plain", "mc_dropout", "multi_head", "mrnet", "softseg"])
def test_trying_the_settings_changes_no_number(small_run, tmp_path, monkeypatch, method):
    words = [*small_run, f"method={method}", "train.epochs=1", "evaluate.ged=true", "profile=demo", "train.min_steps=0"]
    words += ["method.anonymous_raters=position"] if method in ("multi_head", "mrnet") else []
    run = planned(words)
    execute(run)
    monkeypatch.setattr("dmseg.runs.execute.check_scoring", lambda *arguments: None)
    assert content(run) == content(undisturbed(words, tmp_path))


def test_a_teacher_does_not_shift_the_dropout_of_its_student(small_run, monkeypatch):
    """However much its building draws from the global random numbers."""
    other = [word for word in small_run if not word.startswith("model=")]
    deeplab = ["model=deeplabv3plus_resnet18", "data.size=64", "train.epochs=1"]
    run = planned([*other, *deeplab, "distill=kd", "distill.teacher.model=unet_tiny", "distill.kde=null"])
    execute(run.teacher)
    losses = []
    build = distill.stored_network
    for draws in (0, 7):
        monkeypatch.setattr(distill, "stored_network", lambda *given, n=draws: (build(*given), torch.rand(n))[0])
        execute(run)
        losses.append(pd.read_csv(folder(run) / "history.csv")["loss"].tolist())
        shutil.rmtree(folder(run))
    assert losses[0] == losses[1]


def test_only_distilled_networks_with_dropout_have_new_ids(small_run):
    from dmseg.runs.identity import run_identity

    def has_revision(*words):
        run = planned([*small_run, *words])
        return "dropout" in (run_identity(run.settings, "fp32", "0", run.split, {})["distill"] or {})

    kd = ["distill=kd", "distill.teacher.model=unet_tiny"]
    assert has_revision("model=deeplabv3plus_resnet18", *kd)
    assert has_revision("model=unet_slim", "+model.encoder_options.drop_path_rate=0.1", *kd)
    assert not has_revision("model=unet_slim", *kd)
    assert not has_revision("model=unet_slim", "+model.encoder_options.drop_path_rate=0", *kd)
    assert planned([*small_run, "model=deeplabv3plus_resnet18"]).settings.distill is None


def test_the_random_state_is_that_of_the_device_that_trains(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device="cuda": asked.append(device) or torch.zeros(3))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device="cuda": asked.append(device))
    second = torch.device("cuda", 1)
    state = _random_state(second)
    _set_random_state(state, second)
    assert asked == [second, second]
    _set_random_state(state, torch.device("cpu"))
    assert _random_state(torch.device("cpu")).keys() == {"cpu"}
    assert asked == [second, second], "a CPU's training asks no other device"
