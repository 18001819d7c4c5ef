"""Coordinates of charts: ticks, places of points, outlines of masks."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmseg.report.charts import BOTTOM, HEIGHT, MOST_POINTS, TOP, curves, nice_ticks, outline, strip

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 6))


@settings(deadline=None, derandomize=True)
@given(NUMBERS, NUMBERS)
def test_ticks_span_the_values_in_round_steps(first, second):
    low, high = sorted((first, second))
    ticks = nice_ticks(low, high)
    span = max(high - low, 1e-9)
    assert ticks[0] <= low + 1e-6 * span
    assert ticks[-1] >= high - 1e-6 * span
    assert (4 if high > low else 2) <= len(ticks) <= 9
    step = ticks[1] - ticks[0]
    digit = float(f"{step:.6e}".partition("e")[0])
    assert min(abs(digit - good) for good in (1, 2, 5, 10)) < 1e-3


def test_ticks_of_zeros_are_not_negative_and_epochs_are_whole():
    assert nice_ticks(0.0, 0.0)[0] == 0
    assert nice_ticks(0.0, 1.0, whole=True) == [0, 1]
    assert nice_ticks(0.0, 40.0, whole=True) == nice_ticks(0.0, 40.0)
    chart = curves("loss", "epoch", "loss", [("a", 0, np.ones(1), np.ones(1))], by_epoch=True)
    assert [tick.label for tick in chart.x] == ["0", "1"]


def places(text):
    return [(float(x), float(y)) for x, y in re.findall(r"M([-\d.]+) ([-\d.]+)h0", text)]


def test_a_strip_has_a_point_for_each_value_and_a_line_for_each_case():
    values = {"a": np.array([0.0, 50.0, 100.0, np.nan]), "b": np.array([100.0, np.nan, 0.0, np.nan])}
    chart = strip("Dice", "Dice (%)", values, 2)
    first, second = (places(series.points) for series in chart.series)
    assert [y for _, y in first] == pytest.approx([HEIGHT - BOTTOM, (HEIGHT - BOTTOM + TOP) / 2, TOP])
    assert [y for _, y in second] == pytest.approx([TOP, HEIGHT - BOTTOM])
    assert max(x for x, _ in first) < min(x for x, _ in second)
    assert chart.pairs.count("M") == 2  # the cases that both columns have
    assert chart.series[0].mean[2] == pytest.approx((HEIGHT - BOTTOM + TOP) / 2)
    assert chart.alt == "Dice: Dice (%) of 4 cases. Means: a 50.00, b 50.00."
    empty = strip("Dice", "Dice (%)", {"a": np.full(3, np.nan)}, 2)
    assert (empty.series[0].points, empty.series[0].mean, empty.pairs) == ("", None, "")


def test_columns_with_cases_of_their_own_are_not_joined():
    values = {"a": np.array([20.0, 40.0, 60.0]), "b": np.array([10.0]), "c": np.array([np.nan, 30.0])}
    chart = strip("Agreement", "Dice (%)", values, 2, paired=False)
    assert chart.pairs == ""
    assert [len(places(series.points)) for series in chart.series] == [3, 1, 1]
    assert chart.alt == "Agreement: Dice (%) by case. Means: a 40.00 (n 3), b 10.00 (n 1), c 30.00 (n 1)."


def test_long_curves_keep_their_ends_and_few_points():
    xs = np.arange(1.0, 1001)
    chart = curves("loss", "epoch", "loss", [("a", 0, xs, 1 / xs), ("a", 0, xs[:1], xs[:1])])
    assert len(places(chart.series[0].points)) == MOST_POINTS
    assert [len(chart.series), len(chart.named)] == [2, 1]
    assert curves("nothing", "x", "y", []).series == []
    assert curves("nothing", "x", "y", [("a", 0, np.array([np.nan]), np.ones(1))]).series[0].line == ""


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 2**30))
def test_an_outline_separates_the_mask_from_the_rest(seed):
    mask = np.random.default_rng(seed).random((5, 6)) < 0.5
    edges = set()
    for x, y, way, length in re.findall(r"M(\d+) (\d+)([hv])(\d+)", outline(mask)):
        for step in range(int(length)):
            edges.add((way, int(y) + step * (way == "v"), int(x) + step * (way == "h")))
    padded = np.pad(mask, 1)
    expected = {("h", i, j) for i in range(6) for j in range(6) if padded[i, j + 1] != padded[i + 1, j + 1]}
    expected |= {("v", i, j) for i in range(5) for j in range(7) if padded[i + 1, j] != padded[i + 1, j + 1]}
    assert edges == expected
