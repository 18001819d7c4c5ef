"""Overrides of single keys of a teacher's labels, network and loss."""

import re

import pytest

from dmseg.cli.expand import expand
from dmseg.config.compose import compose_settings
from dmseg.config.variants import Base
from dmseg.errors import UserError

KD = ["distill=kd", "distill.teacher.labels=smoothing"]


@pytest.mark.parametrize(
    "own",
    [
        ["labels=smoothing", "labels.smoothing.kernel=5"],
        ["labels=smoothing", "labels.smoothing={kind:uniform,epsilon:0.1}"],
        ["labels=rater", "labels.rater=seg01"],
        ["model=unet_tiny", "model.options.decoder_channels=[48,32,24,16]", "model.head_dropout=0.3"],
        ["loss=ce_dml1", "loss.terms.region.weight=0.5", "loss.terms.region.smooth=2"],
        ["loss=ce_dml1", "++loss.terms.region.smooth=2"],
        ["loss=ce_dml1", "loss.ce_weight=0.5"],
    ],
    ids=" ".join,
)
def test_a_teacher_is_what_the_same_overrides_make_of_a_run_of_its_own(own):
    base = ["model=unet_tiny", "distill=kd", "distill.teacher.model=unet_tiny", "seed=3"]
    alone = compose_settings(["labels=majority", "loss=ce_dml1", "model=unet_tiny", "seed=3", *own])
    words = [re.sub(r"^\+*", r"\g<0>distill.teacher.", item) for item in own]
    for settings in (
        compose_settings([*base, *words]),
        Base(base).settings(words),
        Base(["distill=kd", *words]).settings(base),
    ):
        teacher = settings.distill.teacher
        assert (teacher.labels, teacher.model, teacher.loss) == (alone.labels, alone.model, alone.loss)
        assert settings.labels == compose_settings(base).labels, "the student keeps its own"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            [*KD, "distill.teacher.labels.smoothing.kernal=5"],
            r"unknown key.*did you mean '.*labels\.smoothing\.kernel'\?$",
        ),
        (["distill=kd", "distill.teacher.labels.smoothing.kernel=5"], r"^unknown key 'distill\.teacher\.labels\.smoo"),
        (["distill.teacher.labels.smoothing.kernel=5"], r"there is none; add distill=kd$"),
        (["distill=kd", "distill=null", "distill.teacher.labels.name=x"], r"there is none; add distill=kd$"),
        ([*KD, "~distill.teacher.labels.smoothing"], "can be set or added, but not removed$"),
        ([*KD, "distill.teacher.labels.smoothing.kernel=3,5"], "has several values; use -m for a sweep"),
        (
            [*KD, "distill.teacher.labels.smoothing.kernel=4"],
            r"^distill\.teacher\.labels\.smoothing\.kernel is 4, but must",
        ),
        (
            [*KD, "distill.teacher.labels.smoothing.kernel=4097"],
            r"^distill\.teacher\.lab.* must lie between 1 and 4095$",
        ),
        ([*KD, "distill.teacher.labels.smoothing.epsilon=2"], r"^distill\.teacher\.lab.* must lie between 0 and 1$"),
        ([*KD, "distill.teacher.labels.smoothing.kernel=x"], r"^distill\.teacher\.lab.* must be a whole number$"),
        ([*KD, "distill.teacher.labels._target_=os.system"], r"^distill\.teacher\.labels\._target_=os\.system is not"),
        ([*KD, "distill.teacher.loss.terms.ce._target_=os.system"], r"^distill\.teacher\.loss\.terms\.ce\._target_=os"),
        (
            [*KD, "distill.teacher.labels.smoothing.kernel=${oc.env:HOME}"],
            r"^distill\.t.*\.kernel reads the env",
        ),
        ([*KD, "distill.teacher.labels.smoothing.kernel=${nothing}"], r"^distill\.t.*\.kernel refers to 'nothing'"),
        ([*KD, "distill.teacher.labels.interpolation=linear"], r"^distill\.teacher\.labels\.interpolation is 'linear'"),
        ([*KD, "distill.teacher.labels.ties=x"], r"^distill\.teacher\.labels: ties is 'x'"),
        ([*KD, "+distill.teacher.labels.foo=1"], r"^the options of 'distill\.teacher\.labels' do not fit"),
        ([*KD, "distill.teacher.loss.terms=3"], r"^distill\.teacher\.loss\.terms is 3"),
        ([*KD, "labels=smoothing", "labels.interpolation=linear"], r"^labels\.interpolation is 'linear'"),
    ],
)
def test_what_a_teacher_cannot_have_is_refused_by_its_key(overrides, message):
    for compose in (compose_settings, Base([]).settings):
        with pytest.raises(UserError, match=message):
            compose(overrides)


def test_a_sweep_may_vary_a_key_of_the_teacher():
    words = ["distill=null,kd", "distill.teacher.labels=smoothing", "distill.teacher.labels.smoothing.kernel=3,5"]
    found = [compose_settings(item.overrides).distill for item in expand(words).combinations()]
    kernels = [part.teacher.labels.smoothing.kernel for part in found if part is not None]  # type: ignore[union-attr]
    assert (len(found), kernels) == (4, [3, 5])


def test_distillation_without_a_teacher_is_refused():
    with pytest.raises(UserError, match="must be null or one of the files in configs/distill"):
        compose_settings(["data=qubiq", "distill={temperature: 2}"])
