"""Label settings: the kind of a label, its interpolation, the classes that follow, retired keys, stored settings."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from dmseg.config import components
from dmseg.config.compose import compose_settings, restore_settings
from dmseg.config.label_kind import label_kind
from dmseg.config.variants import Base
from dmseg.data.folds import Split
from dmseg.errors import UserError
from dmseg.labels.fusion import each_rater, majority, uniform, weighted
from dmseg.labels.trial import gives_soft_labels
from dmseg.runs.digests import identifier
from dmseg.runs.identity import run_identity

SPLIT = Split(("a", "b", "c"), ("d",))
RELEASE = "protocol=release"  # present classes for hard labels, all for soft ones
SMOOTHED = "must be nearest where hard labels are smoothed"
EVERYWHERE = "labels.smoothing={kind: uniform, epsilon: 0.1, kernel: null}"


def identity(*overrides):
    settings = compose_settings(["task=prostate-1", "model.weights=null", *overrides])
    return run_identity(settings, "fp32", "0" * 64, SPLIT)


def run_id(*overrides):
    return identifier(identity(*overrides))


def classes(*overrides):
    return compose_settings([RELEASE, *overrides]).loss.terms["region"].options["classes"]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes fusions of a user's own; returns the override that chooses one of them."""
    (tmp_path / "my_fusions.py").write_text(
        "import numpy as np\n"
        "def hard(annotations): return annotations.max(axis=0)\n"
        "def soft(annotations): return annotations.mean(axis=0)\n"
        "def flags(annotations): return annotations.max(axis=0) > 0\n"
        "def of_seven(annotations):\n    assert len(annotations) == 7\n    return annotations.mean(axis=0)\n"
        "def broken(annotations): raise RuntimeError('out of order')\n"
        "def words(annotations): return annotations.astype(str)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(components, "MODULES", {"my_fusions"})
    yield lambda name: f"labels._target_=my_fusions.{name}"
    sys.modules.pop("my_fusions", None)


@pytest.mark.parametrize(
    ("labels", "expected"), [("majority", "nearest"), ("random", "nearest"), ("uniform", "linear")]
)
@pytest.mark.parametrize("protocol", ["paper", "release"])
def test_both_protocols_interpolate_as_the_released_code_does(protocol, labels, expected):
    assert compose_settings([f"protocol={protocol}", f"labels={labels}"]).labels.interpolation == expected
    default = run_id(f"protocol={protocol}", f"labels={labels}")
    assert run_id(f"protocol={protocol}", f"labels={labels}", f"labels.interpolation={expected}") == default


def test_the_protocol_may_choose_another_way():
    chosen = compose_settings(["labels=uniform", "protocol.interpolation.soft=rater"]).labels
    assert chosen == compose_settings(["labels=uniform", "labels.interpolation=rater"]).labels
    assert (
        compose_settings(["labels=smoothing", "protocol.interpolation.hard=linear"]).labels.interpolation == "nearest"
    )


def test_every_other_interpolation_has_an_id_of_its_own_that_no_earlier_run_can_have():
    ids, nodes = [], []
    for labels in ("majority", "uniform", "weighted"):
        for interpolation in ("nearest", "linear", "rater"):
            overrides = (f"labels={labels}", f"labels.interpolation={interpolation}")
            ids.append(run_id(*overrides))
            nodes.append(identity(*overrides)["labels"])
    assert len(set(ids)) == 9
    assert sum("interpolation" in node for node in nodes) == 6, "a key that no earlier identity has"
    earlier = identity("labels=majority")
    earlier["labels"] = earlier["labels"] | {"soft": True}  # labels=majority labels.soft=true
    assert identifier(earlier) not in ids


def test_the_kind_of_a_label_follows_fusion_and_smoothing_not_interpolation():
    assert classes("labels=majority") == classes("labels=random") == "present"
    assert classes("labels=majority", EVERYWHERE) == classes("labels=smoothing") == "all"
    assert classes("labels=smoothing", "labels.smoothing=null") == "present"
    for interpolation in ("nearest", "linear", "rater"):
        assert classes("labels=majority", f"labels.interpolation={interpolation}") == "present"
        assert classes("labels=uniform", f"labels.interpolation={interpolation}") == "all"
    assert classes("labels=majority", "loss.terms.region.classes=foreground") == "foreground"
    assert classes("labels=majority", "protocol.classes.hard=foreground") == "foreground"


def test_a_teacher_has_the_classes_of_its_own_labels():
    student = compose_settings([RELEASE, "labels=uniform", "distill=kd"])
    assert student.loss.terms["region"].options["classes"] == "all"
    assert student.distill.teacher.loss.terms["region"].options["classes"] == "present"
    assert student.distill.teacher.labels.interpolation == "nearest"
    smoothed = compose_settings([RELEASE, "distill=kd", "distill.teacher.labels=smoothing"])
    assert smoothed.loss.terms["region"].options["classes"] == "present"
    assert smoothed.distill.teacher.loss.terms["region"].options["classes"] == "all"


def test_variants_of_a_base_are_settled_too():
    base = Base([RELEASE, "data=lidc"])
    for variant in (["labels=uniform"], ["labels=smoothing"], ["labels=uniform", "labels.interpolation=rater"]):
        assert base.settings(variant) == compose_settings([*variant, RELEASE, "data=lidc"])


@pytest.mark.parametrize(
    "override",
    [
        "labels.soft=true",
        "labels.soft=false",
        "+labels.soft=true",
        "++labels.soft=true",
        "~labels.soft",
        "~labels.soft=true",
        "labels.targets=hard",
        "+labels.targets=hard",
        "distill.teacher.labels.soft=true",
        "+distill.teacher.labels.soft=true",
        "~distill.teacher.labels.soft",
    ],
)
def test_retired_keys_are_refused_and_the_new_one_is_named(override):
    with pytest.raises(
        UserError, match=r"there is no key labels\.(soft|targets).*\bset labels\.interpolation"
    ) as caught:
        compose_settings(["labels=uniform", "distill=kd", override])
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(UserError, match=r"set labels\.interpolation"):
        Base(["data=lidc"]).settings(["labels=uniform", "distill=kd", override])


def test_a_file_from_before_is_refused_too(tmp_path, monkeypatch):
    def node(*more):
        return {"name": "old", "_target_": "dmseg.labels.fusion.uniform", "smoothing": None} | dict(more)

    from dmseg.config.compose import compose_plain, to_settings

    plain = compose_plain([])
    assert to_settings(plain | {"labels": node()}).labels.interpolation == "linear", "the key may be left out"
    with pytest.raises(UserError, match=r"labels\.targets"):
        to_settings(plain | {"labels": node(("targets", "hard"))})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["labels.interpolation=cubic"], "labels.interpolation is 'cubic', but must be nearest, linear or rater"),
        (["labels.interpolation=null"], "labels.interpolation is None, but must be one of nearest, linear, rater"),
        (
            ["labels=random", "labels.interpolation=rater"],
            "declares no weights of raters; set nearest or linear",
        ),
        (
            ["labels=smoothing", "labels.interpolation=linear"],
            SMOOTHED,
        ),
        (
            ["labels=smoothing", "labels.interpolation=rater"],
            SMOOTHED,
        ),
        (
            ["labels=majority", EVERYWHERE, "labels.interpolation=linear"],
            SMOOTHED,
        ),
        (["labels=random", "protocol.interpolation.hard=rater"], "each_rater declares no weights of raters"),
        (["+labels.nope=1"], "the options of 'labels' do not fit dmseg.labels.fusion.majority"),
        (["labels._target_=dmseg.labels.fusion.nope"], "there is no component 'dmseg.labels.fusion.nope'"),
        (["labels._target_=dmseg.labels.fusion.declared_votes"], "cannot be used as a fusion"),
        (
            ["protocol.interpolation.hard=cubic"],
            "protocol.interpolation is {'hard': 'cubic'",
        ),
    ],
)
def test_mistakes(overrides, message):
    with pytest.raises(UserError) as caught:
        compose_settings(overrides)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


