"""Messages about unknown and missing keys name those of the files that the user has chosen."""

import pytest

from dmseg.cli.main import main
from dmseg.config.compose import compose_settings
from dmseg.config.config_dir import use_config_dir
from dmseg.errors import UserError

LOSS = "name: mine\nterms: {mine: {_target_: dmseg.losses.SoftCrossEntropyLoss, weight: 1.0, kl: false}}\n"
DATA = "name: clinic\n_target_: dmseg.data.adapters.lidc.LidcAdapter\nroot: /nowhere\nsize: 32\n"


@pytest.fixture
def config_dir(tmp_path):
    """A config dir with a loss and a data set, in use during the test."""
    for name, text in (("loss/mine", LOSS), ("data/clinic", DATA)):
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir()
        path.write_text(text)
    use_config_dir(tmp_path)
    yield tmp_path
    use_config_dir(None)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["labels=smoothing", "labels.smoothing.epsilom=0.3"], "labels.smoothing.epsilon"),
        (["method=mrnet", "method.consistancy=0.1"], "method.consistency"),
        (["labels=weighted", "labels.disjoint_weigth=1"], "labels.disjoint_weight"),
        (["distill=kd", "distill.temperatur=2"], "distill.temperature"),
        (["loss=mine", "loss.terms.mine.kll=true"], "loss.terms.mine.kl"),
        (["data=phantom", "method=softseg", "method.maximun=batch"], "method.maximum"),
    ],
)
def test_the_key_that_was_meant_is_one_of_the_chosen_files(words, meant, config_dir):
    key = words[-1].partition("=")[0]
    with pytest.raises(
        UserError, match=rf"^unknown key '{key}'; did you mean '{meant}'\?(\nfor an argument of your .*)?$"
    ):
        compose_settings(words)


@pytest.mark.parametrize("key", ["distill.temperature", "distill.teacher.model"])
def test_a_key_of_distillation_without_distillation_names_what_it_needs(key):
    with pytest.raises(UserError, match=rf"^unknown key '{key}'; it needs distill=kd$"):
        compose_settings([f"{key}=unet_tiny"])


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("lr=0.1", "'optim.lr'"),
        ("train.lr=0.1", "'optim.lr'"),
        ("LABELS=uniform", "'labels'"),
        ("Optim.LR=0.1", "'optim.lr'"),
        ("epochs=3", "'train.epochs' or 'data.epochs'"),
        ("encoder=resnet18", "'model.encoder'"),
        ("model.weight=null", "'model.weights'"),
        ("loss.ce.weight=1", "'loss.terms.ce.weight'"),
        ("profile.Models=1", "'profile.models'"),
    ],
)
def test_a_key_without_its_group_or_in_capitals_is_recognised(word, meant):
    key = word.partition("=")[0]
    with pytest.raises(UserError, match=rf"^unknown key '{key}'; did you mean {meant}\?$"):
        compose_settings(["data=phantom", word])


def test_keys_of_a_teacher_are_guessed_only_within_the_teacher():
    for key, meant in (
        ("distill.teacher.model.weight", "distill.teacher.model.weights"),
        ("DECODER", "model.decoder"),
    ):
        with pytest.raises(UserError, match=rf"^unknown key '{key}'; did you mean '{meant}'\?$"):
            compose_settings(["data=phantom", "distill=kd", f"{key}=1"])


def test_a_wrong_choice_is_named_before_a_wrong_key():
    with pytest.raises(UserError, match="labels='smoothed' does not exist"):
        compose_settings(["labels=smoothed", "labels.smoothing.epsilom=0.3"])


def test_a_data_set_without_defaults_names_its_file_and_all_keys_to_set(config_dir):
    with pytest.raises(UserError) as caught:
        compose_settings(["data=clinic"])
    said = str(caught.value)
    assert said.startswith(f"{config_dir / 'data' / 'clinic.yaml'} sets no epochs, scale, crop; add epochs: 60, ")
    advised = said.partition("or set ")[2].split(", ")
    assert [word.partition("=")[0] for word in advised] == [
        "train.epochs",
        "train.scale",
        "train.crop",
        "evaluate.crop",
    ]
    settings = compose_settings(["data=clinic", *advised])
    assert (settings.train.epochs, settings.train.scale, settings.evaluate.crop) == (60, [0.8, 1.25], 1.0)
    with pytest.raises(UserError, match=r"sets no scale, crop; add scale: \[0\.8,1\.25\], crop: 1\.0, or set "):
        compose_settings(["data=clinic", "train.epochs=3", "train.crop=0.5"])
    added = "".join(f"{line}\n" for line in said.partition("add ")[2].partition(", or set")[0].split(", "))
    (config_dir / "data" / "clinic.yaml").write_text(DATA + added)
    assert compose_settings(["data=clinic"]).train == settings.train


@pytest.mark.parametrize(
    "words",
    [["table=2"], ["tables=2,4"], ["metrics=[dice]"], ["seeds=3"], ["test=permutation"], ["zero_method=pratt"]],
)
def test_a_figure_takes_no_keys_of_tables(words, capfd):
    assert main(["reproduce", "figure=1", *words]) == 2
    said = capfd.readouterr().err
    assert said == f"dmseg: figure=1 draws a figure without runs, so {words[0]} has no effect; leave one out\n"
