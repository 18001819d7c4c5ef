"""Scores of volumes: counts added up over all slices of a case, against numpy over the whole volume."""

import numpy as np
import pytest
import torch

from dmseg.config.settings import EvaluateSettings
from dmseg.data.adapters.lits import LitsAdapter
from dmseg.data.prepared import PreparedTask, prepare
from dmseg.labels.fusion import uniform
from dmseg.phantom import ensure_lits
from dmseg.training.evaluate import evaluate
from dmseg.training.predictor import Predictor


class Brightness(torch.nn.Module):
    """Foreground where it is bright."""

    def forward(self, image):
        return torch.cat([-2.0 * image, 3.0 * image], dim=1)


@pytest.fixture(scope="module", params=["uint8", "int16"])
def prepared(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("lits")
    ensure_lits(folder / "raw", cases=6, scale=0.13)
    adapter = LitsAdapter(folder / "raw", structure="organ", window=[-60, 140], dtype=request.param)
    prepare(adapter, adapter.tasks["organ"], folder / "store", 48, {})
    return PreparedTask(folder / "store")


@pytest.mark.parametrize("batch_size", [4, 64])
@pytest.mark.parametrize(("crop", "inside"), [(1.0, slice(None)), (0.75, slice(8, 40))])
def test_a_volumes_scores_are_those_of_all_its_slices(prepared, batch_size, crop, inside):
    settings = EvaluateSettings({}, "skip", 10, batch_size, False, crop)
    ids = [case.case for case in prepared.cases]
    scores = evaluate(Predictor(Brightness()), prepared, ids, uniform, settings, torch.device("cpu")).set_index("case")
    assert len(scores) == 6
    for case in prepared.cases:
        assert case.n_slices > 4
        stored = prepared.images[case.span][:, 0, inside, inside]
        image = stored.astype(np.float32) / {"uint8": 127.5, "int16": 16383.5}[stored.dtype.name] - 1
        truth = prepared.annotations(case)[0][:, inside, inside] > 0
        probability = 1 / (1 + np.exp(-5 * image))
        found = probability >= 0.5
        dice = 2 * np.sum(found & truth) / (found.sum() + truth.sum())
        assert scores.loc[case.case, "dice"] == pytest.approx(dice, abs=1e-9)
        confidence, correct = np.maximum(probability, 1 - probability), found == truth
        bins = np.minimum((confidence * 10).astype(int), 9)
        error = sum(abs(confidence[bins == k].sum() - correct[bins == k].sum()) for k in range(10)) / confidence.size
        assert scores.loc[case.case, "ece"] == pytest.approx(error, abs=1e-4)
