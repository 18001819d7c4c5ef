"""The loss as a mapping of terms: its messages, the keys of earlier versions, and what of a term is in a run's id."""

import copy
import dataclasses
import json
import sys

import pytest

from dmseg.config import components, overrides
from dmseg.config.compose import compose_plain, compose_settings, restore_settings, to_settings
from dmseg.config.overrides import current_override
from dmseg.config.settings import LossTerm
from dmseg.config.variants import Base
from dmseg.data.folds import Split
from dmseg.errors import UserError
from dmseg.runs.digests import identifier
from dmseg.runs.identity import run_identity
from dmseg.tables.planning import TablePlanner
from dmseg.tables.spec import read_spec

CE = "dmseg.losses.SoftCrossEntropyLoss"
FOCAL = "{_target_: dmseg.losses.FocalCrossEntropyLoss, weight: 0.5, gamma: 2}"
JACCARD = "{_target_: dmseg.losses.JaccardMetricLoss, weight: 0.25}"
OLD_AND_NEW = [
    ("loss.ce_weight=0.5", "loss.terms.ce.weight=0.5"),
    ("++loss.region_weight=2", "++loss.terms.region.weight=2"),
    ("loss.kl=true", "loss.terms.ce.kl=true"),
    ("loss.region.smooth=0.5", "loss.terms.region.smooth=0.5"),
    ("+loss.region.class_weights=[1,2]", "+loss.terms.region.class_weights=[1,2]"),
    ("~loss.region.smooth", "~loss.terms.region.smooth"),
    (
        "loss.region={_target_: dmseg.losses.SoftDiceLoss, smooth: 2}",
        "loss.terms.region={_target_: dmseg.losses.SoftDiceLoss, smooth: 2}",
    ),
    (
        "loss={ce_weight: 0.5, kl: true, region_weight: 1, region: {smooth: 2}, name: mine}",
        "loss={terms: {ce: {weight: 0.5, kl: true}, region: {weight: 1, smooth: 2}}, name: mine}",
    ),
]


def node(*overrides):
    """A run's identity."""
    settings = compose_settings(["task=prostate-1", "model.weights=null", *overrides])
    return run_identity(settings, "fp32", "0" * 64, Split(("a", "b"), ("c",)))


def run_id(*overrides):
    return identifier(node(*overrides))


def is_distilled_id(*overrides):
    return run_id("distill=kd", "distill.teacher_ce=false", "distill.teacher_region=false", *overrides)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+loss.terms.x={weight: 1}", r"^loss\.terms\.x has no _target_; set it to the dotted name of a loss$"),
        ("+loss.terms.x={_target_: torch.nn.MSELoss}", r"^loss\.terms\.x has no weight; set it to a number"),
        ("+loss.terms.x=torch.nn.MSELoss", r"^loss\.terms\.x is 'torch\.nn\.MSELoss', but must be a mapping: "),
        ("loss.terms.ce=null", r"^loss\.terms\.ce is None, but must be a mapping: .* weight: 0 switches a term off$"),
        ("loss.terms.ce.weight=-1", r"^loss\.terms\.ce\.weight is -1\.0, but must lie between 0 and 1e\+06$"),
        ("loss.terms.ce.weight=much", r"^loss\.terms\.ce\.weight is 'much', but must be a number$"),
        ("loss.terms.ce.weight=true", r"^loss\.terms\.ce\.weight is True, but must be a number$"),
        ("loss.terms.ce.weight=nan", r"^loss\.terms\.ce\.weight is nan, but must be a finite number$"),
        ("loss.terms.ce.wieght=1", r"^unknown key 'loss\.terms\.ce\.wieght'"),
        ("+loss.temrs=1", r"^unknown key 'loss\.temrs'; did you mean 'loss\.terms'\?$"),
        (
            f"loss.terms.ce={FOCAL}",
            r"^the value of loss\.terms\.ce has a key that is not in the configuration yet; write \+loss\.terms\.ce=",
        ),
        ("loss.terms=5", r"^loss\.terms is 5, but must be a mapping from names to terms$"),
        ("~loss.terms", r"^key 'loss\.terms' is missing$"),
        ("~loss", r"^key 'loss' is missing$"),
        (f"+loss.terms.1={FOCAL}", r"^loss\.terms has the name .*1.*, but a name must be a letter, then"),
        (f"+loss.terms.lr={FOCAL}", r"^loss\.terms has the name 'lr', which is a column of history\.csv"),
        (
            "+loss.terms.x={_target_: os.system, weight: 1}",
            r"^loss\.terms\.x\._target_=os\.system is not allowed: a loss",
        ),
    ],
)
def test_a_wrong_term_is_named_in_one_line(override, message):
    with pytest.raises(UserError, match=message) as caught:
        compose_settings([override])
    assert len(str(caught.value).splitlines()) == 1


