"""NSD, HD95 and lesion-wise F1 of an evaluation: which spacing, slices or volumes, which crop, and what is refused."""

import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch

from dmseg.config.settings import EvaluateSettings
from dmseg.data.adapters.lits import LitsAdapter
from dmseg.data.geometry import find_geometry
from dmseg.data.prepared import PreparedTask, prepare
from dmseg.errors import UserError
from dmseg.labels.fusion import uniform
from dmseg.metrics.lesions import lesion_f1
from dmseg.metrics.surface import hd95, nsd
from dmseg.training.evaluate import evaluate
from dmseg.training.predictor import Predictor

METRICS = ["hd95", "lesion_f1", "nsd"]
SPACING = (0.5, 1.5, 3.0)
"""Of the files' axes, in mm."""


class Brightness(torch.nn.Module):
    """Foreground where it is bright."""

    def forward(self, image):
        return torch.cat([-2.0 * image, 3.0 * image], dim=1)


def write_scans(root, rng, spacings=(SPACING,) * 4, unit="mm"):
    """Volumes (24, 16, 7) of noise around a bright block, which the labels mark one pixel further along one axis."""
    for number, spacing in enumerate(spacings):
        image, label = rng.normal(-100, 40, (24, 16, 7)), np.zeros((24, 16, 7), np.uint8)
        image[6:15, 3 + number : 9 + number, 1:6] += 250
        label[7:16, 3 + number : 9 + number, 1:6] = 1
        for name, values, kind in (("volume", image, np.float32), ("segmentation", label, np.uint8)):
            scan = nibabel.Nifti1Image(values.astype(kind), np.diag([*spacing, 1.0]))
            scan.header.set_xyzt_units(unit)
            root.mkdir(parents=True, exist_ok=True)
            nibabel.save(scan, root / f"{name}-{number}.nii.gz")


def stored(tmp_path, name="store", **options):
    adapter = LitsAdapter(tmp_path / "raw", structure="organ", window=[-200, 200], **options)
    prepare(adapter, adapter.tasks["organ"], tmp_path / name, 32, {})
    return PreparedTask(tmp_path / name)


@pytest.fixture
def prepared(tmp_path):
    write_scans(tmp_path / "raw", np.random.default_rng(0))
    return stored(tmp_path)


def scored(prepared, metrics=METRICS, **changes):
    settings = replace(EvaluateSettings({}, "skip", 10, 5, False), metrics=metrics, **changes)
    ids = [case.case for case in prepared.cases]
    return evaluate(Predictor(Brightness()), prepared, ids, uniform, settings, torch.device("cpu")).set_index("case")


def masks(prepared, case, inside=slice(None)):
    image = prepared.images[case.span][:, 0, inside, inside].astype(np.float32) / 127.5 - 1
    return 1 / (1 + np.exp(-5 * image)) >= 0.5, prepared.annotations(case)[0][:, inside, inside] > 0


@pytest.mark.parametrize(("crop", "inside"), [(1.0, slice(None)), (0.5, slice(8, 24))])
def test_contiguous_slices_are_volumes_of_the_resized_spacing(prepared, crop, inside):
    scores = scored(prepared, crop=crop, tolerance=0.5)
    spacing = (0.5 * 24 / 32, 1.5 * 16 / 32, 3.0)
    for case in prepared.cases:
        assert case.contiguous
        assert case.n_slices == 5
        assert case.spacing == pytest.approx(spacing)
        pair = masks(prepared, case, inside)
        assert scores.loc[case.case, "nsd"] == pytest.approx(nsd(*pair, spacing, 0.5), abs=1e-6)
        assert scores.loc[case.case, "hd95"] == pytest.approx(hd95(*pair, spacing), rel=1e-6)
        assert scores.loc[case.case, "lesion_f1"] == pytest.approx(lesion_f1(*pair, True))
    assert scores["nsd"].between(0.05, 0.999).all()


