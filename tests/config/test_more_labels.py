"""Settings and run ids of STAPLE, SVLS, one rater, weights by rater and ties."""

import dataclasses
import json
from pathlib import Path

import pytest

from dmseg.config.compose import compose_settings, restore_settings
from dmseg.data.case import Task
from dmseg.data.folds import Split
from dmseg.errors import UserError
from dmseg.runs.digests import identifier
from dmseg.runs.identity import run_identity
from dmseg.runs.plan import plan_folds
from dmseg.runs.sources import FoundTask

SPLIT = Split(("a", "b", "c"), ("d",))
SVLS = ("labels=svls",)


def identity(*overrides):
    settings = compose_settings(["task=prostate-1", "model.weights=null", *overrides])
    return run_identity(settings, "fp32", "0" * 64, SPLIT)


def run_id(*overrides):
    return identifier(identity(*overrides))


@pytest.mark.parametrize("labels", ["majority", "smoothing", "weighted"])
@pytest.mark.parametrize("protocol", ["paper", "release"])
def test_the_default_rule_for_ties_is_no_part_of_an_id(protocol, labels):
    chosen = (f"protocol={protocol}", f"labels={labels}")
    options = identity(*chosen)["labels"]["options"]
    assert options == ({"disjoint_weight": float(protocol == "release")} if labels == "weighted" else {})
    assert run_id(*chosen, "labels.ties=background") == run_id(*chosen)
    assert run_id(*chosen, "labels.ties=foreground") != run_id(*chosen)
    assert identity(*chosen, "labels.ties=foreground")["labels"]["options"]["ties"] == "foreground"


def test_the_default_rule_is_passed_to_no_function_that_does_not_take_it():
    other = compose_settings(["labels._target_=dmseg.labels.fusion.uniform"]).labels
    assert other.options == {}
    with pytest.raises(UserError, match=r"dmseg\.labels\.fusion\.uniform: got an unexpected keyword argument 'ties'"):
        compose_settings(["labels._target_=dmseg.labels.fusion.uniform", "labels.ties=foreground"])


def test_each_choice_has_an_id_of_its_own():
    choices = [
        ("labels=majority",),
        ("labels=majority", "labels.ties=foreground"),
        ("labels=smoothing",),
        SVLS,
        (*SVLS, "labels.smoothing.sigma=2"),
        (*SVLS, "labels.smoothing.kernel=5"),
        (*SVLS, "labels.ties=foreground"),
        ("labels=staple",),
        ("labels=staple", "labels.prior=0.1"),
        ("labels=staple", "labels.threshold=0.5"),
        ("labels=rater", "labels.rater=seg01"),
        ("labels=rater", "labels.rater=seg02"),
        ("labels=rater_weights", "labels.weights={seg01: 2}"),
        ("labels=rater_weights", "labels.weights={seg01: 2, seg02: 1}"),
    ]
    assert len({run_id(*choice) for choice in choices}) == len(choices)
    reordered = ("labels=rater_weights", "labels.weights={seg02: 1.0, seg01: 2.0}")
    assert run_id(*reordered) == run_id(*choices[-1])


def test_smoothing_names_what_its_kind_uses():
    assert identity(*SVLS)["labels"]["smoothing"] == {"kind": "svls", "sigma": 1.0, "kernel": 3}
    assert identity("labels=smoothing")["labels"]["smoothing"] == {"kind": "boundary", "epsilon": 0.5, "kernel": 3}
    unused = run_id("labels=smoothing", "+labels.smoothing.sigma=3")
    assert unused == run_id("labels=smoothing")


