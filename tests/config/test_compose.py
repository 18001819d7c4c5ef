"""Every configuration composes; every mistake is one plain message that names the word."""

import itertools

import pytest
import yaml

from dmseg.config.components import resolve
from dmseg.config.compose import compose_plain, compose_settings
from dmseg.config.resources import resource
from dmseg.errors import UserError

GROUPS = {
    group.name: sorted(path.stem for path in group.glob("*.yaml"))
    for group in resource("configs").iterdir()
    if group.is_dir() and group.name != "table"
}


@pytest.mark.parametrize("choice", [f"{group}={name}" for group, names in GROUPS.items() for name in names])
def test_every_choice_composes_and_its_components_exist(choice):
    settings = compose_settings([choice])
    named = {
        "data": settings.data.target,
        "labels": settings.labels.target,
        "method": settings.method.target,
        "evaluate.reference": settings.evaluate.reference["_target_"],
        **{f"loss.terms.{name}": term.target for name, term in settings.loss.terms.items()},
    }
    for where, target in named.items():
        assert callable(resolve(target, where))


def test_combinations_of_profile_protocol_and_data():
    for profile, protocol, data in itertools.product(GROUPS["profile"], GROUPS["protocol"], GROUPS["data"]):
        settings = compose_settings([f"profile={profile}", f"protocol={protocol}", f"data={data}"])
        assert (settings.profile, settings.protocol, settings.data.name) == (profile, protocol, data)


def test_both_protocols_make_the_same_choices():
    one, other = (
        yaml.safe_load((resource("configs") / f"protocol/{name}.yaml").read_text()) for name in ("paper", "release")
    )
    assert list(one) == list(other)
    composed = compose_plain([])
    assert composed["optim"]["decoder_lr_factor"] == 1.0
    assert compose_plain(["protocol=release"])["optim"]["decoder_lr_factor"] == 10.0


@pytest.mark.parametrize(
    ("labels", "released"),
    [("majority", "present"), ("random", "present"), ("uniform", "all"), ("weighted", "all"), ("smoothing", "all")],
)
def test_the_released_region_loss_takes_present_classes_for_hard_labels(labels, released):
    assert compose_settings([f"labels={labels}"]).loss.terms["region"].options["classes"] == "all"
    assert (
        compose_settings([f"labels={labels}", "protocol=release"]).loss.terms["region"].options["classes"] == released
    )


def test_the_papers_numbers_are_the_defaults():
    settings = compose_settings([])
    optim, train, loss = settings.optim, settings.train, settings.loss
    assert (optim.lr, optim.momentum, optim.weight_decay, optim.poly_power) == (0.01, 0.9, 0.0005, 0.9)
    assert (train.epochs, train.batch_size, settings.data.size) == (150, 8, 256)
    ce, region = loss.terms["ce"], loss.terms["region"]
    assert (ce.weight, region.weight, region.options["variant"]) == (0.25, 0.75, 1)


def test_overrides_win_over_the_profile():
    settings = compose_settings(["profile=demo", "train.epochs=3", "model=unet_resnet18", "data.size=96"])
    assert (settings.train.epochs, settings.model.encoder, settings.data.size) == (3, "resnet18", 96)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=3", r"unknown key 'train\.epoch'; did you mean 'train\.epochs'\?"),
        ("dta=qubiq", "unknown key 'dta'; did you mean 'data'"),
        ("+train.typo=1", r"unknown key 'train\.typo'"),
        ("+typo=1", "unknown key 'typo'"),
        ("data=nope", "data='nope' does not exist; choose from decathlon, kits, lidc, lits, phantom, "),
        ("labels=nope", "labels='nope' does not exist; choose from majority"),
        ("train.epochs=many", r"train\.epochs is 'many', but must be a whole number"),
        ("train.epochs=1.5", r"train\.epochs is 1\.5, but must be a whole number"),
        ("train.epochs=0", r"train\.epochs is 0, but must lie between 1"),
        ("train.epochs=true", r"train\.epochs is True, but must be a whole number"),
        ("fold=first", "fold is 'first', but must be a whole number"),
        ("optim.lr=${nope}", r"optim\.lr refers to 'nope'"),
        ("train=3", "train is 3, but must be a mapping"),
        ("tracker=yes", "tracker is 'yes', but must be one of disabled, offline, online, jsonl, mlflow"),
        ("precision=fp8", "precision is 'fp8', but must be fp32, tf32, bf16 or auto"),
        ("evaluate.empty=half", r"evaluate\.empty is 'half', but must be skip, one or zero"),
        ("labels=a,b", "'labels=a,b' has several values; use -m for a sweep"),
        ("nonsense", "'nonsense' is not an override; write key=value"),
        ("~train.epochs", r"key 'train\.epochs' is missing"),
        ("labels=[uniform]", r"one file of configs/labels, not a list; write labels=uniform$"),
        ("labels=[majority,uniform]", r"one file of configs/labels, not a list; .* -m labels=majority,uniform$"),
        ("method=ours.yaml", "configs/method without .yaml: method=ours$"),
        ("loss.terms=[]", r"^loss\.terms must be a mapping, such as \{name:value\}$"),
        (
            "evaluate.metrics=[brier,dice]",
            r"^evaluate\.metrics names 'dice', which is always computed; list only further",
        ),
        (
            "evaluate.metrics=[ged]",
            r"^evaluate\.metrics names 'ged', which needs samples; set evaluate\.ged=true instead$",
        ),
        ("evaluate.metrics={a:1}", r"^evaluate\.metrics must be a list, such as \[a,b\]$"),
        ("train={scale:{a:1}}", r"^'train=\{scale.*' has a list where a mapping is needed, or the reverse$"),
        ("seed='${foo'", "^'seed=.*' has an interpolation that cannot be parsed"),
        ("+labels=uniform", "^labels already has a value; change it with labels=VALUE"),
        ("+train.flip=1", r"^train\.flip already has a value; change it with train\.flip=VALUE"),
        ("seed=${seed}", "^seed refers to itself"),
        ("=3", "^'=3' has no key"),
        ("train.scale=[2,1]", r"train\.scale is \[2\.0, 1\.0\]"),
    ],
)
def test_mistakes(override, message):
    with pytest.raises(UserError, match=message) as caught:
        compose_settings([override])
    assert len(str(caught.value).splitlines()) <= 3
    assert "HYDRA_FULL_ERROR" not in str(caught.value)


def test_no_torch_is_needed():
    import subprocess
    import sys

    code = (
        "import sys, dmseg.tables.planning; from dmseg.config.compose import compose_settings\n"
        "compose_settings(['labels=uniform'])\n"
        "assert 'torch' not in sys.modules, 'torch'"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
