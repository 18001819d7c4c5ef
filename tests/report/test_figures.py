"""Figures: what they show, against closed forms; written the same each time; asked for on the command line."""

import re

import pytest
import torch

from dmseg.cli.completion import WORDS
from dmseg.cli.main import main
from dmseg.cli.registry import COMMANDS
from dmseg.errors import UserError
from dmseg.losses import CompatibleFocalTverskyLoss, DiceSemimetricLoss, SoftDiceLoss
from dmseg.report.figures import FIGURES, minimisers, pixel_losses, write_figure

PREDICTIONS = torch.linspace(0, 1, 101, dtype=torch.float64)
ALONE = {"smooth": 0.0, "from_logits": False}


def test_focal_tversky_of_a_pixel_is_the_closed_form():
    found = pixel_losses(CompatibleFocalTverskyLoss(0.7, 0.3, 2.0, **ALONE), PREDICTIONS, torch.tensor(0.8))
    false_positive, false_negative = (PREDICTIONS - 0.8).clamp_min(0), (0.8 - PREDICTIONS).clamp_min(0)
    error = 0.7 * false_positive + 0.3 * false_negative
    torch.testing.assert_close(found, (error / (PREDICTIONS.clamp_max(0.8) + error)) ** 2)


def test_pixels_do_not_mix_and_shapes_broadcast():
    loss = DiceSemimetricLoss(**ALONE)
    labels = torch.tensor([0.2, 0.9], dtype=torch.float64)
    grid = pixel_losses(loss, PREDICTIONS, labels[:, None])
    assert grid.shape == (2, 101)
    single = loss(PREDICTIONS[30].reshape(1, 1, 1), labels[1].reshape(1, 1, 1))
    assert grid[1, 30] == pytest.approx(float(single))


@pytest.mark.parametrize("variant", [1, 2])
def test_dice_semimetric_losses_ask_for_the_label_and_the_soft_dice_loss_for_one(variant):
    labels = PREDICTIONS[1:]
    torch.testing.assert_close(minimisers(DiceSemimetricLoss(variant, **ALONE), PREDICTIONS, labels), labels)
    assert (minimisers(SoftDiceLoss(**ALONE), PREDICTIONS, labels) == 1).all()


@pytest.mark.parametrize("name", FIGURES)
def test_written_alike_each_time(name, tmp_path):
    first, second = write_figure(name, tmp_path / "a"), write_figure(name, tmp_path / "b")
    assert [path.suffix for path in first] == [".png", ".pdf", ".svg"]
    for one, two in zip(first, second, strict=True):
        assert one.stat().st_size > 5000
        assert one.read_bytes() == two.read_bytes()


def test_drawn_curves_are_the_losses(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure()
    FIGURES["1"][0](figure)
    curves = {line.get_label(): line for line in figure.axes[0].get_lines() if "gamma" in str(line.get_label())}
    assert len(curves) == 4
    for line in curves.values():
        x, y = torch.as_tensor(line.get_xdata()), torch.as_tensor(line.get_ydata())
        assert float(x[y.argmin()]) == pytest.approx(0.8)
        assert (y[0], y.min()) == (1, pytest.approx(0, abs=1e-6))


def test_the_nodes_in_the_calibration_figure_lie_on_the_estimate_and_are_dense_where_it_rises():
    from matplotlib.figure import Figure

    figure = Figure()
    FIGURES["calibration"][0](figure)
    estimate, nodes = (line.get_xydata() for line in figure.axes[1].get_lines())
    curve = torch.from_numpy(estimate).T
    for x, y in nodes[::25]:
        assert y == pytest.approx(float(curve[1][(curve[0] - x).abs().argmin()]), abs=0.01)
    steps = torch.from_numpy(nodes[:, 0]).diff()
    rising = torch.from_numpy((nodes[1:, 1] > 0.11) & (nodes[1:, 1] < 0.69))
    assert rising.sum() > 100
    assert steps[rising].max() < steps.max() / 20


def test_unknown_figure_and_unwritable_folder_are_one_line(tmp_path, capsys):
    with pytest.raises(UserError, match=r"no figure '7'; choose from 1, soft-labels, calibration"):
        write_figure("7", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=r"file/figures/figure1\.png"):
        write_figure("1", tmp_path / "file" / "figures")
    assert main(["reproduce", "figure=1", f"paths.results={tmp_path}/file"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert f"{tmp_path}/file/figures/figure1.png: Not a directory" in said[0]
    assert main(["reproduce", "figure=7"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_all_figures_are_offered():
    assert WORDS["figure"] == tuple(FIGURES)
    (key,) = (key for section in COMMANDS["reproduce"].sections for key in section.keys if key.name == "figure")
    assert set(re.findall(r"[\w-]+", key.meaning)) >= set(FIGURES)


def test_command_writes_to_the_results(tmp_path, capsys):
    assert main(["reproduce", "figure=1", f"paths.results={tmp_path}"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/figures/figure1.png",
        f"{tmp_path}/figures/figure1.pdf",
        f"{tmp_path}/figures/figure1.svg",
    ]
