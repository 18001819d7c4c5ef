"""Run ids: what changes them, what does not, and that they stay what they are."""

import dataclasses
import json
from pathlib import Path

import pytest

from dmseg.config.compose import compose_settings
from dmseg.data.folds import Split
from dmseg.runs import identity as identity_module
from dmseg.runs.digests import experiment_identity, identifier
from dmseg.runs.identity import evaluation_identity, run_identity

SPLIT = Split(("a", "b", "c"), ("d",))
KNOWN = Path(__file__).parent / "known_ids.json"


def run_id(*overrides, digest="0" * 64, split=SPLIT, precision="fp32"):
    settings = compose_settings(["task=prostate-1", "model.weights=null", *overrides])
    return identifier(run_identity(settings, precision, digest, split))


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "fold=1",
        "task=prostate-2",
        "labels=uniform",
        "labels=random",
        "labels=weighted",
        "labels=smoothing",
        "model=unet_resnet18",
        "model.weights=imagenet",
        "+model.encoder_options.bn_eps=0.001",
        "model.head_kernel=1",
        "model.head_dropout=0.1",
        "model.initialization=kaiming",
        "model.auxiliary.weight=0.5",
        "loss.ce_weight=0.5",
        "loss.region.variant=2",
        "loss.region.smooth=0.001",
        "optim.lr=0.02",
        "optim.decoder_lr_factor=10",
        "optim.warmup=0.01",
        "optim.decay_norm_and_bias=false",
        "train.epochs=10",
        "train.batch_size=4",
        "train.scale=[1,1]",
        "train.flip=0",
        "train.crop=0.75",
        "data.size=128",
    ],
)
def test_scientific_values_change_the_id(override):
    assert run_id(override) != run_id()


@pytest.mark.parametrize(
    "override",
    [
        "paths.results=/elsewhere",
        "paths.prepared=/elsewhere",
        "data.root=/elsewhere",
        "tracker=offline",
        "wandb.project=other",
        "workers=4",
        "threads=2",
        "device=cpu",
        "evaluate.empty=one",
        "evaluate.bins=15",
        "evaluate.ged=true",
        "evaluate.save_predictions=true",
        "data=phantom",
        "labels.name=other",
        "model.name=other",
        "folds.seed=3",
    ],
)
def test_the_rest_does_not(override):
    assert run_id(override) == run_id()


def test_options_of_a_term_of_weight_zero_do_not_count():
    alone = run_id("loss=ce")
    assert alone != run_id()
    assert run_id("loss=ce", "+loss.region.variant=2") == alone
    assert run_id("loss=ce", "loss.kl=true") != alone
    assert run_id("loss.ce_weight=0", "loss.kl=true") == run_id("loss.ce_weight=0")


def test_data_split_and_precision_change_the_id():
    assert run_id(digest="1" * 64) != run_id()
    assert run_id(split=Split(("a", "b"), ("d",))) != run_id()
    assert run_id(split=Split(("a", "b", "c"), ("e",))) != run_id()
    assert run_id(precision="bf16") != run_id()


def test_options_without_effect_are_dropped():
    uniform = ["labels=smoothing", "labels.smoothing.kind=uniform"]
    assert run_id(*uniform, "labels.smoothing.kernel=5") == run_id(*uniform)
    assert run_id("labels=smoothing", "labels.smoothing.kernel=5") != run_id("labels=smoothing")
    assert run_id("protocol=release", "labels=majority") != run_id("labels=majority"), "warm-up and rates differ"


def test_equal_numbers_are_equal():
    assert run_id("labels=weighted", "labels.disjoint_weight=1") == run_id(
        "labels=weighted", "labels.disjoint_weight=1.0"
    )
    assert run_id("loss.region.smooth=1") == run_id("loss.region.smooth=1.0") == run_id()


