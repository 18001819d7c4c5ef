"""The energy distance of an evaluation: every slice, the raters who were there, the scored crop, and nothing else."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import write_lidc

from dmseg.config.compose import compose_settings
from dmseg.config.settings import EvaluateSettings
from dmseg.labels.fusion import uniform
from dmseg.metrics.levels import BDICE_LEVELS
from dmseg.runs.sources import prepare_task
from dmseg.training.evaluate import evaluate
from dmseg.training.predictor import Predictor


class Brightness(torch.nn.Module):
    """Foreground where it is bright."""

    def forward(self, image):
        return torch.cat([-2.0 * image[:, :1], 3.0 * image[:, :1]], dim=1)


def stored(tmp_path, *overrides):
    settings = compose_settings([*overrides, "data.size=40", f"paths.prepared='{tmp_path / 'prepared'}'"])
    return prepare_task(settings)


def scored(prepared, ged=True, batch_size=4, crop=1.0):
    settings = EvaluateSettings({}, "skip", 10, batch_size, False, crop, ged)
    ids = [case.case for case in prepared.cases]
    return evaluate(Predictor(Brightness()), prepared, ids, uniform, settings, torch.device("cpu"))


def plain(prepared, case, inside=slice(None)):
    """The distance by its definition, from the store's arrays."""
    image = prepared.images[case.span][:, 0, inside, inside].astype(np.float32) / 127.5 - 1
    probability = 1 / (1 + np.exp(-5 * image))
    samples = [probability >= np.float32(level) for level in BDICE_LEVELS]
    raters = [mask[:, inside, inside] > 0 for mask in prepared.annotations(case)]

    def mean(first, second):
        return np.mean([[1 - (a & b).sum() / max((a | b).sum(), 1) if (a | b).any() else 0 for b in second]
                        for a in first])  # fmt: skip

    return 2 * mean(samples, raters) - mean(samples, samples) - mean(raters, raters)


@pytest.mark.parametrize("batch_size", [2, 16])
@pytest.mark.parametrize(("crop", "inside"), [(1.0, slice(None)), (0.5, slice(12, 28))])
def test_cases_of_several_slices(tmp_path, batch_size, crop, inside):
    tree = write_lidc(tmp_path / "lidc", 5, np.random.default_rng(1), slices=(1, 2))
    prepared = stored(tmp_path, "data=lidc", f"data.root='{tree}'")
    scores = scored(prepared, batch_size=batch_size, crop=crop).set_index("case")
    assert {case.n_slices for case in prepared.cases} == {3}
    for case in prepared.cases:
        assert scores.loc[case.case, "ged"] == pytest.approx(plain(prepared, case, inside), abs=1e-9)
    assert scores["ged"].nunique() == 5


def test_a_rater_who_was_absent_is_left_out(tmp_path, qubiq_tree):
    prepared = stored(tmp_path, "data=qubiq", "task=prostate-1", f"data.root='{qubiq_tree}'")
    assert {len(case.raters) for case in prepared.cases} == {5, 6}
    scores = scored(prepared).set_index("case")
    for case in prepared.cases:
        assert scores.loc[case.case, "ged"] == pytest.approx(plain(prepared, case), abs=1e-9)


def test_the_other_scores_are_the_same_with_it(tmp_path, qubiq_tree):
    prepared = stored(tmp_path, "data=qubiq", "task=kidney-1", f"data.root='{qubiq_tree}'")
    without, with_it = scored(prepared, ged=False), scored(prepared)
    assert "ged" not in without
    pd.testing.assert_frame_equal(with_it.drop(columns="ged"), without)