def test_soft_labels_may_be_smoothed_in_any_interpolation():
    for interpolation in ("nearest", "linear", "rater"):
        assert compose_settings(
            ["labels=uniform", EVERYWHERE, f"labels.interpolation={interpolation}"]
        ).labels.smoothing


def test_the_dtype_tells_the_kind():
    assert [gives_soft_labels(f) for f in (majority, each_rater, uniform, weighted)] == [False, False, True, True]
    assert not gives_soft_labels(lambda a: a.any(axis=0))
    assert gives_soft_labels(lambda a: a.mean(axis=0, dtype=np.float16))
    with pytest.raises(ValueError, match="type object"):
        gives_soft_labels(lambda a: None)


def test_a_fusion_of_ones_own_needs_to_say_nothing(mine):
    def kind(name):
        return label_kind(compose_settings([mine(name)]).labels)

    assert (kind("hard"), kind("flags"), kind("soft"), kind("of_seven")) == ("hard", "hard", "soft", "soft")
    assert compose_settings([mine("soft")]).labels.interpolation == "linear"
    for name, message in (("broken", "out of order"), ("words", "type <U")):
        with pytest.raises(UserError, match=f"labels: my_fusions.{name} cannot be used as a fusion: .*{message}"):
            compose_settings([mine(name)])
    with pytest.raises(UserError, match=r"my_fusions\.soft declares no weights"):
        compose_settings([mine("soft"), "labels.interpolation=rater"])


@pytest.mark.parametrize(("soft", "expected"), [(True, "linear"), (False, "nearest")])
def test_settings_stored_before_are_read(tmp_path, soft, expected):
    settings = compose_settings(["labels=uniform", "distill=kd"])
    stored = json.loads(json.dumps(dataclasses.asdict(settings)))
    assert restore_settings(stored, tmp_path).labels == settings.labels
    for labels in (stored["labels"], stored["distill"]["teacher"]["labels"]):
        del labels["interpolation"]
        labels["soft"] = soft
    before = json.dumps(stored)
    restored = restore_settings(stored, tmp_path)
    assert restored.labels.interpolation == restored.distill.teacher.labels.interpolation == expected
    assert json.dumps(stored) == before, "what was read is not changed"


def test_inferring_the_kind_needs_no_torch():
    import subprocess

    code = (
        "import sys; from dmseg.config.compose import compose_settings; import dmseg.runs.plan\n"
        "compose_settings(['labels=weighted', 'labels.interpolation=rater', 'distill=kd'])\n"
        "assert 'torch' not in sys.modules, 'torch'"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
