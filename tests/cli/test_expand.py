"""The forms in which a sweep may be typed."""

import itertools

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from dmseg.cli.expand import LIMIT, expand, hydra_literal
from dmseg.config.compose import compose_plain
from dmseg.config.resources import resource
from dmseg.errors import UserError


def values(word):
    """What Hydra reads in each override that a sweep over one key is expanded to."""
    return [
        OverridesParser.create().parse_override(item.overrides[0]).value() for item in expand([word]).combinations()
    ]


def same(found, wanted):
    return found == wanted and list(map(type, found)) == list(map(type, wanted))


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("a,b", ["a", "b"]),
        ("a , b", ["a", "b"]),
        ("'a','b'", ["a", "b"]),
        ("\"a b\",'c,d','e=f'", ["a b", "c,d", "e=f"]),
        (r"a\,b,c", ["a,b", "c"]),
        ("1,1.0,1e-3,'1',true,'true',null,'null'", [1, 1.0, 0.001, "1", True, "true", None, "null"]),
        ("[0.9,1.1],[1,1]", [[0.9, 1.1], [1, 1]]),
        ("[[a,1],[b]],[]", [[["a", 1], ["b"]], []]),
        ("{a:1,b:[x,'2']},{a:null}", [{"a": 1, "b": ["x", "2"]}, {"a": None}]),
        ("/some/where.safetensors,null", ["/some/where.safetensors", None]),
        ("range(3)", [0, 1, 2]),
        ("range(1,10,4)", [1, 5, 9]),
        ("range(5,1,-2)", [5, 3]),
        ("range(0,0.3,0.1)", [0.0, 0.1, 0.2]),
        ("range(0.1,0.8,0.1)", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        ("range(start=1,stop=3)", [1, 2]),
        ("float(range(2))", [0.0, 1.0]),
        ("choice(a)", ["a"]),
        ("choice(a,'1',2,true,null)", ["a", "1", 2, True, None]),
        ("choice(range(2))", [0, 1]),
        ("int('3','4')", [3, 4]),
        ("sort(3,1,2)", [1, 2, 3]),
        ("sort(choice(b,c,a),reverse=true)", ["c", "b", "a"]),
        ("sort(range(10,1,-2))", [2, 4, 6, 8, 10]),  # Hydra's own sort gives 3 to 11
        ("sort(range(1,10,2),reverse=true)", [9, 7, 5, 3, 1]),
    ],
)
def test_values_keep_order_and_type(typed, wanted):
    assert same(values(f"key={typed}"), wanted)


def test_a_shuffle_is_a_permutation_and_always_the_same_one():
    orders = [values("seed=shuffle(range(20))") for _ in range(3)]
    assert orders[0] == orders[1] == orders[2] != list(range(20))
    assert sorted(orders[0]) == list(range(20))
    assert sorted(values("labels=shuffle(b,a,c)")) == ["a", "b", "c"]


def test_a_glob_chooses_among_the_files_of_a_group():
    files = {path.stem for path in (resource("configs") / "labels").glob("*.yaml")}
    assert set(values("labels=glob(*)")) == files > {"majority", "uniform"}
    assert values("labels=glob([m*,u*,w*],exclude=uni*)") == ["majority", "weighted"]
    assert values("+labels=glob(unif*)") == ["uniform"]


@pytest.mark.parametrize("prefix", ["", "+", "++", "~"])
@pytest.mark.parametrize("package", ["", "@distill.teacher"])
def test_prefix_and_package_stay(prefix, package):
    combinations = expand([f"{prefix}labels{package}=a,b"]).combinations()
    assert [item.overrides for item in combinations] == [(f"{prefix}labels{package}={value}",) for value in "ab"]


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("lr=interval(0,1)", "range(start,stop,step)"),
        ("lr=tag(x,choice(1,2))", "leave tag() out"),
        ("lr=choice()", "no values"),
        ("lr=range(5,1)", "no values"),
        ("lr=range(0,1,0)", "step not 0"),
        ("lr=range(0,inf)", "finite"),
        ("lr=range(1000000000)", "1000000000 values"),
        ("lr=range(a)", "mismatch type"),
        ("lr=nope(1,2)", "nope"),
        ("lr=1,range(3)", "one list"),
        ("lr=[range(3),1]", "one list"),
        ("lr={a:choice(1,2)}", "one list"),
        ("labels=uniform,glob(m*)", "one list"),
        ("labels=glob(x*)", "majority"),
        ("task=glob(*)", "config group"),
        ("data.root=~/a,~/b", "quotes"),
        ("lr=1,", "quotes"),
        ("lr=sort(a,1)", "'lr=sort(a,1)'"),
    ],
)
def test_what_cannot_be_expanded_is_refused_by_name(word, named):
    with pytest.raises(UserError) as caught:
        expand(["fold=0", word])
    assert named in str(caught.value)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("other", ["labels=c", "+labels=c", "labels=c,d"])
