"""The table of losses in docs/how-to/losses.md says what the code does."""

import re
from pathlib import Path

import pytest
import torch

import dmseg.losses
from dmseg.losses import RegionLoss

LIBRARY = {name: getattr(dmseg.losses, name) for name in dmseg.losses.__all__}
FREE = {"alpha": 0.7, "beta": 0.3, "gamma": 2.0}
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (Path(__file__).parents[2] / "docs" / "how-to" / "losses.md").read_text().splitlines()
    if re.match(r"\| `\w+Loss\(", line)
]
PREDICTIONS = torch.linspace(0, 1, 201, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)


def made(expression, **options):
    """The loss that a cell names, with numbers for its free settings."""
    opened = expression.strip("`").removesuffix(")")
    comma = "" if opened.endswith("(") else ", "
    return eval(f"{opened}{comma}**options)", LIBRARY | FREE | {"options": options})


def asked_for(loss, label):
    """The foreground probability whose loss of one pixel with this soft label is least."""
    target = torch.tensor([1 - label, label], dtype=torch.float64).reshape(1, 2, 1)
    logits = torch.stack([1 - PREDICTIONS, PREDICTIONS], 1).log()
    return float(PREDICTIONS[torch.stack([loss(pixel.reshape(1, 2, 1), target) for pixel in logits]).argmin()])


def test_every_loss_has_a_row():
    named = {re.match(r"`(\w+)", row[0])[1] for row in ROWS}
    assert named == {name for name in LIBRARY if name.endswith("Loss")} - {"PixelSumLoss", "RegionLoss", "CompoundLoss"}


@pytest.mark.parametrize("row", ROWS, ids=[row[0].strip("`") for row in ROWS])
def test_setting(row):
    loss = made(row[0])
    assert (row[1] != "-") == isinstance(loss, RegionLoss)
    if isinstance(loss, RegionLoss):
        overlap, *numbers = row[1].replace("½", "0.5").split(", ")
        given = [FREE[number] if number in FREE else float(number) for number in numbers]
        assert [loss.setting.overlap, loss.setting.alpha, loss.setting.beta, loss.setting.gamma] == [overlap, *given]


@pytest.mark.parametrize("row", ROWS, ids=[row[0].strip("`") for row in ROWS])
def test_fit_for_soft_labels_means_least_at_the_label_whatever_it_is(row):
    options = {"smooth": 0.0, "classes": "foreground"} if row[1] != "-" else {}
    loss = made(row[0], **options)
    fit = all(abs(asked_for(loss, label) - label) < 1e-3 for label in (0.3, 0.5, 0.8))
    assert row[3] == ("yes" if fit else "no")
