"""Segmentation with soft labels: Dice semimetric losses, label fusion, calibration, reproducible studies."""

__version__ = "0.1.0"
