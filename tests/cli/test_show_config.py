"""``dmseg config``: the same values as a run gets, comments, and where each value comes from."""

import pytest
import yaml

from dmseg.cli.main import main
from dmseg.config.compose import compose_plain


def shown(capfd, *words):
    assert main(["config", *words]) == 0
    return capfd.readouterr().out


KERNEL = ["distill.teacher.labels=smoothing", "distill.teacher.labels.smoothing.kernel=5"]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["data=phantom_decathlon", "profile=demo", "labels=uniform"],
        ["protocol=release", "distill=kd", "distill.teacher.model=unet_tiny", "model=deeplabv3plus_resnet18"],
        ["method=mrnet", "optim.lr=0.1", "data.root='/a folder: #1'", "launcher=slurm"],
        ["distill=null", "loss=ce", "+data.slices=all"][:2],
    ],
    ids=" ".join,
)
def test_it_is_yaml_of_what_hydra_composes(overrides, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = shown(capfd, *overrides)
    assert yaml.safe_load(text) == compose_plain(overrides)
    assert list(tmp_path.iterdir()) == [], "it reads no data and writes nothing"
    for line in text.splitlines():
        assert line.lstrip().startswith("#") or line.endswith(":") or "  # " in line, f"no source: {line}"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["fold"], "fold: 0  # configs/config.yaml"),
        (["fold", "fold=2"], "fold: 2  # command line"),
        (["labels", "labels=uniform"], "labels:  # configs/labels/uniform.yaml, chosen on the command line"),
        (["labels"], "labels:  # configs/labels/majority.yaml"),
        (["model.name", "profile=demo"], "  name: unet_tiny  # configs/model/unet_tiny.yaml"),
        (["optim.decoder_lr_factor", "profile=demo"], "  decoder_lr_factor: 10.0  # configs/profile/demo.yaml"),
        (
            ["train.epochs", "data=lits"],
            "  epochs: 60  # configs/config.yaml: ${data.epochs} in configs/data/lits.yaml",
        ),
        (["train.epochs", "data.epochs=7"], "  epochs: 7  # configs/config.yaml: ${data.epochs} in command line"),
        (["data.name", "data=phantom_lits"], "  name: phantom_lits  # configs/data/phantom_lits.yaml"),
        (["data._target_", "data=phantom_decathlon"], "# configs/data/decathlon.yaml"),
        (["distill.teacher.loss.name", "distill=kd"], "# configs/loss/ce_dml1.yaml, chosen by configs/distill/kd.yaml"),
        (
            ["distill.teacher.model.name", "distill=kd", "distill.teacher.model=unet_tiny"],
            "      name: unet_tiny  # configs/model/unet_tiny.yaml, chosen on the command line",
        ),
        *(
            (["distill.teacher.labels", "distill=kd", *KERNEL], f"        {line}")
            for line in (
                "epsilon: 0.5  # configs/labels/smoothing.yaml, chosen on the command line",
                "kernel: 5  # command line",
            )
        ),
        (["paths.results"], "  results: results/qubiq  # configs/config.yaml: results/${data.name}"),
        (["seed"], "# random seed of initialisation, order of slices, augmentation, random rater and dropout"),
    ],
    ids=str,
)
def test_the_source_of_a_value(words, line, capfd):
    assert line in shown(capfd, *words)


def test_keys_restrict_it(capfd):
    assert yaml.safe_load(shown(capfd, "optim", "train.epochs", "data=lits")) == {
        "optim": compose_plain([])["optim"],
        "train": {"epochs": 60},
    }


def test_a_file_of_ones_own_is_named_with_its_path(tmp_path, capfd):
    (tmp_path / "labels").mkdir()
    path = tmp_path / "labels" / "mine.yaml"
    path.write_text("name: mine # a comment of mine\n_target_: dmseg.labels.fusion.uniform\n")
    text = shown(capfd, "labels.name", "labels=mine", f"--config-dir={tmp_path}")
    assert f"  # a comment of mine\n  name: mine  # {path}" in text


def test_nothing_of_a_file_steers_the_terminal(tmp_path, capfd):
    folder = tmp_path / "\x1b[31m"
    (folder / "labels").mkdir(parents=True)
    (folder / "labels" / "mine.yaml").write_text("name: mine # \u202emine\n_target_: dmseg.labels.fusion.uniform\n")
    text = shown(capfd, "labels.name", "labels=mine", f"--config-dir={folder}")
    assert "  # \\u202emine\n" in text
    assert "\\x1b[31m/labels/mine.yaml" in text
    assert text.replace("\n", "").isprintable()


def test_a_key_is_not_its_namesake_and_removed_keys_are_overrides(capfd):
    assert yaml.safe_load(shown(capfd, "fold", "fold=1")) == {"fold": 1}, "without 'folds'"
    assert yaml.safe_load(shown(capfd, "fold", "~distill")) == {"fold": 0}
    assert "notes: Übung  # command line" in shown(capfd, "wandb.notes", "wandb.notes='Übung'")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optm"], "the configuration has no key 'optm'; did you mean 'optim'?"),
        (["optim.rl"], "the configuration has no key 'optim.rl'"),
        (["fold=x"], "fold is 'x', but must be a whole number"),
        (["labels=nope"], "labels='nope' does not exist"),
        (["-m", "fold=0,1"], "-m is for train and cv"),
        (["fold=0,1"], "has several values"),
    ],
    ids=str,
)
def test_mistakes(words, said, capfd):
    assert main(["config", *words]) == 2
    out, err = capfd.readouterr()
    assert not out
    assert said in err
