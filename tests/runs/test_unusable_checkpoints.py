"""Checkpoints that are sealed but not of this training: named, removed, and the run ends in the same numbers."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from dmseg.config.compose import compose_settings
from dmseg.files.regular import checksum
from dmseg.runs.execute import execute
from dmseg.runs.plan import plan_run
from dmseg.runs.sources import prepare_task
from dmseg.runs.store import RunStore
from dmseg.training import fit as fitting

FILES = ("weights.safetensors", "cases.csv", "history.csv")


def planned(overrides):
    settings = compose_settings([*overrides, "device=cpu", "model.weights=null", "checkpoint.steps=1"])
    return plan_run(settings, prepare_task(settings))


def content(run):
    return {name: (RunStore(run.results).folder(run.run_id) / name).read_bytes() for name in FILES}


def interrupt(run, monkeypatch, after):
    """Lets a training fail after so many steps, or (after all) while it is scored; returns its checkpoint."""
    taken, step = [], fitting._take

    def failing(*arguments):
        taken.append(1)
        if len(taken) > after:
            raise RuntimeError("interrupted")
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "_take", failing)
        if after == 4:
            patch.setattr("dmseg.runs.execute._write_evaluation", None)
        with pytest.raises((RuntimeError, TypeError)):
            execute(run)
    (place,) = RunStore(run.results).checkpoints(run.run_id).glob("[0-9]*")
    return place


def seal(place):
    names = ("weights.safetensors", "rest.pt")
    (place / "sums.json").write_text(json.dumps({name: checksum(place / name) for name in names}))


def with_rest(change):
    def harm(place):
        rest = torch.load(place / "rest.pt", weights_only=True)
        rest = change(rest) or rest
        torch.save(rest, place / "rest.pt")
        seal(place)

    return harm


def with_weights(change):
    def harm(place):
        weights = load_file(place / "weights.safetensors")
        save_file(change(weights), place / "weights.safetensors")
        seal(place)

    return harm


def pipe(name):
    def harm(place):
        (place / name).unlink()
        os.mkfifo(place / name)

    return harm


def first(weights, change):
    name = sorted(name for name, value in weights.items() if value.ndim > 1)[0]
    return {**weights, name: change(weights[name]).contiguous()}


def momentum(change):
    def harm(rest):
        for state in rest["optimizer"]["state"].values():
            state["momentum_buffer"] = change(state["momentum_buffer"])

    return with_rest(harm)


EVERY = {
    "no sums": lambda place: (place / "sums.json").write_text("{}"),
    "sums of one file": lambda place: (place / "sums.json").write_text(
        json.dumps({"rest.pt": checksum(place / "rest.pt")})
    ),
    "sums are a list": lambda place: (place / "sums.json").write_text("[]"),
    "deep sums": lambda place: (place / "sums.json").write_text("[" * 100_000),
    "a pipe": pipe("rest.pt"),
    "a pipe for sums": pipe("sums.json"),
    "other shapes": with_weights(lambda weights: first(weights, lambda value: value[..., None])),
    "other types": with_weights(lambda weights: first(weights, torch.Tensor.double)),
    "other names": with_weights(lambda weights: {f"x.{name}": value for name, value in weights.items()}),
    "a weight too few": with_weights(lambda weights: dict(list(weights.items())[1:])),
    "not a number": with_weights(lambda weights: first(weights, lambda value: value * torch.nan)),
    "no weights": with_weights(lambda weights: {}),
    "a list": with_rest(lambda rest: [1, 2]),
    "nothing": with_rest(lambda rest: rest.clear()),
    "further keys are numbers": with_rest(lambda rest: {**rest, 5: 5}),
}
STANDS = {
    "the last step": with_rest(lambda rest: rest.update(steps=4)),
    "negative steps": with_rest(lambda rest: rest.update(steps=-1)),
    "steps are text": with_rest(lambda rest: rest.update(steps="3")),
    "another step": with_rest(lambda rest: rest.update(steps=2)),
    "no optimiser": with_rest(lambda rest: rest.update(optimizer={})),
    "momentum of another shape": momentum(lambda value: value[None, None]),
    "momentum is not a number": momentum(lambda value: value * torch.nan),
    "another weight decay": with_rest(lambda rest: rest["optimizer"]["param_groups"][0].update(weight_decay=0.5)),
    "another learning rate": with_rest(lambda rest: rest["optimizer"]["param_groups"][0].update(lr=1e-9)),
    "another schedule": with_rest(lambda rest: rest["schedule"].update(last_epoch=1)),
    "place in the epoch": with_rest(lambda rest: rest["source"].update(position=0)),
    "place is text": with_rest(lambda rest: rest["source"].update(position="1")),
    "no random numbers": with_rest(lambda rest: rest.update(random={})),
    "short random numbers": with_rest(lambda rest: rest.update(random={"cpu": torch.zeros(3)})),
    "losses": with_rest(lambda rest: rest.update(losses=torch.zeros(7, 9))),
    "reports": with_rest(lambda rest: rest.update(reports=[])),
    "a report": with_rest(lambda rest: rest["reports"][0].update(lr="fast")),
    "sessions": with_rest(lambda rest: rest.update(sessions=[{"steps": 0}])),
}
COURSES = {
    "epochs": with_rest(lambda rest: rest.update(epochs="two")),
    "reports": with_rest(lambda rest: rest.update(reports=[{"epoch": 1}])),
    "facts": with_rest(lambda rest: rest.update(facts={"a": torch.zeros(2)})),
    "usage": with_rest(lambda rest: rest.update(usage={"ended": 5})),
    "a further key": with_rest(lambda rest: {**rest, "further": 1}),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Overrides of a run, its undisturbed content, and its folders after three steps and after all four."""
    import numpy as np
    from conftest import write_lidc

    place = tmp_path_factory.mktemp("checkpoints")
    tree = write_lidc(place / "lidc", 12, np.random.default_rng(1))
    words = [
        "data=lidc", f"data.root='{tree}'", "data.size=32", "model=unet_tiny", "train.epochs=2", "train.batch_size=4",
        "threads=1", f"paths.prepared='{place / 'prepared'}'",
    ]  # fmt: skip
    whole = planned([*words, f"paths.results='{place / 'whole'}'"])
    execute(whole)
    with pytest.MonkeyPatch.context() as patch:
        for name, after in (("stands", 3), ("finished", 4)):
            interrupt(planned([*words, f"paths.results='{place / name}'"]), patch, after)
    return place, words, content(whole)