def test_a_loss_that_cannot_be_compared_with_a_teacher_is_refused():
    words = ["distill=kd", "~loss.terms.ce", "~loss.terms.region"]
    words += ["+loss.terms.mine={_target_: dmseg.losses.DiceSemimetricLoss, weight: 1}"]
    mine = "+loss.terms.mse={_target_: torch.nn.MSELoss, weight: 1}"
    for given, compared in (
        (words, "ce and region"),
        (["distill=kd", "loss.terms.ce.weight=0", "loss.terms.region.weight=0", mine], "ce and region"),
        (["distill=kd", "loss.terms.ce.weight=0", "distill.teacher_region=false"], "ce"),
        (["distill=kd", "~loss.terms.region", "distill.teacher_ce=false"], "region"),
    ):
        with pytest.raises(UserError, match=rf"^distill compares with the teacher by the terms {compared} only, but"):
            compose_settings(given)
    assert compose_settings([*words, "distill.teacher_ce=false", "distill.teacher_region=false"]).loss.others
    assert compose_settings([words[0], words[1], words[3]]).loss.others, "region is left"
    assert compose_settings(words[1:]).loss.others


def test_distillation_without_any_weight_is_refused():
    with pytest.raises(UserError, match=r"^distill\.label_weight and distill\.teacher_weight are both 0; give"):
        compose_settings(["distill=kd", "distill.label_weight=0", "distill.teacher_weight=0"])
    assert compose_settings(["distill=kd", "distill.teacher_weight=0"]).distill


def test_a_loss_without_any_weight_is_refused_also_of_a_teacher():
    plain = compose_plain(["distill=kd"])
    for term in plain["distill"]["teacher"]["loss"]["terms"].values():
        term["weight"] = 0
    with pytest.raises(UserError, match=r"distill\.teacher\.loss\.terms has no term with a weight above 0"):
        to_settings(plain)


@pytest.mark.parametrize(("old", "new"), OLD_AND_NEW)
def test_old_keys_mean_what_they_meant(old, new, caplog):
    overrides._announce.cache_clear()
    current_override.cache_clear()
    expected = compose_settings([new])
    assert not caplog.records
    assert compose_settings([old]) == Base(["data=qubiq"]).settings([old]) == expected
    lines = [record.getMessage() for record in caplog.records]
    assert lines
    assert len(lines) == len(set(lines)), "each key is announced once"
    assert all(line.startswith("loss.") and " is deprecated; use loss.terms." in line for line in lines)


def test_the_line_about_an_old_key(caplog):
    overrides._announce.cache_clear()
    current_override.cache_clear()
    compose_settings(["loss.ce_weight=0.5"])
    compose_settings(["loss.ce_weight=0.25"])
    expected = "loss.ce_weight is deprecated; use loss.terms.ce.weight"
    assert caplog.messages == [expected]
    compose_settings(["distill=kd", "distill.teacher.loss.ce_weight=0.5"])
    assert caplog.messages[1:] == [f"distill.teacher.{expected.replace('use ', 'use distill.teacher.')}"]


@pytest.mark.parametrize(
    "word", ["loss.kind=1", "model=unet_tiny", "loss=ce", "loss={name: x}", "loss={", "loss.klx=1", "=", ""]
)
def test_other_words_stay_as_they_are(word):
    assert current_override(word) == word


def old_form(loss):
    """The loss as versions before this one stored it."""
    ce, region = loss["terms"]["ce"], loss["terms"]["region"]
    return {
        "name": loss["name"],
        "ce_weight": ce["weight"],
        "kl": ce["options"]["kl"],
        "region_weight": region["weight"],
        "region": {"_target_": region["target"], **region["options"]},
    }


@pytest.mark.parametrize("choice", ["ce", "ce_dml1", "ce_dml2", "ce_sdl"])
def test_stored_settings_of_earlier_versions_are_read(choice, tmp_path):
    settings = compose_settings([f"loss={choice}", "distill=kd", f"paths.results={tmp_path}"])
    stored = json.loads(json.dumps(dataclasses.asdict(settings)))
    assert restore_settings(copy.deepcopy(stored), tmp_path) == settings
    stored["loss"] = old_form(stored["loss"])
    stored["distill"]["teacher"]["loss"] = old_form(stored["distill"]["teacher"]["loss"])
    assert restore_settings(stored, tmp_path) == settings


