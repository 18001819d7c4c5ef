"""What ``dmseg data status`` says."""

import pytest

from dmseg.cli.main import main
from dmseg.config.resources import resource
from dmseg.phantom import ensure_decathlon, ensure_kits, ensure_lits


@pytest.fixture
def folder(tmp_path, lidc_tree):
    ensure_lits(tmp_path / "lits", cases=3, scale=0.13)
    ensure_kits(tmp_path / "kits", cases=6, scale=0.13)
    ensure_decathlon(tmp_path / "decathlon", cases=2)
    for number in range(1, 5):
        (tmp_path / f"kits/case_{number:05d}/imaging.nii.gz").unlink()
    return tmp_path


def test_all_data_sets(folder, capsys):
    assert main(["data", "status", f"paths.data='{folder}'"]) == 0
    told = capsys.readouterr().out
    assert f"lits: 3 of 131 cases in {folder}/lits\n  licence: CC BY-NC-ND 4.0; source: register at" in told
    assert f"kits: 2 of 210 cases in {folder}/kits\n  {folder}/kits/case_00001/imaging.nii.gz is missing" in told
    assert "  ... and 1 more\n  licence: CC BY-NC-SA 4.0; source: python scripts/download_kits.py" in told
    assert "lidc: 12 cases in" in told
    assert "decathlon: 2 cases in" in told
    assert "qubiq: 0 of 150 cases in" in told
    assert "no QUBIQ prostate cases" in told


def test_data_sets_of_ones_own_are_listed_last(tmp_path, capsys):
    configs = tmp_path / "configs/data"
    configs.mkdir(parents=True)
    example = resource("configs") / "data/kits.yaml"
    (configs / "own.yaml").write_text(example.read_text().replace("name: kits", "name: own"))
    ensure_kits(tmp_path / "kits", cases=6, scale=0.13)
    assert main(["data", "status", f"--config-dir={tmp_path / 'configs'}", f"paths.data='{tmp_path}'"]) == 0
    names = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert names == ["qubiq", "lits", "kits", "lidc", "decathlon", "own"]
    assert main(["data", "status", f"paths.data='{tmp_path}'"]) == 0
    assert "own:" not in capsys.readouterr().out


def test_one_data_set_and_a_mistake(folder, capsys):
    assert main(["data", "status", "data=kits", f"data.root='{folder / 'nowhere'}'"]) == 0
    assert capsys.readouterr().out.startswith(f"kits: 0 of 210 cases in {folder}/nowhere\n  KiTS folder")
    assert main(["data"]) == 2
    assert "dmseg data status" in capsys.readouterr().err