def test_names_of_profile_and_protocol_are_not_in_it():
    same = ["optim.decoder_lr_factor=1", "optim.warmup=0", "optim.decay_norm_and_bias=true", "loss.kl=false"]
    same += ["loss.region.classes=all", "model.encoder=resnet50"]
    same += ["model.options.decoder_interpolation=null", "model.options.decoder_channels=null"]
    same += ["model.head_kernel=null", "model.head_dropout=0", "model.initialization=library"]
    same += ["model.auxiliary.weight=0"]
    assert run_id("protocol=release", *same) == run_id()
    demo = ["model=unet_tiny", "data.size=48", "data.scale=[1,1]", "optim.lr=0.02", "optim.decoder_lr_factor=10"]
    demo += ["train.epochs=1", "train.min_steps=150"]
    assert run_id("profile=demo") == run_id(*demo)


def test_weights_are_named_by_their_content(tmp_path):
    for name, content in (("one", b"x"), ("two", b"x"), ("three", b"y")):
        (tmp_path / name).write_bytes(content)
    one, two, three = (run_id(f"model.weights='{tmp_path / name}'") for name in ("one", "two", "three"))
    assert one == two != three


def test_folds_of_one_configuration_are_one_experiment():
    settings = compose_settings(["task=kidney-1", "model.weights=null"])
    ids = {
        identifier(experiment_identity(run_identity(dataclasses.replace(settings, fold=fold), "fp32", "0", split)))
        for fold, split in enumerate((SPLIT, Split(("d",), ("a", "b", "c"))))
    }
    assert len(ids) == 1


def test_evaluations_have_ids_of_their_own():
    def evaluation(*overrides):
        return identifier(evaluation_identity(compose_settings(list(overrides)).evaluate))

    base = evaluation()
    assert evaluation("evaluate.empty=one") != base
    assert evaluation("evaluate.bins=15") != base
    assert evaluation("evaluate.crop=0.75") != base
    assert evaluation("evaluate.ged=true") != base
    assert evaluation("evaluate.ged=false") == base == "0523e65267513b4a", "stored scores would be out of reach"
    assert evaluation("evaluate.tolerance=3", "evaluate.spacing=[1,1]") == base  # without effect
    every = evaluation("evaluate.metrics=[nsd,hd95,lesion_f1]")
    assert every == evaluation("evaluate.metrics=[lesion_f1,nsd,hd95]")
    assert len({base, every, *(evaluation(f"evaluate.metrics=[{name}]") for name in ("nsd", "hd95", "lesion_f1"))}) == 5
    for name, counts in {"nsd": (True, True), "hd95": (False, True), "lesion_f1": (False, False)}.items():
        further = ((), ("evaluate.tolerance=3",), ("evaluate.spacing=[1,1]",), ("evaluate.spacing=[1.0,1.0]",))
        asked = [evaluation(f"evaluate.metrics=[{name}]", *more) for more in further]
        assert (asked[1] != asked[0], asked[2] != asked[0]) == counts
        assert asked[2] == asked[3]
    assert evaluation("evaluate.reference._target_=dmseg.labels.fusion.weighted") != base
    assert evaluation("evaluate.save_predictions=true", "evaluate.batch_size=2") == base


def test_a_later_key_with_its_frozen_default_leaves_ids_as_they_were(monkeypatch):
    settings = compose_settings(["task=kidney-1", "model.weights=null"])
    plain = run_identity(settings, "fp32", "0", SPLIT)
    before = identifier({**plain, "optim": {k: v for k, v in plain["optim"].items() if k != "warmup"}})
    monkeypatch.setitem(identity_module.IDENTITY_DEFAULTS, "optim.warmup", 0.0)
    assert identifier(run_identity(settings, "fp32", "0", SPLIT)) == before


def test_known_ids_never_change():
    """A changed id makes every stored run of its kind unreachable: see `IDENTITY_DEFAULTS` before touching the list."""
    for entry in json.loads(KNOWN.read_text()):
        assert run_id(*entry["overrides"]) == entry["run_id"], entry["overrides"]
