"""Thresholds of the metrics."""

BDICE_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Thresholds of BDice (paper, section 3.3)."""

DECISION_LEVEL = 0.5
"""A pixel is predicted as foreground if its probability is at least this."""
