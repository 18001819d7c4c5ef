"""Variants that are merged in equal what Hydra composes; what cannot be merged is composed."""

import itertools

import pytest

from dmseg.config import variants
from dmseg.config.compose import compose_settings
from dmseg.config.variants import Base
from dmseg.errors import UserError
from dmseg.tables.spec import read_spec, table_names

COLUMNS = [
    (f"model={block.model}", *overrides)
    for name in table_names()
    for block in read_spec(name).blocks
    for overrides in block.cells.values()
]
USERS = (
    ["data=qubiq"],
    ["data=phantom", "profile=demo", "seed=3"],
    ["data=lidc", "protocol=release", "model.weights=null", "+model.encoder_options.pad_type=same"],
    ["data=phantom", "labels.name=mine", "train.epochs=3"],
)


def outcome(make, overrides):
    try:
        return make(overrides)
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("user", USERS, ids=" ".join)
def test_every_cell_of_every_table_is_what_hydra_composes(user):
    base = Base(user)
    for column in list(dict.fromkeys(COLUMNS))[:: 1 if user == USERS[0] else 5]:
        assert outcome(base.settings, column) == outcome(compose_settings, [*column, *user]), column


def test_shipped_columns_are_merged_not_composed(monkeypatch):
    base = Base(["data=phantom", "profile=demo"])
    monkeypatch.setattr(variants, "compose_config", lambda overrides: pytest.fail(f"composed: {overrides}"))
    for column in dict.fromkeys(COLUMNS):
        base.settings(column)


@pytest.mark.parametrize(
    ("variant", "word"),
    [("labels=nope", "nope"), ("nope=1", "nope"), ("labels.nope=1", "labels.nope"), ("data.size=big", "data.size")],
)
def test_a_wrong_variant_is_named(variant, word):
    with pytest.raises(UserError, match=word):
        Base(["data=phantom"]).settings([variant])


def test_values_keep_their_types():
    pairs = itertools.product(("optim.lr=1e-3", "train.scale=[0.5,2]", "evaluate.save_predictions=true"), ("seed=1",))
    for variant in pairs:
        assert Base(["data=qubiq"]).settings(variant) == compose_settings([*variant, "data=qubiq"])


@pytest.mark.parametrize(
    "variant",
    [
        "loss.region={_target_: dmseg.losses.SoftDiceLoss}",
        "loss.region={smooth: 2}",
        "labels={name: mine}",
        "train={flip: 0}",
    ],
)
def test_mappings_are_merged_as_hydra_merges_them(variant):
    assert Base(["data=qubiq"]).settings([variant]) == compose_settings([variant, "data=qubiq"])


@pytest.mark.parametrize(
    "variant",
    [
        "labels.name=${data.name}",
        "labels.name='???'",
        "loss.region=null",
        "loss.region=[1]",
        "train.flip={a: 1}",
        "train.scale={a: 1}",
        "train.scale=[0.5,2]",
        "distill=null",
        "distill={temperature: 2}",
        "distill={teacher: 3}",
        "model.encoder_options={nope: 1}",
        "data.phantom=null",
    ],
)
def test_odd_values_end_as_with_hydra(variant):
    for user in (["data=qubiq"], ["data=phantom", "distill=kd"]):
        assert outcome(Base(user).settings, [variant]) == outcome(compose_settings, [variant, *user])


def test_a_variant_leaves_the_base_as_it_was():
    base = Base(["data=qubiq"])
    base.settings(["labels=uniform", "optim.lr=1", "distill=kd", "loss.region={smooth: 2}"])
    plain = base.plain
    changed = base.changed(["seed=3", "optim.lr=1"])
    assert changed.plain["seed"] == 3, "not the value that the base has kept"
    assert base.plain is plain
    assert base.composed() == Base(["data=qubiq"]).composed()