@pytest.mark.parametrize(
    ("kind", "name", "harm"),
    [
        *(("stands", name, harm) for name, harm in {**EVERY, **STANDS}.items()),
        *(("finished", name, harm) for name, harm in {**EVERY, **COURSES}.items()),
    ],
    ids=lambda value: "" if callable(value) else str(value),
)
def test_a_checkpoint_that_cannot_be_used_costs_time_and_no_number(study, tmp_path, caplog, kind, name, harm):
    place, words, expected = study
    shutil.copytree(place / kind, tmp_path / "results")
    run = planned([*words, f"paths.results='{tmp_path / 'results'}'"])
    (checkpoint,) = RunStore(run.results).checkpoints(run.run_id).glob("[0-9]*")
    harm(checkpoint)
    execute(run)
    said = [record.getMessage() for record in caplog.records if "cannot be used" in record.getMessage()]
    assert len(said) == 1, caplog.text
    assert len(said[0].splitlines()) == 1
    assert content(run) == expected


@pytest.mark.parametrize("kind", ["stands", "finished"])
def test_one_that_is_whole_is_used(study, tmp_path, caplog, kind, monkeypatch):
    place, words, expected = study
    shutil.copytree(place / kind, tmp_path / "results")
    run = planned([*words, f"paths.results='{tmp_path / 'results'}'"])
    steps, step = [], fitting._take
    monkeypatch.setattr(fitting, "_take", lambda *arguments: steps.append(1) or step(*arguments))
    execute(run)
    assert "cannot be used" not in caplog.text
    assert len(steps) == (1 if kind == "stands" else 0)
    assert content(run) == expected


def test_a_device_that_fails_costs_no_checkpoint(study, tmp_path, monkeypatch):
    place, words, _ = study
    shutil.copytree(place / "stands", tmp_path / "results")
    run = planned([*words, f"paths.results='{tmp_path / 'results'}'"])

    def failing(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("dmseg.training.fit.load_weights", failing)
    with pytest.raises(torch.OutOfMemoryError):
        execute(run)
    assert list(RunStore(run.results).checkpoints(run.run_id).glob("[0-9]*"))