@pytest.mark.parametrize(
    ("overrides", "interpolation", "classes"),
    [
        (SVLS, "nearest", "all"),
        (("labels=staple",), "linear", "all"),
        (("labels=staple", "labels.threshold=0.5"), "nearest", "present"),
        (("labels=rater", "labels.rater=seg01"), "nearest", "present"),
        (("labels=rater_weights", "labels.weights={seg01: 2}"), "linear", "all"),
    ],
)
def test_interpolation_and_classes_follow_the_kind(overrides, interpolation, classes):
    settings = compose_settings(["protocol=release", *overrides])
    assert settings.labels.interpolation == interpolation
    assert settings.loss.terms["region"].options["classes"] == classes
    stored = json.loads(json.dumps(dataclasses.asdict(settings)))
    assert restore_settings(stored, settings.paths.results).labels == settings.labels  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["labels.ties=both"], "labels: ties is 'both', but must be background or foreground"),
        ([*SVLS, "labels.smoothing.kernel=4"], "labels.smoothing.kernel is 4, but must be odd and at least 3"),
        ([*SVLS, "labels.smoothing.kernel=1"], "labels.smoothing.kernel is 1, but must be odd and at least 3"),
        ([*SVLS, "labels.smoothing.kernel=null"], "labels.smoothing.kernel is None"),
        ([*SVLS, "labels.smoothing.sigma=0"], "labels.smoothing.sigma is 0.0, but must lie between 0.01 and 1000"),
        ([*SVLS, "labels.smoothing.sigma=null"], "labels.smoothing.sigma is not set, but labels.smoothing.kind=svls"),
        (["labels=smoothing", "labels.smoothing.kind=svls"], "labels.smoothing.sigma is not set"),
        ([*SVLS, "labels.smoothing.kind=uniform"], "labels.smoothing.epsilon is not set"),
        ([*SVLS, "labels.interpolation=linear"], "must be nearest where hard labels are smoothed"),
        (["labels=staple", "labels.prior=1"], "labels: prior is 1, but must lie between 0 and 1, or be None"),
        (["labels=staple", "labels.interpolation=rater"], "staple declares no weights of raters"),
        (["labels=rater", "+labels.nope=1"], "it takes rater, anonymous_raters"),
        (["labels=rater_weights", "labels.weights={seg01: 0}"], "weights.seg01 is 0, but must be a number above 0"),
        (["labels=rater_weights", "labels.weights={seg01: -2}"], "weights.seg01 is -2"),
        (["labels=rater_weights", "labels.weights=[1, 2]"], "weights is [1, 2], but must be weights of raters by name"),
    ],
)
def test_mistakes_are_named(overrides, message):
    with pytest.raises(UserError) as caught:
        compose_settings(overrides)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def planned(*overrides, anonymous=False):
    task = Task("prostate-1", "Prostate", "prostate", ("seg01", "seg02"), anonymous)
    settings = compose_settings(["task=prostate-1", "model.weights=null", *overrides])
    return plan_folds(settings, FoundTask(task, Path("nowhere"), None), [0])[0]


def test_raters_are_checked_against_the_task():
    assert planned("labels=rater", "labels.rater=seg02").run_id
    with pytest.raises(UserError, match=r"labels\.rater names 'seg09', but the task's raters are seg01, seg02$"):
        planned("labels=rater", "labels.rater=seg09")
    with pytest.raises(UserError, match=r"^labels: rater is \['seg01', 'seg02'\], but must be the name of one rater"):
        planned("labels=rater", "labels.rater=[seg01,seg02]")
    with pytest.raises(UserError, match=r"labels\.weights names 'seg09'"):
        planned("labels=rater_weights", "labels.weights={seg01: 1, seg09: 1}")
    with pytest.raises(UserError, match=r"evaluate\.reference\.rater is not set"):
        planned("evaluate.reference._target_=dmseg.labels.fusion.one_rater")
    with pytest.raises(UserError, match=r"labels\.rater is not set"):
        planned("distill=kd", "distill.teacher.labels=rater")


def test_anonymous_raters_are_refused_unless_positions_are_meant():
    chosen = ("labels=rater", "labels.rater=seg02")
    with pytest.raises(UserError, match=r"anonymous: .*\nset labels\.anonymous_raters=position"):
        planned(*chosen, anonymous=True)
    assert planned(*chosen, "labels.anonymous_raters=position", anonymous=True).run_id
    assert planned("labels=staple", anonymous=True).run_id
    taught = ("distill=kd", "distill.teacher.labels=rater", "distill.teacher.labels.rater=seg02")
    with pytest.raises(UserError, match=r"anonymous: .*\nset distill\.teacher\.labels\.anonymous_raters=position"):
        planned(*taught, anonymous=True)
    assert planned(*taught, "distill.teacher.labels.anonymous_raters=position", anonymous=True).run_id
    with pytest.raises(UserError, match=r"labels\.anonymous_raters is 'maybe', but must be error or position"):
        planned(*chosen, "labels.anonymous_raters=maybe")


def test_a_method_without_labels_ignores_them():
    multi_head = planned("method=multi_head")
    assert planned("method=multi_head", "labels=rater").run_id == multi_head.run_id
    assert planned("method=multi_head", "labels=rater").fusion is multi_head.fusion