def test_a_gap_in_one_case_has_all_cases_scored_by_slice(tmp_path):
    write_scans(tmp_path / "raw", np.random.default_rng(0))
    path = tmp_path / "raw" / "segmentation-2.nii.gz"
    label = nibabel.load(path)
    values = np.asarray(label.dataobj).copy()
    values[..., 3] = 0
    nibabel.save(nibabel.Nifti1Image(values, label.affine, label.header), path)
    prepared = stored(tmp_path)
    assert [case.contiguous for case in prepared.cases] == [True, True, False, True]
    scores = scored(prepared)
    for case in prepared.cases:
        pair = masks(prepared, case)
        assert scores.loc[case.case, "hd95"] == pytest.approx(hd95(*pair, (0.375, 0.75)), rel=1e-6)
        assert scores.loc[case.case, "lesion_f1"] == pytest.approx(lesion_f1(*pair, False))


def test_a_stated_spacing_replaces_that_of_the_files(prepared):
    flat, deep = scored(prepared, spacing=[2.0, 1.0]), scored(prepared, spacing=[2.0, 1.0, 4.0])
    for case in prepared.cases:
        pair = masks(prepared, case)
        assert flat.loc[case.case, "hd95"] == pytest.approx(hd95(*pair, (2.0, 1.0)), rel=1e-6)
        assert deep.loc[case.case, "hd95"] == pytest.approx(hd95(*pair, (2.0, 1.0, 4.0)), rel=1e-6)


def test_the_order_of_metrics_has_no_effect_and_others_stay(prepared):
    plain, some, all_of_them = scored(prepared, []), scored(prepared, ["nsd"]), scored(prepared, METRICS[::-1])
    assert set(plain) == set(some) - {"nsd"} == set(all_of_them) - set(METRICS)
    assert all_of_them[list(plain)].equals(plain)
    assert all_of_them["nsd"].equals(some["nsd"])


@pytest.mark.parametrize(
    ("spacings", "said"),
    [
        (((1, 1, 1),) * 4, "4 of 4 cases is unknown (volume-0, volume-1, volume-2, volume-3)"),
        ((SPACING, SPACING, (1, 1, 1), SPACING), "1 of 4 cases is unknown (volume-2)"),
    ],
)
def test_a_spacing_that_no_file_states_is_refused_by_name(tmp_path, spacings, said):
    write_scans(tmp_path / "raw", np.random.default_rng(0), spacings, "unknown")
    prepared = stored(tmp_path)
    with pytest.raises(UserError) as caught:
        scored(prepared, ["nsd"])
    assert "names nsd" in str(caught.value)
    assert said in str(caught.value)
    assert "evaluate.spacing=[row,column]" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert scored(prepared, ["lesion_f1"])["lesion_f1"].notna().all()  # needs no mm
    assert scored(prepared, ["nsd"], spacing=[1.0, 1.0])["nsd"].notna().all()


def as_earlier_version(store):
    """Takes from a store what versions without these metrics did not write."""
    manifest = json.loads((store / "manifest.json").read_text())
    del manifest["geometry"]
    (store / "manifest.json").write_text(json.dumps(manifest))
    (store / "seal.json").unlink()
    return PreparedTask(store)


def test_a_store_of_an_earlier_version_is_prepared_once_more(tmp_path, prepared):
    digest, adapter = prepared.digest, LitsAdapter(tmp_path / "raw", structure="organ", window=[-200, 200])
    again = (adapter, adapter.tasks["organ"], tmp_path / "store", 32, {})
    old = as_earlier_version(tmp_path / "store")
    assert old.digest == digest
    assert scored(old, []).equals(scored(prepared, []))
    for metric in METRICS:
        with pytest.raises(UserError, match=r"earlier version.*run 'dmseg prepare'") as caught:
            scored(old, [metric])
        assert ("evaluate.spacing" in str(caught.value)) == (metric != "lesion_f1")
    assert scored(old, ["nsd"], spacing=[1.0, 1.0])["nsd"].notna().all()
    assert not prepare(*again)  # a training does not read the raw data again
    assert prepare(*again, complete=True)
    assert not prepare(*again, complete=True)
    new = PreparedTask(tmp_path / "store")
    assert new.digest == digest
    assert scored(new).equals(scored(prepared))


def test_metrics_without_surfaces_need_no_geometry(tmp_path, prepared):
    assert find_geometry(as_earlier_version(tmp_path / "store"), [], None).spacing is None
