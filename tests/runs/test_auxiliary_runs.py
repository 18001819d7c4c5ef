"""Runs of protocol=release: stored with the auxiliary head, resumed bit by bit, scored without it; all methods."""

import json

import pytest
from safetensors.torch import load_file

from dmseg.config.compose import compose_settings
from dmseg.runs.execute import execute
from dmseg.runs.plan import distinct, plan_run
from dmseg.runs.sources import prepare_task
from dmseg.runs.store import RunStore
from dmseg.training.checkpoint import Interrupted


def planned(overrides):
    settings = compose_settings(overrides)
    return plan_run(settings, prepare_task(settings))


def folder(run):
    return RunStore(run.results).folder(run.run_id)


@pytest.fixture
def released(small_run):
    return [*small_run, "protocol=release", "checkpoint.steps=1"]


def test_a_resumed_student_and_its_teacher_equal_uninterrupted_ones(released, tmp_path, monkeypatch):
    words = [*released, "distill=kd", "distill.teacher.model=unet_tiny", "labels=uniform"]
    whole = planned(words)
    other = planned([*words, f"paths.results='{tmp_path / 'other'}'"])
    for run in distinct([whole]):
        execute(run)
    for run in distinct([other]):
        asked = iter([False, False, True] + [False] * 100)
        monkeypatch.setattr("dmseg.runs.execute.should_stop", lambda asked=asked: next(asked))
        with pytest.raises(Interrupted):
            execute(run)
        execute(run)
    for one, same in zip(distinct([whole]), distinct([other]), strict=True):
        for name in ("weights.safetensors", "history.csv"):
            assert (folder(one) / name).read_bytes() == (folder(same) / name).read_bytes()
    history = (folder(whole) / "history.csv").read_text().splitlines()[0].split(",")
    assert {"label_auxiliary_ce", "teacher_auxiliary_ce"} < set(history)
    assert any(name.startswith("auxiliary_head.") for name in load_file(folder(whole) / "weights.safetensors"))


def test_stored_weights_are_scored_again_to_the_same_numbers(released):
    run = planned(released)
    execute(run)
    again = planned([*released, "evaluate.bins=20"])
    assert (again.run_id, again.evaluation_id != run.evaluation_id) == (run.run_id, True)
    execute(again)
    store = RunStore(run.results)
    cases = [store.read_cases(item.run_id, item.evaluation_id) for item in (run, again)]
    assert cases[0]["dice"].tolist() == cases[1]["dice"].tolist()


@pytest.mark.parametrize("method", ["softseg", "mrnet", "mc_dropout", "multi_head"])
def test_methods_have_the_head_or_do_without(method, released):
    words = [*released, f"method={method}", "profile=demo", "model=unet_tiny", "train.min_steps=1", "data.size=32"]
    words += ["+method.anonymous_raters=position"] if method in ("mrnet", "multi_head") else []
    words = [word.replace("+method.anonymous", "method.anonymous") for word in words]
    run = planned(words)
    execute(run)
    names = load_file(folder(run) / "weights.safetensors")
    has_head = any("auxiliary_head" in name for name in names)
    assert has_head == (method in ("mc_dropout", "multi_head"))
    assert ("auxiliary" in run.identity["model"]) == has_head
    same = planned([*words, "model.auxiliary.weight=0"]).run_id == run.run_id
    assert same != has_head, "what has no effect is no part of the id"


def test_the_default_protocol_names_none_of_the_new_keys(small_run):
    identity = json.dumps(planned(small_run).identity)
    assert not any(
        f'"{key}"' in identity for key in ("auxiliary", "head_dropout", "head_kernel", "initialization", "decoder")
    )
