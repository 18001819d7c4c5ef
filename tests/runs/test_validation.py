"""Watching the validation scores during a training changes none of its numbers."""

import numpy as np
import pytest
import torch

from dmseg.cli.main import main
from dmseg.report.tracking.journal import journal_path, read_steps
from dmseg.runs.store import RunStore


@pytest.mark.parametrize(
    "network",
    [
        ["method=plain"],
        ["method=mc_dropout", "method.passes=2"],
        ["labels=random", "model.head_dropout=0.3"],
    ],
)
def test_weights_and_random_numbers_are_the_same(network, small_run, tmp_path):
    found = []
    for every in (0, 1):
        results = tmp_path / f"every{every}"
        words = [*small_run, *network, "train.epochs=3", f"paths.results='{results}'", f"evaluate.every={every}"]
        torch.manual_seed(every)
        assert main(["train", *words, "tracker=jsonl"]) == 0
        store = RunStore(results)
        (run_id,) = store.run_ids()
        rows = read_steps(journal_path(results, run_id)).values()
        assert sum("validation/dice" in row for row in rows) == (3 if every else 1)
        history = (store.folder(run_id) / "history.csv").read_bytes()
        found.append((run_id, store.load_weights(run_id), history, (store.folder(run_id) / "cases.csv").read_bytes()))
    (first, weights, *files), (second, others, *other_files) = found
    assert first == second
    assert files == other_files
    for name, value in weights.items():
        np.testing.assert_array_equal(value, others[name])


def test_by_default_a_training_with_a_tracker_is_validated_ten_times(small_run, tmp_path):
    words = [*small_run, "train.epochs=30", f"paths.results='{tmp_path / 'results'}'"]
    assert main(["train", *words]) == 0
    assert not (tmp_path / "results" / "tracking").exists()
    assert main(["train", *words, "train.epochs=4", "evaluate.every=2", "tracker=disabled"]) == 0
    (path,) = (tmp_path / "results" / "tracking").glob("*.jsonl")
    assert [row["epoch"] for row in read_steps(path).values() if "validation/dice" in row] == [2, 4], "asked for"
    path.unlink()
    assert main(["train", *words, "seed=1", "tracker=jsonl"]) == 0
    (path,) = (tmp_path / "results" / "tracking").glob("*.jsonl")
    rows = read_steps(path)
    assert [row["epoch"] for row in rows.values() if "validation/dice" in row] == list(range(3, 31, 3))