def test_a_swept_key_is_given_once(other):
    with pytest.raises(UserError, match="labels is given twice"):
        expand(["labels=a,b", other])


def test_combinations_are_the_product_in_the_order_typed():
    grid = expand(["labels=a,b", "train.epochs=3", "fold=range(3)"])
    found = [item.overrides for item in grid.combinations()]
    assert found == [(f"labels={a}", "train.epochs=3", f"fold={b}") for a, b in itertools.product("ab", range(3))]
    assert grid.combinations()[4].values == {"labels": "b", "fold": "1"}
    assert len(grid) == 6


def test_too_many_combinations_are_refused_before_they_are_made():
    with pytest.raises(UserError, match=str(1000**5)):
        expand([f"{key}=range(1000)" for key in "abcde"])
    assert len(expand([f"a=range({LIMIT})"])) == LIMIT


def test_options_of_distillation_hold_where_there_is_one():
    grid = expand(["distill.classes=all", "distill=null,kd", "+distill.x=1", "distill.temperature=1,2"])
    own = ("distill.classes=all", "+distill.x=1")
    assert [item.overrides for item in grid.combinations()] == [
        ("distill=null",),
        ("distill=null",),
        (own[0], "distill=kd", own[1], "distill.temperature=1"),
        (own[0], "distill=kd", own[1], "distill.temperature=2"),
    ]


def test_an_override_may_be_of_one_data_set():
    grid = expand(["data=phantom,lidc", "phantom:task=kidney-1", "lidc:data.root=/a-b", "fold=0", "other:x=1"])
    assert [item.overrides for item in grid.combinations()] == [
        ("data=phantom", "task=kidney-1", "fold=0", "other:x=1"),
        ("data=lidc", "data.root=/a-b", "fold=0", "other:x=1"),
    ]


def test_what_is_not_swept_stays_as_typed():
    words = ["data.root=~/x", "data.root='a,b'", "train.scale=[1,2]", "labels=uniform", "~evaluate.ged", "a=", "x"]
    (only,) = expand(words).combinations()
    assert only.overrides == tuple(words)
    assert only.values == {}


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.from_regex("[a-z_][a-z0-9_]{0,5}", fullmatch=True), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(plain)
def test_hydra_reads_what_is_written(value):
    words_with_a_type = ("null", "true", "false", "inf", "nan")
    if isinstance(value, dict) and any(key.lower() in words_with_a_type for key in value):
        return
    found = OverridesParser.create().parse_override(f"key={hydra_literal(value)}").value()
    assert repr(found) == repr(value)


@pytest.mark.parametrize("path", ["/x/a(1)", "~/x", "/x/ä", "/x/a=b"])
def test_a_path_with_special_characters_is_one_value(path):
    grid = expand([f"data.root={path}", "labels=majority,uniform"])
    assert [combination.overrides[0] for combination in grid.combinations()] == [f"data.root={path}"] * 2
    assert list(expand(["model.weights=null,/w"]).keys) == ["model.weights"]


def test_the_labels_of_the_sweeps_page_need_no_further_key():
    """``glob(*,exclude=rater*)`` leaves out the files with a key that is not set, and no others."""
    found = values("labels=glob(*,exclude=rater*)")
    unset = {"rater", "rater_weights"}
    assert {path.stem for path in (resource("configs") / "labels").glob("*.yaml")} == {*found, *unset}
    plain = {name: compose_plain([f"labels={name}"])["labels"] for name in (*found, *unset)}
    needed = ("rater", "weights")
    assert {name for name, node in plain.items() if any(node.get(key, 0) is None for key in needed)} == unset
