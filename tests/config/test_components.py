"""A configuration can only name components of the right kind, and read the environment only where it is harmless."""

import pytest

from dmseg.config.components import KINDS, bind, check_target, resolve
from dmseg.config.compose import compose_settings
from dmseg.errors import UserError

HARMLESS = {
    "data": "dmseg.data.adapters.lidc.LidcAdapter",
    "data.phantom": "dmseg.phantom.ensure_qubiq",
    "labels": "dmseg.labels.fusion.weighted",
    "evaluate.reference": "dmseg.labels.fusion.uniform",
    "method": "dmseg.methods.softseg.SoftSeg",
    "loss.terms": "torch.nn.MSELoss",
}
HOSTILE = (
    "os.system",
    "builtins.exec",
    "subprocess.run",
    "torch.hub.load",
    "torch.load",
    "torch.utils.collect_env.run",
    "timm.models.load_checkpoint",
    "dmseg.files.atomic.checksum",
    "dmseg.labels.fusion.np.load",
    "dmseg.data.adapters.qubiq.re.compile",
    "dmseg.losses..DiceSemimetricLoss",
    "dmseg",
    "",
    "../dmseg.losses",
)


def test_every_kind_has_an_example():
    assert set(HARMLESS) == set(KINDS)


@pytest.mark.parametrize("where", KINDS)
def test_a_component_of_the_right_kind_is_found(where):
    found = resolve(HARMLESS[where], where)
    assert found.__name__ == HARMLESS[where].rpartition(".")[2]


@pytest.mark.parametrize("where", KINDS)
@pytest.mark.parametrize("target", HOSTILE)
def test_anything_else_is_refused_and_never_called(where, target):
    with pytest.raises(UserError):
        bind(target, {}, where=where, n_positional=0)


@pytest.mark.parametrize("where", KINDS)
def test_components_of_other_kinds_are_refused(where):
    for other, target in HARMLESS.items():
        if KINDS[other] != KINDS[where]:
            with pytest.raises(UserError, match="is not"):
                resolve(target, where)


@pytest.mark.parametrize("target", [None, 5, ["x"], {"a": 1}])
def test_what_is_no_name_is_refused(target):
    with pytest.raises(UserError, match="must be the dotted name of a method"):
        check_target(target, "method")


@pytest.mark.parametrize(
    ("target", "where", "advice"),
    [
        ("dmseg.labels.fusion.rater_dice", "labels", r": it is defined in dmseg\.metrics\.agreement"),
        ("dmseg.labels.fusion.FusionWarning", "labels", ""),  # no function
        ("dmseg.data.adapters.volume.VolumeAdapter", "data", "; it lacks .*list_cases.*"),
        ("torch.nn.functional.mse_loss", "loss.terms", "; write a class that is a subclass of torch.nn.Module"),
    ],
)
def test_names_of_the_right_room_may_still_be_of_the_wrong_kind(target, where, advice):
    with pytest.raises(UserError, match=rf"{where}._target_={target} is not {KINDS[where].what}{advice}$"):
        resolve(target, where)


@pytest.mark.parametrize(
    "text",
    [
        "method._target_=torch.utils.collect_env.run",
        "data._target_=torch.hub.load",
        "data.phantom={_target_: os.system}",
        "labels._target_=os.system",
        "evaluate.reference._target_=os.system",
        "~evaluate.reference._target_",
        "evaluate.reference={_target_: os.system}",
        "loss.terms.ce._target_=torch.load",
        "loss.region._target_=torch.load",
        "loss.terms.region={_target_: torch.load}",
        "+hydra.callbacks.x._target_=os.system",
        "hydra/launcher=joblib",
        "+hydra/callbacks=x",
        "hydra.searchpath=[/tmp]",
        "+data@hydra.callbacks=lidc",
        "+method.unused=[optim]",
        "method={unused: [optim]}",
    ],
)
def test_settings_are_refused_when_they_are_composed(text):
    with pytest.raises(UserError) as caught:
        compose_settings([text])
    assert len(str(caught.value).splitlines()) <= 3


def test_the_components_of_a_teacher_are_checked_too(monkeypatch):
    from dmseg.config import compose

    plain = compose.compose_plain(["distill=kd"])
    plain["distill"]["teacher"]["loss"]["terms"]["region"]["_target_"] = "torch.load"
    with pytest.raises(UserError, match=r"loss\.terms\.region\._target_=torch\.load is not allowed"):
        compose.to_settings(plain)


@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=${oc.env:SECRET}"],
        ["labels.name=${oc.env:SECRET}"],
        ["labels.name='a ${oc.env:SECRET} b'"],
        ["data.name=${.root}", "data.root=${oc.env:SECRET}"],
        ["labels.name=${oc.select:paths.data}", "paths.data=${oc.env:SECRET}"],
        ["train.scale=[1,'${oc.env:SECRET}']"],
        ["+model.encoder_options.x={'${oc.env:SECRET}': 1}"],
        ["evaluate.empty=${oc.decode:${oc.env:SECRET}}"],
        ["wandb.project=${now:%Y}"],
        ["task=${hydra:runtime.cwd}"],
    ],
)
def test_the_environment_reaches_no_number_and_no_title(overrides, monkeypatch):
    monkeypatch.setenv("SECRET", "hush")
    with pytest.raises(UserError) as caught:
        compose_settings(overrides)
    assert "hush" not in str(caught.value)


def test_paths_and_the_tracker_may_read_the_environment(monkeypatch):
    monkeypatch.setenv("PLACE", "/there")
    settings = compose_settings(
        ["data.root=${oc.env:PLACE}/x", "paths.results=${oc.env:PLACE}", "wandb.entity=${oc.env:NOBODY,me}"]
    )
    assert (settings.data.root, settings.paths.results, settings.wandb.entity) == ("/there/x", "/there", "me")


def test_a_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("NOBODY", raising=False)
    with pytest.raises(UserError, match=r"^paths\.results reads the environment variable NOBODY, which is not set$"):
        compose_settings(["paths.results=${oc.env:NOBODY}/x"])
