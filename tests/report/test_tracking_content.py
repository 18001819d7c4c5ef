"""What trackers get of a run: its metadata, the layers of a case, and what counts as sent already."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_erosion, generate_binary_structure

from dmseg.config.compose import compose_settings
from dmseg.report.tracking.run_report import contour, error_map, run_metadata
from dmseg.report.tracking.tracking_plan import is_remembered, remember

RECORD = "0123456789abcdef"


def card_of(*overrides: str, phantom: bool = True):
    settings = compose_settings(["data=phantom", "task=kidney-1", "fold=2", *overrides])
    return run_metadata(RECORD, "fedcba9876543210", asdict(settings), phantom=phantom, tables=("2",))


def test_a_run_is_named_by_what_differs_between_experiments():
    plain = card_of("labels=uniform")
    assert plain.name == "kidney-1 · uniform · dml1 · fold 2"
    assert card_of("labels=uniform", "seed=3").name == f"{plain.name} · seed 3"
    assert card_of("labels=uniform", "method=mc_dropout").name == "kidney-1 · mc_dropout · uniform · dml1 · fold 2"
    assert plain.group == "phantom/kidney-1 · uniform · dml1 · unet_resnet50 · fedc"


def test_tags_say_data_labels_method_profile_protocol_and_table():
    assert card_of("labels=uniform").tags == ("phantom", "uniform", "plain", "paper", "table 2")
    real = card_of("labels=uniform", "data=qubiq", phantom=False)
    assert real.tags == ("qubiq", "uniform", "plain", "paper", "table 2")
    assert "phantom" in card_of("labels=uniform", "data=qubiq").tags


def test_a_card_has_no_paths_and_nothing_without_a_part_in_the_numbers():
    config = card_of("labels=uniform").config
    assert config["optim.lr"] == 0.01
    assert not [key for key in config if key.split(".")[0] in ("paths", "wandb", "tracker", "launcher", "workers")]


def test_errors_are_told_apart():
    label, prediction = np.array([[0.5, 1, 0, 0.4]], np.float32), np.array([[0.5, 0.2, 0.9, 0.1]], np.float32)
    np.testing.assert_array_equal(error_map(label, prediction), [[0, 1, 2, 0]])


def test_a_contour_is_a_mask_without_its_erosion():
    mask = np.random.default_rng(0).random((40, 50)) < 0.8
    inner = binary_erosion(mask, generate_binary_structure(2, 1))
    np.testing.assert_array_equal(contour(mask), mask & ~inner)


def test_a_record_on_this_machine_that_was_deleted_is_made_again(tmp_path: Path):
    for place in ("offline", "jsonl"):
        remember(tmp_path, place, RECORD, "digest")
        assert not is_remembered(tmp_path, place, RECORD, "digest"), place
    remember(tmp_path, "online-12345678", RECORD, "digest")
    assert is_remembered(tmp_path, "online-12345678", RECORD, "digest")
    assert not is_remembered(tmp_path, "online-12345678", RECORD, "other")
    assert not is_remembered(tmp_path, "online-87654321", RECORD, "digest")