def test_a_yaml_file_in_the_old_form_is_read():
    plain = compose_plain([])
    region = {key: value for key, value in plain["loss"]["terms"]["region"].items() if key != "weight"}
    old = {"name": "ce_dml1", "ce_weight": 0.25, "kl": False, "region_weight": 0.75, "region": region}
    assert to_settings(plain | {"loss": old}).loss == to_settings(plain).loss


def test_the_id_of_a_term_is_its_content():
    """Not its name, not its place, not how a number is written."""
    one = run_id(f"+loss.terms.a={FOCAL}", f"+loss.terms.b={JACCARD}")
    assert one == run_id(f"+loss.terms.z={JACCARD}", f"+loss.terms.c={FOCAL.replace('2}', '2.0}')}")
    different = [
        (),
        (f"+loss.terms.a={FOCAL}",),
        (f"+loss.terms.a={FOCAL}", f"+loss.terms.b={FOCAL}"),
        (f"+loss.terms.a={FOCAL.replace('gamma: 2', 'gamma: 3')}", f"+loss.terms.b={JACCARD}"),
        (f"+loss.terms.a={FOCAL.replace('0.5', '0.25')}", f"+loss.terms.b={JACCARD}"),
        (f"+loss.terms.ce={FOCAL}", f"+loss.terms.b={JACCARD}", "~loss.terms.ce.kl"),
    ]
    assert len({one, *(run_id(*words) for words in different)}) == 1 + len(different)


def test_a_term_of_weight_zero_is_not_in_the_id():
    off = FOCAL.replace("0.5", "0")
    assert run_id(f"+loss.terms.a={off}") == run_id()
    assert run_id("loss=ce") == run_id("loss=ce", "~loss.terms.region")
    assert run_id("~loss.terms.ce") == run_id("loss.terms.ce.weight=0") != run_id()


def test_terms_are_summed_in_the_order_of_their_content():
    one = compose_settings([f"+loss.terms.a={FOCAL}", f"+loss.terms.b={JACCARD}"]).loss
    other = compose_settings([f"+loss.terms.a={JACCARD}", f"+loss.terms.b={FOCAL}"]).loss
    assert list(one.active) == ["ce", "region", "a", "b"]
    assert list(other.active) == ["ce", "region", "b", "a"]
    assert LossTerm(1, "x.Y", {"a": 1}).content == LossTerm(1.0, "x.Y", {"a": 1.0}).content


def test_another_loss_as_ce_is_in_the_id_with_its_name_and_options():
    known = node()["loss"]
    assert set(known) == {"ce_weight", "kl", "region_weight", "region"}
    other = node(
        "loss.terms.ce._target_=dmseg.losses.FocalCrossEntropyLoss", "~loss.terms.ce.kl", "+loss.terms.ce.gamma=2"
    )
    assert other["loss"]["ce"] == {"_target_": "dmseg.losses.FocalCrossEntropyLoss", "gamma": 2}
    assert "kl" not in other["loss"]


def test_the_weight_of_another_term_in_distillation_is_in_the_id_and_its_name_is_not():
    one = is_distilled_id(f"+loss.terms.a={FOCAL}")
    assert one == is_distilled_id(f"+loss.terms.weight={FOCAL}")
    assert one not in (is_distilled_id(), is_distilled_id(f"+loss.terms.a={FOCAL}", "distill.label_weight=0.75"))


def test_a_loss_of_ones_own_is_in_the_id_by_its_source(tmp_path, monkeypatch):
    monkeypatch.setattr(components, "MODULES", {"my_loss"})
    monkeypatch.syspath_prepend(tmp_path)
    file, text = tmp_path / "my_loss.py", "import torch\nclass Mine(torch.nn.MSELoss): pass\n"
    ids = []
    for more in ("", "# changed\n", ""):
        file.write_text(text + more)
        sys.modules.pop("my_loss", None)
        ids.append(run_id("+loss.terms.mine={_target_: my_loss.Mine, weight: 1}"))
    sys.modules.pop("my_loss", None)
    assert ids[0] == ids[2] != ids[1]


def test_cells_of_a_table_take_a_weight_of_a_term(small_run):
    def cells(*more):
        row = TablePlanner([*small_run, "fold=0", *more], [read_spec("6")]).plan()[0].rows[0]
        return {column: runs[0] for column, runs in row.runs.items()}

    plain, new, old = cells(), cells("loss.terms.ce.weight=0.5"), cells("loss.ce_weight=0.5")
    assert {column: run.settings.loss.terms["ce"].weight for column, run in new.items()} == dict.fromkeys(new, 0.5)
    for column, run in new.items():
        assert run.run_id == old[column].run_id != plain[column].run_id
        assert run.settings.loss.terms["region"] == plain[column].settings.loss.terms["region"]
